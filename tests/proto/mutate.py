"""Frames that nobody thought of: the odd frames, changed at random, most with right checksums."""

from __future__ import annotations

import random
from collections.abc import Iterator

from netstack._checksum import internet_checksum
from tests.proto.odd_frames import EARLY_DEMUX, HOST_CASES
from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC

ETH, IP_SRC, IP_DST = 14, 26, 30
OFTEN = (
    *(ADDR, PEER, "10.0.0.255", "127.0.0.1", "0.0.0.0", "224.0.0.1", "9.9.9.9"),
    *("10.0.0.9", "255.255.255.255"),
)
MACS = (MAC, PEER_MAC, "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "02:00:00:00:00:77")
ETHERTYPES = (0x0800, 0x0806, 0x8100, 0x88B5, 46, 0x88A8)
PORTS = (*range(7, 14), 99)
ICMP, UDP = 1, 17
# Protocols that Linux has and netstack has not: TCP, UDP-Lite, tunnels, IPsec, SCTP and their kind. IGMP is
# answered after a random time. docs/scope.md, docs/kernel-map.md.
NOT_HERE = {2, 4, 6, 33, 41, 46, 47, 50, 51, 55, 94, 98, 103, 108, 115, 132, 136, 137}
LONGEST = 1514


def seeds() -> list[bytes]:
    """Give the frames that others are made from."""
    return [
        bytes(frame)
        for name, case in HOST_CASES.items()
        for frame in case
        if not name.startswith("whole")
        and name not in EARLY_DEMUX
        and 14 <= len(bytes(frame)) <= LONGEST
    ]


def mutants(seed: int, base: list[bytes] | None = None) -> Iterator[bytes]:
    """Give frames without end; the same seed gives the same."""
    rng = random.Random(seed)
    base = base or seeds()
    while True:
        frame = bytearray(rng.choice(base))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            change(rng, frame)
        if frame[12:14] == b"\x08\x00":
            if len(frame) > 23 and frame[23] in NOT_HERE:
                frame[23] = 77
            if rng.random() < 0.9:
                mend_ip(frame)
            if rng.random() < 0.8:
                mend_transport(frame)
        yield bytes(frame[:LONGEST]).replace(b"\x86\xdd", b"\x88\xb5")  # no IPv6


def change(rng: random.Random, frame: bytearray) -> None:
    """Change one thing."""
    kind = rng.random()
    if kind < 0.5 and len(frame) > ETH + 1:
        at = rng.randrange(ETH, min(len(frame), 80))
        frame[at] = rng.choice(
            (0, 1, 255, rng.randrange(256), frame[at] ^ 1 << rng.randrange(8))
        )
    elif kind < 0.62:
        del frame[max(ETH, rng.randrange(len(frame) + 1)) :]
    elif kind < 0.70:
        frame += rng.randbytes(rng.randrange(1, 20))
    elif kind < 0.74:
        at = rng.choice((0, 6))
        frame[at : at + 6] = bytes.fromhex(rng.choice(MACS).replace(":", ""))
    elif kind < 0.77:
        frame[12:14] = rng.choice(ETHERTYPES).to_bytes(2, "big")
    elif kind < 0.79:
        vlan = rng.choice((0, 0, 5, 0x6000, 0xFFF))
        frame[12:12] = b"\x81\x00" + vlan.to_bytes(2, "big")
    elif kind < 0.83 and len(frame) >= 38:
        at = rng.choice((34, 36))
        frame[at : at + 2] = rng.choice(PORTS).to_bytes(2, "big")
    elif len(frame) >= 34:
        at = (
            rng.choice((IP_SRC, IP_DST))
            if frame[12:14] != b"\x08\x06"
            else rng.choice((28, 38))
        )
        frame[at : at + 4] = bytes(map(int, rng.choice(OFTEN).split(".")))


def header_length(frame: bytearray) -> int:
    """Give the IP header's length, 0 when there is none."""
    size = (frame[ETH] & 15) * 4 if len(frame) >= 34 else 0
    return size if size >= 20 and len(frame) >= ETH + size else 0


def mend_ip(frame: bytearray) -> None:
    """Give the IP header a right checksum."""
    if size := header_length(frame):
        frame[24:26] = b"\0\0"
        frame[24:26] = internet_checksum(bytes(frame[ETH : ETH + size])).to_bytes(2, "big")


def mend_transport(frame: bytearray) -> None:
    """Give a whole ICMP message, or a datagram, a right checksum."""
    size = header_length(frame)
    if not size or frame[20] & 0x3F or frame[21] or frame[23] not in (ICMP, UDP):
        return
    begin, end = ETH + size, min(len(frame), ETH + int.from_bytes(frame[16:18], "big"))
    at = begin + (2 if frame[23] == ICMP else 6)
    if end < begin + 8:
        return
    data = bytes(frame[begin:end])
    if frame[23] == UDP:
        length = int.from_bytes(frame[begin + 4 : begin + 6], "big")
        data = data[:length] if length >= 8 else data
        data = bytes(frame[26:34]) + bytes([0, UDP]) + len(data).to_bytes(2, "big") + data
    frame[at : at + 2] = b"\0\0"
    skip = at - begin + (12 if frame[23] == UDP else 0)
    data = data[:skip] + b"\0\0" + data[skip + 2 :]
    check = internet_checksum(data)
    frame[at : at + 2] = (check or 0xFFFF if frame[23] == UDP else check).to_bytes(2, "big")
