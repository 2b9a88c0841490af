"""udp: check a datagram, find its sockets, queue it.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       packets for us, IP header found good  proto/_ip.pyx, proto/udp.py
Out      datagrams in receive queues      sock/_sock.pyx
Context  softirq (fast path) or process context (proto/udp.py); no GIL; never raises
Kernel   __udp4_lib_rcv(), udp_queue_rcv_one_skb(), __udp4_lib_mcast_deliver(), udp_err(), net/ipv4/udp.c

The steps exist once. ``udp_rcv_fast`` takes them for a unicast datagram to a bound socket, and
``proto/udp.py`` for every datagram, in the order in which they stand here. In process context a table
is looked at, and a socket used, under the table's lock; a CPU needs none (n.synchronize).
"""

from libc.errno cimport EMSGSIZE
from libc.string cimport memcpy

from netstack._abi cimport (
    add_relaxed32, fetch_or32, get_be16, get_be32, likely, load_acquire32, load_acquire_ptr, load_relaxed32, spin_lock,
    spin_unlock, u8, u16, u32, u64, unlikely,
)
from netstack._checksum cimport csum_block_add, csum_partial, csum_tcpudp_magic
from netstack._counters cimport (
    SKB_DROP_REASON_NO_SOCKET, SKB_DROP_REASON_PKT_TOO_SMALL, SKB_DROP_REASON_PROTO_MEM, SKB_DROP_REASON_SOCKET_FILTER,
    SKB_DROP_REASON_SOCKET_RCVBUFF, SKB_DROP_REASON_UDP_CSUM, UdpIgnoredMulti, UdpInCsumErrors,
    UdpInErrors, UdpMemErrors, UdpRcvbufErrors,
)
from netstack._gso cimport skb_gro_split, skb_is_gso
from netstack._net cimport SLOT_CPU0, SLOT_PROCESS, STAGE_SOCKET, Net, mib_inc, net
from netstack._skb cimport (
    CHECKSUM_COMPLETE, CHECKSUM_NONE, CHECKSUM_UNNECESSARY, PACKET_HOST, SKB_GSO_DODGY, SKB_GSO_UDP_L4, SkBuff,
    kfree_skb_reason, sk_buff, skb_clone, skb_headlen, skb_network_header, skb_pool, skb_pull,
    skb_transport_header,
)
from netstack.napi._napi cimport softnet_data
from netstack.proto._icmp_err cimport icmp_convert, icmp_error, sk_update_pmtu, sock_icmp_error
from netstack.proto._inet cimport RTCF_BROADCAST, RTCF_MULTICAST
from netstack.proto._route cimport inet_iif
from netstack.sock._filter cimport bpf_run, sk_filter
from netstack.sock._mcast cimport ip_mc_sf_allow
from netstack.sock._crowd cimport sock_crowd_drop
from netstack.sock._queue cimport sock_queue_rcv
from netstack.sock._sock cimport (
    SOCK_CB, SOCK_PROTO_MEM, SOCK_QUEUED, SOCK_RCVBUFF, SOCKF_CONNECTED, SOCKF_GRO, SOCKF_NAPI_SEEN, sock, sock_skb_cb,
)
from netstack.sock._table cimport compute_score, udp_flow, udp_lookup, udp_table
from netstack.sock._wake cimport sock_data_ready

# ---- the steps; data stands at the UDP header

cdef inline bint udp_check_len(net *n, sk_buff *skb) noexcept nogil:
    """Refuse a datagram whose length field can't be, and cut off what lies behind it."""
    cdef u32 size
    if likely(skb_headlen(skb) >= UDP_HLEN):
        size = get_be16(skb.data + 4)
        if likely(UDP_HLEN <= size <= skb.len):
            if unlikely(size < skb.len):
                trim(skb, size)
            return True
    return udp_drop(n, skb, SKB_DROP_REASON_PKT_TOO_SMALL)


cdef bint udp_drop(net *n, sk_buff *skb, u32 reason) noexcept nogil:
    """Count an error and drop. Out of line, so that what calls it stays small enough to be inlined. False."""
    mib_inc(n, skb.slot, UdpInErrors)
    kfree_skb_reason(skb, reason)
    return False


