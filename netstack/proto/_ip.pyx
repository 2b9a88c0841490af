"""ip: check the header, find out that the packet is ours, pass it to its protocol.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       packets with EtherType 0x0800    netif/_core.pyx
Out      the protocol's rcv               proto/_icmp.pyx, proto/_udp.pyx
Context  softirq or process; no GIL; never allocates, never raises
Kernel   ip_rcv_core(), ip_rcv_finish_core(), ip_protocol_deliver_rcu(), net/ipv4/ip_input.c

ip.py has the whole order of the steps and calls these functions one after the other. ``ip_rcv_fast`` calls the same
ones for what needs nothing else: no options, no fragments, a unicast address of ours, and a protocol that is waiting.
"""

from libc.string cimport memcpy

from netstack._abi cimport (
    add_owned64, add_relaxed64, fetch_add32, get_be16, likely, load_acquire_ptr, load_relaxed32, u8, u16, u32, u64,
    unlikely,
)
from netstack._checksum cimport ip_fast_csum
from netstack._counters cimport (
    IpExtInBcastOctets, IpExtInBcastPkts, IpExtInCsumErrors, IpExtInMcastOctets, IpExtInMcastPkts, IpExtInNoECTPkts,
    IpExtInOctets, IpExtInTruncatedPkts, IpInDelivers, IpInHdrErrors, IpInReceives, SKB_DROP_REASON_IP_CSUM,
    SKB_DROP_REASON_IP_INHDR, SKB_DROP_REASON_OTHERHOST,
    SKB_DROP_REASON_PKT_TOO_SMALL, SKB_DROP_REASON_UNICAST_IN_L2_MULTICAST, SKB_NOT_DROPPED_YET,
    TcpExtIPReversePathFilter, SKB_DROP_REASON_IP_RPFILTER,
)
from netstack._net cimport (
    SLOT_CPU0, SLOT_PROCESS, Net, drop_unicast_in_l2_multicast, in_dev_forward, inet_fast_ops, inet_fast_rcv, mib_add,
    mib_inc, mib_slot, net, sysctl_get,
)
from netstack._skb cimport (
    CHECKSUM_COMPLETE, CHECKSUM_NONE, PACKET_BROADCAST, PACKET_HOST, PACKET_MULTICAST, PACKET_OTHERHOST,
    SkBuff, kfree_skb_reason, sk_buff,
    skb_headlen, skb_network_header, skb_pull,
)
from netstack.nf._rules cimport nf_python_wants, nf_rules_pass
from netstack.proto._inet cimport (
    IP_HLEN, IP_MF, IP_OFFSET, IP_FRAGOFF, IP_PROTO, IP_TOS, IP_TOTLEN, RTCF_LOCAL,
    RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_UNICAST,
    ip_daddr, ip_ihl, ip_saddr, ipv4_is_multicast,
)
from netstack.proto._ip_forward cimport ip_forward, ip_forward_peek
from netstack.proto._route cimport fib, ip_route_input, ip_route_use_hint, rtable
from netstack.proto._route_mc cimport ip_route_input_mc

cdef enum:
    IPV4_IHL5 = 0x45               # version 4, a header of 5 words
    ETH_P_IP = 0x0800
    INET_ECN_MASK = 3
    NF_IN_BITS = 1 << 0 | 1 << 1   # NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN: see nf/hooks.py
    NF_IN_RULES = NF_IN_BITS | NF_IN_BITS << 8     # and captures there: NF_TAP_SHIFT
    NF_PRE_ROUTING_RULES = 1 | 1 << 8


cdef inline void count(mib_slot *stats, u32 slot, int which, u64 by) noexcept nogil:
    """``mib_add`` with the place of the slot's counters at hand."""
    if likely(slot != SLOT_PROCESS):
        add_owned64(&stats.mib[which], by)
    else:
        add_relaxed64(&stats.mib[which], by)


cdef u32 inhdr_error(mib_slot *stats, u32 slot, u32 reason) noexcept nogil:
    count(stats, slot, IpInHdrErrors, 1)
    return reason


