#!/usr/bin/env python3
"""What do more queues and RPS give on two CPUs, where a packet is cheap and where it is dear?

    .venv/bin/python tools/bench_rps.py   # table: thousand frames a second, and how the CPUs shared them
    .venv/bin/python tools/bench_rps.py --rounds 20 --frames 4000
    .venv/bin/python tools/bench_rps.py --json
    .venv/bin/python tools/bench_rps.py --picture rps.svg   # with the extra `bench`; a .png as well

Frames of 64 flows stand in a wire in memory before the clock starts, and end in the queues of 64 sockets. Each CPU
that has work is a thread of its own that never sleeps, so what is measured is the path and what crosses between the
CPUs, not wake-ups. A dear packet is asked of 100 rules of netfilter that look at more than its flow. ``lost`` says how
many frames found no descriptor (a NIC of several queues drops then); those that arrived are what is counted.

Rows: one queue, two, four, RSS by addresses and ports; one queue with RPS to the CPU itself (what the backlog alone
costs), to the other one, to both. Rounds go in turn, and the median and the best are told; ``cpu_ns`` is what both
threads took of their CPUs for a frame. Needs no privilege. On a machine with less than two idle cores the figures mean
nothing.
"""

from __future__ import annotations

import os
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
# Of RSS: that of Microsoft's specification, so that the flows spread the same every time.
KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)
WORK = {"cheap": 0, "dear": 100}  # rules of netfilter that a packet is asked of
SIDES = {  # queues, rps_cpus of the first
    "1 queue": (1, "0"),
    "2 queues": (2, "0"),
    "4 queues": (4, "0"),
    "RPS to itself": (1, "1"),
    "RPS to the other": (1, "2"),
    "RPS to both": (1, "3"),
}


def flows() -> list[bytes]:
    """Give a datagram of each flow, each to a socket of its own."""
    ports = [1024 + i * 7919 % 50_000 for i in range(FLOWS)]
    return [udp_frame(18, sport=port, dport=PORT + i) for i, port in enumerate(ports)]


@dataclass
class Side:
    """One way to share the work: a host of two CPUs, and what was measured of it."""

    name: str
    queues: int
    mask: str
    rules: int
    frames: int
    rates: list[float] = field(default_factory=list)  # frames a second
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
        device = self.host.add_nic(
            ours, "tap0", addr=f"{HOST}/24", mac="02:00:00:00:00:02", ring=4096,
            queues=self.queues,
        )  # fmt: skip
        self.nic: Any = device.nic
        self.nic.set_coalesce(0)
        self.nic.set_rss(key=KEY, udp4=True)
        self.host.config["net.core.netdev_max_backlog"] = self.frames
        self.host.config["net.ipv4.udp_mem"] = (1 << 20, 1 << 20, 1 << 20)
        self.host.nft.add_rules(
            f"ip filter input udp length > 1000 udp dport {i + 1} drop"
            for i in range(self.rules)
        )
        sysfs.write(self.host, "class/net/tap0/queues/rx-0/rps_cpus", self.mask)
        self.sockets = [self.socket(PORT + i) for i in range(FLOWS)]

    def socket(self, port: int) -> Any:
        """Open a socket that holds a round."""
        sock = self.host.socket()
        sock.setsockopt(1, 33, 64 << 20)  # SO_RCVBUFFORCE
        sock.bind((HOST, port))
        sock.setblocking(False)
        return sock

    def processed(self) -> list[int]:
        """Give how many packets each CPU has passed through the device core."""
        return [row["processed"] for row in self.host.softnet()]

    def drops(self) -> int:
        """Count the frames that found no descriptor."""
        stats = self.nic.stats()
        return sum(stats[f"rx_queue_{i}_drops"] for i in range(self.queues))

    def round(self) -> None:
        """Fill the wire, let both CPUs empty it, and note how long that took."""
        frames = flows()
        for i in range(self.frames):
            self.wire.send(frames[i % FLOWS])
        before, lost = self.processed(), self.drops()
        goal = sum(before) + lost + self.frames
        cpus = 2 if self.queues > 1 or int(self.mask, 16) & 2 else 1  # an idle CPU would sleep
        threads = [threading.Thread(target=self.play, args=(n, goal)) for n in range(cpus)]
        start, cpu = time.perf_counter(), time.process_time_ns()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, cpu = time.perf_counter() - start, time.process_time_ns() - cpu
        now = self.processed()
        self.lost += self.drops() - lost
        self.share = (now[1] - before[1]) / (sum(now) - sum(before))
        got = sum(map(self.read, self.sockets))
        self.rates.append(got / seconds)
        self.cpu_ns.append(cpu / max(1, got))

    def read(self, sock: Any) -> int:
        """Read what has come."""
        got = 0
        try:
            while True:
                got += len(sock.recv_batch(1000))
        except BlockingIOError:
            return got

    def play(self, number: int, goal: int) -> None:
        """Be a CPU, on a core of its own, until every frame has been taken up or was lost."""
        cores = sorted(os.sched_getaffinity(os.getpid()))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
        cpu = self.host.cpus[number]
        before = -1
        while (done := sum(self.processed())) < goal:
            if done == before and done + self.drops() >= goal:
                return
            before = done
            cpu.run()

    def close(self) -> None:
        """Take everything down."""
        for sock in self.sockets:
            sock.close()
        self.host.close()

    def row(self, work: str, against: float) -> dict[str, Any]:
        """Give the line of the table."""
        median = statistics.median(self.rates)
        return {
            "work": work,
            "side": self.name,
            "kps": median / 1e3,
            "best": max(self.rates) / 1e3,
            "against": median / against,
            "on_cpu1": self.share,
            "spread": spread(self.rates),
            "cpu_ns": statistics.median(self.cpu_ns),
            "lost": self.lost,
            "quartiles": {
                "kps": quartiles([each / 1e3 for each in self.rates]),
                "cpu_ns": quartiles(self.cpu_ns),
            },
        }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = parser_for(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--frames", type=int, default=4000, help="of a round; 10000 at most")
    args = parser.parse_args(argv)
    if not 1 <= args.frames <= 10_000 or args.rounds < 1:
        parser.error("--frames 1 to 10000, and --rounds 1 or more")
    rows = []
    for work, rules in WORK.items():
        sides = [Side(name, *how, rules, args.frames) for name, how in SIDES.items()]
        for _ in range(args.rounds):
            for side in sides:
                side.round()
        against = statistics.median(sides[0].rates)
        rows += [side.row(work, against) for side in sides]
        for side in sides:
            side.close()
    what = f"{FLOWS} flows, 18 bytes each, two CPUs of a host"
    axes = ("kps", "thousand frames a second", True), ("cpu_ns", "ns of CPU a frame", False)
    report(args, what, "rps", rows, ["work"], *axes)
    if not args.json and (machine()["cpus"] or 1) < 2:
        print("this machine has one core: the host's two CPUs share it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