cdef void trim(sk_buff *skb, u32 size) noexcept nogil:
    """Cut to ``size`` bytes. Buffers that fall out stay in the chain, empty: they carry frames. [pskb_trim_rcsum()]"""
    cdef u32 left = size
    cdef sk_buff *frag = skb.frag_list
    left -= min(left, skb_headlen(skb))
    if skb.ip_summed == CHECKSUM_COMPLETE:
        skb.ip_summed = CHECKSUM_NONE
    if skb.data_len:
        skb.data_len = left
        while frag != NULL:
            frag.len = min(frag.len, left)
            left -= frag.len
            frag = frag.next
    skb.len = size


cdef inline bint udp_csum_init(net *n, sk_buff *skb) noexcept nogil:
    """Trust, verify now, or leave to the reader: what is short is cheap to verify at once. [udp4_csum_init()]"""
    cdef u8 *iph = skb_network_header(skb)
    SOCK_CB(skb).csum_unchecked = 0
    if skb.ip_summed == CHECKSUM_UNNECESSARY or get_be16(skb.data + 6) == 0:
        return True
    if skb.ip_summed == CHECKSUM_COMPLETE and not skb_is_gso(skb) and csum_tcpudp_magic(
            get_be32(iph + 12), get_be32(iph + 16), skb.len, IPPROTO_UDP, skb.csum) == 0:
        return True
    if skb.ip_summed > CHECKSUM_COMPLETE:
        return True                # CHECKSUM_PARTIAL: it has not been on a cable
    SOCK_CB(skb).csum_unchecked = 1
    return skb.len > CHECKSUM_BREAK or udp_csum_complete(n, skb)


cdef bint csum_is_right(sk_buff *skb, u8 *start) noexcept nogil:
    """Sum a whole datagram, whose header is at ``start``, with its pseudo header."""
    cdef u8 *iph = skb_network_header(skb)
    cdef u32 pulled = <u32>(skb.data - start)
    cdef u32 offset = skb_headlen(skb) + pulled
    cdef u32 sum = csum_partial(start, offset, 0)
    cdef sk_buff *frag = skb.frag_list if skb.data_len else NULL
    while frag != NULL:
        sum = csum_block_add(sum, csum_partial(frag.data, frag.len, 0), offset)
        offset += frag.len
        frag = frag.next
    return csum_tcpudp_magic(get_be32(iph + 12), get_be32(iph + 16), offset, IPPROTO_UDP, sum) == 0


cdef bint udp_csum_complete(net *n, sk_buff *skb) noexcept nogil:
    """Verify a checksum that is still open. [udp_lib_checksum_complete()]"""
    if SOCK_CB(skb).csum_unchecked:
        SOCK_CB(skb).csum_unchecked = 0
        if not csum_is_right(skb, skb.data):
            mib_inc(n, skb.slot, UdpInCsumErrors)
            mib_inc(n, skb.slot, UdpInErrors)
            kfree_skb_reason(skb, SKB_DROP_REASON_UDP_CSUM)
            return False
    return True


cdef bint udp_complete(sock *sk, sk_buff *skb) noexcept nogil:
    """The reader's turn to verify: proto.complete."""
    SOCK_CB(skb).csum_unchecked = 0
    if csum_is_right(skb, skb_transport_header(skb)):
        return True
    mib_inc(sk.n, SLOT_PROCESS, UdpInCsumErrors)
    mib_inc(sk.n, SLOT_PROCESS, UdpInErrors)
    return False


cdef inline void udp_queue_rcv(net *n, sock *sk, sk_buff *skb, softnet_data *sd) noexcept nogil:
    """Queue a datagram to a socket, and what GRO merged either whole (UDP_GRO) or one by one. Consumes skb.

    [udp_queue_rcv_skb(), udp_unexpected_gso()]
    """
    cdef sk_buff *following
    if likely(not skb_is_gso(skb)) or (load_acquire32(&sk.flags) & SOCKF_GRO
                                       and skb.gso_type & ~<u32>SKB_GSO_DODGY == SKB_GSO_UDP_L4):
        udp_queue_rcv_one(n, sk, skb, sd)
        return
    skb = skb_gro_split(skb)
    while skb != NULL:
        following = skb.next
        skb.next = NULL
        if udp_check_len(n, skb) and udp_csum_init(n, skb):
            udp_queue_rcv_one(n, sk, skb, sd)
        skb = following


