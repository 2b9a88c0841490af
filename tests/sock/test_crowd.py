"""The reader of a full queue is given time: how long the thread of the CPU is to pause."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.memory_host import MemoryHost, memory_host
from tests.sock.rig import udp_frame

TRUESIZE, ROOM = 832, 8  # bytes that a datagram is charged, and how many fit
FRAME = udp_frame(b"one of many")
US, MS = 1e-6, 1e-3


class Crowd:
    """A host whose socket at port 9000 has room for eight, with the fast path on or off."""

    def __init__(self, it: MemoryHost) -> None:
        self.it = it
        it.device.nic.set_coalesce(0)  # no throttle, which would let time pass
        it.meet()
        self.sock = it.socket("", 9000)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM * TRUESIZE // 2)

    def come(self, count: int) -> int:
        """Let datagrams come; how many ns the readers of full sockets ask for."""
        self.it.put(*[FRAME] * count)
        return self.it.host.cpus[0].pause()

    def read(self, count: int, after: float) -> None:
        """Take datagrams, and let time pass."""
        for _ in range(count):
            self.sock.recvfrom(100)
        self.it.advance(after)


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with memory_host() as it:
        yield Crowd(it)


def test_who_has_room_asks_for_nothing(crowd: Crowd) -> None:
    for _ in range(3):
        assert crowd.come(ROOM) == 0
        crowd.read(ROOM, 100 * US)


def test_a_reader_at_work_gets_the_time_that_half_of_so_rcvbuf_takes_it(crowd: Crowd) -> None:
    assert crowd.come(ROOM + 1) == 0, "nobody knows yet whether it reads"
    crowd.read(ROOM, 100 * US)
    assert crowd.come(ROOM + 1) == 50_000
    crowd.read(ROOM, 300 * US)
    assert crowd.come(ROOM + 1) == 150_000


def test_no_pause_is_longer_than_irq_suspend_timeout(crowd: Crowd) -> None:
    crowd.come(ROOM + 1)
    crowd.read(ROOM, 5 * MS)
    assert crowd.come(ROOM + 1) == 1_000_000
    crowd.it.host.config["netstack.irq_suspend_timeout"] = 20_000
    crowd.read(ROOM, 5 * MS)
    assert crowd.come(ROOM + 1) == 20_000
    crowd.it.host.config["netstack.irq_suspend_timeout"] = 2**62
    crowd.read(2, 9 * MS)  # a quarter, which it gives back at once
    assert crowd.come(3) == 10_000_000, "nor than 10 ms"
    crowd.it.host.config["netstack.irq_suspend_timeout"] = 0
    crowd.read(ROOM, 5 * MS)
    assert crowd.come(ROOM + 1) == 0


def test_who_does_not_read_is_not_waited_for(crowd: Crowd) -> None:
    crowd.come(ROOM + 1)
    crowd.it.advance(100 * US)
    assert crowd.come(1) == 0
    crowd.read(ROOM, 100 * US)
    assert crowd.come(ROOM + 1) == 100_000
    crowd.it.advance(999 * US)
    assert crowd.come(1) == 100_000, "it may have read, and gives back by the batch"
    crowd.it.advance(1 * US)
    assert crowd.come(1) == 0


def test_the_pause_comes_before_the_next_packet_is_lost(crowd: Crowd) -> None:
    crowd.come(ROOM + 1)
    crowd.read(ROOM, 100 * US)
    assert crowd.come(6) == 0, "a quarter is free"
    crowd.read(6, 100 * US)
    assert crowd.come(7) == pytest.approx(ROOM / 2 / (ROOM + 6) * 200_000, abs=1)
    assert crowd.it.drops() == {"SOCKET_RCVBUFF": 1}


def test_a_socket_that_had_room_for_10_ms_is_not_crowded(crowd: Crowd) -> None:
    crowd.come(ROOM + 1)
    crowd.read(ROOM, 9 * MS)
    assert crowd.come(7) == 1_000_000
    crowd.read(7, 1 * MS)
    assert crowd.come(7) > 0
    crowd.read(7, 1 * US)
    assert crowd.come(7) == 0
