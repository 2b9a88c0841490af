"""gro: merge packets of one flow, and pass packets up in batches.

Stage 4 of 8:  device driver irq [napi] netif nf proto sock
In       one sk_buff each                 driver/_igb.pyx
Out      a list of sk_buffs               netif/_core.pyx
Context  softirq; no GIL; never allocates, never raises
Kernel   dev_gro_receive(), gro_normal_one(), net/core/gro.c; inet_gro_receive(), af_inet.c

A packet that may grow is held in one of eight buckets, chosen by its hash, until the next of its
flow comes, a rule completes it, eight others push it out, or the poll ends. Held packets and the
batch of normal ones are the NAPI's own; nobody but its CPU sees them.
"""

from netstack._abi cimport add_owned64, get_be16, put_be16, u8, u16, u32, unlikely
from netstack._checksum cimport ip_fast_csum
from netstack._gso cimport gso_save
from netstack._skb cimport (
    CHECKSUM_NONE, CHECKSUM_UNNECESSARY, SKB_GSO_FRAGLIST, SKB_GSO_NONE, SKB_GSO_TCPV4, SKB_GSO_UDP_L4,
    queue_init, sk_buff,
)
from netstack.napi._gro_flow cimport (
    IP_HLEN, IP_MF, IP_OFFSET, IPPROTO_TCP, IPPROTO_UDP, gro_cb, gro_state,
    napi_gro_cb,
)
from netstack.napi._gro_tcp cimport tcp4_gro_complete, tcp4_gro_receive
from netstack.napi._gro_udp cimport udp4_gro_complete, udp4_gro_receive
from netstack.napi._napi cimport (
    GRO_HASH_BUCKETS, MAX_GRO_SKBS, gro_list, napi_struct,
)


cdef enum:
    RESERVED_BIT = 0x8000          # beside DF and MF


cdef void gro_normal_list(napi_struct *napi) noexcept nogil:
    """Pass up what waits for a full batch. [gro_normal_list()]"""
    cdef sk_buff *head = napi.rx_list.first
    if head == NULL:
        return
    queue_init(&napi.rx_list)
    napi.rx_count = 0
    napi.n.netif_receive_skb_list(napi.n, head, napi.sd)


cdef void inet_gro_complete(sk_buff *skb) noexcept nogil:
    """Make the headers of a merged packet say what it is now. [inet_gro_complete()]

    In a list of whole packets no header changes: unlike Linux, where the first one's lengths are
    those of all together until somebody cuts the list.
    """
    cdef u8 *iph = skb.data
    cdef napi_gro_cb *cb = gro_cb(skb)
    cdef bint tcp = iph[9] == IPPROTO_TCP
    cdef u32 sum
    skb.gso_type = SKB_GSO_TCPV4 if tcp else SKB_GSO_UDP_L4
    skb.gso_size = cb.mss
    skb.gso_segs = cb.count
    if cb.is_flist:
        skb.gso_type |= SKB_GSO_FRAGLIST
        if skb.ip_summed == CHECKSUM_NONE:
            skb.ip_summed = CHECKSUM_UNNECESSARY
        return
    gso_save(skb, cb.tcp_flags)
    # RFC 1624, equation 3: HC' = ~(~HC + ~m + m')
    sum = <u16>~get_be16(iph + 10) + <u16>~get_be16(iph + 2) + skb.len
    sum = (sum & 0xFFFF) + (sum >> 16)
    put_be16(iph + 10, <u16>~(sum + (sum >> 16)))
    put_be16(iph + 2, <u16>skb.len)
    if tcp:
        tcp4_gro_complete(skb)
    else:
        udp4_gro_complete(skb)


cdef void napi_gro_complete(napi_struct *napi, sk_buff *skb) noexcept nogil:
    """Pass on a packet that was held, alone or merged. [napi_gro_complete()]"""
    cdef u32 count = gro_cb(skb).count
    if count > 1:
        inet_gro_complete(skb)
        add_owned64(&napi.gro_packets_out, 1)
    gro_normal_one(napi, skb, count)


cdef void gro_complete_at(napi_struct *napi, gro_list *held, sk_buff **link) noexcept nogil:
    """Take the held packet that ``link`` points to out of its bucket and complete it."""
    cdef sk_buff *skb = link[0]
    link[0] = skb.next
    held.count -= 1
    napi_gro_complete(napi, skb)


cdef void gro_flush_oldest(napi_struct *napi, gro_list *held) noexcept nogil:
    """Make room in a full bucket. [gro_flush_oldest()]"""
    cdef sk_buff **link = &held.first
    while link[0].next != NULL:
        link = &link[0].next
    gro_complete_at(napi, held, link)


