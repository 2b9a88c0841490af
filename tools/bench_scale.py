#!/usr/bin/env python3
"""Does a frame cost more when there is more: sockets, flows, routes, rules, ...? And what does memory cost?

    .venv/bin/python tools/bench_scale.py                   # table: each range, instructions and ns a frame, growth
    .venv/bin/python tools/bench_scale.py --memory          # resident memory of a socket, and of a host of default size
    .venv/bin/python tools/bench_scale.py --json

Frames come over a wire in memory (see bench_stages.py), 18 bytes of payload, all the way into a
socket's queue. Growth is that of the path's own instructions against the first row of its range;
ns are medians of rounds in turn, with the sender's part in them, and noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_stages import Road, count_instructions, measure_ns, ours, udp_frame

SOCKETS = (1, 100, 10_000, 60_000)
FLOWS = (1, 100, 10_000)
RINGS = (64, 256, 1024, 4096)
BUDGETS = (10, 300)
ROUTES = (0, 100, 100_000)
RULES = (0, 1, 1000)
GROUPS = (0, 100, 1000)


def flows(count: int) -> list[bytes]:
    """Give a datagram of each of ``count`` flows of many peers, in no order that a cache could use."""
    return [
        udp_frame(18, sport=1024 + i * 7919 % 50000, source=f"10.0.0.{3 + i * 101 % 250}")
        for i in range(count)
    ]


def ranges(sockets: Sequence[int] = SOCKETS) -> dict[str, list[Road]]:
    """Give the roads of each range, the one to compare with first."""
    one = [udp_frame(18)]
    return {
        "sockets": [Road(f"sockets {n}", one, sockets=n) for n in sockets],
        "flows": [
            Road(f"flows {n}", flows(n), count=10_000 if n > 2048 else 2000) for n in FLOWS
        ],
        "ring": [Road(f"ring {n}", one, ring=n) for n in RINGS],
        "routes": [Road(f"routes {n}", flows(1000), routes=n) for n in ROUTES],
        "rules": [Road(f"rules {n}", one, rules=n) for n in RULES[1:]],
        "groups": [Road(f"groups {n}", one, groups=n) for n in GROUPS],
        "budget": [Road(f"budget {n}", one, budget=n) for n in reversed(BUDGETS)],
    }


# ---- memory

RESIDENT = """
import sys, socket
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
import netstack.host, netstack.socket, netstack.device._memory
before = resident()
host = netstack.host.Host()
ours, far = netstack.device._memory.MemoryWire.pair(1000)
host.add_nic(ours, "tap0", addr="10.0.0.2/24")
with_host = resident()
sockets = []
count = int(sys.argv[1])
for port in range(1024, 1024 + count):
    sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", port))
    sockets.append(sock)
with_sockets = resident()
import os
print(with_host - before, (with_sockets - with_host) / max(1, count), len(os.listdir("/proc/self/fd")))
"""


def memory(sockets: int = 60_000) -> dict[str, float]:
    """Measure in a fresh process: bytes of a host, bytes of an idle bound socket, open files."""
    import netstack

    path = str(Path(netstack.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(sockets)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    host, each, files = done.stdout.split()
    return {"host": float(host), "socket": float(each), "files": float(files)}


# ---- the tool


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="of nanoseconds; 0 for none")
    parser.add_argument("--memory", action="store_true", help="memory only")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    where = (
        f"{platform.node()}, Linux {platform.release()}, {os.cpu_count()} CPUs, "
        f"{time.strftime('%Y-%m-%d')}"
    )
    if args.memory:
        figures = memory()
        if args.json:
            print(json.dumps(figures))
        else:
            print(f"resident memory; {where}")
            print(
                f"a host of default size with a NIC, above its imports: {figures['host'] / 2**20:.1f} MiB"
            )
            print(f"an idle bound socket, of 60,000: {figures['socket']:.0f} bytes")
            print(f"open files then: {figures['files']:.0f}")
        return 0
    rows = []
    for name, roads in ranges().items():
        counts = count_instructions(roads) if shutil.which("valgrind") else {}
        ns = measure_ns(roads, args.rounds) if args.rounds else {}
        first = roads[0].name
        for road in roads:
            row: dict[str, object] = {"range": name, "road": road.name}
            if counts:
                row["instructions"] = round(ours(counts[road.name]), 1)
                row["growth"] = round(ours(counts[road.name]) / ours(counts[first]) - 1, 3)
            if ns:
                row |= {name: ns[road.name][name] for name in ("ns", "spread")}
                row["ns_growth"] = round(ns[road.name]["ns"] / ns[first]["ns"] - 1, 3)
            rows.append(row)
    if args.json:
        print(json.dumps(rows))
        return 0
    print(f"a frame of 18 bytes into a socket's queue; {where}")
    print(
        f"{'road':<14} {'instructions':>12} {'growth':>7} {'ns':>7} {'growth':>7} {'spread':>7}"
    )
    for row in rows:
        print(f"{row['road']:<14} {row.get('instructions', ''):>12}", end="")
        print(f" {row['growth']:>7.1%}" if "growth" in row else f" {'':>7}", end="")
        if "ns" in row:
            print(f" {row['ns']:>7} {row['ns_growth']:>7.1%} {row['spread']:>7.1%}", end="")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