cdef inline bint ip_rcv_core_plain(net *n, sk_buff *skb, const u8 *iph) noexcept nogil:
    """Check a header without options of a single packet that came to a CPU; False leaves it to ip_rcv_core_odd()."""
    cdef u32 size = get_be16(iph + IP_TOTLEN)
    cdef u64 *mib
    if unlikely(ip_fast_csum(iph, 5) or size < IP_HLEN or size > skb.len):
        return False
    mib = n.slots[skb.slot].mib
    add_owned64(&mib[<int>IpInReceives], 1)
    add_owned64(&mib[<int>IpExtInOctets], skb.len)
    add_owned64(&mib[<int>IpExtInNoECTPkts + (iph[IP_TOS] & INET_ECN_MASK)], 1)
    if unlikely(skb.len > size):
        skb_trim(skb, size)
    skb.network_header = <u16>(iph - skb.head)
    skb.transport_header = skb.network_header + <u16>IP_HLEN
    return True


cdef inline u32 ip_rcv_core(net *n, sk_buff *skb) noexcept nogil:
    """Check the header and cut off the padding; a drop reason, or 0. Counts what Linux counts. [ip_rcv_core()]

    A header as nearly all are is looked at in one pass; any other goes step by step.
    """
    cdef const u8 *iph = skb.data
    if likely(skb.pkt_type != PACKET_OTHERHOST and skb.slot != SLOT_PROCESS and skb.gso_segs == 0
              and skb_headlen(skb) >= IP_HLEN and iph[0] == IPV4_IHL5 and ip_rcv_core_plain(n, skb, iph)):
        return SKB_NOT_DROPPED_YET
    return ip_rcv_core_odd(n, skb)


cdef u32 ip_rcv_core_odd(net *n, sk_buff *skb) noexcept nogil:
    """The same for any header, in Linux's order."""
    cdef const u8 *iph = skb.data
    cdef u32 slot = skb.slot
    cdef mib_slot *stats = &n.slots[slot]
    cdef u32 ihl, size
    if unlikely(skb.pkt_type == PACKET_OTHERHOST):
        return SKB_DROP_REASON_OTHERHOST
    count(stats, slot, IpInReceives, 1)
    count(stats, slot, IpExtInOctets, skb.len)
    if unlikely(skb_headlen(skb) < IP_HLEN):
        return inhdr_error(stats, slot, SKB_DROP_REASON_IP_INHDR)
    ihl = ip_ihl(iph)
    if unlikely(ihl < IP_HLEN or iph[0] >> 4 != 4):
        return inhdr_error(stats, slot, SKB_DROP_REASON_IP_INHDR)
    count(stats, slot, IpExtInNoECTPkts + (iph[IP_TOS] & INET_ECN_MASK), skb.gso_segs if skb.gso_segs else 1)
    if unlikely(skb_headlen(skb) < ihl):
        return inhdr_error(stats, slot, SKB_DROP_REASON_IP_INHDR)
    if unlikely(ip_fast_csum(iph, ihl >> 2)):
        count(stats, slot, IpExtInCsumErrors, 1)
        return inhdr_error(stats, slot, SKB_DROP_REASON_IP_CSUM)
    size = get_be16(iph + IP_TOTLEN)
    if unlikely(skb.len < size):
        count(stats, slot, IpExtInTruncatedPkts, 1)
        return SKB_DROP_REASON_PKT_TOO_SMALL
    if unlikely(size < ihl):
        return inhdr_error(stats, slot, SKB_DROP_REASON_IP_INHDR)
    if unlikely(skb.len > size):
        skb_trim(skb, size)
    skb.network_header = <u16>(iph - skb.head)
    skb.transport_header = <u16>(skb.network_header + ihl)
    return SKB_NOT_DROPPED_YET


