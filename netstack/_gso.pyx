"""Take a merged packet apart: every frame as it came, to the byte.

Linux cuts a merged packet evenly and computes the headers anew. Here each frame has kept its own
buffer with its own headers, so cutting is unchaining; only the first frame's headers were changed,
and those bytes were kept too. [skb_gso_segment(), skb_segment_list()]
"""

from libc.string cimport memcpy

from netstack._abi cimport get_be16, load_acquire32, u8, u32
from netstack._counters cimport SKB_DROP_REASON_NOMEM, SKB_NOT_DROPPED_YET
from netstack._net cimport Net
from netstack._skb cimport SkBuff, kfree_skb_reason, process_skb, skb_end, skb_headlen, skb_wrap


cdef void restore_headers(sk_buff *skb, const gso_saved *saved, u32 gso_type) noexcept nogil:
    """Give the first frame its own lengths, checksums and flags back; its length is its own then."""
    cdef u8 *iph = skb_network_header(skb)
    cdef u8 *l4 = skb_transport_header(skb)
    memcpy(iph + 2, saved.tot_len, 2)
    memcpy(iph + 10, saved.ip_check, 2)
    if gso_type & SKB_GSO_TCPV4:
        l4[13] = saved.l4[0]
        memcpy(l4 + 16, &saved.l4[2], 2)
    else:
        memcpy(l4 + 4, saved.l4, 4)
    skb.ip_summed = saved.ip_summed
    skb.csum = saved.csum
    skb.len = <u32>(iph + get_be16(iph + 2) - skb.data)
    skb.data_len = 0


cdef void stand_at(sk_buff *part, const sk_buff *skb) noexcept nogil:
    """Let a frame begin at the same header as the packet, and know what the packet knows."""
    cdef u8 *end = part.data + part.len
    part.data = skb_network_header(part) + (skb.data - skb_network_header(skb))
    part.len = <u32>(end - part.data)
    part.dev = skb.dev
    part.pkt_type = skb.pkt_type
    part.protocol = skb.protocol
    part.mark = skb.mark
    part.rt_flags = skb.rt_flags
    part.rt_type = skb.rt_type


cdef sk_buff *copy_part(sk_buff *part, sk_buff *skb) noexcept nogil:
    """Copy one frame of a shared packet. The copy carries the frame on; NULL when the pool is used up."""
    cdef sk_buff *owner = part.owner if part.owner != NULL else part
    cdef sk_buff *copy = process_skb(skb.pool.n, owner.cls)
    cdef u8 *mac = part.head + part.mac_header
    if copy == NULL:
        return NULL
    memcpy(copy.head + part.mac_header, mac, part.data + skb_headlen(part) - mac)
    copy.data = copy.head + (part.data - part.head)
    copy.len = skb_headlen(part)
    copy.mac_header = part.mac_header
    copy.network_header = part.network_header
    copy.transport_header = part.transport_header
    copy.slot = skb.slot
    copy.ip_summed = part.ip_summed
    copy.csum = part.csum
    copy.vlan_present = part.vlan_present
    copy.vlan_tci = part.vlan_tci
    copy.hash = part.hash
    copy.l4_hash = part.l4_hash
    copy.queue_mapping = part.queue_mapping
    copy.napi_id = part.napi_id
    copy.tstamp = part.tstamp
    copy.id = part.id
    if skb.owner == NULL:
        copy.frames = part.frames
        part.frames = 0
    stand_at(copy, skb)
    return copy


cdef sk_buff *split_shared(sk_buff *skb) noexcept nogil:
    """Split a packet whose buffers others read too: copies go on, the packet ends without a say."""
    cdef sk_buff *first = copy_part(skb, skb)
    cdef sk_buff *last = first
    cdef sk_buff *part = skb.frag_list
    if first != NULL and not skb.gso_type & SKB_GSO_FRAGLIST:
        restore_headers(first, <gso_saved *>part.cb, skb.gso_type)
    while part != NULL and last != NULL:
        last.next = copy_part(part, skb)
        last = last.next
        part = part.next
    if last != NULL:
        skb_end(skb, SKB_NOT_DROPPED_YET)
        return first
    while first != NULL:
        part = first.next
        kfree_skb_reason(first, SKB_DROP_REASON_NOMEM)
        first = part
    kfree_skb_reason(skb, SKB_DROP_REASON_NOMEM)
    return NULL


cdef sk_buff *skb_gro_split(sk_buff *skb) noexcept nogil:
    """Undo a merge: give the list (by ``next``) of the frames as they came. Consumes skb.

    ``data`` of each stands where it stood in skb: at the IP header, or behind it. A packet that is not merged is a
    list of one. Whoever changes headers of a merged packet must split it first, as the old bytes come back. A packet
    that is shared with a clone is copied; NULL when there is no memory for that (it has been dropped then, NOMEM).
    """
    cdef sk_buff *part = skb.frag_list
    if not skb_is_gso(skb) or part == NULL:
        return skb
    if skb.owner != NULL or load_acquire32(&skb.dataref) != 1:
        return split_shared(skb)
    if not skb.gso_type & SKB_GSO_FRAGLIST:
        restore_headers(skb, <gso_saved *>part.cb, skb.gso_type)
    skb.next = part
    skb.frag_list = NULL
    skb.frag_tail = NULL
    skb.gso_type = SKB_GSO_NONE
    skb.gso_size = 0
    skb.gso_segs = 0
    while part != NULL:
        skb.truesize -= part.truesize
        stand_at(part, skb)
        part = part.next
    return skb


def gro_split(SkBuff skb, Net net):
    """Take a merged packet apart, into a list of packets in the order in which they came.

    A packet that is not merged is a list of one. Consumes skb.
    """
    cdef sk_buff *part = skb_gro_split(skb.take())
    cdef sk_buff *following
    cdef list parts = []
    while part != NULL:
        following = part.next
        part.next = NULL
        parts.append(skb_wrap(part, net))
        part = following
    return parts
