"""``netstack up``: bring a host up behind a TAP, show it, and put everything back."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

from netstack import apps, runtime, stats
from netstack.addresses import DEFAULT_ADDRESS, check_name
from netstack.apps import App
from netstack.cli.command import Command, Namespace, Parser
from netstack.cli.live import Live
from netstack.commands import COMMANDS as QUESTIONS
from netstack.commands import Running
from netstack.control import ControlServer
from netstack.errors import UsageError
from netstack.signals import orderly_exit

PATIENCE = 2.0  # seconds for an app to notice that its sockets are closed
# Seconds: a signal in the moment before a wait begins does not end that one, only the next.
LONGEST_WAIT = 0.5


def _arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("device", nargs="?", default="tap0", metavar="TAP", help="name of the TAP (tap0)")
    _device_arguments(parser)
    add("--cpus", type=int, default=1, help="CPUs of the host, each a thread (1)")
    add(
        "--app",
        action="append",
        metavar="APP",
        help="echo (default), discard, chargen, MODULE:FUNCTION or none; again for more",
    )
    add("--no-fast-path", action="store_true", help="every packet through the Python layers")
    add("--quiet", action="store_true", help="print nothing but errors")
    add(
        "--and",
        dest="more",
        nargs=argparse.REMAINDER,
        metavar="TAP ...",
        help="one more device with its own --addr, --peer, --mac, --mtu, --ring, --queues, --no-offload; "
        "behind all else, again for a third",
    )


def _device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what each device has of its own."""
    add = parser.add_argument
    add(
        "--addr",
        action="append",
        metavar="ADDR/LEN",
        help=f"an address of the host ({DEFAULT_ADDRESS}); again for more",
    )
    add("--peer", metavar="ADDR", help="the address of this machine's end (the subnet's first)")
    add("--mac", metavar="MAC", help="the host's MAC address (made from the name)")
    add("--mtu", type=int, default=1500, help="bytes, Ethernet header not counted (1500)")
    add("--ring", type=int, default=256, help="descriptors of the receive ring (256)")
    add(
        "--queues", type=int, default=1, help="queue pairs of the NIC, spread over the CPUs (1)"
    )
    add(
        "--offload",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="take datagrams of a sender with GSO many at a time, and leave checksums to the wire (on)",
    )


def _more(words: list[str] | None) -> list[Namespace]:
    """Read the devices behind ``--and``; None for no such word."""
    found = []
    while words is not None:
        end = words.index("--and") if "--and" in words else len(words)
        parser = Parser(prog="netstack up", add_help=False, allow_abbrev=False)
        parser.example = "netstack up tap0 --addr 10.0.0.2/24 --and tap1 --addr 10.0.1.2/24"
        parser.add_argument("device", metavar="TAP")
        _device_arguments(parser)
        args = parser.parse_args(words[:end])
        check_name(args.device)
        if not args.addr:
            parser.error(f"{args.device} wants an address of its own: --addr 10.0.1.2/24")
        found.append(args)
        words = words[end + 1 :] if end < len(words) else None
    return found


def _servers(specs: list[str]) -> list[App]:
    """Find the apps, each of ours once: a second one would find its port in use."""
    servers = [apps.find(spec) for spec in specs if spec != "none"]
    for app in servers:
        if app.port and servers.count(app) > 1:
            raise UsageError(f"--app {app.name} is given twice", hint=f"--app {app.name}")
    return servers


def up(args: Namespace) -> int:
    """Run a host until a signal or ``netstack stop``; 0 when every frame is accounted for."""
    name = check_name(args.device)
    more = _more(args.more)
    servers = _servers(args.app or ["echo"])
    with ExitStack() as stack:
        stack.enter_context(orderly_exit())
        in_lab = _enter_lab(name, stack)
        ended = threading.Event()
        running = Running(None, name, [str(app) for app in servers], ended.set)
        # First of all, so that a second host of this name is refused before it touches a TAP.
        directory = runtime.runtime_dir()
        server = ControlServer(name, directory, running, QUESTIONS)
        stack.callback(server.close)
        stack.callback((directory / f"{name}.nstat").unlink, missing_ok=True)  # its history
        running.host = host = stack.enter_context(_host(args))
        for each in more:
            host.add_tap(each.device, **_options(each))
        threads: list[threading.Thread] = []
        with suppress(SystemExit):  # a signal: from here on the orderly way out, no failure
            threads += [apps.start(host, app) for app in servers]
            server.start()
            if not args.quiet and not args.json:
                print(banner(host, name, servers, in_lab), flush=True)
            _watch(host, args, ended)
        server.close()
        host.close()
        for thread in threads:
            thread.join(PATIENCE)
        return _summary(host, args)