cdef void skb_trim(sk_buff *skb, u32 size) noexcept nogil:
    """Cut off what follows the first ``size`` bytes: Ethernet pads short frames. [pskb_trim_rcsum()]

    Buffers that become empty stay in the list with length 0: their frames end with the packet.
    """
    cdef u32 head = skb_headlen(skb)
    cdef u32 left
    cdef sk_buff *frag
    if skb.data_len:
        left = size - head if size > head else 0
        skb.data_len = left
        frag = skb.frag_list
        while frag != NULL:
            frag.len = min(frag.len, left)
            left -= frag.len
            frag = frag.next
    skb.len = size
    if skb.ip_summed == CHECKSUM_COMPLETE:
        skb.ip_summed = CHECKSUM_NONE      # the sum was over the padding too


cdef u32 ip_rcv_route(net *n, sk_buff *skb) noexcept nogil:
    """Find out whose packet it is, unless that is known: rt_flags and rt_type. A drop reason, or 0."""
    cdef const u8 *iph = skb_network_header(skb)
    cdef rtable rt
    cdef u32 reason
    if skb.rt_flags:               # looped back: routed when it was sent [skb_valid_dst()]
        return SKB_NOT_DROPPED_YET
    if unlikely(ipv4_is_multicast(ip_daddr(iph))):
        reason = ip_route_input_mc(n, ip_daddr(iph), ip_saddr(iph), skb.dev, ETH_P_IP, iph[IP_PROTO], &rt)
    else:
        reason = ip_route_input(n, ip_daddr(iph), ip_saddr(iph), skb.dev, ETH_P_IP, &rt)
    if likely(reason == SKB_NOT_DROPPED_YET):
        skb.rt_flags = rt.flags
        skb.rt_type = rt.type
    elif reason == SKB_DROP_REASON_IP_RPFILTER:
        mib_inc(n, skb.slot, TcpExtIPReversePathFilter)
    return reason


cdef u32 ip_rcv_finish_core(net *n, sk_buff *skb) noexcept nogil:
    """Count multicast and broadcast; refuse unicast in a frame to all when that is wanted (RFC 1122 section 3.3.6)."""
    if skb.rt_type == RTN_MULTICAST:
        mib_inc(n, skb.slot, IpExtInMcastPkts)
        mib_add(n, skb.slot, IpExtInMcastOctets, skb.len)
    elif skb.rt_type == RTN_BROADCAST:
        mib_inc(n, skb.slot, IpExtInBcastPkts)
        mib_add(n, skb.slot, IpExtInBcastOctets, skb.len)
    elif skb.pkt_type == PACKET_BROADCAST or skb.pkt_type == PACKET_MULTICAST:
        if sysctl_get(n, drop_unicast_in_l2_multicast):
            return SKB_DROP_REASON_UNICAST_IN_L2_MULTICAST
    return SKB_NOT_DROPPED_YET


cdef bint ip_drop(sk_buff *skb, u32 reason) noexcept nogil:
    """Drop, out of the way of what goes on. True: the packet is done with."""
    kfree_skb_reason(skb, reason)
    return True


cdef bint ip_rcv_forward(net *n, sk_buff *skb) noexcept nogil:
    """Send a plain packet on, if it is for others and its device forwards; or leave it as it came."""
    cdef rtable rt
    cdef u32 reason
    if likely(not in_dev_forward(skb.dev)) or skb.rt_flags or skb.slot == SLOT_PROCESS:
        return 0
    if not ip_forward_peek(n, skb, &rt):
        return 0
    reason = ip_rcv_core(n, skb)
    if unlikely(reason != SKB_NOT_DROPPED_YET):
        return ip_drop(skb, reason)
    skb.rt_type = RTN_UNICAST
    if (unlikely(load_relaxed32(&n.nf_rules) & NF_PRE_ROUTING_RULES)
            and not nf_rules_pass(n, 0, 1, skb, skb.dev.ifindex, 0)):
        return 1
    ip_forward(n, skb, &rt)
    return 1


