#!/usr/bin/env python3
"""Receive from a TAP with a bare compiled read loop, with netstack and with a kernel socket, in turn.

    sudo .venv/bin/python tools/bench_rx.py                         # 18 and 1472 bytes, 40 rounds of 400 frames each
    sudo .venv/bin/python tools/bench_rx.py --stream 2 --repeat 5   # a streaming sender instead: rates and loss
    sudo .venv/bin/python tools/bench_rx.py --stream 2 --sides bare recvfrom kernel --json
    sudo .venv/bin/python tools/bench_rx.py --stream 2 --no-offload # every frame by itself
    sudo .venv/bin/python tools/bench_rx.py --multiqueue            # one fd of the TAP against two: multiqueue.py
    sudo .venv/bin/python tools/bench_rx.py --picture rx.svg        # with the extra `bench`; a .png as well

Fill-then-drain is the quiet measure: the TAP's queue is filled with frames, then one side drains it
in this thread and its CPU time is taken. Each side does more than the one before it, so the
differences say where the time goes:

    bare             read() into one buffer, nothing else
    bare-inline      the same without libc: the system call is an instruction in the loop
    core             NIC, ring, interrupt, NAPI, GRO, device core; there IP drops it (OTHERHOST)
    queue            all of that, IP, UDP, into the socket's queue
    recvfrom, recvfrom_into, recv_batch, recv_batch_into, asyncio
                     the calls of a Python program that take it off the queue: on top of `queue`

A stream comes from another process with UDP_SEGMENT. For `bare` the kernel splits it before the TAP;
netstack's TAP is as `netstack up` makes it, and hands messages over whole, as a veth does for the
kernel's socket. With --no-offload netstack reads single frames too.

    sink             is a compiled loop that takes datagrams off the socket and looks at none
    kernel, kernel-asyncio
                     are a kernel socket behind a veth, with recvfrom() and with asyncio's transport

The sides take turns, so that what disturbs the machine disturbs all of them. Runs in network
namespaces of its own; nothing else on the machine is touched.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import multiqueue
from benchlib import (
    CALLS,
    HOST,
    PEER,
    PORT,
    VETH_HOST,
    Counter,
    by_asyncio,
    enter_namespace,
    ip,
    kernel_socket,
    our_socket,
    parser_for,
    quartiles,
    report,
    spread,
    stop_after,
    tap,
)

UDP_SEGMENT = 103
OTHER = "10.0.0.9"
ASYNCIO_PORT = 9001
BARE = ("bare", "bare-inline")
ON_TOP = [*CALLS, "asyncio"]
DRAIN_SIDES = ["bare", "bare-inline", "core", "queue", *ON_TOP]
STREAM_SIDES = ["bare", "bare-inline", "sink", *CALLS, "asyncio", "kernel", "kernel-asyncio"]


# ---- fill, then drain


class Bench:
    """A TAP, the kernel's sender on it, and a host without threads behind it."""

    def __init__(self, ring: int) -> None:
        from netstack.device._tapwire import TapWire
        from netstack.host import Host

        self.wire = tap()
        self.tap = self.wire.__enter__()
        self.host = Host(threads=False)
        # No interrupt throttle: a drain is measured from its first frame on.
        self.device = self.host.add_nic(
            TapWire(self.tap.fileno()),
            name="tap0",
            addr=f"{HOST}/24",
            mac="02:00:00:00:00:02",
            ring=ring,
        )
        self.device.nic.set_coalesce(0)
        self.receiver, watched = self.socket(PORT), self.socket(ASYNCIO_PORT)
        self.loop = asyncio.new_event_loop()
        self.endpoint, self.counter = self.loop.run_until_complete(
            self.host.create_datagram_endpoint(Counter, sock=watched, loop=self.loop)
        )
        # Frames for another machine get past the filter, and end right after the device core.
        self.device.nic.set_rx_mode(promisc=True)
        ip("neigh", "replace", OTHER, "lladdr", "02:00:00:00:00:99", "dev", "tap0")

    def socket(self, port: int) -> Any:
        """Open a socket of the host, with room for a round."""
        sock = self.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((HOST, port))
        sock.setblocking(False)
        return sock

    def udp(self, size: int, to: str, port: int) -> socket.socket:
        """Open the sender of datagrams of ``size`` bytes."""
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
        sender.bind((PEER, 0))
        sender.connect((to, port))
        return sender

    def fill(self, sender: socket.socket, size: int, frames: int) -> None:
        """Put ``frames`` datagrams into the TAP's queue."""
        while frames:
            part = min(frames, max(1, min(64, 65000 // size)))
            sender.send(bytes(size * part))
            frames -= part

    def drain(self, side: str, n: int) -> tuple[int, float]:
        """Drain the TAP, or for a side on top of ``queue`` the queue: frames, ns of this thread."""
        from netstack.testing._traffic import read_bare, run_cpu

        if side in ON_TOP:
            start = time.thread_time_ns()
            if side == "asyncio":
                got = self.loop.run_until_complete(self.counted(n))
            else:
                got = CALLS[side](self.receiver)
            return got, time.thread_time_ns() - start
        if side in BARE:
            tally = read_bare(self.tap.fileno(), 0, inline=side == "bare-inline")
        else:
            tally = run_cpu(self.host.cpus[0].address)
        return tally["packets"], tally["cpu_ns"]

    async def counted(self, n: int) -> int:
        """Let the endpoint count ``n`` datagrams, or as many as a thousand turns of the loop bring."""
        self.counter.got = 0
        for _ in range(1000):
            await asyncio.sleep(0)
            if self.counter.got >= n:
                break
        return self.counter.got

    def round(
        self, sides: dict[str, list[float]], lost: dict[str, int], size: int, n: int
    ) -> None:
        """Let every side drain the same number of frames once."""
        for side in sides:
            to = OTHER if side == "core" else HOST
            with self.udp(size, to, ASYNCIO_PORT if side == "asyncio" else PORT) as sender:
                self.fill(sender, size, n)
            if side in ON_TOP:
                self.drain("queue", n)
            got, ns = self.drain(side, n)
            if side == "queue":
                got = CALLS["recv_batch"](self.receiver)
            lost[side] += n - got
            sides[side].append(ns / max(1, got))

    def close(self) -> None:
        """Take everything down."""
        self.endpoint.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        self.host.close()
        self.receiver.close()
        self.wire.__exit__(None, None, None)


def drains(args: argparse.Namespace, names: list[str]) -> list[dict[str, Any]]:
    """Run all sizes; a row a side."""
    rows: list[dict[str, Any]] = []
    needed = list(dict.fromkeys(["bare", "queue", *names]))
    bench = Bench(args.ring)
    try:
        for size in args.sizes:
            for warm in (True, False):
                sides: dict[str, list[float]] = {name: [] for name in needed}
                lost = dict.fromkeys(needed, 0)
                for _ in range(3 if warm else args.rounds):
                    bench.round(sides, lost, size, args.frames)
            bare, queue = (statistics.median(sides[name]) for name in ("bare", "queue"))
            for name in names:
                all_ns = [ns + (queue if name in ON_TOP else 0) for ns in sides[name]]
                ns = statistics.median(all_ns)
                rows.append(
                    {
                        "size": size,
                        "side": name,
                        "ns": round(ns, 1),
                        "above_bare_ns": round(ns - bare, 1),
                        "of_bare": round(bare / ns, 3),
                        "kpps": round(1e6 / ns),
                        "spread": round(spread(sides[name]), 3),
                        "lost": lost[name],
                        "quartiles": {
                            "ns": quartiles(all_ns),
                            "kpps": quartiles([1e6 / ns for ns in all_ns]),
                        },
                    }
                )
    finally:
        bench.close()
    return rows


# ---- a stream


def start_sender(to: str, size: int, seconds: float) -> subprocess.Popen[bytes]:
    """Start a sender in another process."""
    tool = os.path.join(os.path.dirname(__file__), "pktgen.py")
    command = [sys.executable, tool, to, "--port", str(PORT), "--mode", "gso", "--json"]
    command += ["--size", str(size), "--seconds", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def until_silent(call: Callable[[Any], int], sock: Any, going: Callable[[], bool]) -> int:
    """Call a receiver until the sender has ended and nothing comes."""
    got = call(sock)
    while going():
        got += call(sock)
    return got


def stream_received(
    side: str, sender: Callable[[], subprocess.Popen[bytes]], offload: bool
) -> tuple[int, float, Any]:
    """Let one side take a stream: how many, ns of CPU of this process, the sender."""
    from netstack.testing._traffic import read_bare, read_socket

    process: subprocess.Popen[bytes]

    def going() -> bool:
        return process.poll() is None

    if side in BARE:
        inline = side == "bare-inline"
        with tap() as wire:
            process, start = sender(), time.process_time_ns()
            with stop_after(process) as stop:
                got = read_bare(wire.fileno(), 0, stop, inline=inline)["packets"]
            return got, time.process_time_ns() - start, process
    if side.startswith("kernel"):
        with kernel_socket() as sock:
            process, start = sender(), time.process_time_ns()
            if side == "kernel":
                got = until_silent(CALLS["recvfrom"], sock, going)
            else:

                async def main() -> int:
                    make = asyncio.get_running_loop().create_datagram_endpoint
                    return await by_asyncio(make, sock, going)

                got = asyncio.run(main())
            return got, time.process_time_ns() - start, process
    with tap(offload) as wire, our_socket(wire) as (sock, host):
        process, start = sender(), time.process_time_ns()
        if side == "sink":
            with stop_after(process) as stop:
                got = read_socket(sock, stop)["packets"]
        elif side == "asyncio":
            got = asyncio.run(by_asyncio(host.create_datagram_endpoint, sock, going))
        else:
            got = until_silent(CALLS[side], sock, going)
        return got, time.process_time_ns() - start, process


def streams(args: argparse.Namespace, names: list[str]) -> list[dict[str, Any]]:
    """Let the sides take a stream in turn, several times; a row a side."""
    rows = []
    for size in args.sizes:
        rates: dict[str, list[float]] = {name: [] for name in names}
        costs: dict[str, list[float]] = {name: [] for name in names}
        losses: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(args.repeat):
            for name in names:
                to = VETH_HOST if name.startswith("kernel") else HOST
                got, cpu, process = stream_received(
                    name,
                    lambda to=to, size=size: start_sender(to, size, args.stream),
                    args.offload,
                )
                with process:
                    (sent,) = json.load(process.stdout)
                rates[name].append(got / sent["seconds"] / 1e3)
                costs[name].append(cpu / max(1, got))
                losses[name].append(1 - got / max(1, sent["packets"]))
        first = statistics.median(rates[names[0]])
        for name in names:
            rate = statistics.median(rates[name])
            rows.append(
                {
                    "size": size,
                    "side": name,
                    "kpps": round(rate),
                    f"of_{names[0]}": round(rate / first, 3),
                    "spread": round(spread(rates[name]), 3),
                    "cpu_ns": round(statistics.median(costs[name]), 1),
                    "lost": round(statistics.median(losses[name]), 3),
                    "quartiles": {
                        "kpps": quartiles(rates[name]),
                        "cpu_ns": quartiles(costs[name]),
                    },
                }
            )
    return rows


def by_queues(args: argparse.Namespace) -> int:
    """Measure multiqueue.py's sides and print."""
    if not enter_namespace("bench_rx"):
        return 2
    rounds = args.repeat if args.stream else args.rounds
    frames = min(8000, args.frames * 20)
    rows = multiqueue.measure(args.sizes, rounds, frames, args.stream)
    what = f"fill {frames} frames, drain"
    if args.stream:
        what = f"a stream of {args.stream:g} s a side"
    what += f"; medians of {rounds} in turn; ns of wall time a frame"
    report(args, what, "multiqueue", rows, ["size"], ("ns", "ns of wall time a frame", False))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = parser_for(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[18, 1472], metavar="BYTES")
    parser.add_argument(
        "--sides",
        nargs="+",
        metavar="SIDE",
        help="which; the first of a stream is the yardstick",
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--frames", type=int, default=400, help="a round; the TAP's queue holds 1000"
    )
    parser.add_argument("--ring", type=int, default=256, help="receive descriptors")
    parser.add_argument("--stream", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--repeat", type=int, default=5, help="streams a side")
    parser.add_argument(
        "--offload",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="of a stream: netstack's TAP hands the sender's messages over whole, as `netstack up` has it (on)",
    )
    parser.add_argument("--multiqueue", action="store_true", help="one fd against two")
    args = parser.parse_args(argv)
    if args.multiqueue:
        return by_queues(args)
    known = STREAM_SIDES if args.stream else DRAIN_SIDES
    names = args.sides or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"--sides {' '.join(unknown)}: choose from {' '.join(known)}")
    if not enter_namespace("bench_rx"):
        return 2
    rows = streams(args, names) if args.stream else drains(args, names)
    cpu, rate = "ns of CPU a frame", "thousand frames a second"
    if args.stream:
        what = (
            f"a stream of {args.stream:g} s a side, medians of {args.repeat} in turn; "
            "ns of CPU of the receiving process a frame"
        )
        axes = ("kpps", rate, True), ("cpu_ns", cpu, False)
        report(args, what, "stream", rows, ["size"], *axes)
    else:
        what = (
            f"fill {args.frames} frames, drain; medians of {args.rounds} rounds in turn; "
            "ns of CPU a frame"
        )
        axes = ("ns", cpu, False), ("kpps", f"{rate} of CPU", True)
        report(args, what, "drain", rows, ["size"], *axes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
