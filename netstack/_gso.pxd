"""Taking merged packets apart; see ``_gso.pyx``."""

from libc.string cimport memcpy

from netstack._abi cimport u8, u16, u32
from netstack._skb cimport (
    SKB_GSO_DODGY, SKB_GSO_FRAGLIST, SKB_GSO_NONE, SKB_GSO_TCPV4, sk_buff, skb_network_header,
    skb_transport_header,
)


cdef struct gso_saved:
    # What GRO changes in the first frame of a merged packet, as it was. It lies in ``cb`` of the second frame, which
    # nobody else uses as long as that is chained to the first.
    u8 tot_len[2]                  # IP
    u8 ip_check[2]
    u8 l4[4]                       # UDP length and checksum, or TCP flags, a byte unused, and the checksum
    u8 ip_summed
    u32 csum


cdef inline bint skb_is_gso(const sk_buff *skb) noexcept nogil:
    """Tell whether the packet is several frames in one. [skb_is_gso()]"""
    return skb.gso_type != SKB_GSO_NONE

cdef inline void gso_save(const sk_buff *skb, u8 tcp_flags) noexcept nogil:
    """Keep what ``napi_gro_complete`` is about to change. Data at the IP header, frag_list set."""
    cdef gso_saved *saved = <gso_saved *>skb.frag_list.cb
    cdef const u8 *iph = skb_network_header(skb)
    cdef const u8 *l4 = skb_transport_header(skb)
    memcpy(saved.tot_len, iph + 2, 2)
    memcpy(saved.ip_check, iph + 10, 2)
    if skb.gso_type & SKB_GSO_TCPV4:
        saved.l4[0] = tcp_flags
        memcpy(&saved.l4[2], l4 + 16, 2)
    else:
        memcpy(saved.l4, l4 + 4, 4)
    saved.ip_summed = skb.ip_summed
    saved.csum = skb.csum

cdef inline bint skb_is_whole_gso(const sk_buff *skb) noexcept nogil:
    """Tell whether the packet is several frames behind one set of headers, as a NIC coalesces them."""
    return skb.gso_type & SKB_GSO_DODGY != 0

cdef sk_buff *skb_gro_split(sk_buff *skb) noexcept nogil
cdef sk_buff *skb_segment(sk_buff *skb) noexcept nogil
cdef void skb_checksum_help(sk_buff *skb) noexcept nogil
cdef u32 skb_gso_frames(const sk_buff *skb) noexcept nogil
cdef u32 skb_gso_frame(const sk_buff *skb, u32 nr, u8 *to) noexcept nogil
cdef void frame_checksum(u8 *frame, u32 size, u32 start, u32 offset) noexcept nogil
