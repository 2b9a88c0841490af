"""``netstack proc``, ``netstack sys``, ``netstack sysctl``: the host as the kernel's files show theirs."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from netstack.cli.command import Command, Namespace, Parser, ask, print_json
from netstack.errors import UsageError, oserror
from netstack.procfs import write_tree


def _proc_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "paths",
        nargs="*",
        metavar="FILE[=TEXT]",
        help="a path below /proc, or what to write; none: list",
    )
    add("--root", type=Path, metavar="DIR", help="write all files below DIR instead")


def proc(args: Namespace) -> int:
    """Print files, or their names, write them all elsewhere, or write into one."""
    if args.root is not None:
        _write(ask(args, "proc"), args.root, "proc")
    elif not args.paths:
        _print_names(args, ask(args, "proc_names"))
    else:
        new = dict(path.split("=", 1) for path in args.paths if "=" in path)
        files: dict[str, str] = ask(args, "set_proc", values=new) if new else {}
        shown = [path for path in args.paths if "=" not in path]
        _print_files(args, files | (ask(args, "proc", paths=shown) if shown else {}))
    return 0


def _write(files: dict[str, str], root: Path, command: str) -> None:
    try:
        write_tree(files, root)
    except OSError as error:
        number = error.errno or errno.EIO
        message = f"{root} can't be written: {os.strerror(number)}"
        raise oserror(number, message, hint=f"netstack {command} --root $(mktemp -d)") from None


def _print_names(args: Namespace, names: list[str]) -> None:
    print_json(names) if args.json else print("\n".join(names))


def _print_files(args: Namespace, files: dict[str, str]) -> None:
    if args.json:
        print_json([{"file": path, "text": text} for path, text in files.items()])
    else:
        print("".join(files.values()), end="")


def _sys_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE[=TEXT]", help="a path below /sys; none: list them")
    add("--root", type=Path, metavar="DIR", help="write all files below DIR instead")


def sys(args: Namespace) -> int:
    """Print files below /sys, write to them, list them, or copy them all."""
    asked = [text.partition("=") for text in args.files]
    new = {path: text for path, equals, text in asked if equals}
    shown = [path for path, equals, _ in asked if not equals]
    if args.root is not None:
        _write(ask(args, "sys"), args.root, "sys")
    elif not asked:
        _print_names(args, ask(args, "sys_names"))
    else:
        files: dict[str, str] = ask(args, "set_sys", values=new) if new else {}
        _print_files(args, files | (ask(args, "sys", paths=shown) if shown else {}))
    return 0


def _sysctl_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("settings", nargs="*", metavar="NAME[=VALUE]", help="show, or set, a tunable")
    add("-a", "--all", action="store_true", help="show all of them")
    add("-n", "--values", action="store_true", help="print values without names")
    add("-v", "--verbose", action="store_true", help="say what each is, and what is allowed")
    add("-w", "--write", action="store_true", help="every NAME must come with a value")


def sysctl(args: Namespace) -> int:
    """Show tunables, or set them: all, or none when one is refused."""
    settings = dict(_setting(text, args.write) for text in args.settings)
    if not settings and not args.all:
        ways = "netstack sysctl -a\nnetstack sysctl net.core.netdev_budget"
        raise UsageError("say which tunables", hint=ways)
    new = {name: value for name, value in settings.items() if value is not None}
    rows: list[dict[str, Any]] = ask(args, "set_sysctl", values=new) if new else []
    shown = [name for name in settings if name not in new]
    if shown or args.all:
        rows += ask(args, "sysctl", names=None if args.all else shown)
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        print(row["text"] if args.values else f"{row['name']} = {row['text']}")
        if args.verbose:
            print(f"    {row['doc']}\n    allowed: {row['range']}; default {_default(row)}")
    return 0


def _setting(text: str, must_set: bool) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if must_set and not equals:
        raise UsageError(f"{text!r} has no value", hint=f"netstack sysctl -w {name}=VALUE")
    return name.strip(), value.strip() if equals else None


def _default(row: dict[str, Any]) -> str:
    """Say the default; 0 0 0 stands for what depends on the size of the host."""
    return " ".join(map(str, row["default"])) if any(row["default"]) else "0"


COMMANDS = {
    "proc": Command(
        proc,
        "netstack proc net/snmp\nnetstack proc                      list the files\n"
        "netstack proc net/softnet_stat net/udp\n"
        "netstack proc irq/25/smp_affinity=2    the line goes to CPU 1 from now on\n"
        "netstack proc --root /tmp/p && PROC_ROOT=/tmp/p nstat -as    read by iproute2\n"
        "prometheus-node-exporter --path.procfs=/tmp/p    and by others; psutil.PROCFS_PATH",
        _proc_arguments,
        "The text of files below /proc as Linux prints them, of this host.",
    ),
    "sys": Command(
        sys,
        "netstack sys                       list the files\n"
        "netstack sys class/net/tap0/queues/rx-0/rps_cpus\n"
        "netstack sys class/net/tap0/queues/rx-0/rps_cpus=3",
        _sys_arguments,
        "The text of files below /sys as Linux prints them, of this host's devices; some can be written.",
    ),
    "sysctl": Command(
        sysctl,
        "netstack sysctl -a\nnetstack sysctl net.core.netdev_budget\n"
        "netstack sysctl net.core.netdev_budget=50\nnetstack sysctl -v fast_path",
        _sysctl_arguments,
        "Show and set the tunables of a running host. They hold from the next packet on.",
    ),
}
