"""ip: put the header in front, cut to the MTU, hand to the neighbour.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       a transport header and its data  proto/_udp.pyx, proto/_icmp.pyx
Out      a packet and its next hop        proto/_neigh.pyx
Context  softirq or process; no GIL; never raises
Kernel   ip_push_pending_frames(), ip_local_out(), ip_output(), ip_do_fragment(), net/ipv4/ip_output.c

While a Python hook is registered at LOCAL_OUT or POST_ROUTING, what leaves goes on with ip.py: what a program sends, in
the program's thread, so that it hears of a drop; everything else through the seam, as PACKET_OUTGOING.
"""

cimport cython
from libc.errno cimport EMSGSIZE, ENOBUFS, EPERM
from libc.string cimport memcpy, memset

from netstack._abi cimport (
    fetch_add32, get_be16, likely, load_relaxed32, put_be16, put_be32, u8, u16, u32, u64, unlikely,
)
from netstack._checksum cimport ip_fast_csum
from netstack._counters cimport (
    IpExtOutBcastOctets, IpExtOutBcastPkts, IpExtOutMcastOctets, IpExtOutMcastPkts, IpExtOutOctets, IpFragCreates,
    IpFragFails, IpFragOKs, IpOutDiscards, IpOutRequests, IpOutTransmits, SKB_DROP_REASON_NOMEM,
    SKB_DROP_REASON_PKT_TOO_BIG,
)
from netstack._gso cimport skb_checksum_help, skb_is_gso
from netstack._net cimport (
    ETH_HLEN, IFF_LOOPBACK, SLOT_PROCESS, Net, ip_default_ttl, mib_add, mib_inc, net, net_device, net_now, sysctl_get,
)
from netstack._skb cimport (
    CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, PACKET_HOST, PACKET_LOOPBACK, PACKET_OUTGOING, SkBuff, consume_skb,
    dev_queue_xmit, kfree_skb_reason, sk_buff, skb_push,
)
from netstack.nf._rules cimport nf_python_wants, nf_rules_pass
from netstack.proto._neigh cimport neigh_output
from netstack.proto._inet cimport (
    ETH_P_IP, IP_CSUM, IP_DADDR, IP_DF, IP_FRAGOFF, IP_HLEN, IP_ID, IP_MF, IP_OFFSET, IP_PROTO, IP_SADDR, IP_TOS,
    IP_TOTLEN, IP_TTL, RTCF_BROADCAST, RTCF_LOCAL, RTCF_MULTICAST, RTCF_NOLOOP, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST,
    RTN_UNICAST,
    ip_daddr, ip_ihl,
)

from netstack.proto._route cimport ip_route_output

from netstack.errors import InternalError

cdef enum:
    IDENT_STEP_NS = 4_000_000      # a generator also moves with time: by up to one a tick of 4 ms
    NF_OUT_BITS = 1 << 3 | 1 << 4  # NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING: see nf/hooks.py
    NF_OUT_RULES = NF_OUT_BITS | NF_OUT_BITS << 8  # and captures there: NF_TAP_SHIFT
    IPOPT_END = 0
    IPOPT_NOOP = 1
    IPOPT_COPY = 0x80


# ---- the header

