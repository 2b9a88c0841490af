"""An application is the CPU: it gets the role when it asks, sleeps on the wires itself, and gives everything back.

The hosts here have threads. No test sleeps to wait for them: each waits for what it expects.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import netstack
from netstack.device._memory import MemoryWire
from netstack.nf.hooks import NF_ACCEPT, NF_INET_PRE_ROUTING, nf_register_net_hook
from netstack.socket import SO_BUSY_POLL
from tests.memory_host import balance
from tests.sock.rig import MAC, OUR_IP, udp_frame

FOR_EVER = 1 << 40  # ns or us: longer than any test


@contextmanager
def up(clock: netstack.ManualClock | None = None, **tunables: int) -> Iterator[netstack.Host]:
    """Give a host with its threads, `peer` at the other end of its wire, and its ledger balanced."""
    with netstack.Host(clock=clock) as host:
        for name, value in tunables.items():
            host.config[name] = value
        wire, host.peer = MemoryWire.pair(10_000)
        host.add_nic(wire, "eth0", addr=f"{OUR_IP}/24", mac=MAC)
        host.opened = []
        yield host
    for sock in host.opened:
        sock.close()
    balance(host)


def bound(host: netstack.Host, port: int) -> netstack.socket.socket:
    sock = host.socket()
    host.opened.append(sock)
    sock.bind((OUR_IP, port))
    return sock


def until(true: Callable[[], object]) -> None:
    """Return once it is so; the suite's time limit ends a wait in vain."""
    while not true():
        os.sched_yield()


def asleep(sock: netstack.socket.socket) -> None:
    until(lambda: sock.info["sleeping"])


def cpu(host: netstack.Host, counter: str) -> int:
    return host.softnet()[0][counter]


@contextmanager
def receiving(sock: netstack.socket.socket) -> Iterator[list[bytes]]:
    """Let a thread receive in a loop while the block runs; what it got. An empty datagram ends it."""
    got: list[bytes] = []

    def receive() -> None:
        while data := sock.recv(2048):
            got.append(data)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    yield got
    thread.join()


def test_a_spinning_thread_gives_way_to_an_application() -> None:
    # The thread spins for ever once it has seen a frame, in the role all the time.
    with up(busy_poll=1_000_000_000, irq_suspend_timeout=FOR_EVER) as host:
        sock = bound(host, 9000)
        for turn in itertools.count():
            host.peer.send(udp_frame(b"%d" % turn))
            assert sock.recv(100) == b"%d" % turn
            if cpu(host, "busy_polls"):
                break  # it has asked for the role, and had it


def test_an_application_polls_with_interrupts_masked() -> None:
    with up(irq_suspend_timeout=FOR_EVER) as host:
        sock = bound(host, 9000)
        with receiving(sock) as got:
            asleep(sock)
            before = cpu(host, "hardirqs")
            for turn in range(100):
                host.peer.send(udp_frame(b"%d" % turn))
                until(lambda turn=turn: len(got) > turn)
            assert cpu(host, "hardirqs") - before <= 1, "one may have been pending"
            host.peer.send(udp_frame(b""))
        assert got == [b"%d" % turn for turn in range(100)]


def test_who_sleeps_as_the_cpu_answers_for_the_host() -> None:
    with up() as host:
        ours, other = bound(host, 9000), bound(host, 9001)
        with receiving(ours) as got:
            asleep(ours)
            with receiving(other) as got_other:
                asleep(other)
                for turn in range(50):
                    host.peer.send(udp_frame(b"%d" % turn, dport=9001))
                    until(lambda turn=turn: len(got_other) > turn)
                assert got == []
                host.peer.send(udp_frame(b"", dport=9001))
            host.peer.send(udp_frame(b"x", dport=9000))
            until(lambda: got == [b"x"])
            host.peer.send(udp_frame(b"", dport=9000))


def test_the_thread_takes_the_wires_back_from_an_application_that_does_not_return() -> None:
    with up() as host:
        sock = bound(host, 9000)
        host.peer.send(udp_frame(b"one"))
        assert sock.recv(100) == b"one"
        host.peer.send(udp_frame(b"two"))
        until(lambda: sock.info["queued"])
        assert select.select([sock], [], [], 10)[0], "and the fd tells of it"
        assert sock.recv(100) == b"two"


@pytest.mark.parametrize("clock", [None, netstack.ManualClock()], ids=["monotonic", "manual"])
def test_after_a_timeout_the_thread_has_the_wires_again(clock) -> None:
    # Whether the host's clock stands or goes: waiting is a matter of the application's time.
    with up(clock, irq_suspend_timeout=FOR_EVER) as host:
        sock = bound(host, 9000)
        sock.settimeout(0.001)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                sock.recv(100)
        host.peer.send(udp_frame(b"nobody waits for this"))
        until(lambda: sock.info["queued"])


def test_a_standing_clock_does_not_hold_an_application_that_polls() -> None:
    with up(netstack.ManualClock()) as host:
        sock = bound(host, 9000)
        sock.setsockopt(socket.SOL_SOCKET, SO_BUSY_POLL, 100)
        with receiving(sock) as got:
            asleep(sock)
            host.peer.send(udp_frame(b"x"))
            until(lambda: got)
            host.peer.send(udp_frame(b""))


