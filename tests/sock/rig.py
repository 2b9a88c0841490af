"""A host without threads and wires, with sockets; frames are made without scapy and without our own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from netstack._counters import mib, skb_drop_reason
from netstack.socket import socket
from tests.datagram import datagram
from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC, Stack

OUR_IP, PEER_IP = ADDR, PEER


def udp_frame(
    payload: bytes,
    *,
    src: str = PEER_IP,
    dst: str = OUR_IP,
    mac: str = MAC,
    sport: int = 4000,
    dport: int = 9000,
    check: int | None = None,
    length: int | None = None,
    ttl: int = 64,
    tos: int = 0,
    pad: int = 0,
) -> bytes:
    """Make a frame with a UDP datagram; `check` and `length` replace the right values."""
    options = {"check": check, "length": length, "ttl": ttl, "tos": tos}
    frame = datagram(PEER_MAC, mac, src, dst, sport, dport, payload, **options)
    return frame + b"\xaa" * pad


class Rig(Stack):
    """The host of the tests of proto/, seen from its sockets."""

    def __init__(self, fast: bool = True) -> None:
        super().__init__(fast)
        self.sockets: list[socket] = []

    def socket(self, *address: object) -> socket:
        """Make a socket, bound to `address` if one is given; closed with the rig."""
        made = socket(self)
        self.sockets.append(made)
        if address:
            made.bind(address)
        return made

    def receive(self, *frames: bytes) -> None:
        """Take frames through all steps."""
        for frame in frames:
            self._handle(self.bench.receive(frame, self.fast))

    def count(self, name: str) -> int:
        return self.net.mib(mib[name])

    def fate(self, name: str) -> int:
        return self.net.fate(skb_drop_reason[name])

    def balanced(self) -> bool:
        """Tell whether every frame off the wire has ended, or stands at a named place."""
        ends = sum(self.net.fate(n) for n in range(skb_drop_reason["SKB_FATE_NR"]))
        return ends + sum(self.inet.queued().values()) == self.net.rx_frames()


@contextmanager
def rig(fast: bool = True) -> Iterator[Rig]:
    """Give a Rig; at the end no packet is left and every frame is accounted for."""
    it = Rig(fast)
    try:
        yield it
        it.settle()
        assert it.balanced(), it.inet.queued()
    finally:
        it.inet.close()
        it.bench.sent()
    assert it.balanced()
    assert it.bench.pool_in_use() == 0
    assert all(free == total for _size, free, total in it.pool.state())
