#!/usr/bin/env python3
"""What GRO costs and what it gives, here and in the kernel: ns and instructions a frame, frames a packet.

    sudo .venv/bin/python tools/bench_gro.py                          # 1, 8 and 64 flows of 1472 bytes, 20 rounds
    sudo .venv/bin/python tools/bench_gro.py --flows 1 --size 18 --rounds 60
    sudo .venv/bin/python tools/bench_gro.py --sides netstack --json  # needs no root
    sudo .venv/bin/python tools/bench_gro.py --picture gro.svg        # with the extra `bench`; a .png as well

Flows send a frame each in turn. Each line is one kind of frames, with GRO off and on:

    udp        datagrams to a socket that did not ask for UDP_GRO: looked at, and not merged
    udp-gro    datagrams to a socket with UDP_GRO, which gets them merged
    udp-list   the same for a socket that did not ask, with rx-gro-list: kept as a list, split for the socket
    tcp        segments for another machine; the path ends after GRO and the device core (no socket takes TCP here)

Sides, each compared with itself, since what a frame costs before GRO differs:

    netstack   a wire in memory, NIC, GRO, up to the socket's queue; the sender's part is in the ns. A poll takes 64
               frames, and what is held is flushed after each, as by Linux with HZ=250
    kernel     write() into a TAP opened with IFF_NAPI, up to the socket's queue: a poll takes one frame, and
               gro_flush_timeout lets it hold packets from poll to poll. A virtio header says that checksums need
               no look, as a NIC does

All cells take turns within one run. ns are CPU of the one thread. Instructions are counted by callgrind: all of
netstack's own, and what the stage napi has more with GRO on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import struct
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import picture
from bench_stages import (
    HOST,
    HOST_MAC,
    NETIF_F_GRO,
    NETIF_F_GRO_FRAGLIST,
    OTHER_MAC,
    PEER,
    PORT,
    Machine,
    Road,
    count_instructions,
    ours,
)
from benchlib import (
    enter_namespace,
    ip,
    parser_for,
    print_json,
    print_machine,
    print_rows,
    quartiles,
    spread,
    where,
)

KINDS = ("udp", "udp-gro", "udp-list", "tcp")
SIDES = ("netstack", "kernel")
BURST, BURSTS = 256, 8  # frames that come at once; how often they do in a turn
GROUPS = ("off", "on")
NEEDS_CSUM, UDP_CHECK, TCP_CHECK = 1, 6, 16  # virtio_net_hdr.flags; where the checksum is
Key = tuple[str, int, str]  # kind, flows, off or on


def frames_of(kind: str, flows: int, size: int) -> list[bytes]:
    """Make a burst: each flow's next frame in turn, over and over."""
    from tests.napi.frames import Tcp, Udp

    out, data = [], bytes(range(256)) * 6
    mac = bytes.fromhex(OTHER_MAC if kind == "tcp" else HOST_MAC)
    for number in range(BURST):
        turn, flow = divmod(number, flows)
        both = {"src": PEER, "dst": HOST, "dst_mac": mac, "ident": turn, "sport": 5000 + flow}
        if kind == "tcp":
            segment = Tcp(**both, data=data[: min(size, 1460)], seq=turn * min(size, 1460))
            out.append(segment.bytes())
        else:
            out.append(Udp(**both, dport=PORT, data=data[:size]).bytes())
    return out


# ---- sides


class Ours:
    """Hosts without threads on wires in memory, one a cell."""

    def __init__(self, args: argparse.Namespace, bursts: dict[tuple[str, int], list[bytes]]):
        features = {"udp-list": NETIF_F_GRO | NETIF_F_GRO_FRAGLIST}
        self.roads = {
            (kind, flows, state): Road(
                f"{kind} {flows} {state}",
                bursts["tcp" if kind == "tcp" else "udp", flows],
                promisc=kind == "tcp",
                gro=kind == "udp-gro",
                features=features.get(kind, NETIF_F_GRO) if state == "on" else 0,
                burst=BURST,
                count=BURST,
            )
            for kind in args.kinds
            for flows in args.flows
            for state in GROUPS
        }
        self.machines = {key: Machine(road) for key, road in self.roads.items()}
        self.packets: dict[Key, float] = {}

    def ns(self, key: Key) -> float:
        """Feed a cell, once to warm its caches; ns a frame."""
        machine = self.machines[key]
        machine.feed(BURST)
        before = machine.host.softnet()[0]["processed"]
        cpu_ns = sum(machine.feed(BURST)["cpu_ns"] for _ in range(BURSTS))
        passed = machine.host.softnet()[0]["processed"] - before
        self.packets[key] = BURSTS * BURST / passed
        return cpu_ns / (BURSTS * BURST)

    def instructions(self) -> dict[Key, dict[str, float]]:
        """Count them, by stage."""
        counts = count_instructions(list(self.roads.values()))
        return {key: counts[road.name] for key, road in self.roads.items()}

    def close(self) -> None:
        """Close the hosts."""
        for machine in self.machines.values():
            machine.close()


