"""icmp: check messages, answer echo requests, and keep to the rate limits.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       IP packets with protocol 1       proto/_ip.pyx, proto/icmp.py
Out      replies                          proto/_ip_output.pyx
Context  softirq or process; no GIL; never raises
Kernel   icmp_rcv(), icmp_echo(), icmp_reply(), icmp_global_allow(), net/ipv4/icmp.c;
         inet_peer_xrlim_allow(), net/ipv4/inetpeer.c

icmp.py has the order of the steps and every other type. The short cut takes echo requests.
"""

cimport cython
from libc.errno cimport ENOBUFS
from libc.string cimport memcpy

from netstack._abi cimport get_be16, put_be16, spin_lock, spin_unlock, u8, u16, u32, u64
from netstack._checksum cimport csum_fold
from netstack._counters cimport (
    IcmpInAddrMaskReps, IcmpInAddrMasks, IcmpInCsumErrors, IcmpInDestUnreachs, IcmpInEchoReps, IcmpInEchos,
    IcmpInErrors, IcmpInMsgs, IcmpInParmProbs, IcmpInRedirects, IcmpInSrcQuenchs, IcmpInTimeExcds,
    IcmpInTimestampReps, IcmpInTimestamps, IcmpMsgInType, IcmpMsgOutType, IcmpOutDestUnreachs, IcmpOutErrors,
    IcmpOutMsgs, IcmpOutRateLimitGlobal, IcmpOutRateLimitHost, SKB_DROP_REASON_ICMP_CSUM,
    SKB_DROP_REASON_INVALID_PROTO, SKB_DROP_REASON_PKT_TOO_SMALL, SKB_DROP_REASON_UNHANDLED_PROTO, SKB_NOT_DROPPED_YET,
)
from netstack._net cimport (
    IFF_LOOPBACK, SLOT_PROCESS, Net, icmp_echo_ignore_all, icmp_msgs_burst, icmp_msgs_per_sec, icmp_ratelimit,
    icmp_ratemask, mib_inc, net, net_now, route_error_burst, route_error_cost, route_redirect_load,
    route_redirect_number, route_redirect_silence, sysctl_get,
)
from netstack._skb cimport (
    CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, SkBuff, consume_skb, kfree_skb_reason, sk_buff, skb_headlen,
    skb_network_header,
)
from netstack.proto._inet cimport (
    ICMP_ECHO, ICMP_ECHOREPLY, ICMP_EXT_ECHO, ICMP_EXT_ECHOREPLY, ICMP_HLEN,
    IP_HLEN, IP_TOS, IP_TOTLEN, IPPROTO_ICMP, NR_ICMP_TYPES, RTCF_BROADCAST,
    RTCF_MULTICAST, ip_daddr, ip_saddr,
)
from netstack.proto._ip_output cimport ip_alloc_skb, ip_send_skb_opt, skb_checksum, skb_fill, skb_store_bits
from netstack.proto._route cimport ip_route_output, rtable

from netstack.errors import InternalError

cdef enum:
    ICMP_DEST_UNREACH = 3
    ICMP_FRAG_NEEDED = 4
    XRLIM_BURST_FACTOR = 6         # messages that a quiet peer may get at once
    NS_PER_MS = 1_000_000
    NS_PER_S = 1_000_000_000
    TICK_NS = 4_000_000            # HZ=250: what sysctls of routes count in
    GLOBAL_PERIOD = NS_PER_S / 50  # credit comes in steps of at least this

# The counter with a name of its own of each type, as /proc/net/snmp prints it; 0: has none. The Out counters stand in
# the same order.
cdef u16 *IN_COUNTER = [
    IcmpInEchoReps, 0, 0, IcmpInDestUnreachs, IcmpInSrcQuenchs, IcmpInRedirects, 0, 0, IcmpInEchos, 0, 0,
    IcmpInTimeExcds, IcmpInParmProbs, IcmpInTimestamps, IcmpInTimestampReps, 0, 0, IcmpInAddrMasks, IcmpInAddrMaskReps,
]


cdef void icmp_in_count(net *n, u32 slot, u8 type) noexcept nogil:
    mib_inc(n, slot, IcmpMsgInType + type)
    if type <= NR_ICMP_TYPES and IN_COUNTER[type]:
        mib_inc(n, slot, IN_COUNTER[type])


