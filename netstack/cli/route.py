"""``netstack route``: iproute2's words, columns and JSON, and whole files of changes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from netstack.cli.command import Command, Namespace, Parser, ask
from netstack.cli.ip import Row, Words, arguments, number, show
from netstack.errors import UsageError

ROUTE_KEYS = ("via", "dev", "src", "metric", "type", "proto", "scope")
SAME = {"preference": "metric", "priority": "metric", "protocol": "proto", "to": "dst"}
ROUTE_TYPES = ("unicast", "local", "broadcast", "blackhole", "unreachable", "prohibit")
AT_ONCE = 1000  # changes in one request


def _arguments(parser: Parser) -> None:
    arguments(parser)
    add = parser.add_argument
    add("-b", "-batch", dest="batch", metavar="FILE", help="changes, one a line; - is stdin")
    add("-force", dest="force", action="store_true", help="-batch goes on behind an error")


def route(args: Namespace) -> int:
    """Show, find or change routes."""
    if args.batch is not None:
        return _batch(args)
    words = Words("route", args.words)
    if words.verb == "get":
        spec = words.pairs(("from", "to", "iif", "oif"), "to")
        if "to" not in spec:
            raise UsageError("need at least a destination address",
                             hint="netstack route get 10.0.0.1")  # fmt: skip
        rows = ask(args, "route_get", address=spec["to"], source=spec.get("from"),
                   iif=spec.get("iif"), oif=spec.get("oif"))  # fmt: skip
        return show(args, rows, _route_get_text)
    spec, table = _spec(words)
    if words.verb == "show":
        rows = ask(args, "route", table=table, spec=spec)
        asked = {"dev": "dev", "proto": "protocol", "scope": "scope"}
        known = {column for word, column in asked.items() if word in spec}
        rows = [{k: v for k, v in row.items() if k not in known} for row in rows]
        return show(args, rows, _route_text)
    if words.verb == "flush":
        _only_main(table)
        if not spec:
            raise UsageError("\"ip route flush\" requires arguments: what is to go",
                             hint="netstack route flush dev tap0")  # fmt: skip
        ask(args, "route_flush", spec=spec)
        return 0
    verb, spec = _change(words.verb, spec, table)
    ask(args, "route_change", verb=verb, spec=spec)
    return 0


def _spec(words: Words) -> tuple[Row, str]:
    """Read what describes a route, and the table."""
    kind = words.left.pop(0) if words.left and words.left[0] in ROUTE_TYPES else None
    keys = (*ROUTE_KEYS, *SAME, "table")
    found = words.pairs(keys, "to", ("onlink",))
    table = found.pop("table", "main")
    spec = {SAME.get(key, key): value for key, value in found.items()}
    spec |= {"type": kind} if kind else {}
    if "metric" in spec:
        spec["metric"] = number("metric", spec["metric"])
    return spec, table


def _only_main(table: str) -> None:
    if table != "main":
        message = f"table {table}: what is in it follows from addresses; allowed: main"
        raise UsageError(message, hint="netstack addr show")


def _change(verb: str, spec: Row, table: str) -> tuple[str, Row]:
    """Check a change, and give it as the host takes it."""
    _only_main(table)
    if "dst" not in spec:
        raise UsageError("Command line is not complete: the destination",
                         hint="netstack route add default via 10.0.0.1")  # fmt: skip
    if verb == "del":
        spec.pop("onlink", None)
    return verb.replace("append", "add"), spec


# ---- files of changes


def _batch(args: Namespace) -> int:
    """Make the changes of a file, as ``ip -batch`` does; 0 when none was refused."""
    if args.batch == "-":
        return _run_batch(args, sys.stdin)
    with open(args.batch, encoding="utf-8") as file:
        return _run_batch(args, file)


def _run_batch(args: Namespace, lines: Iterable[str]) -> int:
    wrong: list[int] = []
    some: list[tuple[int, str, Row]] = []
    failed = False
    try:
        for change in _changes(args, lines, wrong):
            some.append(change)
            if len(some) == AT_ONCE:
                done, some = some, []
                failed |= _send(args, done)
    finally:
        failed |= bool(some) and _send(args, some)  # what stands before a wrong line is done
    return 2 if failed or wrong else 0


def _changes(
    args: Namespace, lines: Iterable[str], wrong: list[int]
) -> Iterator[tuple[int, str, Row]]:
    """Read ``route add ...``, the first word left out or not; # begins a comment."""
    for nr, line in enumerate(lines, 1):
        left = shlex.split(line, comments=True)
        left = left[1:] if left and "route".startswith(left[0]) and left[0] else left
        if not left:
            continue
        try:
            words = Words("route", left)
            if words.verb in ("show", "get", "flush"):
                raise UsageError(f"{words.verb}: a file has changes only",
                                 hint="route add 10.9.0.0/16 via 10.0.0.1")  # fmt: skip
            yield (nr, *_change(words.verb, *_spec(words)))
        except UsageError as error:
            wrong.append(nr)
            if not args.force:
                raise UsageError(f"{error}\nCommand failed {args.batch}:{nr}") from None
            print(f"netstack: {error}\nCommand failed {args.batch}:{nr}", file=sys.stderr)