cdef inline void udp_queue_rcv_one(net *n, sock *sk, sk_buff *skb, softnet_data *sd) noexcept nogil:
    """Queue one packet to a socket, or drop it because the socket has no room. Consumes skb.

    [udp_queue_rcv_one_skb(), __udp_queue_rcv_skb()]
    """
    cdef u8 *iph = skb_network_header(skb)
    cdef sock_skb_cb *cb = SOCK_CB(skb)
    cdef int result
    cdef sk_filter *prog = <sk_filter *>load_acquire_ptr(&sk.filter)
    cdef u32 flags
    if unlikely(prog != NULL) and not udp_filter(n, sk, prog, skb):
        return
    cb.saddr = get_be32(iph + 12)
    cb.daddr = get_be32(iph + 16)
    cb.sport = get_be16(skb.data)
    cb.dport = get_be16(skb.data + 2)
    cb.tos = iph[1]
    cb.ttl = iph[8]
    cb.ifindex = inet_iif(n, skb, cb.daddr)
    skb_pull(skb, UDP_HLEN)
    flags = load_acquire32(&sk.flags)
    if unlikely(flags & (SOCKF_CONNECTED | SOCKF_NAPI_SEEN) != SOCKF_NAPI_SEEN):
        sk_mark_napi_id(sk, skb, flags)
    result = sock_queue_rcv(sk, skb)
    if likely(result == SOCK_QUEUED):
        sock_data_ready(sk, sd)
        return
    if result == SOCK_RCVBUFF and sd != NULL:
        sock_crowd_drop(sk, sd)
    udp_no_room(n, skb, result)


cdef void udp_no_room(net *n, sk_buff *skb, int result) noexcept nogil:
    """Count and drop what a socket had no room for. Consumes skb."""
    if result == SOCK_PROTO_MEM:
        mib_inc(n, skb.slot, UdpMemErrors)
        udp_drop(n, skb, SKB_DROP_REASON_PROTO_MEM)
    else:
        mib_inc(n, skb.slot, UdpRcvbufErrors)
        udp_drop(n, skb, SKB_DROP_REASON_SOCKET_RCVBUFF)


cdef inline void sk_mark_napi_id(sock *sk, const sk_buff *skb, u32 flags) noexcept nogil:
    """Note which NAPI brought a datagram, and which CPU: of a connected socket always, else once.

    [sk_mark_napi_id(), sk_mark_napi_id_once(), sk_incoming_cpu_update()]
    """
    if flags & SOCKF_CONNECTED:
        sk.incoming_cpu = skb.slot - SLOT_CPU0 if skb.slot >= SLOT_CPU0 else 0
        if skb.napi_id:
            sk.napi_id = skb.napi_id
    elif skb.napi_id:
        sk.napi_id = skb.napi_id
        fetch_or32(&sk.flags, SOCKF_NAPI_SEEN)


cdef bint udp_filter(net *n, sock *sk, const sk_filter *prog, sk_buff *skb) noexcept nogil:
    """Ask the socket's filter, and cut to what it wants to keep; False: the packet was dropped and counted.

    What a program looks at is verified first. [sk_filter_trim_cap()]
    """
    cdef u32 keep
    if not udp_csum_complete(n, skb):
        add_relaxed32(&sk.drops, 1)
        return False
    keep = bpf_run(prog, skb)
    if keep == 0:
        add_relaxed32(&sk.drops, 1)
        mib_inc(n, skb.slot, UdpInErrors)
        kfree_skb_reason(skb, SKB_DROP_REASON_SOCKET_FILTER)
        return False
    if keep < skb.len:
        trim(skb, max(keep, <u32>UDP_HLEN))
    return True


# ---- to everybody

cdef sk_buff *clone_for(net *n, sk_buff *skb) noexcept nogil:
    """A second sk_buff from the pool of the context that holds the first."""
    cdef skb_pool *pool = <skb_pool *>n.pool
    cdef sk_buff *clone
    spin_lock(&pool.lock)
    clone = skb_clone(skb, pool)
    spin_unlock(&pool.lock)
    return clone


cdef sock *udp_early_demux(sock *sk, const sk_buff *skb, u32 saddr, u16 sport, u32 daddr, u32 dev_if) noexcept nogil:
    """Find the socket that alone gets a broadcast, or NULL: it was sent to our MAC and is a connected socket's.

    Only the latest socket bound to that very address may be it. To Linux one without a peer is connected to port 0 of
    0.0.0.0. ``sk``: the first of the port. [udp_v4_early_demux()]
    """
    while sk != NULL and sk.rcv_saddr != daddr:
        sk = sk.next
    if (sk == NULL or skb.pkt_type != PACKET_HOST or sk.daddr != saddr or sk.dport != sport
            or (sk.bound_dev_if and sk.bound_dev_if != dev_if)):
        return NULL
    return sk