cdef void icmp_out_count(net *n, u32 slot, u8 type) noexcept nogil:
    """Count a message that leaves. [icmp_out_count()]"""
    mib_inc(n, slot, IcmpOutMsgs)
    mib_inc(n, slot, IcmpMsgOutType + type)
    if type <= NR_ICMP_TYPES and IN_COUNTER[type]:
        mib_inc(n, slot, IN_COUNTER[type] - IcmpInDestUnreachs + IcmpOutDestUnreachs)


# ---- rate limits

cdef bint global_allow(net *n, icmp_state *state, u64 now) noexcept nogil:
    """Is there credit for one more message of this host? Lock held. [icmp_global_allow()]"""
    cdef u64 delta, more
    if state.credit > 0:
        return True
    delta = min(now - state.stamp, <u64>NS_PER_S)
    if delta < GLOBAL_PERIOD:
        return False
    more = sysctl_get(n, icmp_msgs_per_sec) * delta // NS_PER_S
    if more == 0:
        return False
    state.credit = <int>min(more + state.credit, sysctl_get(n, icmp_msgs_burst))
    state.stamp = now
    return True


cdef void global_consume(icmp_state *state) noexcept nogil:
    """Take 0 to 2 of the credit: the limit must not tell a peer what others get. [icmp_global_consume()]"""
    state.seed ^= state.seed << 13
    state.seed ^= state.seed >> 7
    state.seed ^= state.seed << 17
    state.credit -= <int>((state.seed >> 32) % 3)


cdef icmp_bucket *peer_of(icmp_state *state, u32 daddr, u64 now) noexcept nogil:
    """Give what is known of a destination, with credit for the time since it was last spoken to. [inet_getpeer_v4()]

    The caller sets ``last``. Lock held.
    """
    cdef icmp_bucket *peer = &state.peers[(daddr * <u32>0x9E3779B1) >> 22]
    if peer.addr != daddr or peer.last == 0:
        peer.addr = daddr
        peer.tokens = 60 * <u64>NS_PER_S
        peer.last = 0
        peer.n_redirects = 0
    else:
        peer.tokens += now - peer.last
    return peer


cdef bint peer_allow(net *n, icmp_state *state, u32 daddr, u64 now) noexcept nogil:
    """A token bucket a destination. Lock held. [inet_peer_xrlim_allow()]"""
    cdef u64 timeout = sysctl_get(n, icmp_ratelimit) * NS_PER_MS
    cdef icmp_bucket *peer = peer_of(state, daddr, now)
    peer.tokens = min(peer.tokens, XRLIM_BURST_FACTOR * timeout)
    peer.last = now if now else 1
    if peer.tokens < timeout:
        return False
    peer.tokens -= timeout
    return True


cdef bint icmp_error_allow(net *n, u32 daddr) noexcept nogil:
    """May a sender be told that there is no way? From the same credit. [ip_error()]"""
    cdef icmp_state *state = <icmp_state *>n.icmp
    cdef u64 now = net_now(n)
    cdef u64 cost = sysctl_get(n, route_error_cost) * TICK_NS
    cdef icmp_bucket *peer
    cdef bint allowed
    spin_lock(&state.lock)
    peer = peer_of(state, daddr, now)
    peer.tokens = min(peer.tokens, sysctl_get(n, route_error_burst) * TICK_NS)
    peer.last = now if now else 1
    allowed = peer.tokens >= cost
    if allowed:
        peer.tokens -= cost
    spin_unlock(&state.lock)
    return allowed


cdef bint icmp_redirect_allow(net *n, u32 daddr) noexcept nogil:
    """May a sender be told of a better router? Ever more seldom, and not for ever. [ip_rt_send_redirect()]"""
    cdef icmp_state *state = <icmp_state *>n.icmp
    cdef u64 now = net_now(n)
    cdef u64 last
    cdef icmp_bucket *peer
    cdef bint allowed = False
    spin_lock(&state.lock)
    peer = peer_of(state, daddr, now)
    last = peer.last
    if last == 0 or now - last > sysctl_get(n, route_redirect_silence) * TICK_NS:
        peer.tokens = 0
        peer.n_redirects = 0
    if peer.n_redirects >= sysctl_get(n, route_redirect_number):
        peer.last = now if now else 1
    elif (peer.n_redirects == 0
          or now - last > (sysctl_get(n, route_redirect_load) << min(peer.n_redirects, 31)) * TICK_NS):
        peer.last = now if now else 1
        peer.n_redirects += 1
        allowed = True
    elif last:
        peer.tokens -= now - last      # its time was not written down
    spin_unlock(&state.lock)
    return allowed


