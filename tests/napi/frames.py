"""Frames for GRO, byte for byte: Ethernet, IPv4, TCP or UDP; every field can be changed."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from netstack._checksum import internet_checksum

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
DST_MAC, SRC_MAC = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")


@dataclass(frozen=True, kw_only=True)
class Ip:
    """An Ethernet frame with an IPv4 packet; ``None`` stands for the right value."""

    src: str = "10.9.0.2"
    dst: str = "10.9.0.1"
    ident: int = 1
    frag_off: int = 0x4000
    ttl: int = 64
    tos: int = 0
    vhl: int = 0x45
    options: bytes = b""
    tot_len: int | None = None
    ip_check: int | None = None
    check: int | None = None
    dst_mac: bytes = DST_MAC
    src_mac: bytes = SRC_MAC
    pad: bytes = b""
    data: bytes = b"x" * 100

    protocol = 0

    def but(self, **changes: object) -> Ip:
        """Give the same packet with some fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def transport(self) -> bytes:
        return self.data

    def checksummed(self, packet: bytes, at: int) -> bytes:
        """Put the checksum of header and data, with the pseudo header, at an offset."""
        check = self.check
        if check is None:
            pseudo = address(self.src) + address(self.dst)
            pseudo += struct.pack("!HH", self.protocol, len(packet))
            check = internet_checksum(pseudo + packet)
        return packet[:at] + struct.pack("!H", check) + packet[at + 2 :]

    def bytes(self) -> bytes:
        """Give the whole frame."""
        payload = self.transport()
        header_size = 20 + len(self.options)
        total = header_size + len(payload) if self.tot_len is None else self.tot_len
        header = struct.pack(
            "!BBHHHBBH4s4s", self.vhl, self.tos, total, self.ident & 0xFFFF, self.frag_off,
            self.ttl, self.protocol, 0, address(self.src), address(self.dst),
        ) + self.options  # fmt: skip
        check = internet_checksum(header) if self.ip_check is None else self.ip_check
        header = header[:10] + struct.pack("!H", check) + header[12:]
        return self.dst_mac + self.src_mac + b"\x08\x00" + header + payload + self.pad


@dataclass(frozen=True, kw_only=True)
class Tcp(Ip):
    """A TCP segment."""

    sport: int = 1000
    dport: int = 80
    seq: int = 1
    ack: int = 7
    flags: int = ACK
    window: int = 500
    urgent: int = 0
    tcp_options: bytes = b""
    doff: int | None = None
    reserved: int = 0

    protocol = 6

    def transport(self) -> bytes:
        doff = 5 + len(self.tcp_options) // 4 if self.doff is None else self.doff
        header = struct.pack(
            "!HHIIBBHHH", self.sport, self.dport, self.seq & 0xFFFFFFFF, self.ack, doff << 4 | self.reserved,
            self.flags, self.window, 0, self.urgent,
        )  # fmt: skip
        return self.checksummed(header + self.tcp_options + self.data, 16)


@dataclass(frozen=True, kw_only=True)
class Udp(Ip):
    """A UDP datagram."""

    sport: int = 1000
    dport: int = 5000
    ulen: int | None = None

    protocol = 17

    def transport(self) -> bytes:
        size = 8 + len(self.data) if self.ulen is None else self.ulen
        return self.checksummed(
            struct.pack("!HHHH", self.sport, self.dport, size, 0) + self.data, 6
        )


def address(dotted: str) -> bytes:
    return bytes(int(part) for part in dotted.split("."))


def stream(
    first: Tcp, sizes: list[int], *, id_step: int = 1, last: dict[str, object] | None = None
) -> list[Tcp]:
    """Give the segments of a stream, in order; the payload counts up, so that order shows."""
    out = []
    seq = first.seq
    for number, size in enumerate(sizes):
        data = bytes((seq + i) & 0xFF for i in range(size))
        ident = first.ident + number * id_step
        out.append(replace(first, seq=seq, data=data, ident=ident))
        seq += size
    if last:
        out[-1] = replace(out[-1], **last)  # type: ignore[arg-type]
    return out


def datagrams(first: Udp, sizes: list[int], *, id_step: int = 1) -> list[Udp]:
    """Give datagrams of one flow; the payload says which one it is."""
    return [
        replace(first, data=bytes([number & 0xFF]) * size, ident=first.ident + number * id_step)
        for number, size in enumerate(sizes)
    ]
