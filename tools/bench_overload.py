#!/usr/bin/env python3
"""Offer a host more than it can take: how much still arrives, and how soon it is back to normal.

    sudo .venv/bin/python tools/bench_overload.py                       # every side at 0.5 to 3 times its peak
    sudo .venv/bin/python tools/bench_overload.py --sides recvfrom slow --seconds 2 --repeat 5 --json
    sudo .venv/bin/python tools/bench_overload.py --picture overload.svg # with the extra `bench`; a .png as well

First the rate is raised until a side no longer keeps up. Then it is offered parts and multiples of what
arrived then, in turn, and last half of it right after the most; ``of peak`` is that of the best of these
medians. The host and its application share one core and the sender has another, whatever is offered (``--free``: they
go where the kernel puts them, and what the sender leaves of its core counts for the peak). Sides:

    recvfrom     recvfrom() in Python, the application polls the NIC itself
    slow         the same with the fast path off: every packet goes through the Python layers
    epoll        an epoll loop on fileno(), one recvfrom() a wake-up
    asyncio      Host.create_datagram_endpoint()
    echo         recvfrom() and sendto()

``cpu_ns`` is the CPU of the receiving process by what arrived, so it has in it what was spent on
what did not arrive. Sockets have Linux's default SO_RCVBUF. What one sender's core can't offer is left out. Runs in a
network namespace of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import picture
from benchlib import (
    HOST,
    NOTHING,
    PORT,
    by_asyncio,
    by_recvfrom,
    enter_namespace,
    our_socket,
    parser_for,
    print_json,
    print_machine,
    print_rows,
    quartiles,
    spread,
    tap,
    where,
)

SIDES = ["recvfrom", "slow", "epoll", "asyncio", "echo"]
FACTORS = [0.5, 1.0, 1.5, 2.0, 3.0]
CORES = os.sched_getaffinity(0)
RCVBUF = 212992 // 2  # twice that is the default
PKTGEN = str(Path(__file__).with_name("pktgen.py"))
FIRST, STEP, LAST = 40e3, 1.4, 20e6  # rates tried for the peak


def by_epoll(sock: Any, going: Callable[[], bool]) -> int:
    """Receive one datagram a wake-up, as event loops do."""
    sock.setblocking(False)
    poll, recvfrom, got = select.epoll(), sock.recvfrom, 0
    with poll:
        poll.register(sock.fileno(), select.EPOLLIN)
        while True:
            if poll.poll(0.1):
                with contextlib.suppress(*NOTHING):
                    recvfrom(2048)
                    got += 1
            elif not going():
                return got


def by_echo(sock: Any) -> int:
    """Send back until nothing comes."""
    recvfrom, sendto, got = sock.recvfrom, sock.sendto, 0
    with contextlib.suppress(*NOTHING):
        while True:
            data, peer = recvfrom(2048)
            sendto(data, peer)
            got += 1
    return got


def take(side: str, sock: Any, host: Any, going: Callable[[], bool]) -> int:
    """Take datagrams until the sender has ended and nothing more comes."""
    if side == "asyncio":
        return asyncio.run(by_asyncio(host.create_datagram_endpoint, sock, going))
    if side == "epoll":
        return by_epoll(sock, going)
    call, got = by_echo if side == "echo" else by_recvfrom, 0
    while going():
        got += call(sock)
    return got


class Run(NamedTuple):
    """What was offered and what arrived, a second, and ns of CPU for each that arrived."""

    offered: float
    arrived: float
    cpu_ns: float


class Side:
    """One way of receiving, on a host of its own for each run."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name, self.args = name, args

    def run(self, *rates: float) -> list[Run]:
        """Offer these rates one right after the other to one host."""
        tunables = {"fast_path": 0} if self.name == "slow" else {}
        out = []
        with tap(self.args.offload) as wire, our_socket(wire, **tunables) as (sock, host):
            for at, rate in enumerate(rates):
                if at:  # asyncio has closed its socket
                    sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
                with sock:
                    if at:
                        sock.bind((HOST, PORT))
                        sock.settimeout(0.2)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RCVBUF)
                    out.append(self.one(sock, host, rate))
        return out

    def one(self, sock: Any, host: Any, rate: float) -> Run:
        command = [sys.executable, PKTGEN, HOST, "--port", str(PORT), "--mode", "gso", "--json"]
        command += ["--rate", str(rate), "--seconds", str(self.args.seconds)]
        command += ["--size", str(self.args.size)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as sender:
            if not self.args.free:
                os.sched_setaffinity(sender.pid, {sorted(CORES)[-1]})
            before = time.process_time_ns()
            got = take(self.name, sock, host, lambda: sender.poll() is None)
            cpu = time.process_time_ns() - before
            sent = json.load(sender.stdout)[0]  # type: ignore[arg-type]
        seconds = sent["seconds"]
        return Run(sent["packets"] / seconds, got / seconds, cpu / max(1, got))

    def peak(self) -> float:
        """Raise the rate until the side no longer keeps up; the most that arrived."""
        best, rate = 0.0, FIRST
        while rate < LAST:
            offered, arrived, _ = self.run(rate)[0]
            best = max(best, arrived)
            if arrived < 0.8 * offered:
                break
            rate *= STEP
        return best


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Find the peaks, then run the factors in turn; a row a side and factor."""
    rows = []
    for side in (Side(name, args) for name in args.sides):
        peak = side.peak()
        runs: dict[float, list[Run]] = {factor: [] for factor in FACTORS}
        back = []
        for _ in range(args.repeat):
            for factor in FACTORS[:-1]:
                runs[factor].append(side.run(factor * peak)[0])
            most, after = side.run(FACTORS[-1] * peak, FACTORS[0] * peak)
            runs[FACTORS[-1]].append(most)
            back.append(after)
        runs = {**runs, 0.0: back}
        arrived = {
            f: statistics.median(run.arrived for run in all_) for f, all_ in runs.items()
        }
        # Of medians too: the search for the peak ran each rate once, and chooses the rates only.
        best = max(arrived.values())
        for factor, all_ in runs.items():
            offered = statistics.median(run.offered for run in all_)
            rows.append(
                {
                    "side": side.name,
                    "offered": f"{factor} x peak"
                    if factor
                    else f"{FACTORS[0]}, after the most",
                    "kpps": round(offered / 1e3, 1),
                    "arrived": round(arrived[factor] / 1e3, 1),
                    "of offered": round(arrived[factor] / offered, 3),
                    "of peak": round(arrived[factor] / best, 3),
                    "spread": round(spread([run.arrived for run in all_]), 3),
                    "cpu_ns": round(statistics.median(run.cpu_ns for run in all_), 1),
                    "quartiles": {
                        "arrived": quartiles([run.arrived / 1e3 for run in all_]),
                        "cpu_ns": quartiles([run.cpu_ns for run in all_]),
                    },
                }
            )
    return rows


def draw(path: Path, what: str, rows: list[dict[str, Any]]) -> None:
    """Draw what arrived of what was offered, and its cost; not what came after the most."""
    rows = [row for row in rows if row["offered"].endswith("peak")]
    it = picture.Picture(what, where(), 2, columns=2)
    units = ("offered, thousand a second", "thousand a second")
    it.curves(rows, "side", "kpps", "arrived", "what arrives", units, limit=True)
    units = (units[0], "ns of CPU for each that arrived")
    it.curves(rows, "side", "kpps", "cpu_ns", "what it costs", units)
    it.save(path)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = parser_for(__doc__)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE")
    parser.add_argument("--size", type=int, default=18, metavar="BYTES")
    parser.add_argument("--seconds", type=float, default=1, help="a run")
    parser.add_argument("--repeat", type=int, default=3, help="runs a side and factor")
    parser.add_argument(
        "--offload", action="store_true", help="the TAP hands the sender's messages over whole"
    )
    parser.add_argument("--free", action="store_true", help="let the kernel choose the cores")
    args = parser.parse_args(argv)
    if not enter_namespace("bench_overload"):
        return 2
    if not args.free:
        os.sched_setaffinity(0, {min(CORES)})
    start = time.monotonic()
    rows = measure(args)
    cores = "anywhere" if args.free else "on one core"
    what = (
        f"overload, {args.size} bytes, {cores}, {args.seconds:g} s a run, medians of {args.repeat} runs "
        f"in turn; thousands a second; {time.monotonic() - start:.0f} s in all"
    )
    if args.picture:
        draw(args.picture, what, rows)
    if args.json:
        print_json(overload=rows)
    else:
        print_machine(what)
        print_rows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
