"""The command line: ``netstack COMMAND``, one file a family of commands.

This file knows only their names, so that ``netstack --help`` answers at once; what a command
needs is imported when it is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from netstack.errors import InternalError, UsageError, explain

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
EXIT_SIGINT, EXIT_SIGPIPE = 130, 141  # what a shell shows for a program that these ended

# Command: the file below cli/ that has it, and what it does.
COMMANDS = {
    "up": ("up", "bring a host up behind a TAP"),
    "stop": ("stop", "end a host as Ctrl-C in its terminal does"),
    "exec": ("lab", "run a command where the host's peer is: ping, nc, tcpdump"),
    "doctor": ("lab", "say what this machine lacks, and the line that mends it"),
    "ss": ("ss", "sockets, their queues and drops"),
    "nstat": ("nstat", "SNMP counters, since the last look or absolute"),
    "drops": ("frames", "dropped frames by reason, with the place and a hint"),
    "ledger": ("frames", "where every frame is"),
    "softnet": ("frames", "the softirq counters of each CPU"),
    "ethtool": ("ethtool", "the NIC and its driver: show, set, test"),
    "link": ("ip", "devices: show, set"),
    "addr": ("ip", "addresses: show, add, del, flush"),
    "route": ("route", "routes: show, get, add, replace, del, flush"),
    "neigh": ("ip", "neighbours (ARP): show, add, replace, del, flush"),
    "nft": ("nft", "netfilter rules: list, add, delete, flush"),
    "sysctl": ("proc", "tunables: list, show, set"),
    "proc": ("proc", "the text of /proc/net/snmp, softnet_stat and others"),
    "sys": ("proc", "the files of /sys/class/net: show, set (RPS, RFS)"),
    "capture": ("capture", "tcpdump's flags and filters; pcapng for Wireshark"),
}

HELP = """\
usage: netstack [-i NAME] COMMAND [arguments]

{commands}

  -i, --name NAME   which host is meant, when several run
  --version         print the version
  netstack COMMAND --help says more, with examples

to begin
  sudo netstack up tap0            a host at 10.0.0.2, behind the TAP tap0
  ping 10.0.0.2                    from a second terminal
  sudo netstack drops              where frames were lost, and why
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit status.

    0 is success, 2 a mistake of the caller: one line says what it was, others what to type.
    """
    _open_standard_streams()
    try:
        return _answer(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        _forget_broken_pipes()
        return EXIT_SIGPIPE


def _forget_broken_pipes() -> None:
    """Whoever read our output has left: keep the interpreter from finding out at its end as well."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_standard_streams() -> None:
    """Give a stream to each that was closed (``>&-``), so that no TAP or socket gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = os.O_RDWR if number else os.O_RDONLY
            nowhere = os.open(os.devnull, mode)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _answer(words: list[str]) -> int:
    """Run the words, and print what went wrong."""
    try:
        status = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:  # an OSError, and no mistake of the caller
        raise
    except KeyboardInterrupt:
        return EXIT_SIGINT
    except InternalError as error:
        print(f"netstack: {explain(error)}", file=sys.stderr)
        return EXIT_FAILED
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("netstack."):
            raise
        print(f"netstack: {error.name} is not built\n  try: ./dev.sh build", file=sys.stderr)
        return EXIT_FAILED
    except (UsageError, OSError) as error:
        print(f"netstack: {explain(error)}", file=sys.stderr)
        return EXIT_USAGE
    return status


def _run(words: list[str]) -> int:
    """Read the options in front of the command, and hand the rest to it."""
    host = None
    while words and words[0].startswith("-"):
        option, equals, value = words.pop(0).partition("=")
        if option in ("-h", "--help"):
            words.insert(0, "help")
            break
        if option in ("-V", "--version"):
            from netstack import __version__

            print(f"netstack {__version__}")
            return EXIT_OK
        if option not in ("-i", "--name"):
            raise _misplaced(option, words)
        host = value if equals else words.pop(0) if words else ""
        if not host:
            raise UsageError(f"{option} wants the name of a host", hint="netstack -i tap0 ss")
    if not words:
        sys.stdout.write(help_text())
        return EXIT_USAGE
    name, *rest = words
    if name == "help":
        if not rest:
            sys.stdout.write(help_text())
            return EXIT_OK
        name, rest = rest[0], ["--help"]
    if name not in COMMANDS:
        raise _unknown(name)
    from netstack.cli.command import Command

    command: Command = import_module(f"netstack.cli.{COMMANDS[name][0]}").COMMANDS[name]
    return command(name, rest, host)


def help_text() -> str:
    """Return what ``netstack --help`` prints."""
    width = max(map(len, COMMANDS)) + 2
    rows = (f"  {name:<{width}}{what}" for name, (_, what) in COMMANDS.items())
    return HELP.format(commands="\n".join(rows))


def _misplaced(option: str, words: list[str]) -> UsageError:
    """Say where an option belongs that stands before the command."""
    command = words[0] if words and words[0] in COMMANDS else ""
    hint = f"netstack {command} {option}\n" if command else ""
    message = f"unknown option {option}: before the command are -i NAME, --version and --help"
    return UsageError(message, hint=f"{hint}netstack --help")


def _unknown(name: str) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    hint = f"netstack {near[0]}" if near else "netstack --help"
    return UsageError(f"there is no command {name!r}", hint=hint)
