"""Threads meet at sockets, at the role of the CPU, at taps and tunables; nothing is lost or counted twice there.

`./dev.sh sanitize thread` runs these with ThreadSanitizer, which reports what merely could have gone wrong.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

import netstack
from netstack.device._memory import MemoryWire
from tests.frames import OUR_IP, OUR_MAC, arp_reply, ping, udp, who_has
from tests.memory_host import balance

LOAD = float(os.environ.get("NETSTACK_TEST_LOAD", "0.7"))  # seconds that each of these runs
PORTS = (9000, 9001, 9002, 9003)


class Crowd:
    """Threads that do something again and again for a while; what one of them raises fails the test."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def add(self, work: Callable[[], object], times: int = 1) -> None:
        """Let ``times`` threads do ``work`` until the end."""
        for _ in range(times):
            self.threads.append(threading.Thread(target=self._again, args=(work,)))

    def _again(self, work: Callable[[], object]) -> None:
        try:
            while not self.stop.is_set():
                work()
        except BaseException as error:
            self.errors.append(error)
            self.stop.set()

    def run(self, seconds: float = LOAD) -> None:
        """Start all, let them work, and wait for all."""
        self.start()
        self.stop.wait(seconds)
        self.finish()

    def start(self) -> None:
        """Start all."""
        for thread in self.threads:
            thread.start()

    def finish(self) -> None:
        """Wait for all."""
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


