"""ip: packets of any size on their way out, and copies of them.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       a size, or a packet              proto/_ip_output.pyx, proto/_udp_out.pyx, proto/_icmp.pyx
Out      a packet to be filled, or filled
Context  softirq or process; no GIL; memory from the host's pool for process context
Kernel   __ip_append_data(), net/ipv4/ip_output.c; skb_store_bits(), skb_checksum(), net/core/skbuff.c
"""

from libc.string cimport memcpy

from netstack._abi cimport u8, u16, u32
from netstack._checksum cimport csum_block_add, csum_partial
from netstack._counters cimport SKB_DROP_REASON_NOMEM
from netstack._net cimport net
from netstack._skb cimport (
    CHECKSUM_PARTIAL, SKB_STRUCT, kfree_skb_reason, process_skb, sk_buff, skb_class_for, skb_copy_bits, skb_headlen,
    skb_push,
)
from netstack.proto._inet cimport ETH_P_IP, IP_HLEN, ip_ihl

cdef enum:
    BUFFER_BYTES = 2304 - SKB_STRUCT


cdef sk_buff *ip_alloc_skb(net *n, u32 size) noexcept nogil:
    cdef u32 here = min(size, <u32>(BUFFER_BYTES - LL_MAX_HEADER - IP_HLEN - IP_OPTIONS_MAX))
    cdef u32 headroom = LL_MAX_HEADER + IP_HLEN + IP_OPTIONS_MAX
    cdef sk_buff *skb = process_skb(n, skb_class_for(headroom + here))
    cdef sk_buff *frag
    if skb == NULL:
        return NULL
    skb.data = skb.head + headroom
    skb.len = here
    while skb.len < size:
        here = min(size - skb.len, <u32>BUFFER_BYTES)
        frag = process_skb(n, skb_class_for(here))
        if frag == NULL:
            kfree_skb_reason(skb, SKB_DROP_REASON_NOMEM)
            return NULL
        frag.data = frag.head
        frag.len = here
        if skb.frag_list == NULL:
            skb.frag_list = frag
        else:
            skb.frag_tail.next = frag
        skb.frag_tail = frag
        skb.truesize += frag.truesize
        skb.data_len += here
        skb.len += here
    return skb


cdef void skb_store_bits(sk_buff *skb, u32 offset, const u8 *data, u32 size) noexcept nogil:
    """Write ``size`` bytes at ``offset``, over all buffers of the packet. [skb_store_bits()]"""
    cdef u32 have = skb_headlen(skb)
    cdef u8 *at = skb.data
    cdef u32 part
    cdef sk_buff *frag = skb.frag_list
    while size:
        if offset < have:
            part = min(size, have - offset)
            memcpy(at + offset, data, part)
            data += part
            size -= part
            offset = 0
        else:
            offset -= have
        if frag == NULL:
            return
        at, have, frag = frag.data, frag.len, frag.next


cdef void skb_fill(sk_buff *to, const sk_buff *skb, u32 offset) noexcept nogil:
    """Fill all of ``to`` with bytes of ``skb`` from ``offset`` on."""
    cdef sk_buff *frag = to.frag_list
    skb_copy_bits(skb, offset, to.data, skb_headlen(to))
    offset += skb_headlen(to)
    while frag != NULL:
        skb_copy_bits(skb, offset, frag.data, frag.len)
        offset += frag.len
        frag = frag.next


cdef u32 skb_checksum(const sk_buff *skb, u32 offset, u32 size, u32 csum) noexcept nogil:
    cdef u32 have = skb_headlen(skb)
    cdef const u8 *at = skb.data
    cdef const sk_buff *frag = skb.frag_list if skb.data_len else NULL
    cdef u32 done = 0
    cdef u32 part
    while done < size:
        if offset < have:
            part = min(size - done, have - offset)
            csum = csum_block_add(csum, csum_partial(at + offset, part, 0), done)
            done += part
            offset = 0
        else:
            offset -= have
        if frag == NULL:
            break
        at, have, frag = frag.data, frag.len, frag.next
    return csum


cdef sk_buff *ip_copy(net *n, const sk_buff *skb, u32 offset, u32 size) noexcept nogil:
    """Copy the IP header and ``size`` bytes from ``offset`` (0: of the header itself) into a packet of its own."""
    cdef u32 ihl = ip_ihl(skb.data) if offset else 0
    cdef sk_buff *copy = ip_alloc_skb(n, size)
    if copy == NULL:
        return NULL
    skb_fill(copy, skb, offset)
    if offset:
        skb_push(copy, ihl)
        memcpy(copy.data, skb.data, ihl)
    copy.dev = skb.dev
    copy.protocol = ETH_P_IP
    copy.rt_flags = skb.rt_flags
    copy.rt_type = skb.rt_type
    copy.network_header = <u16>(copy.data - copy.head)
    copy.mac_header = copy.network_header
    if offset == 0 and skb.ip_summed == CHECKSUM_PARTIAL:
        copy.ip_summed = CHECKSUM_PARTIAL
        copy.csum = skb.csum + (<u32>(copy.data - copy.head) << 16) - (<u32>(skb.data - skb.head) << 16)
        copy.gso_type = skb.gso_type
        copy.gso_size = skb.gso_size
        copy.gso_segs = skb.gso_segs
    memcpy(copy.cb, skb.cb, sizeof(ip_out_cb))
    return copy
