"""A router between two kernels: a host with two TAPs, each with its other end in a network of its own."""

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import netstack
from netstack._counters import mib
from netstack.stats import ledger
from tests.e2e.conftest import run
from tests.netns import fresh_netns, inside, second_netns

NEAR, FAR = "10.0.0.1", "10.0.1.1"
MIB = 1 << 20


class Router:
    """A host at 10.0.0.2 and 10.0.1.2; this thread is in the network of 10.0.0.1."""

    def __init__(self, host: netstack.Host, far: int) -> None:
        self.host = host
        self.far = far

    def forwarded(self) -> int:
        """Settle, and give the frames that went on; everything else must be accounted for too."""
        self.host.settle()
        account = ledger(self.host)
        assert account.balanced, account
        return account.forwarded


@contextmanager
def make_router(fast_path: bool, mtu: int = 1500) -> Iterator[Router]:
    """Put a host between two networks."""
    with (
        second_netns() as far,
        fresh_netns(),
        netstack.up("tap0", addr="10.0.0.2/24", fast_path=fast_path, control=False) as host,
    ):
        run("ip", "route", "add", "10.0.1.0/24", "via", "10.0.0.2")
        with inside(far):
            host.add_tap("tap1", addr="10.0.1.2/24", mtu=mtu)
            run("ip", "link", "set", "lo", "up")
            run("ip", "route", "add", "10.0.0.0/24", "via", "10.0.1.2")
        host.config["net.ipv4.ip_forward"] = 1
        yield Router(host, far)
        host.settle()
        account = ledger(host)
        assert account.balanced, account
    assert ledger(host).balanced


@pytest.fixture
def router(fast_path: bool) -> Iterator[Router]:
    """Give a router with two devices of 1500 bytes."""
    with make_router(fast_path) as it:
        yield it


def test_ping_goes_through_and_every_frame_is_forwarded(router: Router) -> None:
    run("ping", "-n", "-q", "-c", "5", "-i", "0.02", "-W", "5", FAR)
    assert router.forwarded() == 10


def test_a_packet_at_the_end_of_its_life_is_told_by_the_router(router: Router) -> None:
    out = run("ping", "-n", "-c", "1", "-t", "1", "-W", "5", FAR, check=False).stdout
    assert re.search(r"From 10\.0\.0\.2 .*Time to live exceeded", out), out
    assert router.forwarded() == 0


def test_a_small_mtu_behind_is_told_or_packets_are_cut(fast_path: bool) -> None:
    with make_router(fast_path, mtu=1000) as router:
        out = run(
            *("ping", "-n", "-c", "1", "-M", "do", "-s", "1200", "-W", "5", FAR), check=False
        ).stdout
        assert "mtu = 1000" in out, out
        run("ip", "route", "flush", "cache")
        run("ping", "-n", "-c", "2", "-i", "0.02", "-M", "dont", "-s", "1200", "-W", "5", FAR)
        counters = router.host.net
        assert router.forwarded() >= 4
        assert ledger(router.host).dropped == {"PKT_TOO_BIG": 1}
        assert counters.mib(mib.IpFragOKs) >= 2
        assert counters.mib(mib.IpFragFails) == 1


def test_a_stream_goes_through_though_gro_merges_it(router: Router) -> None:
    data = bytes(range(256)) * (4 * MIB // 256)
    got = bytearray()
    with inside(router.far):
        server = socket.create_server((FAR, 5001))

    def read() -> None:
        conn, _ = server.accept()
        with conn:
            while piece := conn.recv(1 << 16):
                got.extend(piece)

    with server:
        reader = threading.Thread(target=read)
        reader.start()
        with socket.create_connection((FAR, 5001), 30) as client:
            client.sendall(data)
        reader.join(60)
    assert got == data
    assert router.forwarded() > 4 * MIB // 1500


@pytest.mark.skipif(shutil.which("iperf") is None, reason="there is no iperf")
def test_iperf_sends_datagrams_through_and_each_is_accounted_for(router: Router) -> None:
    with inside(router.far):
        server = subprocess.Popen(
            ["iperf", "-s", "-u", "-l", "200"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    try:
        run("iperf", "-u", "-c", FAR, "-b", "40M", "-l", "200", "-t", "2")
    finally:
        server.terminate()
        out, _ = server.communicate(timeout=30)
    lost, of = map(int, re.findall(r"(\d+)/\s*(\d+)", out)[-1])
    assert of > 1000
    frames = router.forwarded()
    assert frames >= of - lost
    assert frames + sum(ledger(router.host).dropped.values()) <= of + 30  # acks, and the report
