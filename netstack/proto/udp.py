"""udp: the order in which a datagram is checked, looked up and delivered.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       packets for us, data at the UDP header  proto/ip.py
Out      datagrams in receive queues      sock/_sock.pyx
Context  process context (kworker), with the GIL; every datagram here while the fast path is off
Kernel   __udp4_lib_rcv(), udp_err(), net/ipv4/udp.c

Each step is a compiled function that the fast path calls as well (proto/_udp.pyx). A step that gives
False has ended the packet, with a reason, and counted it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netstack._counters import mib, skb_drop_reason
from netstack.proto import _udp
from netstack.proto.icmp import ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, icmp_send, redirect

if TYPE_CHECKING:
    from netstack._skb import SkBuff
    from netstack.proto.af_inet import InetHost

IPPROTO_UDP = 17


def udp_rcv(host: InetHost, skb: SkBuff) -> None:
    """Deliver a datagram to its socket, to all sockets of a group, or tell the sender that there is none."""
    net = host.net
    if not _udp.check_len(net, skb):
        return
    if not _udp.csum_init(net, skb):
        return
    if _udp.is_for_many(skb):
        _udp.mcast_deliver(net, skb)
        return
    if _udp.unicast_rcv(net, skb):
        return
    # Nobody is bound. A damaged packet may have been for somebody else, so its sender is told nothing.
    if not _udp.csum_complete(net, skb):
        return
    net.count(mib.UdpNoPorts)
    icmp_send(host, skb, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0)
    skb.drop(skb_drop_reason.SKB_DROP_REASON_NO_SOCKET)


def udp_err(
    host: InetHost, skb: SkBuff, type_: int, code: int, info: int, quoted: bytes
) -> None:
    """Pass an ICMP error on to the socket whose datagram it quotes, from its IP header on.

    One with IP_RECVERR hears of every error; any other only while it is connected, and only of
    errors that will not pass (RFC 1122 section 4.1.3.3).
    """
    if not _udp.err(host.net, skb, quoted, type_, code, info):
        host.net.count(mib.IcmpInErrors)
    else:
        redirect(host, skb, skb.data, quoted)
