"""A host reduced to UDP: sockets, one device driven by hand, and no thread.

What is sent to the host itself stands in a queue until `pump()`; `receive()` takes a frame
through all steps before it returns.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from netstack._counters import mib, skb_drop_reason
from netstack._net import ManualClock, Net
from netstack._skb import ProcessPool
from netstack.config import Config
from netstack.proto import _arp, _ip_output, _neigh_table, _route, _testing, _udp_prot
from netstack.sock import _calls
from netstack.socket import socket

OUR_MAC, PEER_MAC = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
OUR_IP, PEER_IP = "10.0.0.2", "10.0.0.1"
NUD_PERMANENT = 0x80
RTN_UNICAST, RTN_LOCAL, RTN_BROADCAST = 1, 2, 3


def number(address: str) -> int:
    return int(IPv4Address(address))


def checksum(data: bytes) -> int:
    """Sum as RFC 1071 says, without our own code."""
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def udp_frame(
    payload: bytes,
    *,
    src: str = PEER_IP,
    dst: str = OUR_IP,
    sport: int = 4000,
    dport: int = 9000,
    check: int | None = None,
    length: int | None = None,
    ttl: int = 64,
    tos: int = 0,
    pad: int = 0,
) -> bytes:
    """A frame with a UDP datagram; `check` and `length` replace the right values."""
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
    return OUR_MAC + PEER_MAC + b"\x08\x00" + ip + udp + b"\xaa" * pad


class Rig:
    """The host, as far as a socket sees it: `net` is what netstack.socket needs."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.net = Net(1, self.clock)
        self.config = Config(self.net)
        self.pool = ProcessPool(self.net, (4096, 512, 1024))
        self.fib = _route.Fib(self.net)
        self.output = _ip_output.IPOutput(self.net, 1)
        self.neighbours = _neigh_table.NeighTable(self.net)
        _arp.arp_init(self.net)
        self.bench = _testing.Bench(self.net, OUR_MAC)
        _udp_prot.init(self.net)
        self.fib.set_addresses(1, [(number("127.0.0.1"), 8)])
        self.fib.set_addresses(2, [(number(OUR_IP), 24)])
        # prefix, length, kind, device, next hop, source
        self.fib.publish(
            [
                (number("127.0.0.0"), 8, RTN_LOCAL, 1, 0, number("127.0.0.1")),
                (number(OUR_IP), 32, RTN_LOCAL, 2, 0, number(OUR_IP)),
                (number("10.0.0.255"), 32, RTN_BROADCAST, 2, 0, number(OUR_IP)),
                (number("10.0.0.0"), 24, RTN_UNICAST, 2, 0, number(OUR_IP)),
            ]
        )
        self.neighbours.update(2, number(PEER_IP), PEER_MAC, NUD_PERMANENT, admin=True)

    def socket(self, *address: object) -> socket:
        """Make a socket, bound to `address` if one is given."""
        made = socket(self)
        if address:
            made.bind(address)
        return made

    def receive(self, *frames: bytes) -> None:
        """Take frames as CPU 0 would; the short cut takes them all."""
        for frame in frames:
            assert self.bench.receive(frame, True) is None, "left to Python"

    def pump(self) -> None:
        """Receive what the host sent to itself."""
        while self.bench.next_looped(True)[0]:
            pass

    def count(self, name: str) -> int:
        return self.net.mib(mib[name])

    def fate(self, name: str) -> int:
        return self.net.fate(skb_drop_reason[name])

    def ended(self) -> int:
        """Frames off the wire that have come to an end."""
        return sum(self.net.fate(n) for n in range(skb_drop_reason["SKB_FATE_NR"]))

    def close(self) -> None:
        for sock in _calls.sockets(self.net):
            sock.close()
        assert self.bench.pool_in_use() == 0, "packets leaked"
        assert self.ended() == self.net.rx_frames(), "the ledger does not balance"
        _udp_prot.exit(self.net)


@contextmanager
def rig() -> Iterator[Rig]:
    """Give a Rig; at the end no packet is left and every frame is accounted for."""
    it = Rig()
    try:
        yield it
    finally:
        it.close()
