"""``netstack ss``: sockets in the columns of iproute2's ss."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from netstack.cli.command import Command, Namespace, Parser, ask, print_json

WILDCARD = "0.0.0.0"
SENT_AT_ONCE = 0  # Send-Q: a datagram is on the transmit ring when sendto() returns


def _arguments(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "-u",
        "--udp",
        action="store_true",
        help="UDP sockets; alone, without the column Netid",
    )
    add("-w", "--raw", action="store_true", help="raw and ping sockets")
    add("--packet", action="store_true", help="packet sockets")
    add("-a", "--all", action="store_true", help="unconnected ones as well")
    add("-l", "--listening", action="store_true", help="unconnected ones only")
    add("-n", "--numeric", action="store_true", help="ports as numbers")
    add("-m", "--memory", action="store_true", help="memory of the queues, limits, drops")
    add("-e", "--extended", action="store_true", help="inode")
    add("-i", "--info", action="store_true", help="datagrams in the queue, and dropped")
    add("-p", "--processes", action="store_true", help="the process")
    add("-H", "--no-header", action="store_true", help="without the heading")
    add("-O", "--oneline", action="store_true", help="one line a socket")


def ss(args: Namespace) -> int:
    """Print the sockets that the flags select."""
    rows: list[dict[str, Any]] = ask(args, "sockets")
    if wanted := kinds(args):
        rows = [row for row in rows if row["proto"] in wanted]
    if not args.all:
        rows = [row for row in rows if bool(row["peer"]) != args.listening]
    if args.json:
        print_json([_as_json(row) for row in rows])
    else:
        print_sockets(rows, args)
    return 0


def kinds(args: Namespace) -> set[str]:
    """Give the kinds of socket that the flags name; none for all."""
    named = {"udp": args.udp, "raw": args.raw, "icmp": args.raw, "packet": args.packet}
    return {kind for kind, wanted in named.items() if wanted}


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    """Return a socket as ss would if it had JSON."""
    peer = row["peer"] or (WILDCARD, 0)
    return {
        "netid": row["proto"],
        "state": _state(row),
        "recv-q": row["rmem"],
        "send-q": SENT_AT_ONCE,
        "local": {"address": row["local"][0], "port": row["local"][1]},
        "peer": {"address": peer[0], "port": peer[1]},
        "queued": row["queued"],
        "inode": row["inode"],
        "pid": row["pid"],
        "skmem": {
            "rmem_alloc": row["rmem"],
            "rcv_buf": row["rcvbuf"],
            "snd_buf": row["sndbuf"],
            "fwd_alloc": row["forward_alloc"],
            "drops": row["drops"],
        },
    }


def _state(row: dict[str, Any]) -> str:
    return "ESTAB" if row["peer"] else "UNCONN"


def print_sockets(rows: Iterable[dict[str, Any]], args: Namespace) -> None:
    """Line the columns up; addresses end, and ports begin, at the colon."""
    head = [["Netid", "State", "Recv-Q", "Send-Q", "Local Address", "Port", "Peer Address",
             "Port", "Process"]]  # fmt: skip
    lines: list[list[str]] = [] if args.no_header else head
    below: list[str] = [] if args.no_header else [""]
    for row in rows:
        local, peer = row["local"], row["peer"] or (WILDCARD, 0)
        lines.append([
            row["proto"], _state(row), str(row["rmem"]), str(SENT_AT_ONCE),
            local[0], _port(local[1], row["proto"], args.numeric),
            peer[0], _port(peer[1], row["proto"], args.numeric), " ".join(_process(row, args)),
        ])  # fmt: skip
        below.append(" ".join(_more(row, args)))
    widths = [max((len(line[n]) for line in lines), default=0) for n in range(9)]
    for line, more in zip(lines, below, strict=True):
        netid, state, recv, send, local_, lport, peer_, pport, process = (
            text.rjust(width) if n in (4, 6) else text.ljust(width)
            for n, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        netid = "" if kinds(args) == {"udp"} else f"{netid} "
        text = f"{netid}{state} {recv} {send} {local_}:{lport} {peer_}:{pport} {process}"
        text = text.rstrip()
        separator = " " if args.oneline else "\n\t "
        print(f"{text}{separator}{more}" if more else text)


def _port(port: int, proto: str, numeric: bool) -> str:
    """Name a port, or give its number."""
    if port == 0:
        return "*"
    if numeric:
        return str(port)
    try:
        return socket.getservbyport(port, proto)
    except OSError:
        return str(port)


def _process(row: dict[str, Any], args: Namespace) -> list[str]:
    parts = []
    if args.processes:
        parts.append(f'users:(("{row["command"]}",pid={row["pid"]}))')
    if args.extended:
        parts.append(f"ino:{row['inode']} sk:{row['inode']:x} <->")
    return parts


def _more(row: dict[str, Any], args: Namespace) -> list[str]:
    """Give what stands below a socket: its memory as skmem, and what it counted."""
    parts = []
    if args.memory:
        parts.append(
            f"skmem:(r{row['rmem']},rb{row['rcvbuf']},t0,tb{row['sndbuf']},"
            f"f{row['forward_alloc']},w0,o0,bl0,d{row['drops']})"
        )
    if args.info:
        parts.append(f"queued:{row['queued']} drops:{row['drops']}")
    return parts


COMMANDS = {
    "ss": Command(
        ss,
        "netstack ss -uan\nnetstack ss -uamn    receive queues with their limits and drops\n"
        "netstack ss -uanpei\nnetstack ss -a --json",
        _arguments,
        "Sockets in the columns of iproute2's ss. Without -a or -l: connected ones.",
    ),
}
