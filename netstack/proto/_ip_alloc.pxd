"""Packets of any size on their way out; see ``_ip_alloc.pyx``. Other protocols cimport these names from ``_ip.pxd``."""

from netstack._abi cimport u8, u32
from netstack._net cimport net
from netstack._skb cimport sk_buff


cdef enum:
    LL_MAX_HEADER = 64             # headroom that every packet on its way out needs
    IP_OPTIONS_MAX = 40

cdef struct ip_out_cb:             # skb.cb of a packet on its way out, from ip_local_out on
    u32 nexthop
    u32 mtu

# A packet for `size` bytes after the IP header, with room for all headers before it. What one buffer can't hold is in
# frag_list. NULL when the pool is used up. Fill it with skb_store_bits.
cdef sk_buff *ip_alloc_skb(net *n, u32 size) noexcept nogil
cdef void skb_store_bits(sk_buff *skb, u32 offset, const u8 *data, u32 size) noexcept nogil
cdef void skb_fill(sk_buff *to, const sk_buff *skb, u32 offset) noexcept nogil
# Sum `size` bytes from `offset` on, over all buffers. [skb_checksum()]
cdef u32 skb_checksum(const sk_buff *skb, u32 offset, u32 size, u32 csum) noexcept nogil
cdef sk_buff *ip_copy(net *n, const sk_buff *skb, u32 offset, u32 size) noexcept nogil