cdef sk_buff **inet_gro_receive(napi_struct *napi, gro_list *held, sk_buff *skb,
                                gro_state *state) noexcept nogil:
    """Check what every merge over IPv4 asks for, then ask the protocol. [inet_gro_receive()]

    Gives the pointer to the held packet that is to be completed now, or NULL.
    """
    cdef u8 *iph = skb.data
    cdef u8 protocol = iph[9]
    cdef u16 frag_off = get_be16(iph + 6)
    if (iph[0] != 0x45 or frag_off & (IP_MF | IP_OFFSET) or ip_fast_csum(iph, 5) != 0
            or (protocol != IPPROTO_TCP and protocol != IPPROTO_UDP)):
        state.flush = True
        return NULL
    # Padding, or the reserved bit: the flow's held packet goes on, and so does this one.
    if get_be16(iph + 2) != skb.len or frag_off & RESERVED_BIT:
        state.flush = True
    skb.network_header = <u16>(iph - skb.head)
    skb.transport_header = skb.network_header + IP_HLEN
    if protocol == IPPROTO_TCP:
        return tcp4_gro_receive(held, skb, state)
    return udp4_gro_receive(napi.n, held, skb, state)


cdef void gro_hold(napi_struct *napi, gro_list *held, sk_buff *skb,
                   const gro_state *state) noexcept nogil:
    """Keep a packet for the next of its flow."""
    cdef napi_gro_cb *cb = gro_cb(skb)
    if unlikely(held.count >= MAX_GRO_SKBS):
        gro_flush_oldest(napi, held)
    cb.age = napi.gro_age
    cb.len = skb.len
    cb.offset = state.offset
    cb.mss = <u16>(skb.len - state.offset)
    cb.count = 1
    cb.is_flist = state.is_flist
    cb.fixed_id = False
    cb.tcp_flags = skb.data[IP_HLEN + 13]
    skb.next = held.first
    held.first = skb
    held.count += 1


cdef gro_result dev_gro_receive(napi_struct *napi, sk_buff *skb) noexcept nogil:
    """Merge a packet, hold it, or leave it to the caller (GRO_NORMAL). [dev_gro_receive()]"""
    cdef u32 bucket = skb.hash & (GRO_HASH_BUCKETS - 1)
    cdef gro_list *held = &napi.gro_hash[bucket]
    cdef gro_state state
    cdef sk_buff **link
    cdef gro_result result
    state.offset = 0
    state.flush = skb.frag_list != NULL or skb.gso_type != SKB_GSO_NONE
    state.same_flow = False
    state.is_flist = False
    link = inet_gro_receive(napi, held, skb, &state)
    if link != NULL:
        gro_complete_at(napi, held, link)
    if state.same_flow:
        add_owned64(&napi.gro_merged, 1)
        result = GRO_MERGED
    elif state.flush:
        result = GRO_NORMAL
    else:
        gro_hold(napi, held, skb, &state)
        add_owned64(&napi.gro_held, 1)
        result = GRO_HELD
    if held.count:
        napi.gro_bitmask |= <u32>1 << bucket
    else:
        napi.gro_bitmask &= ~(<u32>1 << bucket)
    return result


cdef void gro_flush_chain(napi_struct *napi, gro_list *held, bint flush_old) noexcept nogil:
    """Complete a bucket, the oldest packet first; with ``flush_old`` up to those of this jiffy."""
    cdef sk_buff *newest_first[MAX_GRO_SKBS]
    cdef sk_buff *skb = held.first
    cdef u32 count = 0
    while skb != NULL:
        newest_first[count] = skb
        count += 1
        skb = skb.next
    while count:
        count -= 1
        skb = newest_first[count]
        if flush_old and gro_cb(skb).age == napi.gro_age:
            return
        if count:
            newest_first[count - 1].next = NULL
        else:
            held.first = NULL
        held.count -= 1
        napi_gro_complete(napi, skb)


cdef void napi_gro_flush(napi_struct *napi, bint flush_old) noexcept nogil:
    """Complete what is held; with ``flush_old`` only what an earlier jiffy's poll held.

    What completes joins the batch of normal packets; ``gro_normal_list`` passes that up.
    [napi_gro_flush()]
    """
    cdef u32 bucket
    for bucket in range(GRO_HASH_BUCKETS):
        if napi.gro_bitmask & <u32>1 << bucket:
            gro_flush_chain(napi, &napi.gro_hash[bucket], flush_old)
            if napi.gro_hash[bucket].count == 0:
                napi.gro_bitmask &= ~(<u32>1 << bucket)
