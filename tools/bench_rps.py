#!/usr/bin/env python3
"""What do more queues and RPS give on two CPUs, where a packet is cheap and where it is dear?

    .venv/bin/python tools/bench_rps.py   # table: thousand frames a second, and how the CPUs shared them
    .venv/bin/python tools/bench_rps.py --rounds 20 --frames 8000
    .venv/bin/python tools/bench_rps.py --json
    .venv/bin/python tools/bench_rps.py --picture rps.svg   # with the extra `bench`; a .png as well

Frames of 64 flows stand in a wire in memory before the clock starts, and end in a socket's queue. Each CPU of the
host is a thread of its own that never sleeps, so what is measured is the path and what crosses between the CPUs,
not wake-ups. A dear packet passes rules of netfilter on its way. No frame may be lost; the backlog holds them all.
``lost`` says how many were.

Rows: no RPS; RPS to the CPU itself (what the backlog alone costs), to the other one, to both. Rounds go in turn, and
the median is told; ``cpu_ns`` is what both threads took of their CPUs for a frame, and neither ever sleeps. Needs no
privilege. On a machine with less than two idle cores the figures mean nothing.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_stages import udp_frame
from benchlib import HOST, PORT, machine, parser_for, quartiles, report, spread

FLOWS = 64
WORK = {"cheap": 0, "dear": 100}  # rules of netfilter that a packet passes
SIDES = {"no RPS": "0", "RPS to itself": "1", "RPS to the other": "2", "RPS to both": "3"}


def flows() -> list[bytes]:
    """Give a datagram of each flow."""
    return [udp_frame(18, sport=5000 + i) for i in range(FLOWS)]


@dataclass
class Side:
    """One way to share the work: a host of two CPUs, and what was measured of it."""

    name: str
    mask: str
    rules: int
    frames: int
    seconds: list[float] = field(default_factory=list)
    cpu_ns: list[float] = field(default_factory=list)
    share: float = 0.0
    lost: int = 0

    def __post_init__(self) -> None:
        """Make the host."""
        from netstack import sysfs
        from netstack.device._memory import MemoryWire
        from netstack.host import Host

        ours, self.wire = MemoryWire.pair(self.frames)
        self.host = Host(threads=False, cpus=2)
        self.host.add_nic(ours, "tap0", addr=f"{HOST}/24", mac="02:00:00:00:00:02", ring=4096)
        self.host.config["net.core.netdev_max_backlog"] = self.frames
        self.host.config["net.ipv4.udp_mem"] = (1 << 20, 1 << 20, 1 << 20)
        for i in range(self.rules):
            self.host.nft.command(f"add rule ip filter input udp dport {i + 1} drop")
        sysfs.write(self.host, "class/net/tap0/queues/rx-0/rps_cpus", self.mask)
        self.sock = self.host.socket()
        self.sock.setsockopt(1, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.sock.bind((HOST, PORT))
        self.sock.setblocking(False)

    def processed(self) -> list[int]:
        """Give how many packets each CPU has passed through the device core."""
        return [row["processed"] for row in self.host.softnet()]

    def round(self) -> None:
        """Fill the wire, let both CPUs empty it, and note how long that took."""
        frames = flows()
        for i in range(self.frames):
            self.wire.send(frames[i % FLOWS])
        before = self.processed()
        goal = sum(before) + self.frames
        threads = [threading.Thread(target=self.play, args=(n, goal)) for n in range(2)]
        start, cpu = time.perf_counter(), time.process_time_ns()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds.append(time.perf_counter() - start)
        self.cpu_ns.append((time.process_time_ns() - cpu) / self.frames)
        now = self.processed()
        self.share = (now[1] - before[1]) / self.frames
        got = 0
        while batch := self.batch():
            got += batch
        self.lost += self.frames - got

    def batch(self) -> int:
        """Read some of what has come."""
        try:
            return len(self.sock.recv_batch(1000))
        except BlockingIOError:
            return 0

    def play(self, number: int, goal: int) -> None:
        """Be a CPU until all is done, or nothing has been for a second: a frame was lost."""
        cpu, late = self.host.cpus[number], time.monotonic() + 1
        while sum(self.processed()) < goal and time.monotonic() < late:
            cpu.run()

    def row(self, work: str, against: float) -> dict[str, Any]:
        """Give the line of the table."""
        median = statistics.median(self.seconds)
        return {
            "work": work,
            "side": self.name,
            "kps": self.frames / median / 1e3,
            "against": against / median,
            "on_cpu1": self.share,
            "spread": spread(self.seconds),
            "cpu_ns": statistics.median(self.cpu_ns),
            "lost": self.lost,
            "quartiles": {
                "kps": quartiles([self.frames / each / 1e3 for each in self.seconds]),
                "cpu_ns": quartiles(self.cpu_ns),
            },
        }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = parser_for(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--frames", type=int, default=8000, help="of a round; 10000 at most")
    args = parser.parse_args(argv)
    if not 1 <= args.frames <= 10_000 or args.rounds < 1:
        parser.error("--frames 1 to 10000, and --rounds 1 or more")
    rows = []
    for work, rules in WORK.items():
        sides = [Side(name, mask, rules, args.frames) for name, mask in SIDES.items()]
        for _ in range(args.rounds):
            for side in sides:
                side.round()
        against = statistics.median(sides[0].seconds)
        rows += [side.row(work, against) for side in sides]
        for side in sides:
            side.host.close()
    what = f"{FLOWS} flows, 18 bytes each, two CPUs of a host"
    axes = ("kps", "thousand frames a second", True), ("cpu_ns", "ns of CPU a frame", False)
    report(args, what, "rps", rows, ["work"], *axes)
    if not args.json and (machine()["cpus"] or 1) < 2:
        print("this machine has one core: the host's two CPUs share it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
