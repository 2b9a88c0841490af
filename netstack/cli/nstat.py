"""``netstack nstat``: counters under nstat's names, as increments since the last look."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from netstack import runtime
from netstack.cli.command import Command, Namespace, Parser, connect, print_json
from netstack.errors import UsageError
from netstack.stats import matching


def _arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("patterns", nargs="*", metavar="PATTERN", help="shell patterns of names: 'Udp*'")
    add("-a", "--ignore", action="store_true", help="absolute values, not the increments")
    add("-z", "--zeros", action="store_true", help="counters of 0 as well")
    add("-s", "--noupdate", action="store_true", help="do not remember this look")
    add("-n", "--nooutput", action="store_true", help="only remember, print nothing")
    add("-r", "--reset", action="store_true", help="forget the last look first")
    add("-j", dest="json", action="store_true", help="the same as --json")


def nstat(args: Namespace) -> int:
    """Print the counters that changed since the last call of this user."""
    with connect(args) as control:
        answer = control.request("nstat")
        path = runtime.runtime_dir() / f"{control.name}.nstat"
    values: dict[str, int] = answer["counters"]
    _check(args.patterns, list(values))
    before = {} if args.reset or args.ignore else _read(path, answer["since"])
    last: dict[str, int] = before.get("counters", {})
    seconds = answer["now"] - before.get("now", answer["now"])
    if not args.nooutput:
        shown = {
            name: values[name] - last.get(name, 0)
            for name in matching(list(values), args.patterns)
        }
        if not args.zeros:
            shown = {name: value for name, value in shown.items() if value}
        _print(shown, seconds, args.json)
    if not args.noupdate:
        path.write_text(json.dumps(answer))
    return 0


def _check(patterns: list[str], names: list[str]) -> None:
    """Refuse a pattern that names no counter: a typing error would look like a counter of 0."""
    for pattern in patterns:
        if matching(names, [pattern]) or pattern.startswith("IcmpMsg"):  # there once they count
            continue
        near = get_close_matches(pattern, names, n=1)
        raise UsageError(
            f"no counter matches {pattern!r}",
            hint=f"netstack nstat -az {near[0] if near else ''}".strip(),
        )


def _read(path: Path, since: float) -> dict[str, Any]:
    """Return the last look, if it was at the same life of the host."""
    try:
        look = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return look if isinstance(look, dict) and look.get("since") == since else {}


def _print(values: dict[str, int], seconds: float, as_json: bool) -> None:
    """Print in nstat's columns; the last is the average a second since the last look."""
    if as_json:
        print_json({"kernel": values})
        return
    print("#kernel")
    for name, value in values.items():
        rate = value / seconds if seconds > 0 else 0.0
        print(f"{name:<32}{value:<16}{rate:6.1f}")


COMMANDS = {
    "nstat": Command(
        nstat,
        "netstack nstat\nnetstack nstat -a\nnetstack nstat -az 'Udp*' IpInReceives\n"
        "netstack nstat -n && ping -c 10 10.0.0.2 && netstack nstat    what ten pings count",
        _arguments,
        "Counters under the names of iproute2's nstat. Like nstat it prints how much each has\n"
        "grown since the last call, and remembers; the last column is the average a second.",
    ),
}
