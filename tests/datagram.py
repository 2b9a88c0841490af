"""A UDP datagram as a frame, without scapy, which takes a millisecond for one.

Byte for byte what scapy makes of `Ether() / IP() / UDP() / payload` (tests/test_datagram.py).
"""

from __future__ import annotations

import socket
import struct
from functools import cache


@cache
def mac_bytes(text: str) -> bytes:
    """Give a MAC address as it stands in a frame."""
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    """Sum as RFC 1071 says."""
    total = int.from_bytes(data + bytes(len(data) & 1), "big")
    # 2**16 is 1 modulo 0xffff, so this is the sum with its carries added; 0 only where all is 0.
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def datagram(
    mac: str,
    dst_mac: str,
    src: str,
    dst: str,
    sport: int,
    dport: int,
    payload: bytes,
    *,
    check: int | None = None,
    length: int | None = None,
    ttl: int = 64,
    tos: int = 0,
) -> bytes:
    """Make a frame with a UDP datagram; `check` and `length` replace the right values."""
    size = 8 + len(payload)
    addresses = socket.inet_aton(src) + socket.inet_aton(dst)
    udp = struct.pack("!4H", sport, dport, size if length is None else length, 0) + payload
    if check is None:
        check = checksum(addresses + struct.pack("!HH", 17, size) + udp) or 0xFFFF
    ip = struct.pack("!BBHHHBBH", 0x45, tos, 20 + size, 1, 0, ttl, 17, 0) + addresses
    return b"".join(
        (
            *(mac_bytes(dst_mac), mac_bytes(mac), b"\x08\x00"),
            *(ip[:10], struct.pack("!H", checksum(ip)), addresses),
            *(udp[:6], struct.pack("!H", check), payload),
        )
    )
