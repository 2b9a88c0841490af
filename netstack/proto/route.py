"""route: the routing table as a user changes it, and the lookups the Python layers need.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       addresses and routes             host.py, cli/
Out      a table without locks            proto/_route.pyx
Context  process
Kernel   fib_add_ifaddr(), fib_table_insert(), net/ipv4/fib_frontend.c, fib_trie.c

A route that is added costs what it is, however many there are; a change of addresses publishes the
whole table anew. What is ours (the kernel's local table) goes before what a user added, and of
several routes to one prefix that with the lowest metric counts; the others are for packets that
have to leave through their device (SO_BINDTODEVICE, IP_PKTINFO, IP_UNICAST_IF).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TYPE_CHECKING, NamedTuple

from netstack.errors import oserror
from netstack.proto import _route_mc
from netstack.proto._fib import Fib

if TYPE_CHECKING:
    from netstack._net import Net

EEXIST, EINVAL, ESRCH, ENETUNREACH, EADDRNOTAVAIL = 17, 22, 3, 101, 99
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
    onlink: bool = False  # the gateway is on the link, whatever our addresses say
    proto: str = "boot"  # who made it: a word for people
    scope: str = ""  # "" for what follows: global with a gateway, link without

    @property
    def reach(self) -> str:
        """Name the scope, given or what follows."""
        follows = "host" if self.type == RTN.LOCAL else "link"
        has_link = self.type in (RTN.UNICAST, RTN.LOCAL, RTN.BROADCAST)
        return self.scope or (follows if has_link and not int(self.gateway) else "global")

    def proto_word(self) -> str:
        """Give who made it."""
        return "kernel" if self.is_kernel and self.proto == "boot" else self.proto

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
    learned: bool = False  # router or MTU are what ICMP messages said


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
    redirect: bool = False  # the sender could have asked the next hop itself


class Routes:
    """The addresses and routes of one host."""

    def __init__(self, net: Net) -> None:
        """Make an empty table and hang it into ``net``."""
        self.net = net
        self.fib = Fib(net)
        self.addresses: dict[int, list[IPv4Interface]] = {}
        self.broadcasts: dict[IPv4Address, IPv4Address] = {}  # shown of an address; brd +
        self.down: set[int] = set()  # devices without routes: link set down
        self._main: dict[IPv4Network, list[Route]] = {}  # what was added, by metric
        self._derived: dict[IPv4Network, list[Route]] = {}  # what follows from addresses
        self._pending: set[IPv4Network] | None = None  # prefixes changed in a batch
        self._good_gateways: set[tuple[IPv4Address, int]] = set()  # on their links, as of now

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
        ours = {each.ip for each in gone}
        self._keep(lambda route: route.prefsrc not in ours)
        self._publish()

    def _keep(self, wanted: Callable[[Route], bool]) -> None:
        """Forget the added routes that are not wanted, without a word to the data path."""
        kept = {prefix: [*filter(wanted, rows)] for prefix, rows in self._main.items()}
        self._main = {prefix: rows for prefix, rows in kept.items() if rows}

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
            self._keep(lambda route: route.ifindex != ifindex)
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
        when there is one with this metric, and OSError (ENETUNREACH) when the gateway is not on
        a link of ours.
        """
        self.add_routes([route])

    def add_routes(self, routes: Iterable[Route]) -> None:
        """Add many in one step: all, or none when one is refused."""
        added: list[Route] = []
        with self.batch():
            try:
                for route in routes:
                    if self.find(route.prefix, route.metric) is not None:
                        raise oserror(
                            EEXIST, f"there is a route to {route.prefix}; remove it first"
                        )
                    self._check_gateway(route)
                    self._insert(route)
                    added.append(route)
            except BaseException:
                for route in added:
                    self._remove(route)
                raise

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Publish what changes in the block at its end, in one step."""
        if self._pending is not None:
            yield
            return
        self._pending = set()
        try:
            yield
        finally:
            changed, self._pending = self._pending, None
            self._update(changed)

    def remove_route(self, prefix: IPv4Network, metric: int | None = None) -> None:
        """Remove a route that was added: that of this metric, or the best. [fib_table_delete()]"""
        rows = [r for r in self._main.get(prefix, ()) if metric in (None, r.metric)]
        if not rows:
            raise oserror(ESRCH, f"there is no route to {prefix}")
        self._remove(rows[0])

    def replace_route(self, old: Route, new: Route) -> None:
        """Put a route in place of another, at once: no packet finds neither. [NLM_F_REPLACE]"""
        self._check_gateway(new)
        with self.batch():
            self._remove(old)
            self._insert(new)

    def flush_routes(self, gone: set[Route]) -> None:
        """Remove all these routes that were added, in one step."""
        with self.batch():
            for route in gone:
                self._remove(route)

    def find(self, prefix: IPv4Network, metric: int) -> Route | None:
        """Give the route of the main table with this prefix and metric."""
        for route in self.to(prefix):
            if route.metric == metric:
                return route
        return None

    def to(self, prefix: IPv4Network) -> list[Route]:
        """Give all routes of the main table to exactly this prefix, best first."""
        follows = [each for each in self._derived.get(prefix, ()) if each.type == RTN.UNICAST]
        return [*follows, *self._main.get(prefix, ())]

    def _rows(self, prefix: IPv4Network) -> list[tuple[int, int, int, int, int, int]]:
        """Give all routes to exactly this prefix as ``Fib.publish`` takes them, best first."""
        return [
            each.row() for each in (*self._derived.get(prefix, ()), *self._main.get(prefix, ()))
        ]

    def is_gateway(self, gateway: int, ifindex: int) -> bool:
        """Tell whether a route goes to this router. [ip_fib_check_default()]"""
        return any((int(r.gateway), r.ifindex) == (gateway, ifindex) for r in self.main_table())

    def _insert(self, route: Route) -> None:
        rows = self._main.setdefault(route.prefix, [])
        rows.append(route)
        rows.sort(key=lambda each: each.metric)
        self._update({route.prefix})

    def _remove(self, route: Route) -> None:
        rows = self._main[route.prefix]
        rows.remove(route)
        if not rows:
            del self._main[route.prefix]
        self._good_gateways.clear()
        self._update({route.prefix})

    def _check_gateway(self, route: Route) -> None:
        """Refuse a router that is ourselves, or on no link. [fib_check_nh()]"""
        gateway = int(route.gateway)
        if not gateway or (route.gateway, route.ifindex) in self._good_gateways:
            return
        if self.fib.address_type(gateway) != RTN.UNICAST:
            raise oserror(EINVAL, f"Nexthop has invalid gateway: {route.gateway} is no router")
        if not route.onlink and route.ifindex not in self.links_to(route.gateway):
            raise oserror(
                ENETUNREACH,
                f"gateway {route.gateway} is in no subnet of device {route.ifindex}",
            )
        if not route.onlink:
            self._good_gateways.add((route.gateway, route.ifindex))

    def is_good(self, gateway: IPv4Address, ifindex: int) -> bool:
        """Tell whether a router was found on a link, since anything changed that could alter it."""
        return (gateway, ifindex) in self._good_gateways

    def links_to(self, gateway: IPv4Address) -> list[int]:
        """Give the devices on whose link an address is, by our addresses or by a route."""
        if self._pending:
            self._update_now(self._pending)  # a router may be on the link by a route before
            self._pending.clear()
        found = [
            i for i, have in self.addresses.items() if any(gateway in h.network for h in have)
        ]
        way = self.ip_route_output(int(gateway))
        if not way.error and way.type == RTN.UNICAST and way.gateway == way.daddr:
            found += [way.ifindex] if way.ifindex not in found else []
        return found

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

    def _subnets(self) -> Iterator[Route]:
        """Give the subnets of our addresses."""
        for ifindex, addresses in self.addresses.items():
            seen: set[IPv4Network] = set()
            for have in addresses if ifindex not in self.down else ():
                net = have.network
                if net.prefixlen < 32 and not have.ip.is_loopback and net not in seen:
                    seen.add(net)
                    yield Route(net, RTN.UNICAST, ifindex, prefsrc=have.ip, is_kernel=True)

    def main_table(self) -> Iterator[Route]:
        """Give the subnets of our addresses, and what a user added."""
        yield from self._subnets()
        for rows in self._main.values():
            yield from rows

    def _publish(self) -> None:
        """Publish everything: addresses or devices have changed."""
        for ifindex, addresses in self.addresses.items():
            self.fib.set_addresses(
                ifindex, [(int(have.ip), int(have.netmask)) for have in addresses]
            )
        self._derived = {}
        for route in (*self.local_table(), *self._subnets()):
            self._derived.setdefault(route.prefix, []).append(route)
        self._good_gateways.clear()
        prefixes = self._derived.keys() | self._main.keys()
        self.fib.publish(row for prefix in prefixes for row in self._rows(prefix))

    def _update(self, prefixes: set[IPv4Network]) -> None:
        """Publish what has changed, routes to these prefixes, now or at the end of the batch."""
        if self._pending is None:
            self._update_now(prefixes)
        else:
            self._pending |= prefixes

    def _update_now(self, prefixes: set[IPv4Network]) -> None:
        changed, gone = [], []
        for prefix in prefixes:
            if rows := self._rows(prefix):
                changed += rows
            else:
                gone.append((int(prefix.network_address), prefix.prefixlen))
        self.fib.update(changed, gone)

    # ---- lookups

    def ip_route_output(self, daddr: int, saddr: int = 0, oif: int = 0) -> OutputRoute:
        """Find the way to ``daddr``, through a device or (0) any; ``error`` says why there is none."""
        return OutputRoute(*self.fib.route_output(daddr, saddr, oif))

    def ip_route_input(
        self, daddr: int, saddr: int, ifindex: int, protocol: int = 0x0800
    ) -> InputRoute:
        """Find out what to do with a packet of an EtherType that came in through a device."""
        if daddr >> 28 == 0xE:
            return InputRoute(*_route_mc.route_input(self.net, daddr, saddr, ifindex, protocol))
        return InputRoute(*self.fib.route_input(daddr, saddr, ifindex, protocol))
