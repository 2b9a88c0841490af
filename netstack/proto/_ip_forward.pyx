"""ip_forward: one less to live, and out through another device.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       routed packets                   proto/_ip.pyx, proto/ip_forward.py
Out      the next hop                     proto/_neigh.pyx
Context  softirq or process; no GIL; never raises
Kernel   ip_forward(), net/ipv4/ip_forward.c; ip_exceeds_mtu(); ip_finish_output_gso(), net/ipv4/ip_output.c

ip_forward.py has the order of the steps and what needs an answer: a packet whose time is up, one that is too large and
must not be cut, one whose sender should take another way. The short cut takes the others. What comes off the wire
leaves in the same buffer, and its frame ends as forwarded when the other device has it.
"""

from libc.errno cimport ENOBUFS

from netstack._abi cimport get_be16, load_acquire32, load_relaxed32, put_be16, u8, u16, u32, unlikely
from netstack._counters cimport (
    IpExtOutOctets, IpForwDatagrams, IpOutDiscards, IpOutTransmits, SKB_DROP_REASON_NOMEM, SKB_FORWARDED,
)
from netstack._gso cimport skb_gro_split, skb_is_gso, skb_is_whole_gso
from netstack._net cimport SLOT_CPU0, SLOT_PROCESS, Net, mib_add, mib_inc, net
from netstack._skb cimport (
    CHECKSUM_COMPLETE, CHECKSUM_NONE, SKB_GSO_TCPV4, SKB_GSO_TCPV6, SkBuff, kfree_skb_reason, sk_buff, skb_end,
    skb_wrap,
)
from netstack.nf._rules cimport nf_python_wants, nf_rules_pass
from netstack.proto._inet cimport (
    IP_CSUM, IP_DF, IP_FRAGOFF, IP_HLEN, IP_TOTLEN, IP_TTL, RTN_UNICAST, ip_daddr, ip_ihl, ip_saddr,
)
from netstack.proto._ip_alloc cimport ip_copy, ip_out_cb
from netstack.proto._ip_output cimport ip_output, use_route
from netstack.proto._neigh cimport neigh_output
from netstack.proto._route cimport ip_route_forward, rtable

cdef enum:
    NF_FORWARD_BITS = 1 << 0 | 1 << 2 | 1 << 4     # NF_INET_PRE_ROUTING, FORWARD, POST_ROUTING
    NF_FORWARD_RULES = NF_FORWARD_BITS | NF_FORWARD_BITS << 8      # and captures there: NF_TAP_SHIFT
    TCP_HLEN = 20
    UDP_HLEN = 8


cdef u32 ip_gso_seglen(const sk_buff *skb) noexcept nogil:
    """Bytes of the largest packet that a packet of many frames is cut into. [skb_gso_network_seglen()]"""
    cdef u32 ihl = ip_ihl(skb.data)
    if skb.gso_type & (SKB_GSO_TCPV4 | SKB_GSO_TCPV6):
        return ihl + (<u32>skb.data[ihl + 12] >> 4 << 2) + skb.gso_size
    return ihl + UDP_HLEN + skb.gso_size


cdef bint ip_exceeds_mtu(const sk_buff *skb, u32 size, u32 mtu) noexcept nogil:
    """Is it too large for the way out, and must not be cut? [ip_exceeds_mtu()]"""
    if size <= mtu or not get_be16(skb.data + IP_FRAGOFF) & IP_DF:
        return False
    return not skb_is_gso(skb) or ip_gso_seglen(skb) > mtu


cdef bint ip_forward_peek(net *n, sk_buff *skb, rtable *rt) noexcept nogil:
    cdef const u8 *iph = skb.data
    cdef u32 size = get_be16(iph + IP_TOTLEN)
    if iph[IP_TTL] <= 1 or size < IP_HLEN or size > skb.len:
        return False
    if not ip_route_forward(n, skb.slot - SLOT_CPU0, ip_daddr(iph), ip_saddr(iph), skb.dev, rt):
        return False
    if unlikely(size > rt.mtu) and ip_exceeds_mtu(skb, size, rt.mtu):
        return False
    return not load_relaxed32(&n.nf_hooks) & NF_FORWARD_BITS or not nf_python_wants(n, NF_FORWARD_BITS, skb)


# ---- the steps

cdef sk_buff *ip_cow(net *n, sk_buff *skb) noexcept nogil:
    """Give a packet whose bytes nobody else reads: itself, or a copy. Consumes skb; NULL: no memory. [skb_cow()]"""
    cdef sk_buff *copy
    if skb.owner == NULL and load_acquire32(&skb.dataref) == 1:
        return skb
    if skb_is_gso(skb) and not skb_is_whole_gso(skb):
        return skb                     # skb_gro_split() copies, when it goes out
    copy = ip_copy(n, skb, 0, skb.len)
    if copy == NULL:
        kfree_skb_reason(skb, SKB_DROP_REASON_NOMEM)
        return NULL
    skb_end(skb, SKB_FORWARDED)
    return copy