def _send(args: Namespace, some: list[tuple[int, str, Row]]) -> bool:
    """Make some changes at once; True when one was refused."""
    changes = [(verb, spec) for _, verb, spec in some]
    refused: list[dict[str, Any]] = ask(args, "route_batch", changes=changes, force=args.force)
    for each in refused:
        text = f"{each['error']}\nCommand failed {args.batch}:{some[each['place']][0]}"
        if not args.force:
            raise UsageError(text, hint=each["hint"] or "")
        print(f"netstack: {text}", file=sys.stderr)
    return bool(refused)


# ---- texts


def _route_text(row: Row) -> str:
    parts = [row["type"]] if "type" in row else []
    parts.append(row["dst"])
    for key, word in (("from", "from"), ("gateway", "via"), ("dev", "dev"), ("table", "table"),
                      ("protocol", "proto"), ("scope", "scope"), ("prefsrc", "src"),
                      ("metric", "metric")):  # fmt: skip
        parts += [word, str(row[key])] if key in row else []
    return " ".join([*parts, *row["flags"]]) + " "


def _route_get_text(row: Row) -> str:
    cache = f"<{','.join(row['cache'])}> " if row["cache"] else ""
    if "iif" in row:
        return f"{_route_text(row)}\n    cache {cache}iif {row['iif']} "
    return f"{_route_text(row)}uid {row['uid']} \n    cache {cache}"


COMMANDS = {
    "route": Command(
        route,
        "netstack route\nnetstack route show table local\nnetstack route get 10.0.0.1\n"
        "netstack route add default via 10.0.0.1\nnetstack route add blackhole 10.66.0.0/16\n"
        "netstack route replace 10.9.0.0/16 via 10.0.0.1 metric 5\nnetstack route del default\n"
        "netstack route get 10.0.1.1 from 10.0.0.1 iif tap0\nnetstack route get 10.0.1.1 oif tap0\n"
        "netstack route -batch routes.txt",
        _arguments,
        "The routing table of a running host, in the words of ip-route.\n\n"
        "  show [ROUTE] [table main|local|all]\n"
        "  get ADDR [from ADDR] [iif DEVICE]\n"
        "  add|append|change|replace|del [TYPE] PREFIX [via ADDR] [dev DEVICE] [src ADDR]\n"
        "      [metric N] [onlink] [proto PROTO] [scope SCOPE]\n"
        "  flush ROUTE\n\n"
        "PREFIX is 10.9.0.0/16 or default, TYPE unicast, blackhole, unreachable or prohibit.\n"
        "ROUTE is any of these that tells routes apart: dev tap0, via 10.0.0.1, 10.9.0.0/16.",
    ),
}
