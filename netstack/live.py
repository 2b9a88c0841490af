"""live: a host behind a real TAP, from a name and an address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from netstack.device._tapwire import TapWire
from netstack.device.tap import choose_addresses, open_tap
from netstack.host import Host


@contextmanager
def up(
    name: str = "tap0",
    addr: str | None = None,
    peer: str | None = None,
    *,
    mac: str | None = None,
    mtu: int = 1500,
    ring: int = 256,
    txqueuelen: int | None = None,
    **options: Any,
) -> Iterator[Host]:
    """Create the TAP ``name`` or take it over, put a host behind it, and give the host.

    ::

        with netstack.up("tap0", addr="10.0.0.2/24") as host:
            sock = host.socket(AF_INET, SOCK_DGRAM)

    ``addr`` is the host's address with its prefix, ``peer`` the kernel's end of the wire (the first
    other address of the subnet if None). ``options`` go to ``Host``. At the end of the block the host
    is closed and the TAP put back as it was found. Raises ValueError for what can't be, OSError with
    the kernel's errno otherwise; both say what to type (``netstack.errors.hint_of``).
    """
    ours, theirs = choose_addresses(name, addr, peer)
    with (
        open_tap(name, peer=theirs, host=ours, mtu=mtu, txqueuelen=txqueuelen) as tap,
        Host(tap.name, **options) as host,
    ):
        device = host.add_nic(
            TapWire(tap.fileno()), tap.name, addr=ours, mac=mac, mtu=tap.mtu, ring=ring
        )
        device.missed_source = tap.missed
        yield host