cdef void ip_decrease_ttl(u8 *iph) noexcept nogil:
    """Take one from the time to live, and the same from the checksum (RFC 1141). [ip_decrease_ttl()]"""
    cdef u32 check = <u32>get_be16(iph + IP_CSUM) + 0x0100
    put_be16(iph + IP_CSUM, <u16>(check + (check >= 0xFFFF)))
    iph[IP_TTL] -= 1


cdef sk_buff *ip_forward_prepare(net *n, sk_buff *skb, const rtable *rt) noexcept nogil:
    """Age a packet and write its way out down. Consumes skb; gives what goes on, or NULL."""
    skb = ip_cow(n, skb)
    if skb == NULL:
        return NULL
    if skb.ip_summed == CHECKSUM_COMPLETE:
        skb.ip_summed = CHECKSUM_NONE
    if not skb_is_gso(skb) or skb_is_whole_gso(skb):
        ip_decrease_ttl(skb.data)
    use_route(skb, rt)
    return skb


cdef int ip_finish_output_gso(net *n, sk_buff *skb) noexcept nogil:
    """Send what GRO merged as the frames that it was: one packet to the counters, unless it must be cut smaller.

    Each frame has its own header still, and each is a hop older; what a NIC coalesced is cut as it now stands.
    """
    cdef u32 slot = skb.slot
    cdef u32 size = skb.len
    cdef bint is_whole = skb_is_whole_gso(skb)
    cdef bint fits = ip_gso_seglen(skb) <= (<ip_out_cb *>skb.cb).mtu
    cdef ip_out_cb out = (<ip_out_cb *>skb.cb)[0]
    cdef sk_buff *part = skb_gro_split(skb)
    cdef sk_buff *following
    cdef int err = 0
    if part == NULL:
        return -ENOBUFS
    if fits:
        mib_inc(n, slot, IpOutTransmits)
        mib_add(n, slot, IpExtOutOctets, size)
    while part != NULL:
        following = part.next
        part.next = NULL
        if not is_whole:
            ip_decrease_ttl(part.data)
        (<ip_out_cb *>part.cb)[0] = out
        if fits:
            err = neigh_output(n, part.dev, out.nexthop, part)
        else:
            err = ip_output(n, part)
        part = following
    return err


cdef int ip_forward_output(net *n, sk_buff *skb) noexcept nogil:
    """Give it to the next hop. Consumes skb; its frame ends as forwarded when it has left."""
    if unlikely(skb_is_gso(skb)) and not goes_whole(skb):
        return ip_finish_output_gso(n, skb)
    return ip_output(n, skb)


cdef bint goes_whole(const sk_buff *skb) noexcept nogil:
    """Is a packet of many frames the device's to cut? Ours cut UDP only. [netif_skb_features()]"""
    if not skb_is_whole_gso(skb) or skb.gso_type & (SKB_GSO_TCPV4 | SKB_GSO_TCPV6):
        return False
    return ip_gso_seglen(skb) <= (<const ip_out_cb *>skb.cb).mtu


cdef void ip_forward(net *n, sk_buff *skb, const rtable *rt) noexcept nogil:
    cdef u32 iif = skb.dev.ifindex
    mib_inc(n, skb.slot, IpForwDatagrams)
    skb = ip_forward_prepare(n, skb, rt)
    if skb == NULL:
        return
    if unlikely(load_relaxed32(&n.nf_rules) & NF_FORWARD_RULES):
        if not nf_rules_pass(n, 2, 3, skb, iif, rt.dev.ifindex) or not nf_rules_pass(n, 4, 5, skb, iif, rt.dev.ifindex):
            return
    ip_forward_output(n, skb)


# ---- the same steps for ip_forward.py

def exceeds_mtu(SkBuff skb not None, u32 mtu):
    """Is it too large for the way out, and must not be cut?"""
    return ip_exceeds_mtu(skb.peek(), skb.peek().len, mtu)


def prepare(Net n not None, SkBuff skb not None, u32 ifindex, u32 nexthop, u32 mtu):
    """Age a packet and write its way out down. Consumes skb; gives what goes on, or None: no memory."""
    cdef sk_buff *packet
    cdef rtable rt
    rt.dev = n.ptr.devices[ifindex - 1]
    rt.flags, rt.type, rt.gateway, rt.mtu = 0, RTN_UNICAST, nexthop, mtu
    packet = ip_forward_prepare(n.ptr, skb.take(), &rt)
    if packet == NULL:
        mib_inc(n.ptr, SLOT_PROCESS, IpOutDiscards)
        return None
    return skb_wrap(packet, n)


def output(Net n not None, SkBuff skb not None):
    """Give it to the next hop. Consumes skb; 0 or an errno. [ip_forward_finish()]"""
    cdef sk_buff *packet = skb.take()
    cdef int err
    with nogil:
        err = ip_forward_output(n.ptr, packet)
    return -err