def _enter_lab(name: str, stack: ExitStack) -> bool:
    """Go into a network of our own if this user can make a TAP only there."""
    from netstack import lab

    if not lab.is_needed(name):
        return False
    stack.enter_context(runtime.announce(name, runtime.runtime_dir()))
    lab.enter()
    return True


def _host(args: Namespace) -> Any:
    import netstack

    return netstack.up(
        args.device,
        **_options(args),
        cpus=args.cpus,
        fast_path=not args.no_fast_path,
        control=False,  # ours can be stopped, and is there before the host
    )


def _options(args: Namespace) -> dict[str, Any]:
    """Give what one device was asked to be."""
    addr = args.addr[0] if args.addr and len(args.addr) == 1 else args.addr
    keys = ("peer", "mac", "mtu", "ring", "queues", "offload")
    return {"addr": addr} | {key: getattr(args, key) for key in keys}


def _watch(host: Any, args: Namespace, ended: threading.Event) -> None:
    """Show the host until it is to end."""
    live = Live(host, f"{args.device}  Ctrl-C ends it", sys.stdout, as_json=args.json)
    due = time.monotonic() + live.interval
    try:
        while not ended.wait(LONGEST_WAIT):
            if not args.quiet and time.monotonic() >= due:
                due += live.interval
                live.show()
    finally:
        live.close()


def _summary(host: Any, args: Namespace) -> int:
    account = stats.ledger(host)
    if args.json:
        import json

        print(json.dumps({"ledger": account.as_dict()}), flush=True)
    elif not args.quiet:
        print(
            f"\n{args.device} is down, and everything as it was.\n{account.text()}", flush=True
        )
    if account.balanced:
        return 0
    print("netstack: the ledger does not balance; please report it", file=sys.stderr)
    return 1


def banner(host: Any, name: str, servers: list[App], in_lab: bool) -> str:
    """Say what was brought up, and what to type next."""
    device = next(device for device in host.devices if device.name == name)
    address = device.addresses[0]
    others = [each for each in host.devices if each.name not in (name, "lo")]
    inside = "netstack exec " if in_lab else ""
    asking = "sudo netstack" if os.environ.get("SUDO_USER") else "netstack"
    where = "a network of your own" if in_lab else "this machine"
    lines = [
        f"{name} is up. Behind it is the host {address}, {device.mac}, mtu {device.mtu}.",
        *(
            f"{each.name} is its device too: {' '.join(map(str, each.addresses))}, {each.mac}."
            for each in others
        ),
        *(f"  serving {app}" for app in servers),
        f"From a second terminal, in {where}:",
        f"  {inside}ping {address.ip}",
    ]
    ports = [app.port for app in servers if app.port]
    lines += [f"  {inside}nc -u {address.ip} {port}" for port in ports[:1]]
    lines += [
        f"  {asking} drops      where frames were lost, and why",
        f"  {asking} capture    what is on the wire",
        f"  {asking} --help     all there is",
    ]
    return "\n".join(lines)


COMMANDS = {
    "up": Command(
        up,
        "sudo netstack up tap0\n"
        "netstack up    as an ordinary user: in a network of its own\n"
        "netstack up tap0 --addr 10.9.0.2/24 --peer 10.9.0.1 --app echo --app discard\n"
        "netstack up tap0 --app mymodule:serve    calls serve(host) in a thread\n"
        "netstack up tap0 --addr 10.0.0.2/24 --and tap1 --addr 10.0.1.2/24    two devices",
        _arguments,
        "Bring a host up behind a TAP and show what it does. Ctrl-C ends it, puts the TAP\n"
        "back as it was found, and prints where every frame went.",
        asks_host=False,
    ),
}
