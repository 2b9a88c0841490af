#!/usr/bin/env python3
"""Other stacks in Python beside netstack, each behind a TAP of its own: what a frame costs, how many a second.

    sudo .venv/bin/python tools/bench_peers.py                              # all sides that are installed
    sudo .venv/bin/python tools/bench_peers.py --sides netstack scapy --sizes 18 --rounds 20
    sudo .venv/bin/python tools/bench_peers.py --json
    sudo .venv/bin/python tools/bench_peers.py --picture peers.svg          # with the extra `bench`; a .png as well

Sides, the first of them the yardstick:

    netstack           recvfrom() and sendto() in Python
    netstack-python    the same with the fast path off: every packet goes through the Python layers
    read               no stack: a loop in Python that reads the TAP, looks at the port, and counts or swaps the ends
    pytcp              PyTCP 2.7, its socket in the same loop; its log is off, and Python runs with -O
    scapy              sniff() with a filter that counts, an AnsweringMachine that answers

A side that is not installed is named with the line that installs it. What is measured:

    sink               bursts of datagrams, from the first one sent to the last one taken
    echo-1, echo-64    answers to a compiled client with so many in flight; times in microseconds

Each side is a process of its own in a network namespace of its own, and stands still while it is not its turn;
nothing leaves the TAPs. ``cpu_ns`` is the CPU of the whole process, all its threads, a frame. ``lost`` did not come, or
not back. Times end at 10000: that or more.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import os
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchlib import (
    HOST,
    PEER,
    PORT,
    bars,
    enter_namespace,
    ip,
    parser_for,
    percentile,
    print_json,
    print_machine,
    print_rows,
    quartiles,
    spread,
)

SIDES = ["netstack", "netstack-python", "read", "pytcp", "scapy"]
NEEDS = {"pytcp": ("PyTCP", "2.7", "pytcp>=2.7,<2.8"), "scapy": ("scapy", "2.", "scapy>=2.5")}
PROGRAMS = str(Path(__file__).with_name("_peers.py"))
UDP_SEGMENT, SIOCGIFFLAGS, IFF_RUNNING = 103, 0x8913, 0x40
BURSTS = 4  # of a turn
PATIENCE = 30.0  # seconds until a host is up; PyTCP looks for other owners of its address first


def version(side: str) -> str | None:
    """Give the version of what a side needs: "" if it is part of this tree, None if it is not there."""
    if side not in NEEDS:
        return ""
    package, start, _ = NEEDS[side]
    with suppress(importlib.metadata.PackageNotFoundError):
        found = importlib.metadata.version(package)
        return found if found.startswith(start) else None
    return None


def line_to_type(side: str) -> str:
    """Say how a side is installed."""
    return f"{sys.executable} -m pip install '{NEEDS[side][2]}'"


class Peer:
    """A side that sinks or echoes: its process, its TAP, and sockets in its namespace."""

    def __init__(self, side: str, work: str, frames: int) -> None:
        from netstack.lab import another_network

        self.side, self.frames = side, frames
        self.rates: list[float]
        self.cpu: list[float]
        self.times: Counter[int]  # how many answers took so many ns
        self.lost: int
        self.forget()
        options = ["-O"] if side == "pytcp" else []
        command = [sys.executable, *options, PROGRAMS, side, work, str(frames)]
        with another_network():
            self.set_up_tap()
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
            self.control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # The CPU clock of another process. [clock_getcpuclockid(3)]
        self.clock = (~self.process.pid << 3) | 2

    def set_up_tap(self) -> None:
        """Leave a TAP for the process to take over, with the kernel at its other end."""
        ip("tuntap", "add", "dev", "tap0", "mode", "tap")
        with suppress(OSError):
            Path("/proc/sys/net/ipv6/conf/tap0/disable_ipv6").write_text("1")
        ip("address", "add", f"{PEER}/24", "dev", "tap0")
        ip("link", "set", "tap0", "up")
        mac = ("lladdr", "02:00:00:00:00:02", "nud", "permanent")
        ip("neigh", "replace", HOST, *mac, "dev", "tap0")

    def wait_until_up(self) -> None:
        """Wait for the host, and for the kernel to see the cable."""
        if self.answer(PATIENCE, 6) != b"ready\n":
            raise RuntimeError(f"{self.side} did not come up; its own words are above")
        late = time.monotonic() + PATIENCE
        while not self.flags() & IFF_RUNNING:
            if time.monotonic() > late:
                raise RuntimeError(f"the TAP of {self.side} has no carrier")
            time.sleep(0.01)
        for sock in (self.sender, self.client):
            sock.bind((PEER, 0))
            sock.connect((HOST, PORT))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.client.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 200_000)
        )
        self.pause()

    def flags(self) -> int:
        """Give the flags of the TAP."""
        request = struct.pack("16sH22x", b"tap0", 0)
        got = fcntl.ioctl(self.control, SIOCGIFFLAGS, request)
        return int(struct.unpack("16xH22x", got)[0])

    def answer(self, seconds: float, size: int = 1) -> bytes:
        """Read what the process says, or nothing when it does not by then."""
        out = self.process.stdout
        assert out is not None
        ready, _, _ = select.select([out], [], [], seconds)
        return os.read(out.fileno(), size) if ready else b""

    def pause(self) -> None:
        """Let it stand still."""
        self.process.send_signal(signal.SIGSTOP)

    def go(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def burst(self, size: int) -> tuple[float, float]:
        """Send a burst; thousand a second, ns of CPU a frame."""
        self.sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        left, part = self.frames, max(1, min(64, 65000 // size))
        cpu, start = time.clock_gettime_ns(self.clock), time.perf_counter_ns()
        while left:
            self.sender.send(bytes(size * min(left, part)))
            left -= min(left, part)
        answer = self.answer(5)
        wall, cpu = time.perf_counter_ns() - start, time.clock_gettime_ns(self.clock) - cpu
        if answer:
            return self.frames / wall * 1e6, cpu / self.frames
        # Make up for what was lost, so that the next burst begins at its beginning, and send that.
        self.sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
        while not self.answer(0.05):
            self.lost += 1
            self.sender.send(bytes(size))
            if self.process.poll() is not None or self.lost > self.frames:
                raise RuntimeError(f"{self.side} takes nothing any more")
        return self.burst(size)

    def echo(self, size: int, window: int, seconds: float) -> tuple[float, float]:
        """Keep datagrams in flight; thousand a second, ns of CPU an answer."""
        from netstack.testing._echo import ping

        while True:  # answers of another turn that were late
            try:
                self.client.recv(2048, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
        cpu = time.clock_gettime_ns(self.clock)
        tally = ping(self.client.fileno(), size, window, seconds)
        cpu = time.clock_gettime_ns(self.clock) - cpu
        self.lost += tally["lost"]
        self.times.update(tally["ns"])
        return tally["packets"] / tally["wall_ns"] * 1e6, cpu / max(1, tally["packets"])

    def turn(self, work: str, size: int, seconds: float) -> None:
        """Be measured once, and stand still again."""
        self.go()
        if work == "sink":
            self.burst(size)  # it stood still: this one warms its caches
            rate, cpu = map(
                statistics.mean, zip(*(self.burst(size) for _ in range(BURSTS)), strict=True)
            )
        else:
            rate, cpu = self.echo(size, int(work.removeprefix("echo-")), seconds)
        self.pause()
        self.rates.append(rate)
        self.cpu.append(cpu)

    def close(self) -> None:
        """End it, and with it its namespace."""
        self.process.kill()
        with self.process:
            pass
        for sock in (self.control, self.sender, self.client):
            sock.close()

    def row(self, work: str, size: int, first: float) -> dict[str, Any]:
        """Make the line of the table, and forget what it was made of."""
        rate = statistics.median(self.rates)
        result = {
            "size": size,
            "work": work,
            "side": self.side,
            "kps": round(rate, 2),
            "of_first": round(rate / first, 4),
            "spread": round(spread(self.rates), 3),
            "cpu_ns": round(statistics.median(self.cpu)),
            "p50": percentile(self.times, 0.5) if self.times else None,
            "p99": percentile(self.times, 0.99) if self.times else None,
            "lost": self.lost,
            "quartiles": {"kps": quartiles(self.rates), "cpu_ns": quartiles(self.cpu)},
        }
        self.forget()
        return result

    def forget(self) -> None:
        """Begin anew."""
        self.rates, self.cpu, self.times, self.lost = [], [], Counter(), 0


def measure(args: argparse.Namespace, sides: list[str]) -> list[dict[str, Any]]:
    """Let the sides take turns at each work; a row a size, work and side."""
    rows = []
    for kind, works in (("sink", ["sink"]), ("echo", ["echo-1", "echo-64"])):
        peers: list[Peer] = []
        try:
            for side in sides:
                peers.append(Peer(side, kind, args.frames))
            for peer in peers:
                peer.wait_until_up()
            for size in args.sizes:
                for work in works:
                    rows += measure_one(args, peers, work, size)
        finally:
            for peer in peers:
                peer.close()
    return rows


def measure_one(
    args: argparse.Namespace, peers: list[Peer], work: str, size: int
) -> list[dict[str, Any]]:
    """Measure one work at one size."""
    for number in range(args.rounds + 1):
        for peer in peers:
            peer.turn(work, size, args.seconds)
            if not number:  # the first round warms up
                peer.forget()
    first = statistics.median(peers[0].rates)
    return [peer.row(work, size, first) for peer in peers]


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = parser_for(__doc__)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE")
    parser.add_argument("--sizes", nargs="+", type=int, default=[18, 1472], metavar="BYTES")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--frames", type=int, default=800, help="a burst; the TAP's queue holds 1000"
    )
    parser.add_argument("--seconds", type=float, default=0.2, help="a round of echoes")
    args = parser.parse_args(argv)
    if not all(8 <= size <= 1472 for size in args.sizes):
        parser.error(
            f"--sizes {' '.join(map(str, args.sizes))}: 8 to 1472 bytes fit into a frame"
        )
    if args.rounds < 1 or not 1 <= args.frames <= 1000:
        parser.error(f"--rounds {args.rounds} --frames {args.frames}: 1 or more, and 1 to 1000")
    versions = {side: version(side) for side in args.sides}
    missing = {side: line_to_type(side) for side in args.sides if versions[side] is None}
    sides = [side for side in args.sides if side not in missing]
    if not sides:
        parser.error(
            "\n".join(
                f"{side} is not installed; type: {line}" for side, line in missing.items()
            )
        )
    if not enter_namespace("bench_peers"):
        return 2
    try:
        rows = measure(args, sides)
    except RuntimeError as error:
        print(f"bench_peers: {error}", file=sys.stderr)
        return 1
    have = ", ".join(f"{NEEDS[side][0]} {versions[side]}" for side in sides if versions[side])
    what = (
        f"bursts of {args.frames}, echoes for {args.seconds:g} s, medians of {args.rounds} rounds in turn; "
        f"thousands a second, ns of CPU a frame, microseconds{f'; {have}' if have else ''}"
    )
    if args.picture:
        axes = ("kps", "thousands a second", True), ("cpu_ns", "ns of CPU a frame", False)
        bars(args.picture, what, rows, ["work", "size"], *axes)
    if args.json:
        print_json(peers=rows, versions=versions, missing=missing)
        return 0
    print_machine(what)
    print_rows(rows)
    for side, line in missing.items():
        print(f"missing: {side}; to have it, type: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