class Kernels:
    """TAPs with NAPI, each in a namespace of its own, one a kind."""

    def __init__(self, args: argparse.Namespace, bursts: dict[tuple[str, int], list[bytes]]):
        from tools._oracle.gro_kernel import KernelGro

        self.stack = ExitStack()
        self.size = args.size
        self.kernels = {}
        for kind in args.kinds:
            features = ["rx-gro-list"] if kind == "udp-list" else []
            sockets = {} if kind == "tcp" else {PORT: kind == "udp-gro"}
            kernel = KernelGro(*features, sockets=sockets, vnet_hdr=True)
            self.kernels[kind] = self.stack.enter_context(kernel)
            ip(
                "link",
                "set",
                "gro0",
                "address",
                ":".join(f"{b:02x}" for b in bytes.fromhex(HOST_MAC)),
            )
            ip("address", "add", f"{HOST}/24", "dev", "gro0")
            for sock in kernel.sockets:
                sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
                sock.setblocking(False)
        self.bursts = {
            key: [with_header(frame) for frame in burst] for key, burst in bursts.items()
        }
        self.packets = {
            (kind, flows, state): self.frames_a_packet(kind, flows, state)
            for kind in args.kinds
            for flows in args.flows
            for state in GROUPS
        }
        for kernel in self.kernels.values():
            kernel.looker.close()  # what it costs to look on is not to be measured

    def burst(self, kind: str, flows: int) -> list[bytes]:
        """Give what is written."""
        return self.bursts["tcp" if kind == "tcp" else "udp", flows]

    def frames_a_packet(self, kind: str, flows: int, state: str) -> float:
        """Look on as a packet socket."""
        kernel, burst = self.kernels[kind], self.burst(kind, flows)
        kernel.switch("rx-gro", state == "on")
        went_up = len(kernel.up(burst))
        self.empty(kind, len(burst))
        return len(burst) / went_up

    def ns(self, key: Key) -> float:
        """Write what a turn has; ns a frame."""
        kind, flows, state = key
        kernel, burst = self.kernels[kind], BURSTS * self.burst(kind, flows)
        kernel.switch("rx-gro", state == "on")
        fd, write = kernel.tap, os.write
        start = time.thread_time_ns()
        for frame in burst:
            write(fd, frame)
        took = time.thread_time_ns() - start
        self.empty(kind, len(burst))
        return took / len(burst)

    def empty(self, kind: str, count: int) -> None:
        """Take what a socket got; all of it is there once the flush timer has run."""
        for sock in self.kernels[kind].sockets:
            left, late = count * self.size, time.monotonic() + 2
            while left > 0:
                try:
                    left -= len(sock.recv(65536))
                except BlockingIOError:
                    if time.monotonic() > late:
                        raise RuntimeError(f"{left} bytes of {kind} did not arrive") from None
                    time.sleep(0.001)

    def close(self) -> None:
        """Take everything down."""
        self.stack.close()


def with_header(frame: bytes) -> bytes:
    """Put a virtio header in front: the checksum is unfinished, and need not be looked at."""
    at = TCP_CHECK if frame[23] == socket.IPPROTO_TCP else UDP_CHECK
    pseudo = frame[26:34] + struct.pack("!HH", frame[23], len(frame) - 34)
    total = sum(struct.unpack("!6H", pseudo))
    folded = (total & 0xFFFF) + (total >> 16)
    header = struct.pack("<BBHHHH", NEEDS_CSUM, 0, 0, 0, 34, at)
    return header + frame[: 34 + at] + struct.pack("!H", folded) + frame[36 + at :]


