"""Load for a host on a real TAP: the compiled sender in a process of its own, and what to ask meanwhile."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import netstack
from netstack.stats import Ledger, ledger
from tests.e2e.conftest import HOST

PKTGEN = Path(__file__).resolve().parents[2] / "tools" / "pktgen.py"
PATIENCE = 30  # seconds; on a busy machine everything takes its time


def wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Look until it is so; fail when it takes too long."""
    until = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < until, f"still not so after {patience} s"


@contextmanager
def pktgen(*options: str) -> Iterator[subprocess.Popen[str]]:
    """Send to the host as fast as it goes while the block runs; killed at its end."""
    command = [sys.executable, str(PKTGEN), HOST, "--mode", "gso", "--json", *options]
    here = {**os.environ, "PYTHONPATH": str(PKTGEN.parents[1])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=here
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def sent_by(process: subprocess.Popen[str]) -> int:
    """Wait for the sender's end, and give how many frames it has sent."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return int(json.loads(out)[0]["packets"])


def pings(count: int = 1, interval: float = 0.02) -> int:
    """Ping the host, and give how many answers came."""
    words = ["ping", "-n", "-q", "-c", str(count), "-i", str(interval), "-W", "1", HOST]
    out = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE).stdout
    found = re.search(r"(\d+) received", out)  # nothing is said where there is no route
    return int(found[1]) if found else 0


def missed(host: netstack.Host) -> int:
    """Give the frames that found the TAP's queue full."""
    return int(host.devices[1].stats()["rx_missed_errors"])


def balanced(host: netstack.Host) -> Ledger:
    """Wait until the host is quiet; fail unless every frame is accounted for, by a name."""
    host.settle(PATIENCE)
    account = ledger(host)
    assert account.balanced, account
    assert not account.dropped.get("NOT_SPECIFIED"), account
    return account