cdef bint icmp_allow(net *n, u8 type, u8 code, u32 daddr, bint loopback) noexcept nogil:
    cdef icmp_state *state = <icmp_state *>n.icmp
    cdef u64 now
    cdef bint allowed = True
    if type > NR_ICMP_TYPES or (type == ICMP_DEST_UNREACH and code == ICMP_FRAG_NEEDED):
        return True
    if not sysctl_get(n, icmp_ratemask) >> type & 1:
        return True
    now = net_now(n)
    spin_lock(&state.lock)
    if not global_allow(n, state, now):
        spin_unlock(&state.lock)
        mib_inc(n, SLOT_PROCESS, IcmpOutRateLimitGlobal)
        return False
    if not loopback:
        allowed = peer_allow(n, state, daddr, now)
    if allowed:
        global_consume(state)
    spin_unlock(&state.lock)
    if not allowed:
        mib_inc(n, SLOT_PROCESS, IcmpOutRateLimitHost)
    return allowed


# ---- in

cdef u32 icmp_rcv_check(net *n, sk_buff *skb) noexcept nogil:
    """Check sum and size of a message, data at its header; a drop reason, or 0. The head of icmp_rcv()."""
    cdef u32 slot = skb.slot
    mib_inc(n, slot, IcmpInMsgs)
    if (skb.ip_summed != CHECKSUM_UNNECESSARY and skb.ip_summed != CHECKSUM_PARTIAL
            and csum_fold(skb_checksum(skb, 0, skb.len, 0))):
        mib_inc(n, slot, IcmpInCsumErrors)
        mib_inc(n, slot, IcmpInErrors)
        return SKB_DROP_REASON_ICMP_CSUM
    if skb_headlen(skb) < ICMP_HLEN:
        mib_inc(n, slot, IcmpInErrors)
        return SKB_DROP_REASON_PKT_TOO_SMALL
    icmp_in_count(n, slot, skb.data[0])
    if skb.data[0] > NR_ICMP_TYPES and skb.data[0] != ICMP_EXT_ECHO and skb.data[0] != ICMP_EXT_ECHOREPLY:
        mib_inc(n, slot, IcmpInErrors)
        if skb.rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST):
            return SKB_DROP_REASON_INVALID_PROTO
        return SKB_DROP_REASON_UNHANDLED_PROTO
    return SKB_NOT_DROPPED_YET


cdef void icmp_finish(sk_buff *reply) noexcept nogil:
    """Put the checksum in. The sum begins with -0, as Linux's does: a message of zeros gets 0, not 0xFFFF."""
    cdef u16 check
    put_be16(reply.data + 2, 0)
    check = csum_fold(skb_checksum(reply, 0, reply.len, 0xFFFF))
    memcpy(reply.data + 2, &check, 2)


cdef void icmp_echo(net *n, sk_buff *skb, const u8 *opt, u32 optlen) noexcept nogil:
    """Answer an echo request, data at the ICMP header. skb stays the caller's. [icmp_echo(), icmp_reply()]"""
    cdef const u8 *iph = skb_network_header(skb)
    cdef bint to_all = skb.rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST) != 0
    cdef u32 daddr = ip_saddr(iph)
    cdef rtable rt
    cdef sk_buff *reply
    if sysctl_get(n, icmp_echo_ignore_all):
        return
    if ip_route_output(n, daddr, 0 if to_all else ip_daddr(iph), &rt):
        return
    if not icmp_allow(n, ICMP_ECHOREPLY, 0, daddr, rt.dev.flags & IFF_LOOPBACK != 0):
        return
    reply = ip_alloc_skb(n, skb.len)
    if reply == NULL:
        mib_inc(n, skb.slot, IcmpOutErrors)
        return
    skb_fill(reply, skb, 0)
    reply.data[0] = ICMP_ECHOREPLY
    icmp_finish(reply)
    icmp_out_count(n, skb.slot, ICMP_ECHOREPLY)
    ip_send_skb_opt(n, reply, &rt, IPPROTO_ICMP, iph[IP_TOS], 0, 0, opt, optlen)


# ---- the short cut: echo requests to one of our addresses

