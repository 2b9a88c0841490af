"""inet: the IPv4 side of one host: its tables, its timers, and who gets which protocol.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       set-up                           host.py
Out      everything that the layers of one host share
Context  process
Kernel   inet_init(), inet_add_protocol(), net/ipv4/af_inet.c
"""

from __future__ import annotations

import functools
import os
import time
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Any, Protocol

from netstack._net import devconf, devconf_numbers
from netstack.nf.hooks import Hooks
from netstack.proto import PROTOCOLS, _frag, _ping, _raw, _udp_prot, net_protocol
from netstack.proto._arp import arp_init
from netstack.proto._icmp import ICMP
from netstack.proto._ip_output import IPOutput
from netstack.proto._local_out import LocalOut
from netstack.proto._neigh import nud
from netstack.proto._neigh_table import NeighTable
from netstack.proto.arp import NeighTimers
from netstack.proto.frag import Fqdir, FragTimers
from netstack.proto.icmp import ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, icmp_send
from netstack.proto.igmp import Igmp
from netstack.proto.ip import ip_local_out
from netstack.proto.ip_sockglue import Multicast
from netstack.proto.route import RTN, Routes
from netstack.sock import _packet
from netstack.sock._calls import sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from netstack._net import Net
    from netstack._skb import SkBuff

NUD_NAMES = {state.value: name.removeprefix("NUD_") for name, state in nud.__members__.items()}
NS_PER_MS, MS_PER_DAY = 1_000_000, 86_400_000
DEVCONF_ALL = devconf_numbers.DEVCONF_ALL


class InetHost(Protocol):
    """Describe what the layers need of a host."""

    @property
    def net(self) -> Net:
        """Return the host's struct net."""

    @property
    def inet(self) -> Inet:
        """Return the host's IPv4 side."""

    def now(self) -> int:
        """Return nanoseconds on the host's clock."""


def nf_reject(host: InetHost, skb: SkBuff) -> None:
    """Tell the sender of a packet that a rule rejected it. [nf_send_unreach()]"""
    icmp_send(host, skb, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0)


