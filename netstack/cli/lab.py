"""``netstack exec`` and ``netstack doctor``: a place to run in, and what it lacks."""

from __future__ import annotations

import errno
import os

from netstack import runtime
from netstack.cli.command import Command, Namespace, Parser, print_json
from netstack.control_client import hosts
from netstack.errors import UsageError, oserror

EXEC_HELP = """\
usage: netstack [-i NAME] exec COMMAND [arguments]

Run a command where the peer of the host is. After `netstack up` of an ordinary user that is a
network of its own (a lab), which only this command sees; after `sudo netstack up` it is the
machine's own network, and the command runs as it would without us.

examples
  netstack exec ping -c 3 10.0.0.2
  netstack exec nc -u 10.0.0.2 7
  netstack exec bash
"""


def execute(args: Namespace) -> int:
    """Replace this process by the command, in the lab if the host lives in one."""
    words: list[str] = args.words
    if words[:1] in (["-h"], ["--help"]):
        print(EXEC_HELP, end="")
        return 0
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise UsageError("no command is given", hint="netstack exec ping 10.0.0.2")
    directory = runtime.runtime_dir()
    alive = runtime.labs(directory)
    here = [name for name in hosts(directory) if name not in alive]
    if args.name in here or (args.name is None and here and not alive):
        _replace(words)
    from netstack import lab

    lab.execute(runtime.find_lab(directory, args.name), words)
    return 0


def _replace(words: list[str]) -> None:
    try:
        os.execvp(words[0], words)
    except OSError as error:
        number = error.errno or errno.EIO
        message = f"{words[0]}: {os.strerror(number)}"
        if number == errno.ENOENT:
            message = f"{words[0]}: no such command in PATH"
        raise oserror(number, message, hint="netstack exec ping 10.0.0.2") from None


def _no_arguments(_parser: Parser) -> None:
    """Take the common options only."""


def doctor(args: Namespace) -> int:
    """Print what was looked at; status 1 when something essential is missing."""
    from netstack import doctor as checks

    found = checks.checks()
    if args.json:
        print_json(checks.as_dicts(found))
    else:
        print(checks.as_text(found))
    return 0 if checks.ready(found) else 1


COMMANDS = {
    "exec": Command(execute, EXEC_HELP),
    "doctor": Command(
        doctor,
        "netstack doctor\nnetstack doctor --json",
        _no_arguments,
        "Look at everything that netstack needs. Changes nothing, needs no privilege.\n"
        "Exit status 1: something essential is missing; what mends it stands below it.",
        asks_host=False,
    ),
}