# ---- results


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Let all cells of all sides take turns; a row a side, kind and number of flows."""
    protocols = {"tcp" if kind == "tcp" else "udp" for kind in args.kinds}
    bursts = {
        (name, flows): frames_of(name, flows, args.size)
        for name in sorted(protocols)
        for flows in args.flows
    }
    made = {"netstack": Ours, "kernel": Kernels}
    sides = {name: made[name](args, bursts) for name in args.sides}
    keys = [
        (kind, flows, state) for kind in args.kinds for flows in args.flows for state in GROUPS
    ]
    took: dict[tuple[str, Key], list[float]] = {(s, key): [] for s in sides for key in keys}
    try:
        for turn in range(-1, args.rounds):
            for key in keys:
                for name, side in sides.items():
                    ns = side.ns(key)
                    if turn >= 0:  # the first one warms up
                        took[name, key].append(ns)
    finally:
        for side in sides.values():
            side.close()
    counted = {}
    if args.instructions and "netstack" in sides:
        if shutil.which("valgrind"):
            counted = sides["netstack"].instructions()
        else:
            print("bench_gro: no valgrind, so no instructions are counted", file=sys.stderr)
    return [
        row(name, kind, flows, took, side.packets, counted if name == "netstack" else {})
        for name, side in sides.items()
        for kind in args.kinds
        for flows in args.flows
    ]


def row(
    side: str,
    kind: str,
    flows: int,
    took: dict[tuple[str, Key], list[float]],
    packets: dict[Key, float],
    counted: dict[Key, dict[str, float]],
) -> dict[str, Any]:
    """Make a line: without GRO, with it."""
    keys = {state: (kind, flows, state) for state in GROUPS}
    values = {state: took[side, key] for state, key in keys.items()}
    off, on = (statistics.median(values[state]) for state in GROUPS)
    stages = {state: counted.get(key) for state, key in keys.items()}
    instructions = {
        f"instr_{state}": round(ours(stage)) if stage else None
        for state, stage in stages.items()
    }
    with_gro, without = stages["on"], stages["off"]
    gro = round(with_gro["napi"] - without["napi"]) if with_gro and without else None
    return {
        "side": side,
        "frames": kind,
        "flows": flows,
        "a_packet": round(packets[keys["on"]], 1),
        "off_ns": round(off, 1),
        "on_ns": round(on, 1),
        "kpps_off": round(1e6 / off),
        "kpps_on": round(1e6 / on),
        "on_of_off": round(on / off, 3),
        "spread": round(max(spread(each) for each in values.values()), 3),
        **instructions,
        "instr_gro": gro,
        "quartiles": {f"{state}_ns": quartiles(values[state]) for state in GROUPS},
    }


def draw(path: Path, what: str, rows: list[dict[str, Any]]) -> None:
    """Draw a row of panels for each kind of frames, a side in each."""
    sides = list(dict.fromkeys(row["side"] for row in rows))
    kinds = list(dict.fromkeys(row["frames"] for row in rows))
    under = f"{where()}; a line goes from quartile to quartile"
    it = picture.Picture(what, under, len(sides) * len(kinds), len(sides))
    for kind in kinds:
        for side in sides:
            mine = [row for row in rows if (row["side"], row["frames"]) == (side, kind)]
            cells = [
                {
                    "cell": f"{state}, flows {row['flows']}",
                    "ns": row[f"{state}_ns"],
                    "quartiles": {"ns": row["quartiles"][f"{state}_ns"]},
                }
                for row in mine
                for state in GROUPS
            ]
            it.bars(cells, "cell", "ns", f"{side}: {kind}", "ns of CPU a frame", most=False)
    it.save(path)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = parser_for(__doc__)
    parser.add_argument("--flows", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE")
    parser.add_argument(
        "--size", type=int, default=1472, help="bytes of payload (TCP: up to 1460)"
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--no-instructions", dest="instructions", action="store_false", help="ns only, sooner"
    )
    args = parser.parse_args(argv)
    if not 1 <= args.size <= 1472:
        parser.error(f"--size {args.size}: 1 to 1472 bytes fit into a frame")
    if not all(1 <= flows <= BURST for flows in args.flows):
        parser.error(f"--flows {' '.join(map(str, args.flows))}: 1 to {BURST} each")
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: 1 or more")
    if "kernel" in args.sides and not enter_namespace("bench_gro"):
        return 2
    rows = measure(args)
    what = (
        f"GRO off and on, {args.size} bytes, {BURST} frames at once, medians of {args.rounds} "
        "rounds in turn; ns of CPU and instructions a frame"
    )
    if args.picture:
        draw(args.picture, what, rows)
    if args.json:
        print_json(gro=rows)
    else:
        print_machine(what)
        print_rows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