cdef bint ip_rcv_fast(net *n, sk_buff *skb, void *sd) noexcept nogil:
    """Take a plain packet to its protocol, or leave it as it came.

    Who asks first whether the packet is ours, and then checks the header, must not believe the header: an address out
    of a broken one only finds a route that is not used.
    """
    cdef const u8 *iph = skb.data
    cdef inet_fast_ops *ops
    cdef u32 reason
    cdef u32 slot = skb.slot
    cdef u32 protocol
    if unlikely(skb_headlen(skb) < IP_HLEN or iph[0] != IPV4_IHL5):
        return 0
    if unlikely(load_relaxed32(&n.nf_hooks) & NF_IN_BITS) and nf_python_wants(n, NF_IN_BITS, skb):
        return 0
    if unlikely(skb.pkt_type != PACKET_HOST):
        if skb.pkt_type != PACKET_OTHERHOST:
            return 0
        return ip_drop(skb, ip_rcv_core(n, skb))
    protocol = iph[IP_PROTO]
    ops = &n.inet_fast[protocol]
    if ops.peek == NULL or n.raw_protocols[protocol >> 5] >> (protocol & 31) & 1:
        return ip_rcv_forward(n, skb)
    if get_be16(iph + IP_FRAGOFF) & (IP_MF | IP_OFFSET) or slot == SLOT_PROCESS:
        return ip_rcv_forward(n, skb)
    if not skb.rt_flags and not ip_route_use_hint(n, slot - SLOT_CPU0, iph, skb.dev):
        return ip_rcv_forward(n, skb)
    if unlikely(skb.rt_flags and skb.rt_type != RTN_LOCAL) or not ops.peek(n, skb):
        return 0
    if unlikely(skb.gso_segs) or unlikely(not ip_rcv_core_plain(n, skb, iph)):
        reason = ip_rcv_core_odd(n, skb)
        if reason != SKB_NOT_DROPPED_YET:
            return ip_drop(skb, reason)
    # Our unicast address in a frame to our MAC: ip_rcv_route() and ip_rcv_finish_core() have nothing left to do.
    skb.rt_flags = RTCF_LOCAL
    skb.rt_type = RTN_LOCAL
    if unlikely(load_relaxed32(&n.nf_rules) & NF_IN_RULES) and not nf_rules_pass(n, 0, 2, skb, skb.dev.ifindex, 0):
        return 1
    skb_pull(skb, IP_HLEN)
    (<inet_fast_rcv>load_acquire_ptr(<void **>&ops.rcv))(n, skb, sd)
    mib_inc(n, slot, IpInDelivers)
    return 1


# ---- the same steps for ip.py

def rcv_core(Net n not None, SkBuff skb not None):
    """Check the header; a drop reason, or 0. [ip_rcv_core()]"""
    return ip_rcv_core(n.ptr, skb.peek())


def rcv_route(Net n not None, SkBuff skb not None):
    """Find out whose packet it is: (drop reason, RTN_* type, RTCF_* flags). [ip_route_input_noref()]"""
    cdef fib *table = <fib *>n.ptr.fib
    cdef sk_buff *packet = skb.peek()
    cdef u32 reason
    fetch_add32(&table.readers, 1)
    reason = ip_rcv_route(n.ptr, packet)
    fetch_add32(&table.readers, <u32>-1)
    return reason, packet.rt_type, packet.rt_flags


def rcv_finish_core(Net n not None, SkBuff skb not None):
    """Count multicast and broadcast; a drop reason, or 0. [ip_rcv_finish_core()]"""
    return ip_rcv_finish_core(n.ptr, skb.peek())


def local_deliver(SkBuff skb not None):
    """Move past the IP header, as it stands in the packet. [ip_local_deliver_finish()]"""
    cdef sk_buff *packet = skb.peek()
    skb_pull(packet, <u32>(packet.head + packet.transport_header - packet.data))


def write_options(SkBuff skb not None, bytes options not None):
    """Put changed options back into the header, whose checksum stays as it came. [opt.is_changed]"""
    cdef sk_buff *packet = skb.peek()
    cdef u8 *iph = skb_network_header(packet)
    if <u32>len(options) != ip_ihl(iph) - IP_HLEN:
        raise ValueError(f"{len(options)} bytes of options: the header has {ip_ihl(iph) - IP_HLEN}")
    memcpy(iph + IP_HLEN, <const u8 *>options, len(options))
