"""netdev: a network device as Python sees it: its names, its addresses, the NIC behind it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import Any

from netstack.addresses import check_name
from netstack.errors import UsageError, oserror


class NetDevice:
    """One interface of a host. ``nic`` is its driver: statistics, rings, coalescing.

    ``wire`` is what the NIC reads from, kept here as long as the device lives. ``missed_source``, where
    there is one, tells how many frames the wire has lost before the NIC could take them: a TAP's
    tx_dropped, or what a memory wire had no room for. It is asked when statistics are.
    """

    def __init__(
        self,
        nic: Any,
        name: str,
        ifindex: int,
        mac: str,
        addresses: list[IPv4Interface],
        wire: Any = None,
    ) -> None:
        """Put together what ``Host.add_nic`` made."""
        self.nic = nic
        self.name = name
        self.ifindex = ifindex
        self.mac = mac
        self.addresses = addresses
        self.wire = wire
        self.missed_source: Callable[[], int] | None = None
        if hasattr(wire, "missed"):
            self.missed_source = lambda: wire.missed

    @property
    def mtu(self) -> int:
        """Bytes of the largest packet, Ethernet header not counted."""
        return int(self.nic.mtu)

    @property
    def rx_queues(self) -> int:
        """How many receive queues it has."""
        return int(getattr(self.nic, "rx_queues", 1))

    def refresh(self) -> None:
        """Bring the NIC's missed-packets register up to date."""
        if self.missed_source is not None:
            self.nic.set_missed(self.missed_source())

    def stats(self) -> dict[str, int]:
        """Give the counters under the names of rtnl_link_stats64."""
        self.refresh()
        return dict(self.nic.link_stats())

    def queued(self) -> int:
        """Frames in the NIC's memory and in its ring that the driver has not taken."""
        return int(self.nic.queued())

    def __repr__(self) -> str:
        """Give it as ``ip -br addr`` would."""
        return f"<{self.name} {' '.join(map(str, self.addresses))} {self.mac}>"


def check_free(host: Any, wire: Any, name: str) -> None:
    """Refuse a device of a host when its wire or name are in use, or can't be used."""
    if host.closed:
        raise oserror(errno.ENETDOWN, f"host {host.name} is closed", hint="netstack.Host()")
    if not hasattr(wire, "address"):
        raise TypeError(f"wire must be a MemoryWire, a TapWire or the like, not {wire!r}")
    if any(device.wire is wire for device in host.devices):
        raise UsageError("the wire has a NIC already", hint="netstack.MemoryWire.pair()")
    check_name(name)
    if any(device.name == name for device in host.devices):
        raise UsageError(
            f"host {host.name} has a device {name} already",
            hint=f"add_nic(wire, {name + '1'!r})",
        )
