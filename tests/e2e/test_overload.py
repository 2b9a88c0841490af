"""More than the host can take: it goes on answering, and it knows where every frame went."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import netstack
from netstack import apps
from netstack.stats import ledger
from tests.e2e.conftest import HOST, PEER, run
from tests.e2e.load import PATIENCE, balanced, missed, pings, pktgen, sent_by, wait_until
from tests.netns import fresh_netns

pytestmark = pytest.mark.tap

IN_FLIGHT = 1024  # packets between two places at most: a ring, a batch, what GRO holds
SEGMENTS = 64  # frames that the sender's messages have
SKB_LARGE = 2  # the size class of a ring's buffers


@pytest.fixture(params=[True, False], ids=["whole", "cut"])
def offload(request: pytest.FixtureRequest) -> bool:
    """Whether the TAP hands messages over whole."""
    return bool(request.param)


@contextmanager
def up(**options: Any) -> Iterator[netstack.Host]:
    """Bring a host up that the kernel knows, in a network namespace of its own."""
    with (
        fresh_netns(),
        netstack.up("tap0", addr=f"{HOST}/24", control=False, **options) as host,
    ):
        wait_until(pings)
        yield host
    account = ledger(host)
    assert account.balanced, account
    assert account.queued == {}, "a closed host holds nothing"


@contextmanager
def sink(host: netstack.Host, port: int = 9, rcvbuf: int = 0) -> Iterator[Any]:
    """Open a socket on ``port`` that nobody reads."""
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, netstack.socket.SO_RCVBUFFORCE, rcvbuf)
        sock.bind(("", port))
        yield sock


def under_load(host: netstack.Host) -> Callable[[], bool]:
    """Give a condition that holds once 5,000 more frames have come."""
    before = host.net.rx_frames()
    return lambda: host.net.rx_frames() - before > 5000


def ask(sock: socket.socket) -> bool:
    """Send a datagram to the echo server and see whether it comes back."""
    try:
        sock.send(b"still there?")
        return sock.recv(100) == b"still there?"
    except OSError:
        return False


def overload(host: netstack.Host, client: socket.socket, senders: int, in_flight: int) -> float:
    """Send from so many processes for a while, and ask meanwhile; how much more came than was taken."""
    before = host.net.rx_frames()
    with ExitStack() as stack:
        loads = [stack.enter_context(pktgen("--seconds", "2")) for _ in range(senders)]
        wait_until(under_load(host))
        wait_until(pings)
        wait_until(lambda: ask(client))
        while any(load.poll() is None for load in loads):
            assert ledger(host).difference <= in_flight
        # Back to normal at once: the first ping and the first datagram are answered, within a second.
        client.settimeout(1)
        assert pings() == 1
        assert ask(client)
        return sum(map(sent_by, loads)) / (host.net.rx_frames() - before)


@contextmanager
def loaded(fast_path: bool, offload: bool) -> Iterator[tuple[netstack.Host, socket.socket]]:
    """Bring a host up with a sink and the echo server, and give it and a client of the server."""
    with (
        up(fast_path=fast_path, offload=offload) as host,
        sink(host),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        apps.start(host, apps.find("echo"))
        client.connect((HOST, 7))
        client.settimeout(0.1)
        yield host, client
        account = balanced(host)
        allowed = {"SOCKET_RCVBUFF"} if fast_path else {"SOCKET_RCVBUFF", "CPU_BACKLOG"}
        assert set(account.dropped) == allowed


def test_three_times_what_the_host_can_take(fast_path):
    with loaded(fast_path, offload=False) as (host, client):
        # Who gets the processors is not ours to say: with more senders the host gets less of them.
        for senders in (2, 4, 8, 16):
            client.settimeout(0.1)
            if overload(host, client, senders, IN_FLIGHT) > 3:
                break
        else:
            pytest.fail("the host took more than a third each time")
        assert missed(host) > 0


def test_more_messages_than_the_host_can_take(fast_path):
    """It takes 20 million frames a second off the wire then, so no three times as much can be sent; sockets lose."""
    with loaded(fast_path, offload=True) as (host, client):
        overload(host, client, 4, IN_FLIGHT * SEGMENTS)
        assert balanced(host).dropped["SOCKET_RCVBUFF"] > 100_000


def test_what_the_softirq_leaves_to_ksoftirqd_shares_the_core_with_readers():
    with up() as host, sink(host):
        thread = host.softnet()[0]["tid"]
        wait_until(lambda: os.getpriority(os.PRIO_PROCESS, thread) == -10)
        with pktgen("--seconds", str(PATIENCE)):  # until it was seen
            wait_until(lambda: os.getpriority(os.PRIO_PROCESS, thread) == 0)
            assert host.softnet()[0]["ksoftirqd_runs"] > 0
        wait_until(lambda: os.getpriority(os.PRIO_PROCESS, thread) == -10)


@pytest.mark.parametrize("ring", [64, 256])
def test_every_frame_that_was_sent_is_in_the_ledger_or_missed(fast_path, ring, offload):
    with up(fast_path=fast_path, ring=ring, offload=offload) as host, sink(host):
        for _ in range(5):  # a sender that gets little of the processors may not be too much
            before = host.net.rx_frames() + missed(host)
            with pktgen("--seconds", "1") as load:
                sent = sent_by(load)
            after = balanced(host).frames + missed(host)
            assert 0 <= after - before - sent < 20, "more is at most the kernel's ARP"
            if missed(host):
                break
        assert missed(host) > 0
        assert pings() == 1


@contextmanager
def exhausted(fast_path: bool, offload: bool) -> Iterator[netstack.Host]:
    """Bring a host up with few buffers, and fill sockets without the limit that leaves some for others."""
    with up(fast_path=fast_path, pool=(256, 256, 512), offload=offload) as host:
        with ExitStack() as stack:
            host.config["net.ipv4.udp_mem"] = (1 << 20, 1 << 20, 1 << 20)
            for port in range(9, 12):
                stack.enter_context(sink(host, port, rcvbuf=64 << 20))
            for port in range(9, 12):
                with pktgen("--count", "6400", "--port", str(port), "--size", "1000") as load:
                    sent_by(load)
            balanced(host)
            yield host
        # The sockets are closed, and what they held is there again.
        wait_until(pings)
        assert balanced(host).dropped["SOCKET_CLOSE"] > 0


@pytest.mark.peer_errors("IcmpInErrors")  # the sender has ended when its errors come
def test_with_its_pool_exhausted_the_host_misses_frames_and_recovers(fast_path):
    with exhausted(fast_path, offload=False) as host:
        assert host.cpus[0].pool()[SKB_LARGE][1] == 0, "all buffers stand in sockets"
        assert host.devices[1].nic.stats()["rx_queue_0_alloc_failed"] > 0
        assert missed(host) > 10_000


def test_with_its_pool_exhausted_messages_still_come_in_and_end_by_name(fast_path):
    """They come in large buffers of their own; it is their cutting that finds no room."""
    with exhausted(fast_path, offload=True) as host:
        assert missed(host) == 0
        assert balanced(host).dropped["NOMEM"] > 5_000
        assert pings() == 1


def test_closed_under_load(fast_path):
    with up(fast_path=fast_path) as host, sink(host), pktgen("--seconds", "10"):
        wait_until(under_load(host))
        host.close()
        account = ledger(host)
        assert account.balanced, account
        assert account.queued == {}
        assert {"SOCKET_CLOSE", "QUEUE_PURGE"} & set(account.dropped), "something was queued"


def test_a_peer_that_is_killed_leaves_no_trace(fast_path):
    """Senders and a client in the middle of an exchange, all by SIGKILL."""
    client = f"""
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect(({HOST!r}, 7))
    while True:
        sock.send(bytes(1000))
        sock.recv(2000)