cdef bint icmp_peek(net *n, void *p) noexcept nogil:
    cdef sk_buff *skb = <sk_buff *>p
    if skb_headlen(skb) < IP_HLEN + ICMP_HLEN or get_be16(skb.data + IP_TOTLEN) < IP_HLEN + ICMP_HLEN:
        return False
    return skb.data[IP_HLEN] == ICMP_ECHO and not sysctl_get(n, icmp_echo_ignore_all)


cdef void icmp_rcv(net *n, void *p, void *sd) noexcept nogil:
    cdef sk_buff *skb = <sk_buff *>p
    cdef u32 reason = icmp_rcv_check(n, skb)
    if reason:
        kfree_skb_reason(skb, reason)
        return
    icmp_echo(n, skb, NULL, 0)
    consume_skb(skb)


# ---- set-up, and the same steps for icmp.py

@cython.final
@cython.no_gc_clear
cdef class ICMP:
    """The rate limits, and the short cut's entry in the table of protocols. Owns ``net.icmp``. [icmp_init()]"""
    cdef Net net_object
    cdef icmp_state state

    def __cinit__(self, Net n not None, u64 seed):
        if n.ptr.icmp != NULL:
            raise InternalError("the host has its ICMP state already")
        self.net_object = n
        self.state.seed = seed | 1
        n.ptr.icmp = &self.state
        n.ptr.inet_fast[<int>IPPROTO_ICMP].rcv = icmp_rcv
        n.ptr.inet_fast[<int>IPPROTO_ICMP].peek = icmp_peek

    def __dealloc__(self):
        if self.net_object is not None and self.net_object.ptr.icmp == &self.state:
            self.net_object.ptr.inet_fast[<int>IPPROTO_ICMP].peek = NULL
            self.net_object.ptr.icmp = NULL


def rcv_check(Net n not None, SkBuff skb not None):
    """Check a message, data at its header; a drop reason, or 0."""
    return icmp_rcv_check(n.ptr, skb.peek())


def echo(Net n not None, SkBuff skb not None, bytes options=b""):
    """Answer an echo request; ``options`` go into the answer's IP header. The packet stays the caller's."""
    cdef sk_buff *packet = skb.peek()
    cdef const u8 *opt = options
    cdef u32 optlen = <u32>len(options)
    with nogil:
        icmp_echo(n.ptr, packet, opt, optlen)


def allow(Net n not None, u8 type, u8 code, u32 daddr, bint loopback=False):
    """Ask both rate limits for one message to ``daddr``; a refusal is counted."""
    return icmp_allow(n.ptr, type, code, daddr, loopback)


def error_allow(Net n not None, u32 daddr):
    """Ask the limit of what a router says about packets without a way."""
    return icmp_error_allow(n.ptr, daddr)


def redirect_allow(Net n not None, u32 daddr):
    """Ask the limit of redirects to one sender."""
    return icmp_redirect_allow(n.ptr, daddr)


def push(Net n not None, bytes message not None, u32 daddr, u32 saddr, u8 tos=0, bytes options=b"", bint reply=False):
    """Send one ICMP message, whose checksum is put in here; 0 or an errno. [icmp_push_reply()]

    Linux counts every reply as an echo reply, a timestamp reply too: say ``reply`` for those.
    """
    cdef const u8 *bits = message
    cdef const u8 *opt = options
    cdef u32 size = <u32>len(message)
    cdef u32 optlen = <u32>len(options)
    cdef rtable rt
    cdef sk_buff *skb
    cdef int err
    if size < ICMP_HLEN:
        raise ValueError(f"an ICMP message has at least {ICMP_HLEN} bytes, not {size}")
    with nogil:
        err = ip_route_output(n.ptr, daddr, saddr, &rt)
        if err == 0:
            skb = ip_alloc_skb(n.ptr, size)
            if skb == NULL:
                mib_inc(n.ptr, SLOT_PROCESS, IcmpOutErrors)
                err = -ENOBUFS
            else:
                skb_store_bits(skb, 0, bits, size)
                icmp_finish(skb)
                icmp_out_count(n.ptr, SLOT_PROCESS, ICMP_ECHOREPLY if reply else skb.data[0])
                err = ip_send_skb_opt(n.ptr, skb, &rt, IPPROTO_ICMP, tos, 0, 0, opt, optlen)
    return -err
