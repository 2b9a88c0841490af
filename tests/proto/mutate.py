"""Frames that nobody thought of: the odd frames, changed at random, most with right checksums."""

from __future__ import annotations

import random
from collections.abc import Iterator

from scapy.layers.inet import UDP
from scapy.utils import checksum

from tests.proto.odd_frames import ADDRESSES, FRAGMENTS, HEADERS, ICMP_TYPES, OPTIONS
from tests.proto.stack import ADDR, PEER, eth, ip

ETH, IP_SRC, IP_DST = 14, 26, 30
OFTEN = (ADDR, PEER, "10.0.0.255", "127.0.0.1", "0.0.0.0", "224.0.0.1", "9.9.9.9")


def mutants(seed: int) -> Iterator[bytes]:
    """Give frames without end; the same seed gives the same."""
    rng = random.Random(seed)
    seeds = [
        bytes(frame)
        for group in (HEADERS, ADDRESSES, ICMP_TYPES, OPTIONS, FRAGMENTS)
        for name, case in group.items()
        if not name.startswith("whole")
        for frame in (case if isinstance(case, list) else [case])
    ]
    seeds += [
        bytes(eth() / ip() / UDP(sport=1000, dport=port) / b"hello") for port in range(7, 20)
    ]
    while True:
        frame = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            change(rng, frame)
        frame[12:14] = b"\x08\x00"
        if rng.random() < 0.9:
            mend_ip(frame)
        if rng.random() < 0.8:
            mend_icmp(frame)
        yield bytes(frame)


def change(rng: random.Random, frame: bytearray) -> None:
    """Change one thing."""
    kind = rng.random()
    if kind < 0.5 and len(frame) > ETH + 1:
        at = rng.randrange(ETH, min(len(frame), 80))
        frame[at] = rng.choice(
            (0, 1, 255, rng.randrange(256), frame[at] ^ 1 << rng.randrange(8))
        )
    elif kind < 0.65:
        del frame[max(ETH, rng.randrange(len(frame) + 1)) :]
    elif kind < 0.75:
        frame += rng.randbytes(rng.randrange(1, 20))
    elif len(frame) >= 34:
        at = rng.choice((IP_SRC, IP_DST))
        frame[at : at + 4] = bytes(map(int, rng.choice(OFTEN).split(".")))


def header_length(frame: bytearray) -> int:
    """Give the IP header's length, 0 when there is none."""
    size = (frame[ETH] & 15) * 4 if len(frame) >= 34 else 0
    return size if size >= 20 and len(frame) >= ETH + size else 0


def mend_ip(frame: bytearray) -> None:
    """Give the IP header a right checksum."""
    if size := header_length(frame):
        frame[24:26] = b"\0\0"
        frame[24:26] = checksum(bytes(frame[ETH : ETH + size])).to_bytes(2)


def mend_icmp(frame: bytearray) -> None:
    """Give a whole ICMP message a right checksum."""
    size = header_length(frame)
    if not size or frame[23] != 1 or frame[20] & 0x3F or frame[21]:
        return
    begin, end = ETH + size, min(len(frame), ETH + int.from_bytes(frame[16:18]))
    if end >= begin + 8:
        frame[begin + 2 : begin + 4] = b"\0\0"
        frame[begin + 2 : begin + 4] = checksum(bytes(frame[begin:end])).to_bytes(2)
