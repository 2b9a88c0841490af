"""``netstack capture``: tcpdump's command line on the taps of a running host."""

from __future__ import annotations

import base64
import sys

from netstack import runtime
from netstack.capture.options import HELP, Options, parse
from netstack.capture.run import run
from netstack.cli.command import Command, Namespace, connect
from netstack.control_client import Control, hosts
from netstack.errors import UsageError
from netstack.tapstream import RemoteTap


def capture(args: Namespace) -> int:
    """Compile the filter here, so that its mistakes are found here, and copy what comes."""
    options = parse(args.words)
    if not options.live:
        return run(options, None, sys.stdout, sys.stderr)
    program = options.compile() if options.words else None
    if args.name is None:
        args.name = _host_of(options)
    with connect(args) as control:
        _check_places(options, control)
        head = control.request(
            "capture",
            program=base64.b64encode(program.insns).decode() if program else "",
            snaplen=options.snaplen,
        )
        control.sock.settimeout(None)
        source = RemoteTap(control.sock, head["names"], control.take_rest())
        return run(options, source, sys.stdout, sys.stderr)


def _host_of(options: Options) -> str | None:
    """Return the host that is named as the interface, as hosts of `netstack up` are."""
    names = {place.ifname for place in options.places}
    both = sorted(names & set(hosts(runtime.runtime_dir())))
    return both[0] if both else None


def _check_places(options: Options, control: Control) -> None:
    known = control.request("places")
    for place in options.places:
        if place.ifname not in (*known, "any") or place.stage not in ("", "any"):
            raise UsageError(
                f"host {control.name} has no place {place}",
                hint="\n".join(f"netstack capture -i {name}" for name in known),
            )


COMMANDS = {"capture": Command(capture, HELP)}