cdef u16 ip_select_ident(net *n, u32 daddr, u32 saddr, u8 protocol) noexcept nogil:
    """Give an id that no packet between these two had lately, and that tells little to others (RFC 6864).

    [__ip_select_ident()]
    """
    cdef ip_state *state = <ip_state *>n.ip
    cdef u64 hash = (<u64>daddr << 32 | saddr) * <u64>0x9E3779B97F4A7C15 + (<u64>protocol << 56) + state.seed
    cdef u32 drift = <u32>(net_now(n) // IDENT_STEP_NS)
    hash = (hash ^ hash >> 29) * <u64>0xBF58476D1CE4E5B9
    return <u16>(fetch_add32(&state.idents[hash >> 53], 1) + drift)


cdef void ip_build_header(net *n, sk_buff *skb, const rtable *rt, u8 protocol, u8 tos, u8 ttl, u16 frag_off,
                          const u8 *opt, u32 optlen) noexcept nogil:
    """Put the header in front of the data, checksum and all. [__ip_make_skb(), ip_options_build()]"""
    cdef u32 ihl = IP_HLEN + optlen
    cdef u8 *iph
    cdef u16 check
    skb.transport_header = <u16>(skb.data - skb.head)
    skb_push(skb, ihl)
    skb.network_header = <u16>(skb.data - skb.head)
    use_route(skb, rt)
    iph = skb.data
    iph[0] = <u8>(4 << 4 | ihl >> 2)
    iph[IP_TOS] = tos
    put_be16(iph + IP_TOTLEN, <u16>skb.len)
    put_be16(iph + IP_ID, 0 if frag_off & IP_DF else ip_select_ident(n, rt.daddr, rt.saddr, protocol))
    put_be16(iph + IP_FRAGOFF, frag_off)
    iph[IP_TTL] = ttl if ttl or rt.type == RTN_MULTICAST else <u8>sysctl_get(n, ip_default_ttl)
    iph[IP_PROTO] = protocol
    put_be16(iph + IP_CSUM, 0)
    put_be32(iph + IP_SADDR, rt.saddr)
    put_be32(iph + IP_DADDR, rt.daddr)
    if optlen:
        memcpy(iph + IP_HLEN, opt, optlen)
    check = ip_fast_csum(iph, ihl >> 2)
    memcpy(iph + IP_CSUM, &check, 2)


cdef int ip_send_skb(net *n, sk_buff *skb, const rtable *rt, u8 protocol, u8 tos, u8 ttl, u16 frag_off) noexcept nogil:
    """Send a transport header and its data. ``ttl`` 0 is ip_default_ttl; ``frag_off`` is IP_DF or 0. [ip_send_skb()]"""
    if likely(not load_relaxed32(&n.nf_hooks) & NF_OUT_BITS) or skb.len + IP_HLEN > 0xFFFF:
        return ip_send_skb_opt(n, skb, rt, protocol, tos, ttl, frag_off, NULL, 0)
    ip_build_header(n, skb, rt, protocol, tos, ttl, frag_off, NULL, 0)
    mib_inc(n, skb.slot, IpOutRequests)
    return ip_local_out(n, skb)


cdef int ip_local_out(net *n, sk_buff *skb) noexcept nogil:
    cdef ip_state *state = <ip_state *>n.ip
    cdef int err
    if likely(not load_relaxed32(&n.nf_hooks) & NF_OUT_BITS):
        if unlikely(load_relaxed32(&n.nf_rules) & NF_OUT_RULES) and not nf_rules_pass(n, 3, 5, skb, 0, skb.dev.ifindex):
            mib_inc(n, SLOT_PROCESS, IpOutDiscards)
            return -EPERM
        return ip_output(n, skb)
    skb.pkt_type = PACKET_OUTGOING
    err = state.local_out(state.local_out_arg, skb)
    if err:
        mib_inc(n, SLOT_PROCESS, IpOutDiscards)
    return err


cdef int ip_send_skb_opt(net *n, sk_buff *skb, const rtable *rt, u8 protocol, u8 tos, u8 ttl, u16 frag_off,
                         const u8 *opt, u32 optlen) noexcept nogil:
    cdef u32 slot = skb.slot
    if skb.len + IP_HLEN + optlen > 0xFFFF:
        kfree_skb_reason(skb, SKB_DROP_REASON_PKT_TOO_BIG)
        return -EMSGSIZE
    ip_build_header(n, skb, rt, protocol, tos, ttl, frag_off, opt, optlen)
    mib_inc(n, slot, IpOutRequests)
    if unlikely(load_relaxed32(&n.nf_hooks) & NF_OUT_BITS) and nf_python_wants(n, NF_OUT_BITS, skb):
        skb.pkt_type = PACKET_OUTGOING
        n.to_python(n, skb)
        return 0
    if unlikely(load_relaxed32(&n.nf_rules) & NF_OUT_RULES) and not nf_rules_pass(n, 3, 5, skb, 0, rt.dev.ifindex):
        mib_inc(n, slot, IpOutDiscards)
        return -EPERM
    return ip_output(n, skb)


# ---- on the way out

cdef int ip_output(net *n, sk_buff *skb) noexcept nogil:
    """Send a packet with its header; a copy of what goes to all comes back to us. [ip_output(), ip_mc_output()]"""
    cdef sk_buff *copy
    if unlikely(skb.rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST)) and not skb.dev.flags & IFF_LOOPBACK:
        if skb.rt_flags & RTCF_LOCAL and n.netif_rx != NULL:
            copy = ip_copy(n, skb, 0, skb.len)
            if copy != NULL:
                dev_loopback_xmit(n, copy)
        if (skb.rt_flags & RTCF_MULTICAST and skb.rt_flags & (RTCF_LOCAL | RTCF_NOLOOP)
                and skb.data[IP_TTL] == 0):
            consume_skb(skb)
            return 0
    if likely(skb.len <= (<ip_out_cb *>skb.cb).mtu) or skb_is_gso(skb):
        return ip_finish_output2(n, skb)
    return ip_fragment(n, skb)


