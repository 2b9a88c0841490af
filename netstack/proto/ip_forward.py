"""ip_forward: send on what is for others.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       routed packets                   proto/ip.py
Out      the next hop                     proto/_ip_output.pyx
Context  process
Kernel   ip_forward(), ip_forward_finish(), net/ipv4/ip_forward.c

RFC 1812 section 5.2.1 has the steps: time to live, size, hook, and out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netstack._counters import mib, skb_drop_reason
from netstack._gso import gro_split
from netstack.nf.hooks import NF_HOOK, NF_INET_FORWARD, NF_INET_POST_ROUTING
from netstack.proto import _ip_output
from netstack.proto.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_EXC_TTL,
    ICMP_FRAG_NEEDED,
    ICMP_TIME_EXCEEDED,
    addresses,
    icmp_send,
)

if TYPE_CHECKING:
    from netstack._skb import SkBuff
    from netstack.proto.af_inet import InetHost

PACKET_HOST = 0
IP_DF = 0x4000


def ip_forward(host: InetHost, skb: SkBuff) -> None:
    """Send on a packet that routing gave a way out. Consumes skb.

    What GRO merged goes on as the frames it was: Linux cuts it at the way out, here it has to
    be done before a header changes.
    """
    if skb.gso_segs:
        for part in gro_split(skb, host.net):
            ip_forward(host, part)
        return
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
    route = host.inet.routes.ip_route_input(daddr, saddr, skb.ifindex)
    if len(skb) > route.mtu and int.from_bytes(header[6:8]) & IP_DF:
        host.net.count(mib.IpFragFails)
        icmp_send(host, skb, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, route.mtu)
        skb.drop(reasons.SKB_DROP_REASON_PKT_TOO_BIG)
        return
    iif = skb.ifindex
    _ip_output.forward_prepare(host.net, skb, route.ifindex, route.gateway)
    NF_HOOK(host, NF_INET_FORWARD, skb, ip_forward_finish, iif)


def ip_forward_finish(host: InetHost, skb: SkBuff) -> None:
    """Count it and let it out. Consumes skb."""
    host.net.count(mib.IpForwDatagrams)
    NF_HOOK(host, NF_INET_POST_ROUTING, skb, ip_forward_output)


def ip_forward_output(host: InetHost, skb: SkBuff) -> None:
    """Give it to the next hop. Consumes skb; its frame ends as forwarded."""
    _ip_output.forward(host.net, skb)
