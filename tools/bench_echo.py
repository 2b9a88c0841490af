#!/usr/bin/env python3
"""Echo servers: how long an answer takes, and how many a second, with 1 and with 64 in flight.

    sudo .venv/bin/python tools/bench_echo.py                        # all sides, 1 s each, 5 times in turn
    sudo .venv/bin/python tools/bench_echo.py --sides bare recvfrom kernel --windows 64 --json
    sudo .venv/bin/python tools/bench_echo.py --picture echo.svg     # with the extra `bench`; a .png as well

The client is a kernel socket in another process, compiled; it sleeps until an answer comes. Sides:

    bare, bare-spin      a compiled loop on the TAP that swaps addresses and writes; sleeping, spinning
    recvfrom             netstack, recvfrom() and sendto() in Python, with the spin there is by default
    recvfrom-sleep       the same, never spinning (poll_spin_usecs 0)
    recvfrom-busy        the same, with SO_BUSY_POLL at 1 ms
    batch                netstack, recv_batch() and send_batch()
    batch-into           netstack, recv_batch_into() and send_batch_from()
    asyncio              netstack, Host.create_datagram_endpoint()
    kernel               a kernel socket behind a veth, recvfrom() and sendto() in Python
    kernel-asyncio       the same, with asyncio's own transport

Times are from sending to having the answer, in microseconds; ``cpu_ns`` is the server's CPU an echo.
Runs in network namespaces of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchlib import (
    HOST,
    NOTHING,
    PORT,
    TIMEOUT,
    VETH_HOST,
    enter_namespace,
    kernel_socket,
    our_socket,
    parser_for,
    percentile,
    quartiles,
    report,
    spread,
    stop_after,
    tap,
)

SO_BUSY_POLL = 46
SIDES = [
    *("bare", "bare-spin", "recvfrom", "recvfrom-sleep", "recvfrom-busy"),
    *("batch", "batch-into", "asyncio", "kernel", "kernel-asyncio"),
]


# ---- servers


def by_recvfrom(sock: Any) -> None:
    """Send back until nothing comes."""
    recvfrom, sendto = sock.recvfrom, sock.sendto
    with contextlib.suppress(*NOTHING):
        while True:
            data, peer = recvfrom(2048)
            sendto(data, peer)


def by_batch(sock: Any) -> None:
    """Send back by lists."""
    recv_batch, send_batch = sock.recv_batch, sock.send_batch
    with contextlib.suppress(*NOTHING):
        while True:
            send_batch(recv_batch(64))


def by_batch_into(sock: Any) -> None:
    """Send back from the buffer that they came into."""
    recv_batch_into, send_batch_from = sock.recv_batch_into, sock.send_batch_from
    buffer, records = bytearray(64 * 2048), bytearray(64 * 16)
    with contextlib.suppress(*NOTHING):
        while True:
            send_batch_from(buffer, records, recv_batch_into(buffer, records))


class Echo(asyncio.DatagramProtocol):
    """Send back."""

    def connection_made(self, transport: Any) -> None:
        """Keep the way back."""
        self.sendto = transport.sendto

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Send one back."""
        self.sendto(data, addr)


async def by_asyncio(make: Callable[..., Any] | None, sock: Any, client: Any) -> None:
    """Send back with a datagram endpoint."""
    make = make or asyncio.get_running_loop().create_datagram_endpoint
    transport, _ = await make(Echo, sock=sock)
    while client.poll() is None:
        await asyncio.sleep(0.05)
    transport.close()
    await asyncio.sleep(0)