cdef void dev_loopback_xmit(net *n, sk_buff *skb) noexcept nogil:
    """Let a packet that we sent to all come in again, as from its device. Consumes skb."""
    skb.pkt_type = PACKET_LOOPBACK
    skb.ip_summed = CHECKSUM_UNNECESSARY
    n.netif_rx(skb)


cdef int ip_finish_output2(net *n, sk_buff *skb) noexcept nogil:
    """Count, and give to the neighbour."""
    cdef u32 slot = skb.slot
    cdef net_device *dev = skb.dev
    if unlikely(skb.rt_type == RTN_MULTICAST):
        mib_inc(n, slot, IpExtOutMcastPkts)
        mib_add(n, slot, IpExtOutMcastOctets, skb.len)
    elif unlikely(skb.rt_type == RTN_BROADCAST):
        mib_inc(n, slot, IpExtOutBcastPkts)
        mib_add(n, slot, IpExtOutBcastOctets, skb.len)
    mib_inc(n, slot, IpOutTransmits)
    mib_add(n, slot, IpExtOutOctets, skb.len)
    if likely(skb.rt_type == RTN_UNICAST):
        return neigh_output(n, dev, (<ip_out_cb *>skb.cb).nexthop, skb)
    return neigh_direct(skb, ip_daddr(skb.data))


cdef int neigh_direct(sk_buff *skb, u32 daddr) noexcept nogil:
    """Send to an address that needs no asking: ourselves, everybody, or a group (RFC 1112 section 6.4)."""
    cdef u8 *eth
    skb_push(skb, ETH_HLEN)
    eth = skb.data
    if skb.rt_type == RTN_LOCAL:
        memset(eth, 0, 12)
    elif skb.rt_type == RTN_MULTICAST:
        eth[0], eth[1], eth[2] = 0x01, 0x00, 0x5E
        eth[3], eth[4], eth[5] = <u8>(daddr >> 16 & 0x7F), <u8>(daddr >> 8), <u8>daddr
        memcpy(eth + 6, skb.dev.dev_addr, 6)
    else:
        memset(eth, 0xFF, 6)
        memcpy(eth + 6, skb.dev.dev_addr, 6)
    put_be16(eth + 12, ETH_P_IP)
    return dev_queue_xmit(skb)


# ---- fragments

cdef int ip_fragment(net *n, sk_buff *skb) noexcept nogil:
    """Send a packet that is larger than the MTU in pieces, or refuse (IP_DF). Consumes skb. [ip_do_fragment()]"""
    cdef u32 slot = skb.slot
    cdef u32 ihl = ip_ihl(skb.data)
    cdef u32 mtu = (<ip_out_cb *>skb.cb).mtu
    cdef u32 most = (mtu - ihl) & ~<u32>7
    cdef u32 offset = ihl
    cdef u32 end = skb.len
    cdef u16 frag_off = get_be16(skb.data + IP_FRAGOFF)
    cdef u32 size
    cdef int err = 0
    cdef sk_buff *piece
    if frag_off & IP_DF or most == 0:
        mib_inc(n, slot, IpFragFails)
        kfree_skb_reason(skb, SKB_DROP_REASON_PKT_TOO_BIG)
        return -EMSGSIZE
    if skb.ip_summed == CHECKSUM_PARTIAL:
        skb_checksum_help(skb)
    while offset < end:
        size = end - offset if end - offset <= mtu - ihl else most
        piece = ip_copy(n, skb, offset, size)
        if piece == NULL:
            mib_inc(n, slot, IpFragFails)
            kfree_skb_reason(skb, SKB_DROP_REASON_NOMEM)
            return -ENOBUFS
        if offset + size == end and skb.owner == NULL:
            piece.id, piece.frames, skb.frames = skb.id, skb.frames, 0     # the frame goes with the last
        ip_fragment_header(piece, ihl, frag_off, offset - ihl, offset + size < end)
        if offset == ihl:
            ip_options_fragment(skb)
        mib_inc(n, slot, IpFragCreates)
        err = ip_finish_output2(n, piece)
        offset += size
    mib_inc(n, slot, IpFragOKs)
    consume_skb(skb)
    return err


