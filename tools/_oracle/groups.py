"""Memberships over time, the kernel's and netstack's: what was reported after each step, and what the texts say then.

A step joins, leaves, hears a message, or lets time pass. Reports leave after random delays, so what is compared is
which there were when time has passed, not when each left.
"""

from __future__ import annotations

import contextlib
import re
import socket as stdlib
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netstack import lab, procfs
from tests.proto import igmp_frames as f
from tests.proto.stack import ADDR
from tools._oracle.kernel import NAME, Kernel
from tools._oracle.ours import Ours

IP = stdlib.IPPROTO_IP
JOIN, LEAVE, UNBLOCK, BLOCK, ADD, DROP, FILTER = range(35, 42)
SETTINGS = {
    f"net.ipv4.conf.{NAME}.igmpv2_unsolicited_report_interval": 20,
    f"net.ipv4.conf.{NAME}.igmpv3_unsolicited_report_interval": 20,
}
S1, S2 = "10.1.0.1", "10.1.0.2"
WAIT = 0.2  # seconds until all reports of a step have left
A, B = f.GROUP, f.OTHER

Step = tuple[Any, ...]


def opt(place: int, name: int, *addresses: str) -> Step:
    """Set an option of a socket to a group, our address, and perhaps a source."""
    group, *rest = addresses
    return "opt", place, name, b"".join(map(stdlib.inet_aton, (group, ADDR, *rest)))


def msfilter(place: int, group: str, mode: int, *sources: str) -> Step:
    """Replace a socket's filter."""
    value = (
        stdlib.inet_aton(group)
        + stdlib.inet_aton(ADDR)
        + struct.pack("=II", mode, len(sources))
    )
    return "opt", place, FILTER, value + b"".join(map(stdlib.inet_aton, sources))


def put(*frames: bytes) -> Step:
    """Hear messages."""
    return "put", frames


def sysctl(key: str, value: int) -> Step:
    """Set a tunable."""
    return "sysctl", key, value


V2, V1 = f.query(2, code=1), f.query(1)
SCENARIOS: dict[str, list[Step]] = {
    "join and leave": [opt(0, JOIN, A), opt(0, LEAVE, A)],
    "two sockets": [opt(0, JOIN, A), opt(1, JOIN, A), opt(0, LEAVE, A), ("close", 1)],
    "two groups at once": [(*opt(0, JOIN, A), opt(0, JOIN, B)), ("close", 0)],
    "a neighbour group": [opt(0, JOIN, f.LOCAL), ("close", 0)],
    "a neighbour group that is not reported": [
        sysctl("net.ipv4.igmp_link_local_mcast_reports", 0), opt(0, JOIN, f.LOCAL), ("close", 0)],
    "all hosts": [opt(0, JOIN, f.ALL_HOSTS), ("close", 0)],
    "qrv 3": [sysctl("net.ipv4.igmp_qrv", 3), opt(0, JOIN, A), put(f.query(3, B, qrv=3)), opt(0, JOIN, B),
              ("close", 0)],
    "left and joined again": [opt(0, JOIN, A), (*opt(0, LEAVE, A), opt(0, JOIN, A))],
    "sources": [opt(0, ADD, A, S1), opt(0, ADD, A, S2), opt(0, DROP, A, S1), opt(0, DROP, A, S2)],
    "sources of two sockets": [opt(0, ADD, A, S1), opt(1, ADD, A, S2), opt(1, ADD, A, S1), ("close", 0),
                               ("close", 1)],
    "include, then exclude": [opt(0, ADD, A, S1), opt(1, JOIN, A), opt(1, BLOCK, A, S2), opt(1, BLOCK, A, S1),
                              ("close", 1), ("close", 0)],
    "exclude of two sockets": [opt(0, JOIN, A), opt(0, BLOCK, A, S1), opt(1, JOIN, A), opt(1, BLOCK, A, S1),
                               opt(0, UNBLOCK, A, S1), ("close", 0), ("close", 1)],
    "filters": [opt(0, JOIN, A), msfilter(0, A, 1, S1, S2), msfilter(0, A, 0, S2), msfilter(0, A, 0),
                msfilter(0, A, 1, S1), msfilter(0, A, 1)],
    "queries": [(*opt(0, JOIN, A), opt(0, JOIN, B), opt(0, ADD, "239.7.7.7", S1)), put(f.query(3, code=1)),
                put(f.query(3, A, code=1)), put(f.query(3, "239.7.7.7", code=1, sources=(S1, S2))),
                put(f.query(3, "239.7.7.7", code=1, sources=(S2,))), put(f.query(3, A, code=1, sources=(S2,))),
                put(f.query(3, code=1), f.query(3, A, code=1))],
    "version 2": [opt(0, JOIN, A), put(V2), opt(0, JOIN, B), opt(0, LEAVE, A), put(f.query(2, B, code=1)),
                  put(f.query(2, B, code=1), f.report(B)), opt(0, LEAVE, B), opt(1, ADD, A, S1), ("close", 1)],
    "version 2, then a version 3 query": [put(V2), opt(0, JOIN, A), put(f.query(3, code=1)), ("close", 0)],
    "version 1": [put(V1), opt(0, JOIN, A), opt(0, LEAVE, A), put(f.query(3, code=1)), put(V2)],
    "forced version 2": [sysctl(f"net.ipv4.conf.{NAME}.force_igmp_version", 2), opt(0, JOIN, A), ("close", 0)],
    "forced version 1": [sysctl("net.ipv4.conf.all.force_igmp_version", 1), opt(0, JOIN, A), ("close", 0)],
    "a leave interrupted by version 2": [opt(0, JOIN, A), (*opt(0, LEAVE, A), put(V2)), opt(0, JOIN, B)],
}  # fmt: skip


