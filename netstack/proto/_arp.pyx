"""arp: answer who asks for our address, and ask for others'.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       ARP packets                      netif/_core.pyx
Out      replies and requests             netif/_xmit.pyx
Context  softirq or process; no GIL; never raises
Kernel   arp_rcv(), arp_process(), arp_solicit(), arp_send_dst(), net/ipv4/arp.c

arp.py has the whole order of the steps. The short cut here takes one case out of it, with the same functions: a
request for an address of ours, from somebody with an address.

What a Python hook at NF_ARP_IN wants to see goes on with arp.py, and so does what one at NF_ARP_OUT wants of what we
send, as PACKET_OUTGOING.
"""

from libc.string cimport memcpy, memset

from netstack._abi cimport get_be16, get_be32, load_relaxed32, put_be16, put_be32, u8, u16, u32, unlikely
from netstack._counters cimport SKB_DROP_REASON_ARP_MALFORMED, SKB_DROP_REASON_PKT_TOO_SMALL, SKB_NOT_DROPPED_YET
from netstack._net cimport ETH_ALEN, ETH_HLEN, IFF_LOOPBACK, IFF_NOARP, Net, net, net_device
from netstack._skb cimport (
    PACKET_BROADCAST, PACKET_HOST, PACKET_OUTGOING, SKB_SMALL, SkBuff, consume_skb, dev_queue_xmit, process_skb,
    sk_buff, skb_headlen,
)
from netstack.nf._rules cimport NF_ARP_IN, NF_ARP_OUT, nf_python_wants, nf_rules_pass
from netstack.proto._inet cimport ETH_P_ARP, ETH_P_IP, RTN_LOCAL, ipv4_is_loopback, ipv4_is_multicast
from netstack.proto._neigh cimport neigh_event_ns, neigh_table
from netstack.proto._route cimport inet_addr_is_local, inet_select_addr, ip_route_input, rtable

from netstack.errors import InternalError

cdef enum:
    ARPHRD_ETHER = 1
    ARPHRD_IEEE802 = 6
    NF_ARP_IN_BIT = 1 << 6
    NF_ARP_OUT_BIT = 1 << 7


cdef u32 arp_check_size(const sk_buff *skb) noexcept nogil:
    """Check what the input hook relies on: a drop reason, or 0. [arp_rcv()]"""
    cdef const u8 *arp = skb.data
    if skb_headlen(skb) < ARP_LEN:
        return SKB_DROP_REASON_PKT_TOO_SMALL
    if arp[ARP_HLN] != ETH_ALEN or arp[ARP_PLN] != 4:
        return SKB_DROP_REASON_ARP_MALFORMED
    return SKB_NOT_DROPPED_YET


cdef u32 arp_check(const sk_buff *skb) noexcept nogil:
    """Check the rest of the shape: a drop reason, or 0. [the head of arp_process()]"""
    cdef const u8 *arp = skb.data
    cdef u16 hrd, op
    hrd = get_be16(arp + ARP_HRD)
    op = get_be16(arp + ARP_OP)
    if hrd != ARPHRD_ETHER and hrd != ARPHRD_IEEE802:
        return SKB_DROP_REASON_ARP_MALFORMED
    if get_be16(arp + ARP_PRO) != ETH_P_IP or (op != ARPOP_REQUEST and op != ARPOP_REPLY):
        return SKB_DROP_REASON_ARP_MALFORMED
    if ipv4_is_multicast(get_be32(arp + ARP_TIP)) or ipv4_is_loopback(get_be32(arp + ARP_TIP)):
        return SKB_DROP_REASON_ARP_MALFORMED
    return SKB_NOT_DROPPED_YET


cdef void arp_send(net *n, net_device *dev, u16 op, u32 tip, u32 sip, const u8 *dst, const u8 *tha) noexcept nogil:
    """Send one ARP packet to ``dst``, or to all when that is NULL. ``tha`` NULL: target not known. [arp_send_dst()]"""
    cdef sk_buff *skb
    cdef u8 *arp
    if dev.flags & IFF_NOARP:
        return
    skb = process_skb(n, SKB_SMALL)
    if skb == NULL:
        return
    arp = skb.data + ETH_HLEN
    skb.dev = dev
    skb.protocol = ETH_P_ARP
    skb.network_header = <u16>(arp - skb.head)
    skb.len = ETH_HLEN + ARP_LEN
    memset(skb.data, 0xFF, ETH_ALEN)
    if dst != NULL:
        memcpy(skb.data, dst, ETH_ALEN)
    memcpy(skb.data + ETH_ALEN, dev.dev_addr, ETH_ALEN)
    put_be16(skb.data + 2 * ETH_ALEN, ETH_P_ARP)
    put_be16(arp + ARP_HRD, ARPHRD_ETHER)
    put_be16(arp + ARP_PRO, ETH_P_IP)
    arp[ARP_HLN] = ETH_ALEN
    arp[ARP_PLN] = 4
    put_be16(arp + ARP_OP, op)
    memcpy(arp + ARP_SHA, dev.dev_addr, ETH_ALEN)
    put_be32(arp + ARP_SIP, sip)
    memset(arp + ARP_THA, 0, ETH_ALEN)
    if tha != NULL:
        memcpy(arp + ARP_THA, tha, ETH_ALEN)
    put_be32(arp + ARP_TIP, tip)
    arp_xmit_skb(n, skb)


