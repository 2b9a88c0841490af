"""Take a merged packet apart: every frame as it came, to the byte.

Linux cuts a merged packet evenly and computes the headers anew. Here each frame has kept its own
buffer with its own headers, so cutting is unchaining; only the first frame's headers were changed,
and those bytes were kept too. What came off the wire, or from a socket, as one packet of many frames
(SKB_GSO_DODGY) is cut as Linux does it: evenly, each frame with headers of its own made from the one
set there is. [skb_gso_segment(), skb_segment_list(), skb_segment()]
"""

from libc.string cimport memcpy

from netstack._abi cimport get_be16, get_be32, htons, load_acquire32, put_be16, put_be32, u8, u16, u32
from netstack._checksum cimport csum_block_add, csum_fold, csum_partial, ip_fast_csum
from netstack._counters cimport SKB_DROP_REASON_NOMEM, SKB_NOT_DROPPED_YET
from netstack._net cimport SLOT_PROCESS, Net
from netstack._skb cimport (
    CHECKSUM_NONE, CHECKSUM_PARTIAL, NET_SKB_PAD, SKB_LARGE, SKB_STRUCT, SkBuff, kfree_skb_reason, process_skb,
    skb_alloc, skb_class_for, skb_copy_bits, skb_end, skb_headlen, skb_mac_header, skb_wrap,
)

cdef enum:
    IPV6_HLEN = 40
    UDP_HLEN = 8
    UDP_CSUM_OFFSET = 6
    TCP_CSUM_OFFSET = 16
    TCP_FIN_PSH = 0x09
    TCP_CWR = 0x80
    BUFFER_BYTES = 2304 - SKB_STRUCT

cdef struct gso_cut:
    # Where a packet of many frames is cut; offsets from its Ethernet header.
    const u8 *mac
    u32 l3
    u32 l4
    u32 headers                    # bytes in front of the payload
    u32 payload                    # bytes of it
    u32 size                       # payload of a frame, the last may have less
    u32 csum_offset


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


# ---- cutting

cdef void gso_measure(const sk_buff *skb, gso_cut *cut) noexcept nogil:
    """Find headers and payload of a packet of many frames. Whoever made it has checked them."""
    cdef const u8 *l4
    cut.mac = skb_mac_header(skb)
    cut.l3 = skb.network_header - skb.mac_header
    cut.l4 = (skb.csum >> 16) - skb.mac_header
    cut.csum_offset = skb.csum & 0xFFFF
    l4 = cut.mac + cut.l4
    cut.headers = cut.l4 + (<u32>l4[12] >> 4 << 2 if cut.csum_offset == TCP_CSUM_OFFSET else <u32>UDP_HLEN)
    cut.payload = <u32>(skb.data - cut.mac) + skb.len - cut.headers
    cut.size = skb.gso_size


cdef u32 gso_part(const gso_cut *cut, u32 nr) noexcept nogil:
    """Bytes of payload in frame ``nr``."""
    return min(cut.size, cut.payload - nr * cut.size)


cdef u32 cut_frames(const gso_cut *cut) noexcept nogil:
    return (cut.payload + cut.size - 1) // cut.size


