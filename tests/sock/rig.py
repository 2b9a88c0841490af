"""A host without threads and wires, with sockets; frames are made without scapy and without our own code."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from netstack._counters import mib, skb_drop_reason
from netstack.socket import socket
from tests.datagram import checksum
from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC, Stack

OUR_IP, PEER_IP = ADDR, PEER


def number(address: str) -> int:
    return int(IPv4Address(address))


def raw_mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


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
    size = 8 + len(payload)
    udp = struct.pack("!4H", sport, dport, size if length is None else length, 0) + payload
    if check is None:
        pseudo = struct.pack("!IIHH", number(src), number(dst), 17, size)
        check = checksum(pseudo + udp) or 0xFFFF
    udp = udp[:6] + struct.pack("!H", check) + udp[8:]
    ip = struct.pack(
        "!BBHHHBBHII", 0x45, tos, 20 + size, 1, 0, ttl, 17, 0, number(src), number(dst)
    )
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return raw_mac(mac) + raw_mac(PEER_MAC) + b"\x08\x00" + ip + udp + b"\xaa" * pad


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
