"""``netstack capture``: tcpdump's command line on the taps of a running host."""

from __future__ import annotations

import base64
import sys

from netstack import runtime
from netstack.capture.options import HELP, Options, parse
from netstack.capture.run import run
from netstack.capture.stages import STAGES, programs
from netstack.cli.command import Command, Namespace, connect
from netstack.control_client import Control, hosts
from netstack.errors import UsageError
from netstack.tapstream import RemoteTap


def capture(args: Namespace) -> int:
    """Compile the filter here, so that its mistakes are found here, and copy what comes."""
    options = parse(args.words)
    if not options.live:
        return run(options, None, sys.stdout, sys.stderr)
    filters = programs(
        options.filter_text,
        {place.stage for place in options.places},
        options.snaplen,
        optimize=options.optimize,
    )
    code, raw = (base64.b64encode(p.insns).decode() if p else "" for p in filters)
    if args.name is None:
        args.name = _host_of(options)
    with connect(args) as control:
        wanted = _wanted(options, control)
        head = control.request(
            "capture", program=code, raw=raw, snaplen=options.snaplen, wanted=wanted
        )
        control.sock.settimeout(None)
        source = RemoteTap(control.sock, head["names"], control.take_rest(), head["places"])
        return run(options, source, sys.stdout, sys.stderr)


def _host_of(options: Options) -> str | None:
    """Return the host that is named as the interface, as hosts of `netstack up` are."""
    names = {place.ifname for place in options.places}
    both = sorted(names & set(hosts(runtime.runtime_dir())))
    return both[0] if both else None


def _wanted(options: Options, control: Control) -> list[tuple[str, str]]:
    """Give interfaces and stages to watch, of those there are; without ``-i`` the first."""
    known = [name for name, _ in control.request("places")]
    devices = [name for name in known if "@" not in name]
    for place in options.places:
        stage = place.stage in ("", "any", *STAGES)
        if not stage or (place.ifname != "any" and place.ifname not in devices):
            raise UsageError(
                f"host {control.name} has no place {place}",
                hint="\n".join(f"netstack capture -i {name}" for name in known),
            )
    return [(p.ifname, p.stage) for p in options.places] or [(devices[0], "")]


COMMANDS = {"capture": Command(capture, HELP)}