class Theirs:
    """The kernel's side."""

    def __init__(self) -> None:
        self.host = Kernel()
        self.sockets = [stdlib.socket(stdlib.AF_INET, stdlib.SOCK_DGRAM) for _ in range(2)]
        self.put, self.counters = self.host.put, self.host.counters
        self.sysctl = self.host.sysctl
        self.sent: list[bytes] = []

    def wait(self, seconds: float) -> list[bytes]:
        """Let time pass; give what was sent."""
        time.sleep(seconds)
        return self.host.take()

    def text(self, name: str) -> str:
        """Give a file below /proc/net."""
        return Path("/proc/thread-self/net", name).read_text()

    def close(self) -> None:
        """Close everything."""
        for sock in self.sockets:
            sock.close()
        self.host.close()


class Mine:
    """Ours."""

    def __init__(self, fast: bool) -> None:
        self.host = Ours(fast)
        self.sockets = [self.host.it.socket() for _ in range(2)]
        self.counters = self.host.counters

    def put(self, frame: bytes) -> list[bytes]:
        """Hear a message."""
        return self.host.put(frame)

    def sysctl(self, key: str, value: int) -> None:
        """Set a tunable."""
        self.host.it.host.config[key] = value

    def wait(self, seconds: float) -> list[bytes]:
        """Let time pass, timer by timer; give what was sent."""
        host = self.host.it.host
        end = host.now() + int(seconds * 1e9)
        out = self.host.it.sent()
        while (due := host.kworker.next_deadline()) and due <= end:
            out += self.host.it.advance(max(0, due - host.now()) / 1e9)
        return out + self.host.it.advance((end - host.now()) / 1e9)

    def text(self, name: str) -> str:
        """Give a file below /proc/net."""
        return procfs.read(self.host.it.host, f"net/{name}")

    def close(self) -> None:
        """Close everything."""
        self.host.close()


def do(side: Any, step: Step) -> list[Any]:
    """Take a step, and those that follow it at once: the errno of each."""
    done: list[Any] = []
    kind, *args = step
    more = [one for one in args if isinstance(one, tuple) and one and one[0] in ("opt", "put")]
    if kind == "opt":
        try:
            side.sockets[args[0]].setsockopt(IP, args[1], args[2])
            done.append(0)
        except OSError as error:
            done.append(error.errno)
    elif kind == "close":
        side.sockets[args[0]].close()
    elif kind == "put":
        for frame in args[0]:
            done += [side.put(frame)]
    else:
        side.sysctl(*args)
    for one in more:
        done += do(side, one)
    return done


def texts(side: Any) -> list[str]:
    """Give the texts, without times, and without lo and IPv6."""
    igmp = re.sub(r"(\d):[0-9A-F]{8}", r"\1", side.text("igmp")).replace("\t", " ")
    igmp = igmp[igmp.find(NAME) :]
    rows = [
        row.split()[1:]
        for name in ("mcfilter", "dev_mcast")
        for row in side.text(name).splitlines()
    ]
    return [
        igmp,
        *sorted(
            " ".join(row)
            for row in rows
            if row and row[0] == NAME and not row[-1].startswith("3333")
        ),
    ]


def play(side: Any, steps: list[Step]) -> list[Any]:
    """Take all steps: what each was answered with, what was reported, what the texts say, what was counted."""
    for key, value in SETTINGS.items():
        side.sysctl(key, value)
    side.wait(0.02)
    out = []
    for step in steps:
        before = side.counters()
        done = do(side, step)
        sent = sorted(
            map(f.read, (x for x in side.wait(WAIT) if x[12:14] == b"\x08\x00")), key=str
        )
        after = side.counters()
        moved = {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}
        out.append((step[:3], done, sent, texts(side), moved))
    return out


def ask(name: str, fast: bool) -> tuple[list[Any], list[Any]]:
    """Play a scenario here and there."""
    mine = Mine(fast)
    with contextlib.closing(mine):
        ours = play(mine, SCENARIOS[name])
    with lab.another_network():
        kernel = Theirs()
        with contextlib.closing(kernel):
            theirs = play(kernel, SCENARIOS[name])
    return ours, theirs


def report(tell: Callable[[str], object] = print) -> int:
    """Play all of them, and tell the differences; how many differ."""
    differ = 0
    for name in SCENARIOS:
        for fast in (True, False):
            ours, theirs = ask(name, fast)
            for mine, kernels in zip(ours, theirs, strict=True):
                if mine != kernels:
                    differ += 1
                    tell(f"{name}, {'fast' if fast else 'python'} road, {mine[0]}")
                    tell(f"    netstack {mine[1:]}")
                    tell(f"    kernel   {kernels[1:]}")
    tell(f"{len(SCENARIOS)} scenarios of memberships, {differ} steps differ")
    return differ
