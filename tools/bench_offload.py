#!/usr/bin/env python3
"""Receive what a kernel sender with UDP_SEGMENT sends through a TAP that hands it over whole (USO).

    sudo .venv/bin/python tools/bench_offload.py                  # 18, 64 and 1472 bytes: fill and drain, then streams
    sudo .venv/bin/python tools/bench_offload.py --rounds 9 --json
    sudo .venv/bin/python tools/bench_offload.py --picture offload.svg # with the extra `bench`; a .png as well
    sudo .venv/bin/python tools/bench_offload.py --small  # what the header costs a sender without GSO

The sides take turns within one run, so that what disturbs the machine disturbs all of them. Fill-then-drain is the
quiet measure: the TAP's queue is filled, and one thread drains it, whose CPU time is divided by the datagrams:

    bare        read() of the TAP into one buffer, in a compiled loop
    queue       netstack: NIC, GRO, IP, UDP, into the socket's queue (UDP_GRO)
    recvmsg     and out of it with recvmsg() in a Python loop: whole messages and their segment size
    batch       and out of it with recv_batch_into() in a Python loop: every datagram by itself

The streams come from another process, a second each, and the receivers sleep and wake as they do:

    bare        read() and poll()
    sink        netstack, its socket (UDP_GRO) read by a compiled loop
    recvmsg     netstack, recvmsg() in a Python loop
    batch       netstack, recv_batch_into() in a Python loop
    kernel      a kernel socket with UDP_GRO at the other end of a veth, recv_into() in a Python loop

Rates are datagrams; CPU is that of the receiving process. Runs in a network namespace of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import picture
from benchlib import (
    HOST,
    PEER,
    PORT,
    enter_namespace,
    parser_for,
    print_json,
    print_machine,
    print_rows,
    quartiles,
    spread,
    where,
)

SO_RCVBUFFORCE = 33
SOL_UDP, UDP_GRO = socket.IPPROTO_UDP, 104
HEADERS = 10 + 14 + 20 + 8  # virtio, Ethernet, IPv4, UDP
RCVBUF = 4 << 20
HERE = os.path.dirname(os.path.abspath(__file__))

Result = dict[str, float]


def sender(size: int, seconds: float) -> subprocess.Popen[bytes]:
    """Start a stream of datagrams to the host."""
    command = [
        *(sys.executable, os.path.join(HERE, "pktgen.py"), HOST, "--port", str(PORT)),
        *("--mode", "gso", "--size", str(size), "--seconds", str(seconds), "--json"),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def result(stream: subprocess.Popen[bytes], got: int, cpu_ns: float, wall_ns: float) -> Result:
    """Say what came of a stream that has ended."""
    (sent,) = json.load(stream.stdout)  # type: ignore[arg-type]
    stream.wait()
    return {
        "rate": got / wall_ns * 1e9,
        "ns": cpu_ns / max(1, got),
        "loss": max(0.0, 1 - got / max(1, sent["packets"])),
    }


def neighbour(mac: str) -> None:
    """Tell the kernel where the host is."""
    command = ["ip", "neigh", "replace", HOST, "lladdr", mac, "dev", "tap0"]
    subprocess.run(command, check=True)


def bare(size: int, seconds: float) -> Result:
    """Read the TAP and nothing else."""
    from netstack.device._tapwire import TapWire
    from netstack.device.tap import open_tap
    from netstack.host import Host
    from netstack.testing._traffic import Stop, read_bare

    peer, host = IPv4Interface(f"{PEER}/24"), IPv4Interface(f"{HOST}/24")
    with open_tap("tap0", peer=peer, host=host, vnet_hdr=True) as tap:
        with Host(threads=False) as short:  # it negotiates the offloads, and leaves
            short.add_nic(TapWire(tap.fileno(), vnet_hdr=True), "tap0")
        neighbour("02:00:00:00:00:02")
        stop = Stop()
        stream = sender(size, seconds)
        threading.Thread(target=lambda: (stream.wait(), stop.set())).start()
        tally = read_bare(tap.fileno(), 0, stop, HEADERS)
        return result(stream, tally["packets"], tally["cpu_ns"], seconds * 1e9)


def through(
    read: Callable[[Any, Any, subprocess.Popen[bytes], int], int],
    size: int,
    seconds: float,
) -> Result:
    """Let ``read`` take what the stream brings to a socket of netstack."""
    import netstack

    with netstack.up("tap0", addr=f"{HOST}/24", offload=True) as host:
        neighbour(host.devices[1].mac)
        with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            host.config["net.core.rmem_max"] = RCVBUF
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RCVBUF)
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            sock.bind((HOST, PORT))
            sock.settimeout(0.1)
            before = time.process_time_ns()
            stream = sender(size, seconds)
            got = read(host, sock, stream, size)
            cpu = time.process_time_ns() - before
            return result(stream, got, cpu, seconds * 1e9)


def read_sink(_host: Any, sock: Any, stream: subprocess.Popen[bytes], _size: int) -> int:
    """Read in compiled code."""
    from netstack.testing._traffic import Stop, read_socket

    stop = Stop()
    threading.Thread(target=lambda: (stream.wait(), stop.set())).start()
    return read_socket(sock, stop)["packets"]


def read_recvmsg(_host: Any, sock: Any, stream: subprocess.Popen[bytes], _size: int) -> int:
    """Read messages, and ask each for its segment size."""
    recvmsg = sock.recvmsg
    unpack = struct.Struct("i").unpack
    got = 0
    while True:
        try:
            while True:
                data, ancillary, _flags, _peer = recvmsg(65535, 64)
                if ancillary:
                    size = unpack(ancillary[0][2])[0]
                    got += (len(data) + size - 1) // size
                else:
                    got += 1
        except TimeoutError:
            if stream.poll() is not None:
                return got


def read_batch(_host: Any, sock: Any, stream: subprocess.Popen[bytes], _size: int) -> int:
    """Read many datagrams a call into one buffer."""
    buffer = bytearray(1 << 18)
    records = bytearray(16 * 4096)
    recv_batch_into = sock.recv_batch_into
    got = 0
    while True:
        try:
            while True:
                got += recv_batch_into(buffer, records)
        except TimeoutError:
            if stream.poll() is not None:
                return got


def kernel(size: int, seconds: float) -> Result:
    """Receive in another namespace, behind a veth."""
    child = subprocess.Popen(
        ["unshare", "-n", sys.executable, os.path.abspath(__file__), "--kernel-receiver", str(size)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        child.stdout.readline()  # type: ignore[union-attr]
        for command in (
            f"ip link add veth0 mtu 1500 type veth peer name veth1 mtu 1500 netns {child.pid}",
            f"ip addr add {PEER}/24 dev veth0",
            "ip link set veth0 up",
            f"nsenter -t {child.pid} -n ip addr add {HOST}/24 dev veth1",
            f"nsenter -t {child.pid} -n ip link set veth1 up",
        ):
            subprocess.run(command.split(), check=True)
        child.stdin.write(b"go\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
        child.stdout.readline()  # type: ignore[union-attr]
        stream = sender(size, seconds)
        stream.wait()
        child.send_signal(signal.SIGTERM)
        got, cpu = json.loads(child.stdout.readline())  # type: ignore[union-attr]
        return result(stream, got, cpu, seconds * 1e9)
    finally:
        child.kill()
        child.wait()
        # It may have gone with the child's namespace already.
        subprocess.run(["ip", "link", "del", "veth0"], check=False, stderr=subprocess.DEVNULL)


def kernel_receiver(size: int) -> int:
    """Be the child of `kernel`: read until told to end, then say how much came."""
    ended = False

    def end(_number: int, _frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    sys.stdin.readline()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RCVBUF)
    sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    sock.bind((HOST, PORT))
    sock.settimeout(0.1)
    print("bound", flush=True)
    buffer = bytearray(65535)
    recv_into = sock.recv_into
    got = 0
    cpu = time.process_time_ns()
    while not ended:
        try:
            while True:
                got += -(-recv_into(buffer) // size)
        except TimeoutError:
            pass
    print(json.dumps([got, time.process_time_ns() - cpu]), flush=True)
    return 0


class Drain:
    """Two TAPs, without virtio headers and with, and a host without threads behind each."""

    def __init__(self, number: int, *, offload: bool) -> None:
        from netstack.device._tapwire import TapWire
        from netstack.device.tap import open_tap
        from netstack.host import Host

        self.host_ip = f"10.{number}.0.2"
        name, peer = f"tap{number}", f"10.{number}.0.1"
        net = IPv4Interface(f"{peer}/24"), IPv4Interface(f"{self.host_ip}/24")
        self.tap = open_tap(name, peer=net[0], host=net[1], vnet_hdr=offload)
        self.headers = HEADERS if offload else 0
        self.host = Host(threads=False)
        wire = TapWire(self.tap.fileno(), vnet_hdr=offload)
        device = self.host.add_nic(wire, name, addr=f"{self.host_ip}/24")
        device.nic.set_coalesce(0)  # a drain is measured from its first frame on
        self.host.config["net.core.rmem_max"] = 64 << 20
        self.sock = self.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        self.sock.setsockopt(SOL_UDP, UDP_GRO, 1 if offload else 0)
        self.sock.bind((self.host_ip, PORT))
        self.sock.setblocking(False)
        command = ["ip", "neigh", "replace", self.host_ip, "lladdr", device.mac, "dev", name]
        subprocess.run(command, check=True)
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        self.sender.bind((peer, 0))
        self.sender.connect((self.host_ip, PORT))
        self.ns: dict[str, list[float]] = {}

    def fill(self, size: int, segments: int, messages: int) -> int:
        """Put messages into the TAP's queue; how many datagrams."""
        self.sender.setsockopt(SOL_UDP, 103, size if segments > 1 else 0)
        for _ in range(messages):
            self.sender.send(bytes(size * segments))
        return segments * messages

    def note(self, side: str, ns: float, datagrams: int) -> None:
        """Keep a figure."""
        self.ns.setdefault(side, []).append(ns / datagrams)

    def round(self, size: int, segments: int, messages: int) -> None:
        """Let each side drain the same once."""
        from netstack.testing._traffic import read_bare, run_cpu

        count = self.fill(size, segments, messages)
        tally = read_bare(self.tap.fileno(), 0, None, self.headers)
        if tally["packets"] != count:
            raise RuntimeError(f"{tally['packets']} of {count} datagrams came through the TAP")
        self.note("bare", tally["cpu_ns"], count)
        for side in ("recvmsg", "batch"):
            self.fill(size, segments, messages)
            queue = run_cpu(self.host.cpus[0].address)["cpu_ns"]
            self.note("queue", queue, count)
            start = time.thread_time_ns()
            getattr(self, side)()
            self.note(side, queue + time.thread_time_ns() - start, count)

    def recvmsg(self) -> None:
        """Take all messages."""
        recvmsg = self.sock.recvmsg
        with suppress(BlockingIOError):
            while True:
                recvmsg(65535, 64)

    def batch(self) -> None:
        """Take all datagrams."""
        recv_batch_into = self.sock.recv_batch_into
        with suppress(BlockingIOError):
            while True:
                recv_batch_into(BUFFER, RECORDS)

    def close(self) -> None:
        """Take everything down."""
        self.sender.close()
        self.host.close()
        self.sock.close()
        self.tap.close()


