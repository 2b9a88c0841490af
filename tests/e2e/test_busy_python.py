"""A Python program that never pauses must not slow down what runs in compiled code."""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import netstack
from netstack.stats import ledger
from tests.e2e.conftest import HOST, run
from tests.netns import fresh_netns

pytestmark = [pytest.mark.tap, pytest.mark.bench]

TRIES = 3  # who else runs on the machine is not ours to say; a wait for the GIL, 5 ms, is there each time
PKTGEN = Path(__file__).resolve().parents[2] / "tools" / "pktgen.py"


@contextmanager
def spinning() -> Iterator[None]:
    """Keep a Python thread busy that never gives up the GIL by itself."""
    stop = threading.Event()

    def spin() -> None:
        n = 0
        while not stop.is_set():
            n += 1

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_ping_is_answered_within_a_millisecond_while_python_spins():
    seen = []
    while len(seen) < TRIES and not (seen and seen[-1] < 1.0):
        with fresh_netns(), netstack.up("tap0", addr=f"{HOST}/24", control=False), spinning():
            out = run("ping", "-c", "500", "-i", "0.002", HOST).stdout
        times = [float(ms) for ms in re.findall(r"time=([\d.]+) ms", out)]
        assert len(times) == 500
        seen.append(statistics.quantiles(times, n=100)[98])
    assert seen[-1] < 1.0, seen


def test_a_queue_takes_100000_datagrams_a_second_while_python_spins():
    seen = []
    while len(seen) < TRIES and not (seen and seen[-1] == (True, 0)):
        frames, missed = take_100000_a_second()
        seen.append((frames > 190_000, missed))
    assert seen[-1] == (True, 0), seen


def take_100000_a_second() -> tuple[int, int]:
    """Send for two seconds to a queue; how many frames came, and how many the wire lost."""
    with fresh_netns(), netstack.up("tap0", addr=f"{HOST}/24", control=False) as host:
        sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((HOST, 9000))
        with spinning():
            command = [sys.executable, str(PKTGEN), HOST, "--port", "9000", "--rate", "100000"]
            command += ["--seconds", "2", "--mode", "gso"]
            here = {**os.environ, "PYTHONPATH": str(PKTGEN.parents[1])}
            subprocess.run(command, check=True, timeout=60, env=here)
        host.settle()
        account = ledger(host)
        assert account.balanced, account
        assert set(account.dropped) <= {"SOCKET_RCVBUFF"}, account
        return account.frames, int(host.devices[1].stats()["rx_missed_errors"])
