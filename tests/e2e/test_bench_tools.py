"""The benchmarks run, every side of them, and print and draw what they say."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tools._oracle.trace import TRACING, mount

pytestmark = [pytest.mark.tap, pytest.mark.bench]

TOOLS = Path(__file__).resolve().parents[2] / "tools"


# Runs a tool as if packages were not installed.
WITHOUT = """
import importlib.metadata as metadata, runpy, sys
def version(name):
    raise metadata.PackageNotFoundError(name)
metadata.version = version
sys.modules["matplotlib"] = None
sys.path.insert(0, sys.argv[1].rpartition("/")[0])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def call(tool: str, *options: str, without: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", WITHOUT] if without else []), TOOLS / tool, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def run(tool: str, *options: str, without: bool = False) -> dict:
    done = call(tool, *options, without=without)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_bench_rx_drains_every_side_without_loss():
    rows = run("bench_rx.py", "--rounds", "2", "--frames", "50", "--sizes", "18", "--json")
    sides = {row["side"]: row for row in rows["drain"]}
    assert list(sides) == [
        *("bare", "bare-inline", "core", "queue", "recvfrom", "recvfrom_into"),
        *("recv_batch", "recv_batch_into", "asyncio"),
    ]
    assert {row["lost"] for row in sides.values()} == {0}


def test_tracepoints_that_slow_packets_down_are_named():
    if why := mount():
        pytest.skip(why)
    options = ["--rounds", "1", "--frames", "10", "--sizes", "18", "--sides", "bare"]
    instance = TRACING / "instances" / f"netstack-{threading.get_native_id()}"
    instance.mkdir()
    try:
        assert "sock" not in run("bench_rx.py", *options, "--json")["machine"]["tracers"]
        (instance / "events/sock/sock_rcvqueue_full/enable").write_text("1")
        assert "sock" in run("bench_rx.py", *options, "--json")["machine"]["tracers"]
        assert ", traced: sock" in call("bench_rx.py", *options).stdout
    finally:
        instance.rmdir()


def test_bench_rx_streams_to_every_side():
    options = ["--stream", "0.05", "--repeat", "1", "--sizes", "18"]
    rows = run("bench_rx.py", *options, "--json")["stream"]
    assert [row["side"] for row in rows] == [
        *("bare", "bare-inline", "sink"),
        *("recvfrom", "recvfrom_into", "recv_batch", "recv_batch_into"),
        *("asyncio", "kernel", "kernel-asyncio"),
    ]
    assert min(row["cpu_ns"] for row in rows) > 0


def test_bench_echo_has_answers_from_every_side():
    rows = run("bench_echo.py", "--seconds", "0.05", "--repeat", "1", "--json")["echo"]
    assert len(rows) == 20
    assert min(row["kps"] for row in rows) > 0


def test_bench_gro_merges_on_both_sides_what_can_be_merged():
    rows = run("bench_gro.py", "--rounds", "1", "--flows", "8", "--no-instructions", "--json")
    merged = {(row["side"], row["frames"]): row["a_packet"] for row in rows["gro"]}
    kinds = ["udp", "udp-gro", "udp-list", "tcp"]
    assert list(merged) == [(side, kind) for side in ("netstack", "kernel") for kind in kinds]
    for side in ("netstack", "kernel"):
        assert merged[side, "udp"] == 1
        assert min(merged[side, kind] for kind in kinds[1:]) >= 4
    assert min(min(row["off_ns"], row["on_ns"]) for row in rows["gro"]) > 0


QUICK = ["--rounds", "3", "--frames", "50", "--sizes", "18", "--seconds", "0.1"]


def test_bench_peers_gets_bursts_and_answers_from_every_side():
    sides = ["netstack", "netstack-python", "read", "scapy"]
    rows = run("bench_peers.py", "--sides", *sides, *QUICK, "--json")
    assert rows["missing"] == {}
    works = {(row["work"], row["side"]): row for row in rows["peers"]}
    assert list(works) == [
        (work, side) for work in ("sink", "echo-1", "echo-64") for side in sides
    ]
    assert min(row["kps"] for row in works.values()) > 0
    assert min(row["cpu_ns"] for row in works.values()) > 0
    assert {works["sink", side]["lost"] for side in sides} == {0}


def test_a_peer_that_is_not_installed_is_named_with_the_line_that_installs_it():
    options = ["--sides", "netstack", "pytcp", *QUICK, "--json"]
    rows = run("bench_peers.py", *options, without=True)
    assert {row["side"] for row in rows["peers"]} == {"netstack"}
    assert rows["missing"] == {"pytcp": f"{sys.executable} -m pip install 'pytcp>=2.7,<2.8'"}


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture_is_drawn(tmp_path: Path, ending: str):
    path = tmp_path / f"rx.{ending}"
    options = ["--rounds", "2", "--frames", "50", "--sizes", "18", "--sides", "bare", "core"]
    done = call("bench_rx.py", *options, "--picture", str(path))
    assert done.returncode == 0, done.stderr
    drawn = path.read_bytes()
    if ending == "png":
        assert drawn.startswith(b"\x89PNG")
    else:
        for words in ("medians of 2 rounds", "bench_rx.py --rounds 2", "ns of CPU", "core"):
            assert words in drawn.decode()


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("rx.gif", "a picture's name ends with .png or .svg"),
        ("nowhere/rx.svg", "there is no directory nowhere"),
        (
            "rx.svg",
            f"matplotlib is not installed; type: {sys.executable} -m pip install matplotlib",
        ),
    ],
)
def test_what_can_not_be_drawn_is_refused_before_anything_is_measured(file: str, says: str):
    done = call("bench_rx.py", "--picture", file, without=True)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize("tool", sorted(path.name for path in TOOLS.glob("bench_*.py")))
def test_every_benchmark_shows_in_its_help_how_it_is_called(tool: str):
    done = call(tool, "--help")
    assert done.returncode == 0
    assert f"tools/{tool} --" in done.stdout
    assert "--json" in done.stdout


@pytest.mark.parametrize("stream", [[], ["--stream", "0.1"]], ids=["drained", "stream"])
def test_bench_rx_reads_one_fd_and_two(stream):
    options = [
        "--multiqueue",
        "--rounds",
        "2",
        "--repeat",
        "1",
        "--sizes",
        "18",
        "--frames",
        "64",
    ]
    rows = run("bench_rx.py", *options, *stream, "--json")["multiqueue"]
    assert [row["side"] for row in rows] == [
        "1 fd, 1 thread", "1 fd, 2 threads", "2 fds, 1 thread", "2 fds, 2 threads",
    ]  # fmt: skip
    assert min(row["ns"] for row in rows) > 0
    assert stream or {row["lost"] for row in rows} == {0}


def test_bench_rps_shares_the_work_as_it_says():
    rows = run("bench_rps.py", "--rounds", "2", "--frames", "2000", "--json")["rps"]
    shares = {"1 queue": 0, "2 queues": 0.5, "4 queues": 0.5, "RPS to itself": 0,
              "RPS to the other": 1, "RPS to both": 0.5}  # fmt: skip
    for work in ("cheap", "dear"):
        found = {row["side"]: row for row in rows if row["work"] == work}
        assert list(found) == list(shares)
        for side, share in shares.items():
            # RPS spreads 64 flows by a key that is drawn.
            assert found[side]["on_cpu1"] == pytest.approx(share, abs=0.3 * (share == 0.5)), (
                side
            )
            assert found[side]["kps"] > 0


def test_a_side_that_there_is_not_is_refused():
    command = [sys.executable, TOOLS / "bench_rx.py", "--sides", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "choose from bare bare-inline core queue" in done.stderr
