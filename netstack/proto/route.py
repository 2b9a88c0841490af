"""route: the routing table as a user changes it, and the lookups the Python layers need.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       addresses and routes             host.py, cli/
Out      a table without locks            proto/_route.pyx
Context  process
Kernel   fib_add_ifaddr(), fib_table_insert(), net/ipv4/fib_frontend.c, fib_trie.c

The compiled table is never changed: every change here publishes a new one. What is ours (the
kernel's local table) is asked before what a user added, so it goes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, NamedTuple

from netstack.errors import oserror
from netstack.proto._route import Fib

if TYPE_CHECKING:
    from netstack._net import Net

EEXIST, ESRCH, ENETUNREACH, EADDRNOTAVAIL = 17, 3, 101, 99
NONE = IPv4Address(0)
RTCF_BROADCAST, RTCF_MULTICAST, RTCF_LOCAL = 0x10000000, 0x20000000, 0x80000000


class RTN(IntEnum):
    """The kinds of route. [<linux/rtnetlink.h>]"""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table; ``gateway`` and ``prefsrc`` are 0.0.0.0 for none."""

    prefix: IPv4Network
    type: RTN
    ifindex: int
    gateway: IPv4Address = NONE
    prefsrc: IPv4Address = NONE
    metric: int = 0
    is_kernel: bool = False  # follows from an address (proto kernel)

    def row(self) -> tuple[int, int, int, int, int, int]:
        """Give the row as ``Fib.publish`` takes it."""
        return (
            int(self.prefix.network_address),
            self.prefix.prefixlen,
            self.type,
            self.ifindex,
            int(self.gateway),
            int(self.prefsrc),
        )


class OutputRoute(NamedTuple):
    """How a packet leaves. ``error`` is an errno, or 0. Addresses as integers in host order."""

    error: int
    daddr: int
    saddr: int
    gateway: int
    flags: int
    mtu: int
    type: int
    ifindex: int


class InputRoute(NamedTuple):
    """What a received packet is. ``reason`` is a drop reason, or 0; ``error`` an errno, or 0."""

    reason: int
    error: int
    saddr: int
    gateway: int
    flags: int
    mtu: int
    type: int
    ifindex: int


