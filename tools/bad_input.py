#!/usr/bin/env python3
"""Flood a host with bad input, and see what it costs others: memory, and the loss of ping and of a socket.

    .venv/bin/python tools/bad_input.py                      # every flood in full: 100,000 frames, ARP a million
    .venv/bin/python tools/bad_input.py --frames 5000 open   # one flood, shorter
    .venv/bin/python tools/bad_input.py --json

The host is on a wire in memory and runs in this thread, so the result does not depend on the machine's
load. After each burst of the flood come one ping and one datagram to a socket. The exit status is 1 when
either loses a hundredth or more, memory passes its limit, or a frame is not accounted for. Needs no root.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import netstack
from netstack._checksum import internet_checksum
from netstack.device._memory import MemoryWire
from netstack.stats import ledger

MAC, PEER_MAC = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
ADDR, PEER = bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1])
ALL = b"\xff" * 6
BURST = 200
PORT = 9000
ICMP, IGMP, UDP = 1, 2, 17
MF = 0x2000
FRAMES = 100_000
# Beyond what the limits themselves allow: fragments 4 MB, neighbours 1024, a socket's queue 208 KB.
MOST_BYTES = 64 << 20
PAGE = 4096

Flood = Callable[[random.Random], Iterator[bytes]]


def ip(
    payload: bytes, protocol: int, *, src: bytes = PEER, dst: bytes = ADDR, ident: int = 1,
    frag: int = 0, options: bytes = b"", mac: bytes = MAC,
) -> bytes:  # fmt: skip
    """Make a frame with an IPv4 packet, its header's checksum right."""
    ihl = 5 + len(options) // 4
    total = min(ihl * 4 + len(payload), 65535)
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | ihl, 0, total, ident & 0xFFFF, frag, 64, protocol, 0, src, dst
    )
    header += options
    check = internet_checksum(header)
    header = header[:10] + check.to_bytes(2, "big") + header[12:]
    return mac + PEER_MAC + b"\x08\x00" + header + payload


def icmp(type_: int, code: int, rest: bytes) -> bytes:
    """Make an ICMP message."""
    message = struct.pack("!BBH", type_, code, 0) + rest
    return message[:2] + internet_checksum(message).to_bytes(2, "big") + message[4:]


def overlap(rng: random.Random) -> Iterator[bytes]:
    """Second fragments that reach into the first."""
    for ident in range(1 << 30):
        yield ip(bytes(64), UDP, ident=ident, frag=MF)
        yield ip(bytes(64), UDP, ident=ident, frag=rng.randrange(1, 8))


def teardrop(rng: random.Random) -> Iterator[bytes]:
    """Second fragments that lie inside the first."""
    for ident in range(1 << 30):
        yield ip(bytes(200), UDP, ident=ident, frag=MF)
        yield ip(bytes(8), UDP, ident=ident, frag=MF | rng.randrange(1, 10))
        yield ip(bytes(8), UDP, ident=ident, frag=3)