cdef void gso_headers(const gso_cut *cut, u32 nr, u8 *to) noexcept nogil:
    """Write the headers of frame ``nr``; its checksum field holds the sum of its pseudo header.

    The IP id counts on from frame to frame, the TCP sequence number by the bytes before; only the last has FIN and
    PSH, only the first CWR. [inet_gso_segment(), __udp_gso_segment(), tcp_gso_segment()]
    """
    cdef u32 length = cut.headers - cut.l4 + gso_part(cut, nr)
    cdef u8 *iph = to + cut.l3
    cdef u8 *l4 = to + cut.l4
    cdef u16 check
    cdef u32 sum
    memcpy(to, cut.mac, cut.headers)
    if iph[0] >> 4 == 4:
        put_be16(iph + 2, <u16>(cut.l4 - cut.l3 + length))
        put_be16(iph + 4, <u16>(get_be16(iph + 4) + nr))
        put_be16(iph + 10, 0)
        check = ip_fast_csum(iph, iph[0] & 15)
        memcpy(iph + 10, &check, 2)
    else:
        put_be16(iph + 4, <u16>(cut.l4 - cut.l3 - IPV6_HLEN + length))
    if cut.csum_offset == UDP_CSUM_OFFSET:
        put_be16(l4 + 4, <u16>length)
    else:
        put_be32(l4 + 4, get_be32(l4 + 4) + nr * cut.size)
        if (nr + 1) * cut.size < cut.payload:
            l4[13] &= <u8>~<u32>TCP_FIN_PSH
        if nr:
            l4[13] &= <u8>~<u32>TCP_CWR
    # RFC 1624: the length is all that changes in the pseudo header.
    memcpy(&check, l4 + cut.csum_offset, 2)
    sum = <u32>check + <u16>~htons(<u16>(cut.headers - cut.l4 + cut.payload)) + htons(<u16>length)
    sum = (sum & 0xFFFF) + (sum >> 16)
    check = <u16>(sum + (sum >> 16))
    memcpy(l4 + cut.csum_offset, &check, 2)


cdef u32 skb_gso_frames(const sk_buff *skb) noexcept nogil:
    """Frames that a packet of many is cut into."""
    cdef gso_cut cut
    gso_measure(skb, &cut)
    return cut_frames(&cut)


cdef u32 skb_gso_frame(const sk_buff *skb, u32 nr, u8 *to) noexcept nogil:
    """Write frame ``nr`` of a packet of many as it would be on a cable, checksum and all. Its length."""
    cdef gso_cut cut
    cdef u32 part
    gso_measure(skb, &cut)
    part = gso_part(&cut, nr)
    gso_headers(&cut, nr, to)
    skb_copy_bits(skb, cut.headers - <u32>(skb.data - cut.mac) + nr * cut.size, to + cut.headers, part)
    frame_checksum(to, cut.headers + part, cut.l4, cut.csum_offset)
    return cut.headers + part


cdef sk_buff *gso_element(sk_buff *skb, u32 cls) noexcept nogil:
    """A packet from the pool of the context that holds skb."""
    if skb.slot != SLOT_PROCESS and skb.slot == skb.pool.slot:
        return skb_alloc(skb.pool, cls)
    return process_skb(skb.pool.n, cls)


cdef bint gso_payload(sk_buff *seg, sk_buff *skb, u32 offset, u32 size) noexcept nogil:
    """Append ``size`` bytes of skb from ``offset`` on to a frame with headers. False: no memory for all of it."""
    cdef u32 here = min(size, <u32>(BUFFER_BYTES - NET_SKB_PAD) - seg.len)
    cdef sk_buff *frag
    skb_copy_bits(skb, offset, seg.data + seg.len, here)
    seg.len += here
    while here < size:
        frag = gso_element(skb, SKB_LARGE)
        if frag == NULL:
            return False
        frag.slot = skb.slot
        frag.data = frag.head
        frag.len = min(size - here, <u32>BUFFER_BYTES)
        skb_copy_bits(skb, offset + here, frag.data, frag.len)
        here += frag.len
        if seg.frag_list == NULL:
            seg.frag_list = frag
        else:
            seg.frag_tail.next = frag
        seg.frag_tail = frag
        seg.truesize += frag.truesize
        seg.len += frag.len
        seg.data_len += frag.len
    return True