cdef void ip_fragment_header(sk_buff *piece, u32 ihl, u16 frag_off, u32 offset, bint more) noexcept nogil:
    """Make the copied header that of the piece at ``offset``."""
    cdef u8 *iph = piece.data
    cdef u16 check
    put_be16(iph + IP_TOTLEN, <u16>piece.len)
    put_be16(iph + IP_FRAGOFF, <u16>(((frag_off & IP_OFFSET) + (offset >> 3)) | (frag_off & IP_MF)
                                     | (IP_MF if more else 0)))
    put_be16(iph + IP_CSUM, 0)
    check = ip_fast_csum(iph, ihl >> 2)
    memcpy(iph + IP_CSUM, &check, 2)


cdef void ip_options_fragment(sk_buff *skb) noexcept nogil:
    """Blank the options that only the first piece carries (RFC 791, copied flag). [ip_options_fragment()]"""
    cdef u8 *opt = skb.data + IP_HLEN
    cdef u32 left = ip_ihl(skb.data) - IP_HLEN
    cdef u32 size
    while left:
        if opt[0] == IPOPT_END:
            return
        size = 1 if opt[0] == IPOPT_NOOP or left < 2 else opt[1]
        if size == 0 or size > left:
            return
        if not opt[0] & IPOPT_COPY:
            memset(opt, IPOPT_NOOP, size)
        opt += size
        left -= size


# ---- set-up, and the same steps for Python

@cython.final
@cython.no_gc_clear
cdef class IPOutput:
    """The generators of IP ids. Owns ``net.ip``; keep it as long as packets move.

    ``seed`` is what keeps others from guessing; a fixed one gives the same ids every time.
    """
    cdef Net net_object
    cdef ip_state state

    def __cinit__(self, Net n not None, u64 seed):
        cdef u32 i
        if n.ptr.ip != NULL:
            raise InternalError("the host has its IP output state already")
        self.net_object = n
        self.state.seed = seed
        for i in range(IP_IDENTS):
            seed = seed * <u64>6364136223846793005 + <u64>1442695040888963407
            self.state.idents[i] = <u32>(seed >> 32)
        n.ptr.ip = &self.state

    def __dealloc__(self):
        if self.net_object is not None and self.net_object.ptr.ip == &self.state:
            self.net_object.ptr.ip = NULL


def send(Net n not None, bytes data not None, u32 daddr, u32 saddr, u8 protocol, *, u8 tos=0, u8 ttl=0, bint df=False,
         bytes options=b""):
    """Send ``data`` (a transport header and what follows) to ``daddr``; 0 or an errno. [ip_push_pending_frames()]

    ``saddr`` 0: the address that fits. ``ttl`` 0: ip_default_ttl. ``options``: of the IP header, padded to words.
    """
    cdef const u8 *bits = data
    cdef const u8 *opt = options
    cdef u32 size = <u32>len(data)
    cdef u32 optlen = <u32>len(options)
    cdef rtable rt
    cdef sk_buff *skb
    cdef int err
    if optlen > IP_OPTIONS_MAX or optlen & 3:
        raise ValueError(f"{optlen} bytes of options: give 0 to {IP_OPTIONS_MAX}, a multiple of 4")
    with nogil:
        err = ip_route_output(n.ptr, daddr, saddr, &rt)
        if err == 0:
            skb = ip_alloc_skb(n.ptr, size)
            if skb == NULL:
                err = -ENOBUFS
            else:
                skb_store_bits(skb, 0, bits, size)
                err = ip_send_skb_opt(n.ptr, skb, &rt, protocol, tos, ttl, IP_DF if df else 0, opt, optlen)
    return -err


def output(Net n not None, SkBuff skb not None):
    """Send a packet whose header stands: a hook saw it on the way out. 0 or an errno. [ip_output()]"""
    cdef sk_buff *packet = skb.take()
    packet.pkt_type = PACKET_HOST
    return -ip_output(n.ptr, packet)
