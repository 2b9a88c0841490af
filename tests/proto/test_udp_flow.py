"""What a CPU remembers of the last datagram holds just as long as the table of sockets."""

from __future__ import annotations

import socket

import pytest

from tests.frames import OUR_IP, PEER_IP, udp
from tests.memory_host import MemoryHost, memory_host

SOL, REUSE, DEVICE = socket.SOL_SOCKET, socket.SO_REUSEADDR, socket.SO_BINDTODEVICE


def reader(it: MemoryHost, *socks: socket.socket) -> socket.socket | None:
    """Give the socket that the next datagram of the flow reaches."""
    it.put(udp(b"x"))
    for sock in socks:
        try:
            sock.recvfrom(100)
        except BlockingIOError:
            continue
        return sock
    return None


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "python"])
def test_the_next_datagram_of_a_flow_goes_where_the_table_says_now(fast_path: bool) -> None:
    with memory_host(fast_path=fast_path) as it:
        general, special = it.socket(), it.socket()
        for sock in (general, special):
            sock.setsockopt(SOL, REUSE, 1)
        general.bind(("", 9000))
        assert reader(it, general, special) is general
        assert reader(it, general, special) is general
        special.bind((OUR_IP, 9000))
        assert reader(it, general, special) is special
        special.connect((PEER_IP, 4001))
        assert reader(it, general, special) is general
        special.close()
        assert reader(it, general) is general
        general.setsockopt(SOL, DEVICE, b"lo")
        assert reader(it, general) is None
        general.setsockopt(SOL, DEVICE, b"")
        assert reader(it, general) is general
        general.close()
        assert reader(it) is None
        assert it.drops() == {"NO_SOCKET": 2}