cdef void arp_xmit_skb(net *n, sk_buff *skb) noexcept nogil:
    """Pass a frame (data at its Ethernet header, as in Linux) through the output hook, and send it. [arp_xmit()]"""
    if unlikely(load_relaxed32(&n.nf_hooks) & NF_ARP_OUT_BIT) and nf_python_wants(n, NF_ARP_OUT_BIT, skb):
        skb.pkt_type = PACKET_OUTGOING
        n.to_python(n, skb)
        return
    if unlikely(load_relaxed32(&n.nf_rules) & NF_ARP_OUT_BIT):
        if not nf_rules_pass(n, NF_ARP_OUT, NF_ARP_OUT + 1, skb, 0, skb.dev.ifindex):
            return
    dev_queue_xmit(skb)


cdef void arp_solicit(net *n, net_device *dev, u32 target, u32 saddr, const u8 *dst) noexcept nogil:
    """Ask who has ``target``, on behalf of a packet from ``saddr`` if that is ours (arp_announce 0)."""
    if saddr == 0 or not inet_addr_is_local(n, saddr):
        saddr = inet_select_addr(dev, target)
    if saddr:
        arp_send(n, dev, ARPOP_REQUEST, target, saddr, dst, NULL)


cdef bint arp_rcv_fast(net *n, sk_buff *skb, void *sd) noexcept nogil:
    cdef const u8 *arp = skb.data
    cdef rtable rt
    cdef u32 sip, tip
    cdef const u8 *sha
    if skb.pkt_type != PACKET_HOST and skb.pkt_type != PACKET_BROADCAST:
        return 0
    if skb.dev.flags & (IFF_NOARP | IFF_LOOPBACK) or arp_check_size(skb) or arp_check(skb):
        return 0
    sip = get_be32(arp + ARP_SIP)
    tip = get_be32(arp + ARP_TIP)
    if get_be16(arp + ARP_OP) != ARPOP_REQUEST or sip == 0 or not inet_addr_is_local(n, tip):
        return 0
    if ip_route_input(n, tip, sip, skb.dev, ETH_P_ARP, &rt) or rt.type != RTN_LOCAL:
        return 0
    if unlikely(load_relaxed32(&n.nf_hooks) & NF_ARP_IN_BIT) and nf_python_wants(n, NF_ARP_IN_BIT, skb):
        return 0
    if unlikely(load_relaxed32(&n.nf_rules) & NF_ARP_IN_BIT):
        if not nf_rules_pass(n, NF_ARP_IN, NF_ARP_IN + 1, skb, skb.dev.ifindex, 0):
            return 1
    sha = arp + ARP_SHA
    if neigh_event_ns(n, skb.dev, sip, sha):
        arp_send(n, skb.dev, ARPOP_REPLY, sip, tip, sha, sha)
    consume_skb(skb)
    return 1


# ---- for arp.py

def arp_init(Net n not None):
    """Give the neighbour table its way to ask. Call it once, after ``NeighTable``. [arp_init()]"""
    if n.ptr.neigh == NULL:
        raise InternalError("arp_init needs the neighbour table: make NeighTable(net) first")
    (<neigh_table *>n.ptr.neigh).solicit = arp_solicit


def arp_size(SkBuff skb not None):
    """Check what the input hook relies on: a drop reason, or 0."""
    return arp_check_size(skb.peek())


def arp_parse(SkBuff skb not None):
    """Check the whole shape, which a hook may have changed, and read: (drop reason, op, sha, sip, tha, tip)."""
    cdef sk_buff *packet = skb.peek()
    cdef const u8 *arp = packet.data
    cdef u32 reason = arp_check_size(packet)
    if not reason:
        reason = arp_check(packet)
    if reason:
        return reason, 0, b"", 0, b"", 0
    return (SKB_NOT_DROPPED_YET, get_be16(arp + ARP_OP), <bytes>arp[ARP_SHA:ARP_SHA + ETH_ALEN],
            get_be32(arp + ARP_SIP), <bytes>arp[ARP_THA:ARP_THA + ETH_ALEN], get_be32(arp + ARP_TIP))


def arp_xmit(Net n not None, u32 ifindex, u16 op, u32 tip, u32 sip, bytes dst=None, bytes tha=None):
    """Send one ARP packet to ``dst``, or to all. ``tha`` None: target not known. [arp_send()]"""
    cdef net_device *dev
    cdef const u8 *to = NULL
    cdef const u8 *target = NULL
    if not 0 < ifindex <= n.ptr.nr_devices or n.ptr.devices[ifindex - 1] == NULL:
        raise InternalError(f"no device has index {ifindex}")
    for address in (dst, tha):
        if address is not None and len(address) != ETH_ALEN:
            raise ValueError(f"a hardware address has {ETH_ALEN} bytes, not {len(address)}")
    dev = n.ptr.devices[ifindex - 1]
    if dst is not None:
        to = dst
    if tha is not None:
        target = tha
    with nogil:
        arp_send(n.ptr, dev, op, tip, sip, to, target)


def xmit_finish(SkBuff skb not None):
    """Send an ARP frame that a hook has seen on its way out. [arp_xmit_finish()]"""
    cdef sk_buff *frame = skb.take()
    frame.pkt_type = PACKET_HOST
    with nogil:
        dev_queue_xmit(frame)