def test_a_receive_that_may_not_wait_polls_once_if_the_socket_is_busy_polling() -> None:
    with up(irq_suspend_timeout=FOR_EVER) as host:
        sock = bound(host, 9000)
        host.peer.send(udp_frame(b"one"))
        until(lambda: sock.info["queued"])
        with receiving(sock):
            asleep(sock)
            host.peer.send(udp_frame(b""))
        # From here on nobody looks at the wire.
        sock.setblocking(False)
        host.peer.send(udp_frame(b"two"))
        with pytest.raises(BlockingIOError):
            sock.recv(100)
        sock.setsockopt(socket.SOL_SOCKET, SO_BUSY_POLL, 1)
        assert sock.recv(100) == b"two"
        with pytest.raises(BlockingIOError):
            sock.recv(100)


def test_an_application_polls_for_no_more_than_its_socket_has_room_for() -> None:
    total = 1000
    with up(irq_suspend_timeout=FOR_EVER) as host:
        sock = bound(host, 9000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 832 // 2)
        with receiving(sock):
            asleep(sock)
            host.peer.send(udp_frame(b""))
        # From here on nobody looks at the wire but who receives. A first pass may take long: all memory is new.
        before = cpu(host, "time_squeeze")
        for number in range(total):
            host.peer.send(udp_frame(struct.pack("!I", number)))
        got = [struct.unpack("!I", sock.recv(100))[0] for _ in range(total)]
        assert got == list(range(total))
        assert sock.info["drops"] == 0
        assert cpu(host, "time_squeeze") == before, "a poll that ends early is no squeeze"


def test_a_socket_has_the_busy_read_of_the_time_it_was_made() -> None:
    with up() as host:
        before = bound(host, 9000)
        host.config["net.core.busy_read"] = 70
        made = bound(host, 9001)
        assert before.getsockopt(socket.SOL_SOCKET, SO_BUSY_POLL) == 0
        assert made.getsockopt(socket.SOL_SOCKET, SO_BUSY_POLL) == 70


@pytest.mark.parametrize("suspend", [0, 1_000_000, FOR_EVER])
@pytest.mark.parametrize("spin", [0, 50])
def test_nothing_is_lost_or_overtaken_while_the_role_changes_hands(
    spin: int, suspend: int
) -> None:
    total, window = 4000, 100
    with up(poll_spin_usecs=spin, irq_suspend_timeout=suspend) as host:
        sock, other = bound(host, 9000), bound(host, 9001)
        stop = threading.Event()

        def disturb() -> None:
            """Take the role again and again, in the ways there are."""
            for turn in itertools.count():
                if stop.is_set():
                    return
                host.cpus[0].run()
                host.cpus[0].gro_frames()
                if turn % 8 == 0:
                    host.socket().close()
                    other.sendto(b"x", (OUR_IP, 9001))
                    other.recv(100)

        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            with receiving(sock) as got:
                for number in range(total):
                    until(lambda number=number: number - len(got) < window)
                    host.peer.send(udp_frame(struct.pack("!I", number)))
                host.peer.send(udp_frame(b""))
        finally:
            stop.set()
            disturber.join()
        assert [struct.unpack("!I", data)[0] for data in got] == list(range(total))


@pytest.mark.bench
def test_an_idle_host_takes_no_processor_time() -> None:
    with up() as host:
        sock = bound(host, 9000)
        with receiving(sock) as got:
            for turn in range(100):
                host.peer.send(udp_frame(b"%d" % turn))
                until(lambda turn=turn: len(got) > turn)
            asleep(sock)
            before = cpu(host, "sleeps"), time.process_time()
            time.sleep(1)
            assert cpu(host, "sleeps") - before[0] < 5
            assert time.process_time() - before[1] < 0.02
            host.peer.send(udp_frame(b""))


def test_an_application_leaves_frames_on_the_wire_while_python_has_more_than_a_batch_to_do() -> (
    None
):
    """It could only drop them. Yet the wire is polled now and then: what else is on it must not wait for Python."""
    frame, frames, go_on = udp_frame(b"x"), 3000, threading.Event()
    with up(irq_suspend_timeout=FOR_EVER) as host:  # nobody else takes the wire
        host.config["netstack.fast_path"] = 0
        nf_register_net_hook(
            host, NF_INET_PRE_ROUTING, lambda host, skb: NF_ACCEPT if go_on.wait() else 0
        )
        sock = bound(host, 9000)
        sock.setsockopt(socket.SOL_SOCKET, SO_BUSY_POLL, 1 << 30)
        with receiving(sock):
            until(lambda: cpu(host, "busy_polls"))
            for _ in range(200):
                host.peer.send(frame)
            until(lambda: len(host.seam) >= 64)
            before, start = host.net.rx_frames(), time.monotonic()
            for _ in range(frames):
                host.peer.send(frame)
            until(lambda: host.net.rx_frames() - before >= frames)
            took = time.monotonic() - start
            go_on.set()
            until(lambda: not len(host.seam) and not host.seam.in_hand)
            until(lambda: not sock.info["rmem"])
            host.peer.send(udp_frame(b""))
    assert took > frames / 64 * 0.0003 / 2, "a poll of 64 each 300 µs, or somewhat more often"
