"""A process with hosts forks: the child goes its way, and the parent's hosts notice nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

import netstack
from netstack import live
from netstack.control_client import Control
from netstack.device._memory import MemoryWire
from tests.frames import OUR_IP, OUR_MAC, ping, who_has
from tests.netns import fresh_netns, make_tap

HANGS = 20  # seconds until a child that does not end is killed


def fork(child: Callable[[], object]) -> int:
    """Run ``child`` in a fork and give its exit status; what it raises takes it out of our blocks."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(HANGS)
        child()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def answers(wire: MemoryWire) -> bool:
    """Tell whether a ping off the wire is answered."""
    wire.send(who_has())
    wire.send(ping(b"still there?"))
    while frame := wire.recv(timeout=5):
        if b"still there?" in frame:
            return True
    return False


WAYS = {
    "exit": lambda host: sys.exit(),
    "close": lambda host: sys.exit(host.close()),
    "raise": lambda host: 1 / 0,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_child_that_leaves_the_block_closes_nothing(way):
    parent = os.getpid()
    ours, wire = MemoryWire.pair()
    with ExitStack() as stack:
        stack.callback(lambda: os.getpid() == parent or os._exit(0))
        with netstack.Host() as host:
            host.add_nic(ours, "tap0", addr=f"{OUR_IP}/24", mac=OUR_MAC)
            assert answers(wire)
            assert fork(lambda: WAYS[way](host)) == 0
            assert answers(wire)


def test_a_child_may_end_as_any_program(tmp_path):
    """Also with a host that nobody closed, whose threads the child does not have."""
    file = tmp_path / "forks.py"
    file.write_text(
        "import os, netstack\n"
        "def make():\n"
        "    host = netstack.Host()\n"
        "    host.add_nic(netstack.MemoryWire.pair()[0], addr='10.0.0.2/24')\n"
        "    host.socket().bind(('', 7))\n"
        "    return host\n"
        "make()\n"
        "kept = make()\n"
        "if os.fork() != 0:\n"
        "    print(os.wait()[1])\n"
    )
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


@pytest.mark.tap
@pytest.mark.parametrize("persistent", [False, True])
def test_a_child_leaves_the_tap_and_the_control_socket_alone(
    tmp_path: Path, monkeypatch, persistent
):
    monkeypatch.setattr(live, "runtime_dir", lambda: tmp_path)
    parent = os.getpid()
    with ExitStack() as stack:
        stack.callback(lambda: os.getpid() == parent or os._exit(0))
        stack.enter_context(fresh_netns())
        if persistent:
            make_tap("tap0")
        with netstack.up("tap0", addr=f"{OUR_IP}/24"):
            assert fork(sys.exit) == 0
            with Control.find(tmp_path, "tap0") as control:
                assert control.request("ledger")["balanced"]
            subprocess.run(["ping", "-c1", "-W5", OUR_IP], check=True, capture_output=True)
        assert not list(tmp_path.iterdir())
