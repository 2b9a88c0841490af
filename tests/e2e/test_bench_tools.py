"""The benchmarks of receiving and of echoes run, every side of them, and print what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.tap, pytest.mark.bench]

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(tool: str, *options: str) -> dict:
    done = subprocess.run(
        [sys.executable, TOOLS / tool, *options], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_bench_rx_drains_every_side_without_loss():
    rows = run("bench_rx.py", "--rounds", "2", "--frames", "50", "--sizes", "18", "--json")
    sides = {row["side"]: row for row in rows["drain"]}
    assert list(sides) == [
        *("bare", "core", "queue", "recvfrom", "recvfrom_into"),
        *("recv_batch", "recv_batch_into", "asyncio"),
    ]
    assert {row["lost"] for row in sides.values()} == {0}


def test_bench_rx_streams_to_every_side():
    options = ["--stream", "0.05", "--repeat", "1", "--sizes", "18"]
    rows = run("bench_rx.py", *options, "--json")["stream"]
    assert [row["side"] for row in rows] == [
        *("bare", "sink", "recvfrom", "recvfrom_into", "recv_batch", "recv_batch_into"),
        *("asyncio", "kernel", "kernel-asyncio"),
    ]
    assert min(row["cpu_ns"] for row in rows) > 0


def test_bench_echo_has_answers_from_every_side():
    rows = run("bench_echo.py", "--seconds", "0.05", "--repeat", "1", "--json")["echo"]
    assert len(rows) == 20
    assert min(row["kps"] for row in rows) > 0


def test_a_side_that_there_is_not_is_refused():
    command = [sys.executable, TOOLS / "bench_rx.py", "--sides", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "choose from bare core queue" in done.stderr
