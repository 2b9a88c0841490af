"""redirect: follow what a router says of a better one, if it may say so.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       ICMP redirects                   proto/icmp.py, proto/udp.py
Out      another next hop                 proto/_route.pyx
Context  process
Kernel   __ip_do_redirect(), net/ipv4/route.c

RFC 1122 section 3.2.2.2: only the router that the packet went to may speak, and only of one that
is on the link. The new one must be known as a neighbour: a first redirect to a stranger makes us ask
for him, the next is followed.

A neighbour is no router, and may not send us elsewhere. But one whose path's MTU was learned may, or
who was named by a redirect himself: as in Linux, where what was learned for a destination names the
router always. [rt_bind_exception()]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netstack._net import devconf, sysctl
from netstack.proto._neigh import nud
from netstack.proto.icmp import addresses
from netstack.proto.route import RTN

if TYPE_CHECKING:
    from netstack._skb import SkBuff
    from netstack.proto.af_inet import InetHost

ICMP_REDIR_HOSTTOS = 3  # the last code: networks are taken as hosts
NUD_VALID = (
    nud.NUD_REACHABLE
    | nud.NUD_STALE
    | nud.NUD_DELAY
    | nud.NUD_PROBE
    | nud.NUD_NOARP
    | nud.NUD_PERMANENT
)


def ip_do_redirect(host: InetHost, skb: SkBuff, message: bytes, quoted: bytes) -> None:
    """Send packets to where the quoted one was going to the router that ``message`` names."""
    routes = host.inet.routes
    saddr, daddr = addresses(quoted)
    old, _ = addresses(skb.network)
    new = int.from_bytes(message[4:8])
    route = routes.ip_route_output(daddr, saddr)
    if message[1] & 7 > ICMP_REDIR_HOSTTOS or route.error or route.type != RTN.UNICAST:
        return
    if route.gateway != old or (route.gateway == daddr and not route.learned):
        return
    if new == old or not may_redirect(host, skb.ifindex, old, new):
        return
    known = host.inet.neigh.lookup(route.ifindex, new)
    if known is None or not known[3] & NUD_VALID:
        host.inet.neigh.event_send(route.ifindex, new)
        return
    gateway, ifindex = routes.fib.nexthop(daddr)
    seconds = host.net.get(sysctl.route_gc_timeout)
    routes.fib.learn_redirect(daddr, gateway or daddr, new, ifindex, seconds)


def may_redirect(host: InetHost, ifindex: int, old: int, new: int) -> bool:
    """Tell whether what came in through a device may name this router."""
    inet = host.inet
    if not inet.in_dev(ifindex, devconf.CNF_ACCEPT_REDIRECTS, every=inet.forwards(ifindex)):
        return False
    if new >> 28 == 0xE or new in (0, 0xFFFFFFFF):
        return False
    if inet.in_dev(ifindex, devconf.CNF_SHARED_MEDIA):
        return inet.routes.fib.address_type(new) == RTN.UNICAST
    if not inet.routes.fib.on_link(ifindex, new, old):
        return False
    secure = inet.in_dev(ifindex, devconf.CNF_SECURE_REDIRECTS)
    return not secure or inet.routes.is_gateway(new, ifindex)
