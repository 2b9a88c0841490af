"""ip_forward: send on what is for others.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       routed packets                   proto/ip.py
Out      the next hop                     proto/_ip_forward.pyx
Context  process
Kernel   ip_forward(), ip_forward_finish(), net/ipv4/ip_forward.c; ip_rt_send_redirect(), net/ipv4/route.c

RFC 1812 section 5.2.1 has the steps: time to live, size, redirect, hook, and out. The compiled short
cut (``ip_forward_peek``) takes what needs no answer, by the same steps.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from netstack._counters import mib, skb_drop_reason
from netstack.nf.hooks import NF_HOOK, NF_INET_FORWARD, NF_INET_POST_ROUTING
from netstack.proto import _icmp, _ip_forward
from netstack.proto.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_EXC_TTL,
    ICMP_FRAG_NEEDED,
    ICMP_REDIR_HOST,
    ICMP_REDIRECT,
    ICMP_TIME_EXCEEDED,
    addresses,
    icmp_send,
)

if TYPE_CHECKING:
    from netstack._skb import SkBuff
    from netstack.proto.af_inet import InetHost

PACKET_HOST = 0


def ip_forward(host: InetHost, skb: SkBuff) -> None:
    """Send on a packet that routing gave a way out. Consumes skb."""
    reasons = skb_drop_reason
    header = skb.data[:20]
    saddr, daddr = addresses(header)
    if skb.pkt_type != PACKET_HOST:
        skb.drop(reasons.SKB_DROP_REASON_IP_INVALID_DEST)
        return
    if header[8] <= 1:
        host.net.count(mib.IpInHdrErrors)
        icmp_send(host, skb, ICMP_TIME_EXCEEDED, ICMP_EXC_TTL, 0)
        skb.drop(reasons.SKB_DROP_REASON_IP_INHDR)
        return
    iif = skb.ifindex
    route = host.inet.routes.ip_route_input(daddr, saddr, iif)
    host.net.count(mib.IpForwDatagrams)
    if _ip_forward.exceeds_mtu(skb, route.mtu):
        host.net.count(mib.IpFragFails)
        icmp_send(host, skb, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, route.mtu)
        skb.drop(reasons.SKB_DROP_REASON_PKT_TOO_BIG)
        return
    aged = _ip_forward.prepare(host.net, skb, route.ifindex, route.gateway, route.mtu)
    if aged is None:
        return
    if route.redirect:
        ip_rt_send_redirect(host, aged, saddr, route.gateway)
    finish = functools.partial(ip_forward_finish, iif=iif)
    NF_HOOK(host, NF_INET_FORWARD, aged, finish, iif)


def ip_rt_send_redirect(host: InetHost, skb: SkBuff, saddr: int, gateway: int) -> None:
    """Tell the sender to ask the next hop itself, now and then, as long as it may not have heard."""
    if _icmp.redirect_allow(host.net, saddr):
        icmp_send(host, skb, ICMP_REDIRECT, ICMP_REDIR_HOST, gateway)


def ip_forward_finish(host: InetHost, skb: SkBuff, iif: int) -> None:
    """Let it pass the last hook. Consumes skb."""
    NF_HOOK(host, NF_INET_POST_ROUTING, skb, ip_forward_output, iif)


def ip_forward_output(host: InetHost, skb: SkBuff) -> None:
    """Give it to the next hop. Consumes skb; its frame ends as forwarded when it has left."""
    _ip_forward.output(host.net, skb)
