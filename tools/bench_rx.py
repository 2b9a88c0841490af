#!/usr/bin/env python3
"""Drain a TAP with a bare compiled read loop and with netstack, in turn in one run.

    sudo tools/bench_rx.py                 # 18 and 1472 bytes, 40 rounds of 400 frames each
    sudo tools/bench_rx.py --rounds 100 --json
    sudo tools/bench_rx.py --stream 3      # also: 3 s of a streaming sender, rates and loss

Fill-then-drain is the quiet measure: the TAP's queue is filled with frames, then one side drains it
in this thread and its CPU time is taken; the sides take turns, so that what disturbs the machine
disturbs all of them. Each side does more than the one before it, so the differences say where the
time goes:

    bare         read() into one buffer, nothing else
    core         NIC, ring, interrupt, NAPI, GRO, device core; there IP drops it (OTHERHOST)
    queue        all of that, IP, UDP, into the socket's queue
    recvfrom     socket.recvfrom() of what stands in the queue, from Python: on top of `queue`

Runs in a network namespace of its own; nothing else on the machine is touched.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from typing import Any

CLONE_NEWNET = 0x40000000
UDP_SEGMENT = 103
HOST, PEER, OTHER, PORT = "10.0.0.2", "10.0.0.1", "10.0.0.9", 9000


@dataclass
class Side:
    """The costs of one side, ns of CPU a frame, one figure a round."""

    name: str
    ns: list[float] = field(default_factory=list)
    lost: int = 0

    @property
    def median(self) -> float:
        """Give the median of the rounds."""
        return statistics.median(self.ns)

    @property
    def spread(self) -> float:
        """Give the distance of the quartiles, as a part of the median."""
        quarters = statistics.quantiles(self.ns, n=4)
        return (quarters[2] - quarters[0]) / self.median


class Bench:
    """A TAP, the kernel's sender on it, and a host without threads behind it."""

    def __init__(self, ring: int) -> None:
        from netstack.device._tapwire import TapWire
        from netstack.device.tap import open_tap
        from netstack.host import Host

        self.tap = open_tap(
            "tap0", peer=IPv4Interface(f"{PEER}/24"), host=IPv4Interface(f"{HOST}/24")
        )
        self.host = Host(threads=False)
        # No interrupt throttle: a drain is measured from its first frame on.
        self.device = self.host.add_nic(
            TapWire(self.tap.fileno()), name="tap0", addr=f"{HOST}/24", ring=ring
        )
        self.device.nic.set_coalesce(0)
        self.receiver = self.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.receiver.bind((HOST, PORT))
        self.receiver.setblocking(False)
        # Frames for another machine get past the filter, and end right after the device core.
        self.device.nic.set_rx_mode(promisc=True)
        for address, mac in ((HOST, self.device.mac), (OTHER, "02:00:00:00:00:99")):
            command = ["ip", "neigh", "replace", address, "lladdr", mac, "dev", "tap0"]
            subprocess.run(command, check=True)

    def udp(self, size: int, to: str = HOST) -> socket.socket:
        """Open the sender of datagrams of ``size`` bytes."""
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        sender.bind((PEER, 0))
        sender.connect((to, PORT))
        return sender

    def fill(self, sender: socket.socket, size: int, frames: int) -> None:
        """Put ``frames`` datagrams into the TAP's queue."""
        while frames:
            part = min(frames, max(1, min(64, 65000 // size)))
            sender.send(bytes(size * part))
            frames -= part

    def drain_bare(self) -> dict[str, int]:
        """Read until the TAP is empty."""
        from netstack.testing._traffic import read_bare

        return read_bare(self.tap.fileno(), 0)

    def drain_netstack(self) -> dict[str, int]:
        """Be the CPU until the TAP is empty."""
        from netstack.testing._traffic import run_cpu

        return run_cpu(self.host.cpus[0].address)

    def drain_socket(self) -> tuple[int, int]:
        """Call recvfrom until the queue is empty: datagrams, ns of this thread."""
        recvfrom = self.receiver.recvfrom
        count = 0
        start = time.thread_time_ns()
        try:
            while True:
                recvfrom(2048)
                count += 1
        except BlockingIOError:
            return count, time.thread_time_ns() - start

    def round(self, sides: dict[str, Side], size: int, frames: int) -> None:
        """Let every side drain the same number of frames once."""
        sender, to_other = self.udp(size), self.udp(size, OTHER)
        try:
            self.fill(sender, size, frames)
            tally = self.drain_bare()
            sides["bare"].lost += frames - tally["packets"]
            sides["bare"].ns.append(tally["cpu_ns"] / max(1, tally["packets"]))
            self.fill(to_other, size, frames)
            tally = self.drain_netstack()
            sides["core"].lost += frames - tally["packets"]
            sides["core"].ns.append(tally["cpu_ns"] / max(1, tally["packets"]))
            self.fill(sender, size, frames)
            tally = self.drain_netstack()
            sides["queue"].ns.append(tally["cpu_ns"] / max(1, tally["packets"]))
            count, ns = self.drain_socket()
            sides["queue"].lost += frames - count
            sides["recvfrom"].ns.append(ns / max(1, count))
        finally:
            sender.close()
            to_other.close()

    def close(self) -> None:
        """Take everything down."""
        self.host.close()
        self.tap.close()


def stream(seconds: float, size: int, with_netstack: bool) -> dict[str, float]:
    """Let a sender in another process stream for ``seconds``; how much one receiver took."""
    from netstack.device._tapwire import TapWire
    from netstack.device.tap import open_tap
    from netstack.host import Host
    from netstack.testing._traffic import Stop, read_bare

    command = [
        *(sys.executable, os.path.join(os.path.dirname(__file__), "pktgen.py"), HOST),
        *("--port", str(PORT), "--mode", "gso", "--size", str(size)),
        *("--seconds", str(seconds), "--json"),
    ]
    with open_tap(
        "tap0", peer=IPv4Interface(f"{PEER}/24"), host=IPv4Interface(f"{HOST}/24")
    ) as tap:
        host = Host()
        device = host.add_nic(TapWire(tap.fileno()), name="tap0", addr=f"{HOST}/24")
        subprocess.run(
            ["ip", "neigh", "replace", HOST, "lladdr", device.mac, "dev", "tap0"], check=True
        )
        if not with_netstack:
            host.close()
        sender = subprocess.Popen(command, stdout=subprocess.PIPE)
        cpu = time.process_time_ns()
        if with_netstack:
            got = receive(host, sender)
            host.close()
        else:
            stop = Stop()
            watcher = threading.Thread(target=lambda: (sender.wait(), stop.set()))
            watcher.start()
            got = read_bare(tap.fileno(), 0, stop)["packets"]
            watcher.join()
        cpu = time.process_time_ns() - cpu
        sent = json.load(sender.stdout)[0]["packets"]  # type: ignore[arg-type]
    return {
        "rate": got / seconds,
        "loss": 1 - got / max(1, sent),
        "cpu_ns": cpu / max(1, got),
    }


def receive(host: Any, sender: subprocess.Popen[bytes]) -> int:
    """Call recvfrom in a loop until the sender has ended; how many datagrams came."""
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((HOST, PORT))
        sock.settimeout(0.2)
        recvfrom = sock.recvfrom
        got = 0
        while True:
            try:
                while True:
                    recvfrom(2048)
                    got += 1
            except TimeoutError:
                if sender.poll() is not None:
                    return got


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all sizes; a row a side."""
    rows: list[dict[str, Any]] = []
    bench = Bench(args.ring)
    try:
        for size in args.sizes:
            sides = {name: Side(name) for name in ("bare", "core", "queue", "recvfrom")}
            for _ in range(3):
                bench.round({name: Side(name) for name in sides}, size, args.frames)
            for _ in range(args.rounds):
                bench.round(sides, size, args.frames)
            bare = sides["bare"].median
            for side in sides.values():
                whole = side.median + (sides["queue"].median if side.name == "recvfrom" else 0)
                rows.append(
                    {
                        "size": size,
                        "side": side.name,
                        "ns": round(whole, 1),
                        "above_bare_ns": round(whole - bare, 1),
                        "of_bare": round(bare / whole, 3),
                        "kpps": round(1e6 / whole),
                        "spread": round(side.spread, 3),
                        "lost": side.lost,
                    }
                )
    finally:
        bench.close()
    return rows


def print_table(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print what was measured, for people."""
    print(
        f"fill {args.frames} frames, drain; medians of {args.rounds} rounds in turn; "
        f"ns of CPU a frame; {platform.node()}, Linux {platform.release()}, "
        f"{os.cpu_count()} CPUs, {time.strftime('%Y-%m-%d')}"
    )
    print(
        f"{'size':>5} {'side':<9} {'ns':>7} {'above bare':>11} {'of bare':>8} {'kpps':>6} {'spread':>7} {'lost':>5}"
    )
    for row in rows:
        print(
            f"{row['size']:>5} {row['side']:<9} {row['ns']:>7.1f} {row['above_bare_ns']:>11.1f} "
            f"{row['of_bare']:>8.2f} {row['kpps']:>6} {row['spread']:>7.1%} {row['lost']:>5}"
        )


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[18, 1472], metavar="BYTES")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--frames", type=int, default=400, help="a round; the TAP's queue holds 1000"
    )
    parser.add_argument("--ring", type=int, default=256, help="receive descriptors")
    parser.add_argument("--stream", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        print(
            "bench_rx: a network namespace needs root\ntry: sudo tools/bench_rx.py",
            file=sys.stderr,
        )
        return 2
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    rows = measure(args)
    streams = []
    for size in args.sizes if args.stream else []:
        for name in ("bare", "netstack"):
            result = stream(args.stream, size, name == "netstack")
            streams.append({"size": size, "side": name, **result})
    if args.json:
        print(json.dumps({"drain": rows, "stream": streams}))
        return 0
    print_table(rows, args)
    for row in streams:
        print(
            f"stream {row['size']:>5} B  {row['side']:<9} {row['rate'] / 1e3:>7.0f} kpps  "
            f"loss {row['loss']:.1%}  {row['cpu_ns']:.0f} ns of the process a frame"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
