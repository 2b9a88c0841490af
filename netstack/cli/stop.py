"""``netstack stop``: end a host from another terminal."""

from __future__ import annotations

import errno
import time

from netstack import runtime
from netstack.cli.command import Command, Namespace, Parser, connect, print_json
from netstack.control import is_answering
from netstack.errors import oserror

PATIENCE = 20.0  # seconds; closing takes well under one


def _arguments(parser: Parser) -> None:
    parser.add_argument("host", nargs="?", metavar="NAME", help="the host; needed for several")


def stop(args: Namespace) -> int:
    """Ask the host to end, and wait until its socket is gone."""
    args.name = args.host or args.name
    with connect(args) as control:
        control.request("stop")
        path = runtime.runtime_dir() / f"{control.name}.sock"
        deadline = time.monotonic() + PATIENCE
        while is_answering(path):
            if time.monotonic() > deadline:
                message = f"host {control.name} has not ended in {PATIENCE:.0f} s"
                raise oserror(errno.ETIMEDOUT, message, hint="netstack doctor")
            time.sleep(0.02)
    print_json({"ended": control.name}) if args.json else print(f"{control.name} has ended")
    return 0


COMMANDS = {
    "stop": Command(
        stop,
        "netstack stop\nnetstack stop tap0",
        _arguments,
        "End a host as Ctrl-C in its terminal does: its TAP is put back, its summary printed.",
    ),
}
