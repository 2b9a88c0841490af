"""Frames of a virtual wire: datagrams behind one set of headers, behind a struct virtio_net_hdr."""

from __future__ import annotations

import struct

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.frames import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC

NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4 = 0, 1, 3, 4, 5
HEADERS = 42  # Ethernet, IPv4, UDP


def header(
    flags: int = NEEDS_CSUM,
    gso_type: int = GSO_UDP_L4,
    hdr_len: int = HEADERS,
    gso_size: int = 100,
    csum_start: int = 34,
    csum_offset: int = 6,
) -> bytes:
    """Give a struct virtio_net_hdr."""
    return struct.pack("=BBHHHH", flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)


PLAIN = header(0, GSO_NONE, 0, 0, 0, 0)


def pseudo_sum(src: str, dst: str, length: int, protocol: int = 17) -> int:
    """Add the pseudo header up, as a sender that leaves the checksum to its device does."""
    words = b"".join(bytes(map(int, a.split("."))) for a in (src, dst))
    total = sum(struct.unpack("!4H", words)) + protocol + length
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def packet(
    payload: bytes, *, ident: int = 7, sport: int = 4000, dport: int = 9000, **ip: object
) -> bytes:
    """Give one packet with all the payload and an unfinished checksum."""
    src, dst = str(ip.pop("src", PEER_IP)), str(ip.pop("dst", OUR_IP))
    dst_mac = str(ip.pop("dst_mac", OUR_MAC))
    check = pseudo_sum(src, dst, len(payload) + 8)
    return bytes(
        Ether(src=PEER_MAC, dst=dst_mac)
        / IP(src=src, dst=dst, id=ident, flags="DF", **ip)
        / UDP(sport=sport, dport=dport, chksum=check)
        / payload
    )


def coalesced(payload: bytes, size: int, **options: object) -> bytes:
    """Give datagrams of ``size`` bytes as a TAP with USO hands them over: header and one packet."""
    return header(gso_size=size) + packet(payload, **options)


def singles(payload: bytes, size: int, *, ident: int = 7, **options: object) -> list[bytes]:
    """Give the same datagrams as the frames that they are on a cable."""
    frames = []
    for nr, start in enumerate(range(0, len(payload), size)):
        frame = Ether(packet(payload[start : start + size], ident=ident + nr, **options))
        del frame[UDP].chksum
        frames.append(bytes(frame))
    return frames