def beyond(rng: random.Random) -> Iterator[bytes]:
    """Datagrams that would be longer than 65535: the ping of death."""
    for ident in range(1 << 30):
        for at in range(0, 65120, 1480):
            yield ip(bytes(1480), ICMP, ident=ident, frag=MF | at // 8)
        yield ip(bytes(1480), ICMP, ident=ident, frag=65120 // 8)


def gap(rng: random.Random) -> Iterator[bytes]:
    """Datagrams of which one fragment never comes, in any order."""
    for ident in range(1 << 30):
        parts = [0, 1, 2, 4, 5, 6, 7]
        rng.shuffle(parts)
        for part in parts:
            more = MF if part < 7 else 0
            yield ip(bytes(1024), UDP, ident=ident, frag=more | part * 128)


def open_queues(rng: random.Random) -> Iterator[bytes]:
    """First fragments only: as many open queues as there are addresses and ids."""
    for number in range(1 << 30):
        src = struct.pack("!I", 0x0A010000 + (number >> 8))
        yield ip(bytes(16), UDP, src=src, ident=number, frag=MF)


def tiny(rng: random.Random) -> Iterator[bytes]:
    """Datagrams in fragments of 8 bytes, every second one first."""
    for ident in range(1 << 30):
        for at in (*range(0, 400, 2), *range(1, 400, 2)):
            yield ip(bytes(8), UDP, ident=ident, frag=MF | at)


def options(rng: random.Random) -> Iterator[bytes]:
    """Forty bytes of options, right and wrong."""
    kinds = (0, 1, 7, 68, 131, 137, 148, 134, 85, 255)
    while True:
        field = b""
        while len(field) < 40:
            kind, size = rng.choice(kinds), rng.choice((0, 1, 2, 3, 4, 7, 11, 39, 40, 255))
            field += bytes([kind, size, rng.choice((0, 4, 5, 8, 9))])
            field += rng.randbytes(max(0, min(size, 40) - 3))
        yield ip(icmp(8, 0, bytes(4)), ICMP, options=field[:40])


def errors(rng: random.Random) -> Iterator[bytes]:
    """ICMP errors that quote nonsense."""
    while True:
        kind, code = rng.choice((3, 4, 5, 11, 12)), rng.randrange(20)
        quoted = rng.randbytes(rng.randrange(0, 120))
        if rng.random() < 0.7:
            inner = ip(rng.randbytes(8), rng.randrange(256), src=ADDR, dst=rng.randbytes(4))
            quoted = inner[14:]
        yield ip(icmp(kind, code, rng.randbytes(4) + quoted), ICMP)


def igmp(rng: random.Random) -> Iterator[bytes]:
    """Send queries and reports for any group, of any version."""
    while True:
        group = bytes([224 + rng.randrange(16)]) + rng.randbytes(3)
        body = bytes([rng.choice((0x11, 0x12, 0x16, 0x17, 0x22, 0)), rng.randrange(256), 0, 0])
        body += group + rng.randbytes(rng.choice((0, 4, 8, 40)))
        body = body[:2] + internet_checksum(body).to_bytes(2, "big") + body[4:]
        mac = b"\x01\x00\x5e" + bytes([group[1] & 127]) + group[2:]
        yield ip(body, IGMP, dst=group, options=b"\x94\x04\0\0", mac=mac)


def arp(rng: random.Random) -> Iterator[bytes]:
    """Questions from a million neighbours, each of which is then one of ours."""
    for number in range(1 << 30):
        src = struct.pack("!I", 0x0A000100 + number % 1_000_000)
        mac = b"\x02\x01" + src
        head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        yield ALL + mac + b"\x08\x06" + head + mac + src + bytes(6) + ADDR


def noise(rng: random.Random) -> Iterator[bytes]:
    """Bytes without sense behind an IPv4 EtherType."""
    while True:
        yield MAC + PEER_MAC + b"\x08\x00" + rng.randbytes(rng.randrange(0, 200))


FLOODS: dict[str, tuple[Flood, int]] = {
    "overlap": (overlap, FRAMES),
    "teardrop": (teardrop, FRAMES),
    "beyond": (beyond, FRAMES),
    "gap": (gap, FRAMES),
    "open": (open_queues, FRAMES),
    "tiny": (tiny, FRAMES),
    "options": (options, FRAMES),
    "errors": (errors, FRAMES),
    "igmp": (igmp, FRAMES),
    "arp": (arp, 1_000_000),
    "noise": (noise, FRAMES),
}


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Target:
    """A host at 10.0.0.2/8, a socket, and a peer that pings and sends to it."""

    def __init__(self, fast_path: bool) -> None:
        self.clock = netstack.ManualClock()
        ours, self.wire = MemoryWire.pair(1000)
        self.host = netstack.Host(clock=self.clock, threads=False, fast_path=fast_path)
        self.host.add_nic(ours, "tap0", addr="10.0.0.2/8", mac=MAC.hex(":"))
        self.sock = self.host.socket()
        self.sock.bind(("", PORT))
        self.sock.setblocking(False)
        self.replies = self.datagrams = self.rounds = 0

    def put(self, frames: list[bytes]) -> None:
        """Let frames arrive; throw away what is sent."""
        for frame in frames:
            self.wire.send(frame)
        self.host.run()
        while self.wire.recv() is not None:
            pass

    def probe(self) -> None:
        """Ping, and send a datagram; count what succeeds."""
        self.rounds += 1
        self.put([ALL + PEER_MAC + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
                  + PEER_MAC + PEER + bytes(6) + ADDR])  # fmt: skip
        self.wire.send(ip(icmp(8, 0, struct.pack("!HH", 77, self.rounds & 0xFFFF)), ICMP))
        self.wire.send(ip(struct.pack("!HHHH", 4000, PORT, 12, 0) + b"data", UDP))
        self.host.run()
        while (frame := self.wire.recv()) is not None:
            self.replies += frame[23] == ICMP and frame[34:35] == b"\0"
        try:
            while self.sock.recv(100):
                self.datagrams += 1
        except BlockingIOError:
            pass


def flood(name: str, frames: int, *, fast_path: bool = True, seed: int = 1) -> dict[str, Any]:
    """Run one flood; give the losses in percent, the peaks of memory, and how the ledger stands."""
    target = Target(fast_path)
    host = target.host
    stream = FLOODS[name][0](random.Random(seed))
    target.probe()
    before = peak = resident()
    fragments = neighbours = 0
    sent = 0
    try:
        while sent < frames:
            burst = list(islice(stream, min(BURST, frames - sent)))
            target.put(burst)
            sent += len(burst)
            target.probe()
            target.clock.advance(0.01)
            peak = max(peak, resident())
            fragments = max(fragments, host.inet.frags.memory)
            if target.rounds % 10 == 0:
                neighbours = max(neighbours, len(host.neighbours()))
        account = ledger(host)
        return {
            "frames": sent,
            "ping_loss": 100 * (1 - target.replies / target.rounds),
            "socket_loss": 100 * (1 - target.datagrams / target.rounds),
            "peak_bytes": peak - before,
            "fragment_bytes": fragments,
            "neighbours": neighbours,
            "balanced": account.balanced,
            "unnamed": account.dropped.get("NOT_SPECIFIED", 0),
            "dropped": account.dropped,
        }
    finally:
        host.close()
        target.sock.close()


def is_good(result: dict[str, Any]) -> bool:
    """Tell whether others hardly noticed, and memory stayed inside its limits."""
    loss = max(result["ping_loss"], result["socket_loss"])
    whole = result["balanced"] and not result["unnamed"]
    return bool(loss < 1 and result["peak_bytes"] < MOST_BYTES and whole)


def main() -> int:
    """Run the floods asked for."""
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("flood", nargs="*", choices=[[], *FLOODS], help="which [all]")
    parser.add_argument("--frames", type=int, help="of each flood [100000, arp 1000000]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    results = {}
    for name in chosen.flood or FLOODS:
        frames = chosen.frames or FLOODS[name][1]
        results[name] = one = flood(name, frames, seed=chosen.seed)
        if not chosen.json:
            print(
                f"{name:<10}{one['frames']:>10,} frames  ping lost {one['ping_loss']:.2f} %  socket "
                f"{one['socket_loss']:.2f} %  peak {one['peak_bytes'] / 1e6:.1f} MB  fragments "
                f"{one['fragment_bytes'] / 1e6:.2f} MB  neighbours {one['neighbours']}  "
                f"{'good' if is_good(one) else 'BAD'}",
                flush=True,
            )
    if chosen.json:
        print(json.dumps(results, indent=2))
    return 0 if all(map(is_good, results.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
