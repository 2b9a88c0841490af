"""One fd of a TAP against two (IFF_MULTI_QUEUE), read by one thread and by two: `bench_rx.py --multiqueue`.

All are bare compiled loops of ``read()``, each thread on a CPU of its own, and frames of 64 flows, which the kernel
spreads over the queues by their hash. Drained: the queues are filled, then emptied; what counts is the time until the
last thread is done. Streaming: another process sends whole frames as fast as it can.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchlib import ip, spread

TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE = 0x400454CA, 0x0002, 0x1000, 0x0100
UDP_SEGMENT = 103
FLOWS = 64
QUEUE = 10_000  # frames a queue holds
SIDES = {  # the TAP, threads
    "1 fd, 1 thread": ("one", 1),
    "1 fd, 2 threads": ("one", 2),
    "2 fds, 1 thread": ("two", 1),
    "2 fds, 2 threads": ("two", 2),
}


class Taps:
    """A TAP with one fd, and one with two; and senders of 64 flows to the host behind each."""

    def __init__(self, size: int) -> None:
        """Make them in this namespace."""
        cpus = sorted(os.sched_getaffinity(0))
        self.threads = [
            ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {cpu}))
            for cpu in (cpus[-1], cpus[0])
        ]
        self.fds = {"one": self.open("one", 0, 1), "two": self.open("two", IFF_MULTI_QUEUE, 2)}
        self.senders = {}
        for net, name in enumerate(self.fds):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
            ip("link", "set", name, "txqueuelen", str(QUEUE), "up")
            ip("address", "add", f"10.0.{net}.1/24", "dev", name)
            peer = ("lladdr", "02:00:00:00:00:02", "dev", name)
            ip("neigh", "replace", f"10.0.{net}.2", *peer)
            self.senders[name] = [self.sender(f"10.0.{net}.2", size) for _ in range(FLOWS)]
        for name in self.fds:
            self.read(name, 1)

    def open(self, name: str, flags: int, count: int) -> list[int]:
        """Open ``count`` fds of a TAP."""
        fds = []
        for _ in range(count):
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | flags)
            fcntl.ioctl(fd, TUNSETIFF, request)
            fds.append(fd)
        return fds

    def sender(self, to: str, size: int) -> socket.socket:
        """Open the sender of one flow."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        sock.setsockopt(socket.SOL_SOCKET, 32, 1 << 22)  # SO_SNDBUFFORCE
        sock.connect((to, 9))
        return sock

    def fill(self, name: str, size: int, frames: int) -> None:
        """Put frames into the queues of a TAP, each flow's in one piece or several."""
        each = frames // FLOWS
        for sender in self.senders[name]:
            left = each
            while left:
                part = min(left, max(1, min(64, 65000 // size)))
                sender.send(bytes(size * part))
                left -= part

    def read(self, name: str, threads: int, going: Callable[[], bool] | None = None) -> int:
        """Read until nothing is there, or, while ``going``, what comes; how many frames."""
        fds = self.fds[name]
        shares = [fds] if threads == 1 else [[fds[0]], [fds[-1]]]
        reading = [
            thread.submit(self.loop, share, going)
            for thread, share in zip(self.threads, shares, strict=False)
        ]
        return sum(each.result() for each in reading)

    def loop(self, fds: list[int], going: Callable[[], bool] | None) -> int:
        """Be one thread."""
        from netstack.testing._traffic import read_bare

        got = 0
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        while True:
            got += sum(read_bare(fd, 0)["packets"] for fd in fds)
            if going is None or not (going() or poll.poll(0)):
                return got
            poll.poll(20)

    def close(self) -> None:
        """Take everything down."""
        for thread in self.threads:
            thread.shutdown()
        for sender in [each for senders in self.senders.values() for each in senders]:
            sender.close()
        for fd in [fd for fds in self.fds.values() for fd in fds]:
            os.close(fd)


def drained(taps: Taps, side: str, size: int, frames: int) -> tuple[float, int]:
    """Fill and drain once: ns a frame, frames lost."""
    name, threads = SIDES[side]
    taps.fill(name, size, frames)
    start = time.perf_counter_ns()
    got = taps.read(name, threads)
    return (time.perf_counter_ns() - start) / got, frames // FLOWS * FLOWS - got


def streamed(taps: Taps, side: str, size: int, seconds: float) -> tuple[float, int]:
    """Take a stream: ns a frame, frames lost."""
    name, threads = SIDES[side]
    tool = os.path.join(os.path.dirname(__file__), "pktgen.py")
    to = f"10.0.{list(taps.fds).index(name)}.2"
    command = [sys.executable, tool, to, "--mode", "raw", "--dev", name, "--flows", str(FLOWS)]
    command += ["--size", str(size), "--seconds", str(seconds), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        got = taps.read(name, threads, lambda: process.poll() is None)
        (sent,) = json.load(process.stdout)  # type: ignore[arg-type]
    return sent["seconds"] * 1e9 / max(1, got), max(0, sent["packets"] - got)


def measure(sizes: list[int], rounds: int, frames: int, stream: float) -> list[dict[str, Any]]:
    """Let the sides take turns; a row a side and size."""
    rows = []
    for size in sizes:
        with contextlib.closing(Taps(size)) as taps:
            figures: dict[str, list[tuple[float, int]]] = {side: [] for side in SIDES}
            for turn in range(rounds + 1):
                for side, found in figures.items():
                    if stream:
                        result = streamed(taps, side, size, stream)
                    else:
                        result = drained(taps, side, size, frames)
                    if turn:  # the first warms up
                        found.append(result)
        first = statistics.median(ns for ns, _ in figures["1 fd, 1 thread"])
        for side, found in figures.items():
            ns = statistics.median(ns for ns, _ in found)
            rows.append(
                {
                    "size": size,
                    "side": side,
                    "ns": round(ns, 1),
                    "of_one": round(first / ns, 3),
                    "kpps": round(1e6 / ns),
                    "spread": round(spread([ns for ns, _ in found]), 3),
                    "lost": sum(lost for _, lost in found),
                }
            )
    return rows