class Inet:
    """Tables of one host. Made once, after its devices' struct net; ``close`` when nothing moves."""

    def __init__(self, host: InetHost, seed: int | None = None) -> None:
        """Make the tables and hang them into ``host.net``.

        ``seed`` makes ids, limits and times of day repeatable; None draws one from the system.
        """
        net = host.net
        drawn = int.from_bytes(os.urandom(8)) if seed is None else seed
        self.net = net
        self.host = host
        self.routes = Routes(net)
        self.igmp = Igmp(net, drawn)
        net.multicast = Multicast(self.igmp, self.routes)
        self.neigh = NeighTable(net, drawn)
        arp_init(net)
        self._output = IPOutput(net, drawn)
        self._local_out = LocalOut(net, functools.partial(ip_local_out, host))
        self._icmp = ICMP(net, drawn)
        _udp_prot.init(net)
        _ping.init(net)
        _raw.init(net)
        _packet.init(net)
        self.frags = Fqdir(net)
        self.hooks = Hooks(net)
        self.hooks.reject = nf_reject
        self.protocols: dict[int, net_protocol] = dict(PROTOCOLS)
        self.timers = (NeighTimers(host), FragTimers(host), self.igmp)
        self._day_offset = time.time_ns() - host.now() if seed is None else 0

    # ---- protocols

    def add_protocol(self, number: int, protocol: net_protocol) -> None:
        """Register the handler of an IP protocol. [inet_add_protocol()]

        Raises ValueError when the number has one, or can't be.
        """
        if not 0 <= number <= 255:
            raise ValueError(f"protocol={number}: an IP protocol number is 0 to 255")
        if number in self.protocols:
            raise ValueError(f"IP protocol {number} has a handler; remove it first")
        self.protocols[number] = protocol

    def remove_protocol(self, number: int) -> None:
        """Take a handler out again. [inet_del_protocol()]"""
        if self.protocols.pop(number, None) is None:
            raise ValueError(f"IP protocol {number} has no handler")

    # ---- devices

    def add_device(
        self,
        ifindex: int,
        addresses: Iterable[IPv4Interface | str],
        set_filter: Callable[[bytes], object] | None = None,
    ) -> None:
        """Give a device its settings and addresses, and the host the routes that follow.

        ``set_filter`` is called with the device's group addresses, 6 bytes each, whenever they change.
        """
        self.net.devconf_init(ifindex)
        for address in addresses:
            self.routes.add_address(ifindex, address)
        self.routes.addresses.setdefault(ifindex, [])
        self.igmp.add_device(ifindex, set_filter)

    def in_dev(self, ifindex: int, which: devconf, *, every: bool = False) -> bool:
        """Tell whether a setting is on for a device or for all (``every``: and for all). [IN_DEV_ORCONF()]"""
        own = self.net.get(DEVCONF_ALL + (ifindex + 1 << 8) + which)
        general = self.net.get(DEVCONF_ALL + which)
        return bool(own and general if every else own or general)

    def forwards(self, ifindex: int) -> bool:
        """Tell whether what comes in through a device for others goes on. [IN_DEV_FORWARD()]"""
        return bool(self.net.get(DEVCONF_ALL + (ifindex + 1 << 8) + devconf.CNF_FORWARDING))

    # ---- time

    def inet_current_timestamp(self) -> int:
        """Milliseconds since midnight UT (RFC 791, internet timestamp)."""
        return (self.host.now() + self._day_offset) // NS_PER_MS % MS_PER_DAY

    def next_deadline(self) -> int:
        """When the first timer of these layers runs out, ns on the host's clock; 0 for none."""
        return min(filter(None, (timer.next_deadline() for timer in self.timers)), default=0)

    def run_timers(self, now: int) -> None:
        """See to all timers that have run out."""
        for timer in self.timers:
            timer.run_timers(now)

    # ---- views

    def neighbours(self) -> list[dict[str, Any]]:
        """Give the neighbour table, in the words of ``ip -j neigh``."""
        rows = []
        for ifindex, address, ha, state, *_times in self.neigh.entries():
            row = {"dst": str(IPv4Interface(address).ip), "ifindex": ifindex}
            if any(ha):
                row["lladdr"] = ha.hex(":")
            rows.append(row | {"state": [NUD_NAMES[state]]})
        return rows

    def route_rows(self, table: str = "main") -> list[dict[str, Any]]:
        """Give a table (main, local), in the words and the order of ``ip -j route``."""
        routes = self.routes.local_table() if table == "local" else self.routes.main_table()
        rows = []
        for route in sorted(
            routes,
            key=lambda r: (int(r.prefix.network_address), -r.prefix.prefixlen, r.metric),
        ):
            row: dict[str, Any] = {}
            if route.type != RTN.UNICAST:
                row["type"] = route.type.name.lower()
            size = route.prefix.prefixlen
            row["dst"] = str(route.prefix) if size < 32 else str(route.prefix.network_address)
            if not size:
                row["dst"] = "default"
            if int(route.gateway):
                row["gateway"] = str(route.gateway)
            if route.type in (RTN.UNICAST, RTN.LOCAL, RTN.BROADCAST):
                row["ifindex"] = route.ifindex
            proto = route.proto_word()
            row |= {"protocol": proto} if proto != "boot" else {}
            row |= {"scope": route.reach} if route.reach != "global" else {}
            if int(route.prefsrc):
                row["prefsrc"] = str(route.prefsrc)
            if route.metric:
                row["metric"] = route.metric
            rows.append(row | {"flags": ["onlink"] if route.onlink else []})
        return rows

    def sockets(self) -> list[dict[str, Any]]:
        """Give what ``ss`` shows of each open socket."""
        return [sock.info for sock in sockets(self.net)]

    def queued(self) -> dict[str, int]:
        """Count the frames off the wire that stand in these layers, by place."""
        places = {
            "nf/queue": sum(_frag.frames(item.skb) for item in self.hooks.queue),
            "proto/arp": self.neigh.frames(),
            "proto/frag": self.frags.frames(),
            "sock/queue": round(sum(sock.frames for sock in sockets(self.net))),
        }
        return {place: frames for place, frames in places.items() if frames}

    # ---- the end

    def close(self) -> None:
        """Close the sockets, end what waits here. Call it when no CPU runs any more."""
        for sock in sockets(self.net):
            sock.close()
        _udp_prot.exit(self.net)
        self.hooks.flush()
        self.frags.flush()
        self.neigh.flush()
