"""What the benchmarks share: a namespace, wires to measure on, receivers in Python, results."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import functools
import json
import os
import platform
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import picture

# The tree this file is in is what is measured, here and in the processes started from here.
ROOT = str(Path(__file__).resolve().parents[1])
sys.path.insert(0, ROOT)
os.environ["PYTHONPATH"] = ROOT

CLONE_NEWNET = 0x40000000
HOST, PEER, PORT = "10.0.0.2", "10.0.0.1", 9000  # on a TAP
VETH_HOST, VETH_PEER = "10.1.0.2", "10.1.0.1"
TIMEOUT = struct.pack("ll", 0, 200_000)  # SO_RCVTIMEO: 200 ms
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*command: str) -> None:
    """Run the command ip."""
    subprocess.run(["ip", *command], check=True)


def enter_namespace(tool: str) -> bool:
    """Move this process into a network namespace of its own; without root say so."""
    if _libc.unshare(CLONE_NEWNET) != 0:
        print(
            f"{tool}: a network namespace needs root\ntry: sudo .venv/bin/python tools/{tool}.py",
            file=sys.stderr,
        )
        return False
    ip("link", "set", "lo", "up")
    return True


@functools.cache
def other_namespace() -> int:
    """Make another namespace behind a veth, once in this process; an fd of it."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _libc.unshare(CLONE_NEWNET)
        try:
            ip("link", "add", "veth1", "type", "veth", "peer", "name", "veth0")
            ip("link", "set", "veth0", "netns", f"/proc/{os.getpid()}/fd/{here}")
            ip("address", "add", f"{VETH_HOST}/24", "dev", "veth1")
            ip("link", "set", "veth1", "up")
            other = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        finally:
            _libc.setns(here, CLONE_NEWNET)
    finally:
        os.close(here)
    ip("address", "add", f"{VETH_PEER}/24", "dev", "veth0")
    ip("link", "set", "veth0", "up")
    return other


@contextmanager
def kernel_socket() -> Iterator[socket.socket]:
    """Give a UDP socket of the kernel's at 10.1.0.2, in another namespace, behind a veth."""
    other = other_namespace()
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _libc.setns(other, CLONE_NEWNET)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        _libc.setns(here, CLONE_NEWNET)
    finally:
        os.close(here)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
        sock.bind((VETH_HOST, PORT))
        # Let each learn the other's MAC address.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            sock.settimeout(5)
            probe.sendto(b"", (VETH_HOST, PORT))
            sock.sendto(b"", sock.recvfrom(1)[1])
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEOUT)
        yield sock


@contextmanager
def tap(vnet_hdr: bool = False) -> Iterator[Any]:
    """Give a TAP, with the kernel at 10.0.0.1; ``vnet_hdr``: one that may hand messages over whole."""
    from netstack.device.tap import open_tap

    peer, host = IPv4Interface(f"{PEER}/24"), IPv4Interface(f"{HOST}/24")
    with open_tap("tap0", peer=peer, host=host, vnet_hdr=vnet_hdr) as it:
        ip("neigh", "replace", HOST, "lladdr", "02:00:00:00:00:02", "dev", "tap0")
        yield it


@contextmanager
def our_socket(wire: Any, **tunables: int) -> Iterator[Any]:
    """Give a UDP socket of a netstack host at 10.0.0.2 on a TAP."""
    from netstack.device._tapwire import TapWire
    from netstack.host import Host

    with Host() as host:
        for name, value in tunables.items():
            host.config[f"netstack.{name}"] = value
        host.add_nic(
            TapWire(wire.fileno(), vnet_hdr=wire.vnet_hdr),
            name="tap0",
            addr=f"{HOST}/24",
            mac="02:00:00:00:00:02",
        )
        with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)
            sock.bind((HOST, PORT))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEOUT)
            yield sock, host


@contextmanager
def stop_after(process: subprocess.Popen[Any]) -> Iterator[Any]:
    """Give a Stop that is set when a process has ended."""
    from netstack.testing._traffic import Stop

    stop = Stop()
    watcher = threading.Thread(target=lambda: (process.wait(), stop.set()))
    watcher.start()
    try:
        yield stop
    finally:
        watcher.join()


# ---- receivers: each takes what it can until nothing comes, and gives how many

NOTHING = (BlockingIOError, TimeoutError)


def by_recvfrom(sock: Any) -> int:
    """Receive with recvfrom()."""
    recvfrom, got = sock.recvfrom, 0
    with contextlib.suppress(*NOTHING):
        while True:
            recvfrom(2048)
            got += 1
    return got


def by_recvfrom_into(sock: Any) -> int:
    """Receive with recvfrom_into()."""
    recvfrom_into, got, buffer = sock.recvfrom_into, 0, bytearray(2048)
    with contextlib.suppress(*NOTHING):
        while True:
            recvfrom_into(buffer)
            got += 1
    return got


def by_recv_batch(sock: Any) -> int:
    """Receive with recv_batch()."""
    recv_batch, got = sock.recv_batch, 0
    with contextlib.suppress(*NOTHING):
        while True:
            got += len(recv_batch(64))
    return got