class Routes:
    """The addresses and routes of one host."""

    def __init__(self, net: Net) -> None:
        """Make an empty table and hang it into ``net``."""
        self.fib = Fib(net)
        self.addresses: dict[int, list[IPv4Interface]] = {}
        self.broadcasts: dict[IPv4Address, IPv4Address] = {}  # shown of an address; brd +
        self.down: set[int] = set()  # devices without routes: link set down
        self._main: dict[tuple[IPv4Network, int], Route] = {}

    # ---- addresses

    def add_address(self, ifindex: int, address: IPv4Interface | str) -> None:
        """Give a device an address, with the routes that follow from it. [fib_add_ifaddr()]

        Raises FileExistsError when the host has it.
        """
        address = IPv4Interface(address)
        if any(address.ip == have.ip for rows in self.addresses.values() for have in rows):
            raise oserror(EEXIST, f"{address.ip} is an address of this host already")
        self.addresses.setdefault(ifindex, []).append(address)
        self._publish()

    def remove_address(self, ifindex: int, address: IPv4Interface | str) -> None:
        """Take an address away, with its routes; the last primary one of a subnet takes the others along.

        [fib_del_ifaddr(), inet_del_ifa()]
        """
        address = IPv4Interface(address)
        if address not in self.addresses.get(ifindex, []):
            raise oserror(EADDRNOTAVAIL, f"device {ifindex} does not have {address}")
        have = self.addresses[ifindex]
        gone = [address]
        if not self.is_secondary(ifindex, address):
            gone += [
                each for each in have if each != address and each.network == address.network
            ]
        have[:] = [each for each in have if each not in gone]
        for each in gone:
            self.broadcasts.pop(each.ip, None)
            self._main = {k: v for k, v in self._main.items() if v.prefsrc != each.ip}
        self._publish()

    def is_secondary(self, ifindex: int, address: IPv4Interface) -> bool:
        """Tell whether an earlier address of the device is in the same subnet."""
        have = self.addresses[ifindex]
        return any(each.network == address.network for each in have[: have.index(address)])

    def set_down(self, ifindex: int, down: bool) -> None:
        """Take a device's routes away, those a user added for good, or give those of addresses back.

        [fib_disable_ip(), fib_add_ifaddr()]
        """
        if down:
            self.down.add(ifindex)
            self._main = {k: v for k, v in self._main.items() if v.ifindex != ifindex}
        else:
            self.down.discard(ifindex)
        self._publish()

    def refresh(self) -> None:
        """Publish again: the MTU of a device has changed, and with it what is remembered."""
        self._publish()

    # ---- routes

    def add_route(self, route: Route) -> None:
        """Add a route. [fib_table_insert()]

        Of several to one prefix that with the lowest metric is taken. Raises FileExistsError
        when there is one with this metric, and OSError (ENETUNREACH) when the gateway is not in
        the subnet of one of our addresses.
        """
        if any(
            route.prefix == r.prefix and route.metric == r.metric for r in self.main_table()
        ):
            raise oserror(EEXIST, f"there is a route to {route.prefix}; remove it first")
        if int(route.gateway) and not self._on_link(route.gateway, route.ifindex):
            raise oserror(
                ENETUNREACH,
                f"gateway {route.gateway} is in no subnet of device {route.ifindex}",
            )
        self._main[route.prefix, route.metric] = route
        self._publish()

    def remove_route(self, prefix: IPv4Network, metric: int | None = None) -> None:
        """Remove a route that was added: that of this metric, or the best. [fib_table_delete()]"""
        metrics = [key[1] for key in self._main if key[0] == prefix]
        if not metrics or (metric is not None and metric not in metrics):
            raise oserror(ESRCH, f"there is no route to {prefix}")
        del self._main[prefix, min(metrics) if metric is None else metric]
        self._publish()

    def replace_route(self, old: Route, new: Route) -> None:
        """Put a route in place of another, at once: no packet finds neither. [NLM_F_REPLACE]"""
        if int(new.gateway) and not self._on_link(new.gateway, new.ifindex):
            raise oserror(
                ENETUNREACH, f"gateway {new.gateway} is in no subnet of device {new.ifindex}"
            )
        del self._main[old.prefix, old.metric]
        self._main[new.prefix, new.metric] = new
        self._publish()

    def flush_routes(self, gone: set[Route]) -> None:
        """Remove all these routes that were added, in one step."""
        self._main = {key: route for key, route in self._main.items() if route not in gone}
        self._publish()

    def _on_link(self, gateway: IPv4Address, ifindex: int) -> bool:
        return any(gateway in have.network for have in self.addresses.get(ifindex, []))

    def local_table(self) -> Iterator[Route]:
        """Give what follows from our addresses: ourselves, and each subnet's broadcast."""
        for ifindex, addresses in self.addresses.items():
            for have in addresses:
                own, net = have.ip, have.network
                first = next(each.ip for each in addresses if each.network == net)
                follows = partial(Route, ifindex=ifindex, prefsrc=first, is_kernel=True)
                yield follows(IPv4Network(own), RTN.LOCAL)
                if own != first:
                    continue
                if own.is_loopback:
                    yield follows(net, RTN.LOCAL)
                if net.prefixlen < 31 and ifindex not in self.down:
                    yield follows(IPv4Network(net.broadcast_address), RTN.BROADCAST)

    def main_table(self) -> Iterator[Route]:
        """Give the subnets of our addresses, and what a user added."""
        for ifindex, addresses in self.addresses.items():
            seen: set[IPv4Network] = set()
            for have in addresses if ifindex not in self.down else ():
                net = have.network
                if net.prefixlen < 32 and not have.ip.is_loopback and net not in seen:
                    seen.add(net)
                    yield Route(net, RTN.UNICAST, ifindex, prefsrc=have.ip, is_kernel=True)
        yield from sorted(self._main.values(), key=lambda route: route.metric)

    def _publish(self) -> None:
        for ifindex, addresses in self.addresses.items():
            self.fib.set_addresses(
                ifindex, [(int(have.ip), int(have.netmask)) for have in addresses]
            )
        rows = [*self.local_table(), *self.main_table()]
        self.fib.publish(route.row() for route in rows)

    # ---- lookups

    def ip_route_output(self, daddr: int, saddr: int = 0) -> OutputRoute:
        """Find the way to ``daddr``; ``error`` says why there is none."""
        return OutputRoute(*self.fib.route_output(daddr, saddr))

    def ip_route_input(
        self, daddr: int, saddr: int, ifindex: int, protocol: int = 0x0800
    ) -> InputRoute:
        """Find out what to do with a packet of an EtherType that came in through a device."""
        return InputRoute(*self.fib.route_input(daddr, saddr, ifindex, protocol))
