"""live: a host behind a real TAP, from a name and an address."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from netstack.commands import COMMANDS, Running
from netstack.control import ControlServer
from netstack.device._tapwire import TapWire
from netstack.device.missed_frames import MissedFrames
from netstack.device.tap import Tap, choose_addresses, open_tap
from netstack.errors import UsageError
from netstack.host import Host
from netstack.runtime import runtime_dir

if TYPE_CHECKING:
    from netstack.netdev import NetDevice

log = logging.getLogger("netstack")


@contextmanager
def up(
    name: str = "tap0",
    addr: str | Sequence[str] | None = None,
    peer: str | None = None,
    *,
    mac: str | None = None,
    mtu: int = 1500,
    ring: int = 256,
    txqueuelen: int | None = None,
    control: bool = True,
    offload: bool = True,
    queues: int = 1,
    **options: Any,
) -> Iterator[Host]:
    """Create the TAP ``name`` or take it over, put a host behind it, and give the host.

    ::

        with netstack.up("tap0", addr="10.0.0.2/24") as host:
            sock = host.socket(AF_INET, SOCK_DGRAM)

    ``addr`` is the host's address with its prefix, or several; ``peer`` the kernel's end of the wire (the first
    other address of the subnet if None). ``offload``, as far as the kernel has it: datagrams of a sender with
    GSO come many in one read, leave so in one write, and checksums are left to the other side; off, every frame
    comes by itself, which senders that send so pay a tenth less for. ``queues``: pairs of queues of the NIC,
    spread over the CPUs. While it is up, ``netstack ss`` and its like answer about it from another terminal of
    this user, unless ``control`` is False. ``options`` go to ``Host``: ``cpus``.

    At the end of the block the host is closed and the TAP put back as it was found. Raises ValueError
    for what can't be, OSError with the kernel's errno otherwise; both say what to type
    (``netstack.errors.hint_of``).
    """
    first, *rest = [addr] if addr is None or isinstance(addr, str) else addr
    ours, theirs = choose_addresses(name, first, peer)
    with (
        open_tap(
            name, peer=theirs, host=ours, mtu=mtu, txqueuelen=txqueuelen, vnet_hdr=offload
        ) as tap,
        Host(tap.name, **options) as host,
    ):
        _plug(host, tap, [ours, *rest], offload, mac=mac, ring=ring, queues=queues)
        with _answering(host, control):
            yield host


def _plug(
    host: Host, tap: Tap, addr: Sequence[Any], offload: bool, **options: Any
) -> NetDevice:
    """Give a host a NIC on a TAP, whose losses are the NIC's missed packets."""
    wire = TapWire(tap.fileno(), vnet_hdr=offload)
    device = host.add_nic(wire, tap.name, addr=addr, mtu=tap.mtu, **options)
    device.missed_source = MissedFrames(tap, device.nic.taken).read if offload else tap.missed
    return device


def add_tap(
    host: Host,
    name: str,
    addr: str | Sequence[str],
    peer: str | None = None,
    *,
    mac: str | None = None,
    mtu: int = 1500,
    ring: int = 256,
    queues: int = 1,
    txqueuelen: int | None = None,
    offload: bool = True,
) -> NetDevice:
    """Give a host one more TAP; see ``Host.add_tap``."""
    first, *rest = [addr] if isinstance(addr, str) else addr
    ours, theirs = choose_addresses(name, first, peer)
    with ExitStack() as undo:
        tap = undo.enter_context(
            open_tap(
                name, peer=theirs, host=ours, mtu=mtu, txqueuelen=txqueuelen, vnet_hdr=offload
            )
        )
        device = _plug(host, tap, [ours, *rest], offload, mac=mac, ring=ring, queues=queues)
        host.at_close.push(undo.pop_all())
    return device


@contextmanager
def _answering(host: Host, control: bool) -> Iterator[None]:
    """Keep a control socket open while the block runs. A program does not fail for want of one."""
    server = _control(host) if control else None
    try:
        yield
    finally:
        if server is not None:
            server.close()


def _control(host: Host) -> ControlServer | None:
    """Open the host's control socket under its name, or with the pid behind where that is taken."""
    for name in (host.name, f"{host.name}-{os.getpid()}"):
        running = Running(host, name)
        try:
            server = ControlServer(name, runtime_dir(), running, COMMANDS)
        except (OSError, UsageError) as error:
            log.info("host %s has no control socket: %s", name, error)
            continue
        server.start()
        return server
    return None