cdef sk_buff *gso_segment(sk_buff *skb, const gso_cut *cut, u32 nr) noexcept nogil:
    """Make frame ``nr`` a packet of its own, data where it stands in skb; NULL when there is no memory."""
    cdef u32 pulled = <u32>(skb.data - cut.mac)
    cdef u32 part = gso_part(cut, nr)
    cdef sk_buff *seg = gso_element(skb, skb_class_for(cut.headers + part))
    if seg == NULL:
        return NULL
    seg.slot = skb.slot
    gso_headers(cut, nr, seg.data)
    seg.len = cut.headers
    if not gso_payload(seg, skb, cut.headers - pulled + nr * cut.size, part):
        skb_end(seg, SKB_NOT_DROPPED_YET)
        return NULL
    seg.data += pulled
    seg.len -= pulled
    seg.network_header = <u16>(NET_SKB_PAD + cut.l3)
    seg.transport_header = <u16>(NET_SKB_PAD + cut.l4)
    seg.ip_summed = CHECKSUM_PARTIAL
    seg.csum = (NET_SKB_PAD + cut.l4) << 16 | cut.csum_offset
    seg.dev = skb.dev
    seg.pkt_type = skb.pkt_type
    seg.protocol = skb.protocol
    seg.mark = skb.mark
    seg.rt_flags = skb.rt_flags
    seg.rt_type = skb.rt_type
    seg.vlan_present = skb.vlan_present
    seg.vlan_tci = skb.vlan_tci
    seg.hash = skb.hash
    seg.l4_hash = skb.l4_hash
    seg.queue_mapping = skb.queue_mapping
    seg.napi_id = skb.napi_id
    seg.tstamp = skb.tstamp
    seg.id = skb.id + nr if skb.id else 0
    return seg


cdef sk_buff *skb_segment(sk_buff *skb) noexcept nogil:
    """Cut a packet of many frames: the list (by ``next``) of its frames, in order. Consumes skb.

    Each carries the frame off the wire that it was. Where the pool is used up the rest is dropped (NOMEM).
    """
    cdef gso_cut cut
    cdef sk_buff *first = NULL
    cdef sk_buff *last = NULL
    cdef sk_buff *seg
    cdef u32 nr
    gso_measure(skb, &cut)
    for nr in range(cut_frames(&cut)):
        seg = gso_segment(skb, &cut, nr)
        if seg == NULL:
            kfree_skb_reason(skb, SKB_DROP_REASON_NOMEM)
            return first
        if skb.owner == NULL and skb.frames:
            seg.frames = 1
            skb.frames -= 1
        if first == NULL:
            first = seg
        else:
            last.next = seg
        last = seg
    skb_end(skb, SKB_NOT_DROPPED_YET)
    return first


# ---- partial checksums

cdef void frame_checksum(u8 *frame, u32 size, u32 start, u32 offset) noexcept nogil:
    """Make the checksum of the bytes from ``start`` on, whose field holds the sum of the pseudo header."""
    cdef u16 check = csum_fold(csum_partial(frame + start, size - start, 0))
    if check == 0:
        check = 0xFFFF             # 0 would say that there is none (RFC 768)
    memcpy(frame + start + offset, &check, 2)


cdef void skb_checksum_help(sk_buff *skb) noexcept nogil:
    """Make a checksum that was left to a device (CHECKSUM_PARTIAL). [skb_checksum_help()]"""
    cdef u8 *start = skb.head + (skb.csum >> 16)
    cdef u32 done = skb_headlen(skb) - <u32>(start - skb.data)
    cdef u32 sum = csum_partial(start, done, 0)
    cdef const sk_buff *part = skb.frag_list
    cdef u16 folded
    while part != NULL:
        sum = csum_block_add(sum, csum_partial(part.data, part.len, 0), done)
        done += part.len
        part = part.next
    folded = csum_fold(sum)
    if folded == 0:
        folded = 0xFFFF
    memcpy(start + (skb.csum & 0xFFFF), &folded, 2)
    skb.ip_summed = CHECKSUM_NONE


cdef sk_buff *skb_gro_split(sk_buff *skb) noexcept nogil:
    """Undo a merge: give the list (by ``next``) of the frames as they came. Consumes skb.

    ``data`` of each stands where it stood in skb: at the IP header, or behind it. A packet that is not merged is a
    list of one. Whoever changes headers of a merged packet must split it first, as the old bytes come back. A packet
    that is shared with a clone is copied; NULL when there is no memory for that (it has been dropped then, NOMEM).
    """
    cdef sk_buff *part = skb.frag_list
    if skb_is_whole_gso(skb):
        return skb_segment(skb)
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