def serve(side: str, start: Callable[[str], subprocess.Popen[bytes]]) -> tuple[Any, int]:
    """Serve a client until it ends; the client, and ns of CPU of this process."""
    from netstack.testing._echo import echo_bare

    with contextlib.ExitStack() as stack:
        if side.startswith("kernel"):
            sock, make = stack.enter_context(kernel_socket()), None
            client, began = start(VETH_HOST), time.process_time_ns()
        else:
            wire = stack.enter_context(tap())
            if side.startswith("bare"):
                client, began = start(HOST), time.process_time_ns()
                with stop_after(client) as stop:
                    echo_bare(wire.fileno(), stop, side == "bare-spin")
                return client, time.process_time_ns() - began
            tunables = {"poll_spin_usecs": 0} if side == "recvfrom-sleep" else {}
            sock, host = stack.enter_context(our_socket(wire, **tunables))
            if side == "recvfrom-busy":
                sock.setsockopt(socket.SOL_SOCKET, SO_BUSY_POLL, 1000)
            make = host.create_datagram_endpoint
            client, began = start(HOST), time.process_time_ns()
        if side.endswith("asyncio"):
            asyncio.run(by_asyncio(make, sock, client))
        else:
            call = {"batch": by_batch, "batch-into": by_batch_into}.get(side, by_recvfrom)
            while client.poll() is None:
                call(sock)
        return client, time.process_time_ns() - began


# ---- the client


def run_client(to: str, size: int, window: int, seconds: float) -> None:
    """Be the client, and print what it saw."""
    from netstack.testing._echo import ping

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((to, PORT))
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEOUT[:8] + (20_000).to_bytes(8, "little")
        )
        warm = ping(sock.fileno(), size, window, min(0.2, seconds))
        while True:  # answers of the warm-up that are still on their way
            try:
                sock.recv(1)
            except BlockingIOError:
                break
        tally = ping(sock.fileno(), size, window, seconds)
    steps = tally.pop("ns")
    times = {f"p{p:g}": percentile(steps, p / 100) for p in (50, 90, 99, 99.9)}
    print(json.dumps({"warm": warm["packets"], "times": times, **tally}))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Let the sides serve in turn, several times; a row a side."""
    rows = []
    for size in args.sizes:
        for window in args.windows:
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in args.sides}

            def start(
                to: str, size: int = size, window: int = window
            ) -> subprocess.Popen[bytes]:
                command = [sys.executable, __file__, "--client", to, str(size), str(window)]
                return subprocess.Popen([*command, str(args.seconds)], stdout=subprocess.PIPE)

            for _ in range(args.repeat):
                for side in args.sides:
                    runs[side].append(one(side, start))
            for side in args.sides:
                rows.append({"size": size, "window": window, "side": side, **row(runs[side])})
    return rows


def one(side: str, start: Callable[[str], subprocess.Popen[bytes]]) -> dict[str, float]:
    """Run one side once."""
    client, cpu = serve(side, start)
    with client:
        saw = json.load(client.stdout)
    echoes = max(1, saw["packets"] + saw["warm"])
    rate = saw["packets"] / saw["wall_ns"] * 1e6
    return {"kps": rate, **saw["times"], "cpu_ns": cpu / echoes, "lost": saw["lost"]}


def row(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Make the medians of several runs."""
    out: dict[str, Any] = {
        name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]
    }
    out["lost"] = int(out["lost"])
    out["spread"] = round(spread([run["kps"] for run in runs]), 3)
    drawn = ("kps", "cpu_ns", "p50")
    out["quartiles"] = {name: quartiles([run[name] for run in runs]) for name in drawn}
    return out


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    if len(sys.argv) == 6 and sys.argv[1] == "--client":
        run_client(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
        return 0
    parser = parser_for(__doc__)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE")
    parser.add_argument("--windows", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--sizes", nargs="+", type=int, default=[18], metavar="BYTES")
    parser.add_argument("--seconds", type=float, default=1, help="a run")
    parser.add_argument("--repeat", type=int, default=5, help="runs a side")
    args = parser.parse_args(argv)
    if not enter_namespace("bench_echo"):
        return 2
    rows = measure(args)
    what = (
        f"echo, {args.seconds:g} s a run, medians of {args.repeat} runs in turn; thousand echoes "
        "a second, microseconds"
    )
    axes = ("kps", "thousand echoes a second", True), ("cpu_ns", "ns of CPU an echo", False)
    times = ("p50", "median time to the answer, µs", False)
    report(args, what, "echo", rows, ["size", "window"], *axes, times)
    return 0


if __name__ == "__main__":
    sys.exit(main())