class Loaded:
    """A host with its threads, and a wire that brings it frames of every kind."""

    def __init__(self, host: netstack.Host, wire: MemoryWire) -> None:
        self.host = host
        self.wire = wire
        self.crowd = Crowd()
        self.frames = [udp(bytes(20), dport=port) for port in PORTS]
        self.frames += [
            ping(b"y"),
            udp(b"z", dport=1),
            who_has(),
            udp(bytes(1400), dport=PORTS[0]),
        ]

    def traffic(self) -> None:
        """Put some frames on the wire, and take the answers off it."""
        for frame in self.frames * 4:
            self.wire.send(frame)
        while self.wire.recv() is not None:
            pass

    def run(self, seconds: float = LOAD) -> None:
        """Let the crowd work while frames come, then see that every frame is accounted for."""
        self.crowd.add(self.traffic)
        self.crowd.run(seconds)
        self.host.settle()
        balance(self.host)


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def loaded(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    ours, wire = MemoryWire.pair()
    with netstack.Host(fast_path=request.param) as host:
        host.add_nic(ours, "tap0", addr=f"{OUR_IP}/24", mac=OUR_MAC)
        wire.send(arp_reply())
        yield Loaded(host, wire)
        host.close()
        balance(host)


def bound(host: netstack.Host, port: int, **options: bool) -> netstack.socket.socket:
    """Open a socket on a port, with a short timeout."""
    sock = host.socket()
    if options.get("shared"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("", port))
    sock.settimeout(0.02)
    return sock


def reader(sock: netstack.socket.socket) -> Callable[[], None]:
    """Make the work of a thread that receives, and answers now and then."""
    turn = itertools.count()

    def work() -> None:
        with contextlib.suppress(TimeoutError):
            data, peer = sock.recvfrom(2048)
            if next(turn) % 16 == 0:
                sock.sendto(data, peer)

    return work


def test_several_threads_receive_and_send_on_one_socket(loaded: Loaded) -> None:
    with bound(loaded.host, PORTS[0]) as sock:
        loaded.crowd.add(reader(sock), times=3)
        loaded.run()


def test_each_thread_has_a_socket_of_its_own(loaded: Loaded) -> None:
    with contextlib.ExitStack() as stack:
        for port in PORTS:
            loaded.crowd.add(reader(stack.enter_context(bound(loaded.host, port))))
        loaded.run()


def test_readers_peek_poll_and_read_into_buffers_at_once(loaded: Loaded) -> None:
    with bound(loaded.host, PORTS[0]) as sock:
        buffer = bytearray(2048)

        def peek() -> None:
            with contextlib.suppress(TimeoutError):
                sock.recv(2048, socket.MSG_PEEK)
            _ = sock.frames, sock.info

        def poll() -> None:
            if select.select([sock], [], [], 0.01)[0]:
                with contextlib.suppress(TimeoutError):
                    sock.recvfrom_into(buffer)

        loaded.crowd.add(reader(sock))
        loaded.crowd.add(peek)
        loaded.crowd.add(poll, times=2)
        loaded.run()


def test_sockets_come_and_go_under_load(loaded: Loaded) -> None:
    def come_and_go() -> None:
        with bound(loaded.host, PORTS[1], shared=True) as sock:
            sock.fileno()
            with contextlib.suppress(TimeoutError):
                for _ in range(20):
                    sock.recv(100)

    loaded.crowd.add(come_and_go, times=3)
    loaded.crowd.add(lambda: (loaded.host.sockets(), loaded.host.queued()))
    loaded.run()


def test_closing_a_socket_wakes_who_waits_for_it(loaded: Loaded) -> None:
    woken = []

    def wait(sock: netstack.socket.socket, entered: threading.Semaphore) -> None:
        entered.release()
        try:
            while True:
                sock.recv(2048)
        except OSError as error:
            woken.append(error.errno)

    def close_while_others_wait() -> None:
        entered = threading.Semaphore(0)
        with bound(loaded.host, PORTS[2]) as sock:
            sock.settimeout(None)
            threads = [threading.Thread(target=wait, args=(sock, entered)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for _ in threads:
                entered.acquire()
        for thread in threads:
            thread.join()

    loaded.crowd.add(close_while_others_wait)
    loaded.run()
    assert set(woken) == {errno.EBADF}


def test_captures_are_opened_and_closed_under_load(loaded: Loaded) -> None:
    seen = []

    def capture() -> None:
        tap = loaded.host.packet_tap()
        for _ in range(20):
            select.select([tap], [], [], 0.01)
            seen.append(len(tap.drain()))
        assert tap.stats[0] >= 0
        tap.close()

    with bound(loaded.host, PORTS[0]) as sock:
        loaded.crowd.add(reader(sock))
        loaded.crowd.add(capture, times=2)
        loaded.run()
    assert any(seen)


def test_tunables_and_the_short_cut_change_under_load(loaded: Loaded) -> None:
    values = itertools.cycle([1, 300])
    switch = itertools.cycle([0, 1])

    def tune() -> None:
        config = loaded.host.config
        config["net.core.netdev_budget"] = next(values)
        config["class.net.gro_flush_timeout"] = next(values) * 100
        config["net.core.busy_read"] = next(switch) * 50
        config["netstack.fast_path"] = next(switch)

    with bound(loaded.host, PORTS[0]) as sock:
        loaded.crowd.add(reader(sock), times=2)
        loaded.crowd.add(tune)
        loaded.run()


def test_views_are_read_and_the_host_settles_under_load(loaded: Loaded) -> None:
    host = loaded.host

    def look() -> None:
        _ = (
            host.softnet(),
            host.softirqs(),
            host.interrupts(),
            host.sockets(),
            host.neighbours(),
            host.routes(),
        )
        netstack.stats.nstat(host.net)
        netstack.stats.ledger(host)

    def settle() -> None:
        with contextlib.suppress(TimeoutError):
            host.settle(0.01)

    with bound(host, PORTS[0]) as sock:
        loaded.crowd.add(reader(sock))
        loaded.crowd.add(look)
        loaded.crowd.add(settle)
        loaded.run()


def test_no_timer_is_lost_under_load(loaded: Loaded) -> None:
    host = loaded.host
    called = []

    def later() -> None:
        done = threading.Event()
        host.call_later(0.001, done.set)
        assert done.wait(10), "the kworker lost a timer"
        called.append(1)

    with bound(host, PORTS[3]) as sock:
        loaded.crowd.add(reader(sock))
        loaded.crowd.add(later, times=2)
        loaded.run()
    assert called


def test_two_hosts_echo_with_a_thread_a_socket() -> None:
    a_end, b_end = MemoryWire.pair()
    with netstack.Host("a") as a, netstack.Host("b") as b:
        a.add_nic(a_end, "eth0", addr="10.9.0.1/24", mac="02:00:00:00:09:01")
        b.add_nic(b_end, "eth0", addr="10.9.0.2/24", mac="02:00:00:00:09:02")
        clients, servers = Crowd(), Crowd()
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(bound(b, 7))
            servers.add(lambda: echo(server), times=2)
            servers.start()
            for _ in range(3):
                client = stack.enter_context(a.socket())
                client.connect(("10.9.0.2", 7))
                client.settimeout(10)
                clients.add(ask(client))
            clients.run()
            servers.finish()
        for host in (a, b):
            host.settle()
            balance(host)


def echo(sock: netstack.socket.socket) -> None:
    with contextlib.suppress(TimeoutError):
        sock.sendto(*sock.recvfrom(2048))


def ask(sock: netstack.socket.socket) -> Callable[[], None]:
    turn = itertools.count()

    def work() -> None:
        question = b"%d" % next(turn)
        sock.send(question)
        assert sock.recv(100) == question, (
            "the cable loses nothing and keeps the order of a flow"
        )

    return work


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "slow"])
def test_a_host_is_closed_while_threads_use_its_sockets(fast_path: bool) -> None:
    ours, wire = MemoryWire.pair()
    host = netstack.Host(fast_path=fast_path)
    host.add_nic(ours, "tap0", addr=f"{OUR_IP}/24", mac=OUR_MAC)
    socks = [bound(host, port) for port in PORTS]
    for sock in socks:
        sock.settimeout(None)
    loaded = Loaded(host, wire)
    refused = []

    def use(sock: netstack.socket.socket) -> Callable[[], None]:
        read = reader(sock)

        def work() -> None:
            try:
                read()
            except OSError as error:
                refused.append(error.errno)
                loaded.crowd.stop.wait(0.001)

        return work

    for sock in socks:
        loaded.crowd.add(use(sock), times=2)
    loaded.crowd.add(loaded.traffic)
    loaded.crowd.start()
    while host.net.rx_frames() < 1000:
        loaded.crowd.stop.wait(0.001)
    host.close()
    while len(refused) < 2 * len(socks) and not loaded.crowd.errors:
        loaded.crowd.stop.wait(0.001)
    loaded.crowd.finish()
    balance(host)
    assert set(refused) <= {errno.EBADF, errno.ENETDOWN}
    for sock in socks:
        sock.close()
