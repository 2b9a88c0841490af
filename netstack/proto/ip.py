"""ip: a packet's way through IPv4, step by step.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       packets with EtherType 0x0800    netif/core.py
Out      the protocol's handler           proto/icmp.py, proto/udp.py
Context  process
Kernel   ip_rcv(), ip_rcv_finish(), ip_local_deliver(), net/ipv4/ip_input.c;
         ip_local_out(), ip_output(), net/ipv4/ip_output.c

This is the layer: the order of the steps, and what happens off the main road. Each check is one
compiled function, which the short cut (``ip_rcv_fast``) calls too. A packet that takes this road
and one that takes the short cut leave the same counters behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netstack._counters import mib, skb_drop_reason
from netstack.nf.hooks import (
    NF_HOOK,
    NF_INET_LOCAL_IN,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
)
from netstack.proto import _icmp, _ip, _ip_output, _raw, _route_mc
from netstack.proto.frag import ip_defrag
from netstack.proto.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_HOST_UNREACH,
    ICMP_NET_UNREACH,
    ICMP_PARAMETERPROB,
    ICMP_PKT_FILTERED,
    ICMP_PROT_UNREACH,
    addresses,
    icmp_send,
)
from netstack.proto.ip_forward import ip_forward
from netstack.proto.ip_options import ip_options_compile
from netstack.proto.route import RTCF_LOCAL, RTN

if TYPE_CHECKING:
    from netstack._skb import SkBuff
    from netstack.proto.af_inet import InetHost

IP_HLEN = 20
IP_MF, IP_OFFSET = 0x2000, 0x1FFF
PACKET_OUTGOING = 4
EACCES, EHOSTUNREACH, ENETUNREACH = 13, 113, 101


# ---- in


def ip_rcv(host: InetHost, skb: SkBuff) -> None:
    """Take one packet, data at its IP header. Consumes skb."""
    if skb.pkt_type == PACKET_OUTGOING:
        ip_local_out(host, skb)
        return
    reason = _ip.rcv_core(host.net, skb)
    if reason:
        skb.drop(reason)
        return
    NF_HOOK(host, NF_INET_PRE_ROUTING, skb, ip_rcv_finish)


def ip_rcv_finish(host: InetHost, skb: SkBuff) -> None:
    """Find out whose it is, look at its options, and send it there. Consumes skb."""
    reason, rt_type, flags = _ip.rcv_route(host.net, skb)
    if reason:
        skb.drop(reason)
        return
    header = skb.data[: (skb.data[0] & 15) * 4]
    if len(header) > IP_HLEN and not ip_rcv_options(host, skb, header):
        skb.drop(skb_drop_reason.SKB_DROP_REASON_IP_INHDR)
        return
    reason = _ip.rcv_finish_core(host.net, skb)
    if reason:
        skb.drop(reason)
    elif rt_type == RTN.UNREACHABLE:
        ip_error(host, skb)
    elif rt_type == RTN.UNICAST:
        ip_forward(host, skb)
    elif rt_type == RTN.MULTICAST and not flags & RTCF_LOCAL:
        skb.drop(skb_drop_reason.SKB_DROP_REASON_IP_INVALID_DEST)  # ours, through lo
    else:
        ip_local_deliver(host, skb)


def ip_rcv_options(host: InetHost, skb: SkBuff, header: bytes) -> bool:
    """Check the options; False when they are wrong, or ask for a source route (RFC 7126 4.3)."""
    saddr, daddr = addresses(header)
    spec_dst = _route_mc.spec_dst(host.net, daddr, saddr, skb.ifindex)
    options = ip_options_compile(host, header, spec_dst)
    if options.changed:
        _ip.write_options(skb, bytes(options.data))
    if options.error is not None:
        pointer = options.error
        icmp_send(host, skb, ICMP_PARAMETERPROB, 0, pointer << 24, checked=pointer)
        host.net.count(mib.IpInHdrErrors)
        return False
    return options.srr is None


def ip_local_deliver(host: InetHost, skb: SkBuff) -> None:
    """Put fragments together; what is whole goes on. Consumes skb."""
    if int.from_bytes(skb.data[6:8]) & (IP_MF | IP_OFFSET):
        whole = ip_defrag(host, skb)
        if whole is None:
            return
        skb = whole
    NF_HOOK(host, NF_INET_LOCAL_IN, skb, ip_local_deliver_finish)


def ip_local_deliver_finish(host: InetHost, skb: SkBuff) -> None:
    """Give a packet for us to raw sockets and to its protocol. Consumes skb. [ip_protocol_deliver_rcu()]"""
    number = skb.data[9]
    raw = _raw.local_deliver(host.net, skb)
    _ip.local_deliver(skb)
    protocol = host.inet.protocols.get(number)
    if protocol is None and raw:
        host.net.count(mib.IpInDelivers)
        skb.consume()
        return
    if protocol is None:
        host.net.count(mib.IpInUnknownProtos)
        icmp_send(host, skb, ICMP_DEST_UNREACH, ICMP_PROT_UNREACH, 0)
        skb.drop(skb_drop_reason.SKB_DROP_REASON_IP_NOPROTO)
        return
    protocol.handler(host, skb)
    host.net.count(mib.IpInDelivers)


def ip_error(host: InetHost, skb: SkBuff) -> None:
    """End what is neither for us nor to be forwarded; a router says why. Consumes skb."""
    saddr, daddr = addresses(skb.data)
    error = host.inet.routes.ip_route_input(daddr, saddr, skb.ifindex).error
    reasons = skb_drop_reason
    code = {EACCES: ICMP_PKT_FILTERED, EHOSTUNREACH: ICMP_HOST_UNREACH}.get(error)
    reason = reasons.SKB_DROP_REASON_IP_INADDRERRORS
    if error == ENETUNREACH:
        host.net.count(mib.IpExtInNoRoutes)
        reason, code = reasons.SKB_DROP_REASON_IP_INNOROUTES, ICMP_NET_UNREACH
    if not host.inet.forwards(skb.ifindex):
        host.net.count(mib.IpInAddrErrors)
    elif code is not None and _icmp.error_allow(host.net, saddr):
        icmp_send(host, skb, ICMP_DEST_UNREACH, code, 0)
    skb.drop(reason)


# ---- out: while a function is registered at a hook that the packet passes


def ip_local_out(host: InetHost, skb: SkBuff) -> int:
    """Pass what we made through the hooks, and send it. Consumes skb. 0 or an errno."""
    return NF_HOOK(host, NF_INET_LOCAL_OUT, skb, ip_output)


def ip_output(host: InetHost, skb: SkBuff) -> int:
    """Pass what is about to leave through the last hook. Consumes skb. 0 or an errno."""
    return NF_HOOK(host, NF_INET_POST_ROUTING, skb, ip_finish_output)


def ip_finish_output(host: InetHost, skb: SkBuff) -> int:
    """Cut it to the MTU and give it to the neighbour. Consumes skb. 0 or an errno."""
    return _ip_output.output(host.net, skb)