cdef void udp_mcast_deliver(net *n, sk_buff *skb) noexcept nogil:
    """Give a broadcast or multicast datagram to every socket that it matches. Consumes skb.

    The first gets the packet itself, last of all. In process context. [__udp4_lib_mcast_deliver()]
    """
    cdef udp_table *table = udp_table_of(n)
    cdef u8 *iph = skb_network_header(skb)
    cdef u32 saddr = get_be32(iph + 12)
    cdef u32 daddr = get_be32(iph + 16)
    cdef u16 sport = get_be16(skb.data)
    cdef u32 dev_if = skb.dev.ifindex if skb.dev != NULL else 0
    cdef sock *first
    cdef sock *sk
    cdef sk_buff *clone
    spin_lock(&table.lock)
    sk = table.port[get_be16(skb.data + 2)]
    first = udp_early_demux(sk, skb, saddr, sport, daddr, dev_if)
    if first != NULL:
        sk = NULL
    while sk != NULL:
        if compute_score(sk, saddr, sport, daddr, dev_if) < 0 or not ip_mc_sf_allow(sk, daddr, saddr, dev_if):
            pass
        elif first == NULL:
            first = sk
        else:
            clone = clone_for(n, skb)
            if clone != NULL:
                udp_queue_rcv(n, sk, clone, NULL)
            else:
                add_relaxed32(&sk.drops, 1)
                mib_inc(n, skb.slot, UdpRcvbufErrors)
                mib_inc(n, skb.slot, UdpInErrors)
        sk = sk.next
    if first != NULL:
        udp_tap(n, skb)
        udp_queue_rcv(n, first, skb, NULL)
    spin_unlock(&table.lock)
    if first == NULL:
        mib_inc(n, skb.slot, UdpIgnoredMulti)
        kfree_skb_reason(skb, SKB_DROP_REASON_NO_SOCKET)


# ---- the fast path

cdef bint udp_peek(net *n, void *p) noexcept nogil:
    """Look whether a socket is bound for a unicast datagram, data at its IP header; remember it in skb.cb.

    Datagrams of one flow come in runs: a CPU remembers the last one's socket as long as the table stays as it was.
    """
    cdef sk_buff *skb = <sk_buff *>p
    cdef u8 *iph = skb.data
    cdef udp_table *table = udp_table_of(n)
    cdef udp_flow *last = &table.last[skb.slot]
    cdef u32 generation = load_acquire32(&table.generation)
    cdef u64 addresses
    cdef u32 ports, dif
    if unlikely(skb_headlen(skb) < 20 + UDP_HLEN):
        return False
    memcpy(&addresses, iph + 12, 8)
    memcpy(&ports, iph + 20, 4)
    dif = inet_iif(n, skb, get_be32(iph + 16))
    if likely(last.addresses == addresses and last.ports == ports and last.ifindex == dif
              and last.generation == generation):
        SOCK_CB(skb).sk = last.sk
        return True
    SOCK_CB(skb).sk = udp_lookup(table, get_be32(iph + 12), get_be16(iph + 20), get_be32(iph + 16),
                                 get_be16(iph + 22), dif)
    if SOCK_CB(skb).sk == NULL:
        return False
    last.addresses, last.ports, last.ifindex = addresses, ports, dif
    last.generation, last.sk = generation, SOCK_CB(skb).sk
    return True


cdef void udp_rcv_fast(net *n, void *p, void *sd) noexcept nogil:
    """Take a datagram for which udp_peek() found a socket, data at the UDP header. Consumes skb."""
    cdef sk_buff *skb = <sk_buff *>p
    if udp_check_len(n, skb) and udp_csum_init(n, skb):
        udp_queue_rcv(n, SOCK_CB(skb).sk, skb, <softnet_data *>sd)


# Through a pointer: taken over into udp_rcv_tapped it would be too large to take over what it calls itself.
cdef void (*udp_untapped)(net *n, void *p, void *sd) noexcept nogil
udp_untapped = udp_rcv_fast