BUFFER, RECORDS = bytearray(1 << 18), bytearray(16 * 8192)


def drain(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Fill and drain; a row a side and a size."""
    rows: list[dict[str, Any]] = []
    for size in args.sizes:
        segments = 1 if args.small else max(1, min(64, 65000 // size))
        messages = 300 if args.small else 40
        kinds = {"without": False, "with": True} if args.small else {"": True}
        benches = {
            kind: Drain(number, offload=on) for number, (kind, on) in enumerate(kinds.items())
        }
        for number in range(3 + args.drains):
            for bench in benches.values():
                if number == 3:
                    bench.ns.clear()
                bench.round(size, segments, messages)
        first = statistics.median(next(iter(benches.values())).ns["bare"])
        for kind, bench in benches.items():
            for side, values in bench.ns.items():
                ns = statistics.median(values)
                rows.append(
                    {
                        "size": size,
                        "side": f"{side} {kind}".strip(),
                        "ns": round(ns, 1),
                        "of_first": round(first / ns, 3),
                        "kpps": round(1e6 / ns),
                        "spread": round(spread(values), 3),
                        "quartiles": {"ns": quartiles(values)},
                    }
                )
            bench.close()
    return rows


SIDES: dict[str, Callable[[int, float], Result]] = {
    "bare": bare,
    "sink": lambda size, seconds: through(read_sink, size, seconds),
    "recvmsg": lambda size, seconds: through(read_recvmsg, size, seconds),
    "batch": lambda size, seconds: through(read_batch, size, seconds),
    "kernel": kernel,
}


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all sides in turn; a row a side and a size."""
    sides = {name: SIDES[name] for name in args.sides}
    rows: list[dict[str, Any]] = []
    for size in args.sizes:
        runs: dict[str, list[Result]] = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, side in sides.items():
                runs[name].append(side(size, args.seconds))
        first = statistics.median(run["rate"] / 1e3 for run in next(iter(runs.values())))
        for name, results in runs.items():
            rates = sorted(run["rate"] / 1e3 for run in results)
            rate = statistics.median(rates)
            rows.append(
                {
                    "size": size,
                    "side": name,
                    "kpps": round(rate),
                    "of_first": round(rate / first, 3),
                    "least": round(rates[0]),
                    "most": round(rates[-1]),
                    "cpu_ns": round(statistics.median(run["ns"] for run in results), 1),
                    "loss": round(statistics.median(run["loss"] for run in results), 3),
                    "quartiles": {
                        "kpps": quartiles(rates),
                        "cpu_ns": quartiles([run["ns"] for run in results]),
                    },
                }
            )
    return rows


def draw(path: Path, drained: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Draw the drains of each size, and its streams beside them."""
    sizes = list(dict.fromkeys(row["size"] for row in drained))
    columns = [(drained, "drain", "ns", "ns of CPU a datagram", False)]
    if rows:
        columns.append((rows, "stream", "kpps", "thousand datagrams a second", True))
        columns.append((rows, "stream", "cpu_ns", "ns of CPU a datagram", False))
    under = f"{where()}; a line goes from quartile to quartile"
    it = picture.Picture(
        "datagrams of a sender with GSO", under, len(sizes) * len(columns), len(columns)
    )
    for size in sizes:
        for table, name, value, unit, most in columns:
            mine = [row for row in table if row["size"] == size]
            it.bars(mine, "side", value, f"{name}, {size} bytes", unit, most=most)
    it.save(path)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = parser_for(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[18, 64, 1472], metavar="BYTES")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument(
        "--small",
        action="store_true",
        help="a sender without GSO, virtio headers off and on; no streams",
    )
    parser.add_argument("--drains", type=int, default=60, help="rounds of fill-then-drain")
    parser.add_argument("--kernel-receiver", type=int, metavar="SIZE", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.kernel_receiver:
        return kernel_receiver(args.kernel_receiver)
    if not enter_namespace("bench_offload"):
        return 2
    drained = drain(args)
    rows = [] if args.small else measure(args)
    if args.picture:
        draw(args.picture, drained, rows)
    if args.json:
        print_json(drain=drained, stream=rows)
        return 0
    print_machine(f"fill, drain; medians of {args.drains} rounds in turn; ns of CPU a datagram")
    print_rows(drained)
    if rows:
        print_machine(
            f"{args.rounds} rounds of {args.seconds} s for each side, in turn; medians; "
            "thousand datagrams a second"
        )
        print_rows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
