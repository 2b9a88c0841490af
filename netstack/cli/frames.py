"""Where frames are and how they ended: ``drops``, ``ledger``, ``softnet``."""

from __future__ import annotations

from typing import Any

from netstack.cli.command import Command, Namespace, Parser, ask, print_json, table
from netstack.stats import Ledger


def _no_arguments(_parser: Parser) -> None:
    """Take the common options only."""


def drops(args: Namespace) -> int:
    """Print the reasons that have counted, the largest first."""
    rows = ask(args, "drops")
    if args.json:
        print_json(rows)
        return 0
    if not rows:
        print("no frame was dropped")
    for row in rows:
        place = f"  ({row['place']})" if row["place"] else ""
        print(f"{row['count']:>12,}  {row['reason']}{place}")
        print(f"{'':14}{row['text']}")
        print(f"{'':14}try: {row['hint']}")
    return 0


def ledger(args: Namespace) -> int:
    """Print the account; status 1 when a frame is missing."""
    data = ask(args, "ledger")
    account = Ledger.from_dict(data)
    if args.json:
        print_json(data)
    else:
        print(account.text())
        if data["moving"] and not account.balanced:
            print("frames are moving: some are between two places")
    return 0 if account.balanced or data["moving"] else 1


def softnet(args: Namespace) -> int:
    """Print what each CPU has counted."""
    rows: list[dict[str, Any]] = ask(args, "softnet")
    if args.json:
        print_json(rows)
        return 0
    names = [name for name in rows[0] if name not in ("cpu", "tid")]
    head = ["cpu", *(str(row["cpu"]) for row in rows)]
    print(table(head, ([name, *(row[name] for row in rows)] for name in names)))
    return 0


COMMANDS = {
    "drops": Command(
        drops,
        "netstack drops\nnetstack drops --json",
        _no_arguments,
        "Dropped frames by reason: how many, where in netstack/, why, and what to do about it.",
    ),
    "ledger": Command(
        ledger,
        "netstack ledger\nnetstack ledger --json",
        _no_arguments,
        "Where every frame off the wire is. Exit status 1: some are unaccounted for though\n"
        "none is moving.",
    ),
    "softnet": Command(
        softnet,
        "netstack softnet\nnetstack softnet --json\n"
        "netstack proc net/softnet_stat    the same as the kernel's hex columns",
        _no_arguments,
        "The softirq counters of each CPU: packets, squeezed rounds, drops, busy polls.",
    ),
}