def by_recv_batch_into(sock: Any) -> int:
    """Receive with recv_batch_into()."""
    recv_batch_into, got = sock.recv_batch_into, 0
    buffer, records = bytearray(64 * 2048), bytearray(64 * 16)
    with contextlib.suppress(*NOTHING):
        while True:
            got += recv_batch_into(buffer, records)
    return got


CALLS: dict[str, Callable[[Any], int]] = {
    "recvfrom": by_recvfrom,
    "recvfrom_into": by_recvfrom_into,
    "recv_batch": by_recv_batch,
    "recv_batch_into": by_recv_batch_into,
}


class Counter(asyncio.DatagramProtocol):
    """Count datagrams."""

    got = 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Count one."""
        self.got += 1


async def by_asyncio(make: Callable[..., Any], sock: Any, going: Callable[[], bool]) -> int:
    """Receive with a datagram endpoint of `make`, while `going()` and a little longer."""
    transport, counter = await make(Counter, sock=sock)
    while going():
        await asyncio.sleep(0.05)
    before = -1
    while before != counter.got:
        before = counter.got
        await asyncio.sleep(0.05)
    transport.close()
    await asyncio.sleep(0)
    return int(counter.got)


# ---- results


def spread(values: Sequence[float]) -> float:
    """Give the distance of the quartiles, as a part of the median."""
    low, high = _quartiles(values)
    return (high - low) / (statistics.median(values) or 1)


def quartiles(values: Sequence[float]) -> list[float]:
    """Give what a quarter of the values is below, and what a quarter is above; four digits each."""
    return [float(f"{value:.4g}") for value in _quartiles(values)]


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4)
    return max(low, min(values)), min(high, max(values))  # of few values they would lie outside


def percentile(steps: dict[int, int], part: float) -> float:
    """Give the microseconds that this part did not exceed, of how many took how many nanoseconds."""
    left = part * sum(steps.values())
    for ns in sorted(steps):
        left -= steps[ns]
        if left <= 0:
            return ns / 1000
    return 0.0


TRACING = Path("/sys/kernel/tracing")


def tracers() -> list[str]:
    """Name the groups of the kernel's tracepoints that are on and slow a packet down: somebody may have left them on.

    As far as tracefs is mounted and may be read.
    """
    found = set()
    for instance in (TRACING, *TRACING.glob("instances/*")):
        for group in ("skb", "net", "napi", "sock", "syscalls", "irq", "sched"):
            with contextlib.suppress(OSError):
                if (instance / "events" / group / "enable").read_text().strip() != "0":
                    found.add(group)
    return sorted(found)


def machine() -> dict[str, Any]:
    """Say where and when, and what slows it down."""
    return {
        "node": platform.node(),
        "linux": platform.release(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
        "tracers": tracers(),
    }


def where() -> str:
    """Say it in words."""
    it = machine()
    return (
        f"{it['node']}, Linux {it['linux']}, Python {it['python']}, {it['cpus']} CPUs, "
        f"{it['date']}" + "".join(f", traced: {name}" for name in it["tracers"])
    )


def parser_for(description: str | None) -> argparse.ArgumentParser:
    """Make the command line of a tool, with the forms that results come in."""
    it = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("--json", action="store_true", help="print JSON, with quartiles")
    picture.option(it)
    return it


def print_machine(what: str) -> None:
    """Print what was measured, where and when."""
    print(f"{what}; {where()}")


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table; all have the same keys. Quartiles are for programs and pictures."""
    if not rows:
        return
    rows = [{name: row[name] for name in row if name != "quartiles"} for row in rows]
    texts = [[_text(value) for value in row.values()] for row in rows]
    heads = list(rows[0])
    widths = [max(len(line[i]) for line in [heads, *texts]) for i in range(len(heads))]
    for line, row in zip([heads, *texts], [rows[0], *rows], strict=True):
        cells = [
            text.ljust(width) if isinstance(value, str) else text.rjust(width)
            for text, width, value in zip(line, widths, row.values(), strict=True)
        ]
        print("  ".join(cells).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 10
        else (f"{value:.0f}" if isinstance(value, float) else str(value))
    )


def print_json(**parts: Any) -> None:
    """Print results for programs."""
    print(json.dumps({"machine": machine(), **parts}))


Axis = tuple[str, str, bool]  # a column, its unit, and whether most is best


def bars(
    path: Path, what: str, rows: list[dict[str, Any]], by: Sequence[str], *columns: Axis
) -> None:
    """Draw the sides: a row of panels for each group of rows that agree in ``by``."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(", ".join(f"{name} {row[name]}" for name in by), []).append(row)
    under = f"{where()}; a line goes from quartile to quartile"
    it = picture.Picture(what, under, len(groups) * len(columns), len(columns))
    for heading, group in groups.items():
        for column, unit, most in columns:
            it.bars(group, "side", column, heading, unit, most=most)
    it.save(path)


def report(
    args: argparse.Namespace,
    what: str,
    name: str,
    rows: list[dict[str, Any]],
    by: Sequence[str],
    *columns: Axis,
) -> None:
    """Print rows as the command line wants them, and draw them where it wants that (see `bars`)."""
    if args.picture:
        bars(args.picture, what, rows, by, *columns)
    if args.json:
        print_json(**{name: rows})
    else:
        print_machine(what)
        print_rows(rows)