"""
    with up(fast_path=fast_path) as host, sink(host), ExitStack() as stack:
        apps.start(host, apps.find("echo"))
        commands = [[sys.executable, "-c", client], ["ping", "-f", "-q", HOST]]
        peers = [
            stack.enter_context(
                subprocess.Popen(each, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            for each in commands
        ]
        stack.callback(lambda: [peer.kill() for peer in peers])
        wait_until(lambda: ledger(host).delivered > 100)
        peers.append(stack.enter_context(pktgen("--seconds", "10")))
        wait_until(under_load(host))
        for peer in peers:
            peer.kill()
            peer.wait(PATIENCE)
        balanced(host)
        assert pings() == 1


def test_the_wire_down_and_up_again(fast_path):
    with up(fast_path=fast_path) as host, sink(host):
        with pktgen("--seconds", "10"):
            wait_until(under_load(host))
            run("ip", "link", "set", "tap0", "down")
        with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            ours.sendto(b"into the void", (PEER, 9))
        balanced(host)
        run("ip", "link", "set", "tap0", "up")
        wait_until(pings)
        with pktgen("--count", "6400") as load:
            before = host.net.rx_frames() + missed(host)
            sent = sent_by(load)
        assert balanced(host).frames + missed(host) - before >= sent


def test_the_wire_deleted_under_load(fast_path):
    with up(fast_path=fast_path) as host, sink(host):
        device = host.devices[1]
        assert device.nic.carrier
        with pktgen("--seconds", "10"):
            wait_until(under_load(host))
            run("ip", "link", "del", "tap0")
        wait_until(lambda: not device.nic.carrier)
        balanced(host)