cdef void udp_tap(net *n, sk_buff *skb) noexcept nogil:
    """Show a datagram that a socket is about to get to those who capture there."""
    if load_relaxed32(&n.tap_stages) >> <u32>STAGE_SOCKET & 1:
        n.tap_stage(n, skb, STAGE_SOCKET, 0)


cdef void udp_rcv_tapped(net *n, void *p, void *sd) noexcept nogil:
    """``udp_rcv_fast`` while somebody captures at the socket: stands in its place in inet_fast. Consumes skb.

    The checks come twice then: they change nothing the second time.
    """
    cdef sk_buff *skb = <sk_buff *>p
    if udp_check_len(n, skb) and udp_csum_init(n, skb):
        udp_tap(n, skb)
        udp_untapped(n, skb, sd)


# ---- what proto/udp.py calls, one after the other

def check_len(Net n, SkBuff skb):
    """Check the length field and cut the padding; False when the packet was dropped and counted."""
    return ended(skb, udp_check_len(n.ptr, skb.peek()))


def csum_init(Net n, SkBuff skb):
    """Verify the checksum of a short packet, or note that the reader has to; False when it was dropped."""
    return ended(skb, udp_csum_init(n.ptr, skb.peek()))


def csum_complete(Net n, SkBuff skb):
    """Verify a checksum that is still open; False when the packet was dropped and counted."""
    return ended(skb, udp_csum_complete(n.ptr, skb.peek()))


def is_for_many(SkBuff skb):
    """True for a packet that routing found to be broadcast or multicast."""
    return skb.peek().rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST) != 0


def mcast_deliver(Net n, SkBuff skb):
    """Give the packet to every socket that it matches, and end it."""
    udp_mcast_deliver(n.ptr, skb.take())


def unicast_rcv(Net n, SkBuff skb):
    """Queue the packet to its socket; False, with nothing done, when no socket is bound for it."""
    cdef udp_table *table = udp_table_of(n.ptr)
    cdef sk_buff *packet = skb.peek()
    cdef u8 *iph = skb_network_header(packet)
    cdef sock *sk
    spin_lock(&table.lock)
    sk = udp_lookup(table, get_be32(iph + 12), get_be16(packet.data), get_be32(iph + 16),
                    get_be16(packet.data + 2), inet_iif(n.ptr, packet, get_be32(iph + 16)))
    if sk != NULL:
        skb.ptr = NULL
        udp_tap(n.ptr, packet)
        udp_queue_rcv(n.ptr, sk, packet, NULL)
    spin_unlock(&table.lock)
    return sk != NULL


def err(Net n, SkBuff skb, bytes quoted, u32 kind, u32 code, u32 info):
    """Tell the socket that sent a datagram what became of it. [udp_err()]

    ``quoted`` is what the ICMP message ``skb`` of type ``kind`` quotes: IP header and at least 8 bytes. False when
    no socket is known for it: the caller counts IcmpInErrors.
    """
    cdef const u8 *iph = <const u8 *><const char *>quoted
    cdef udp_table *table = udp_table_of(n.ptr)
    cdef icmp_error error
    cdef u32 ihl, number
    cdef bint hard
    cdef sock *sk
    if len(quoted) < 20 or len(quoted) < ((iph[0] & 15) << 2) + UDP_HLEN:
        return False
    ihl = <u32>(iph[0] & 15) << 2
    error.skb, error.type, error.code, error.info = skb.peek(), kind, code, info
    error.quoted, error.size = iph, <u32>len(quoted)
    spin_lock(&table.lock)
    sk = udp_lookup(table, get_be32(iph + 16), get_be16(iph + ihl + 2), get_be32(iph + 12),
                    get_be16(iph + ihl), error.skb.dev.ifindex if error.skb.dev != NULL else 0)
    if sk != NULL:
        sk_update_pmtu(sk, &error)
        hard = icmp_convert(&error, sk, &number)
        if number and not (number == EMSGSIZE and not hard):
            sock_icmp_error(sk, &error, number, hard, get_be16(iph + ihl + 2), ihl + UDP_HLEN)
    spin_unlock(&table.lock)
    return sk != NULL


cdef bint ended(SkBuff skb, bint goes_on):
    """Pass a step's answer on; after False the packet is gone, and the handle must not end it again."""
    if not goes_on:
        skb.ptr = NULL
    return goes_on
