"""gro_tcp: merge the segments of a TCP stream.

Stage 4 of 8:  device driver irq [napi] netif nf proto sock
In       a plain IPv4 packet, and those held   napi/_gro.pyx
Out      what to do with each of the two       napi/_gro.pyx
Context  softirq; no GIL; never allocates, never raises
Kernel   tcp4_gro_receive(), tcp_gro_receive(), tcp4_gro_complete(), net/ipv4/tcp_offload.c

Segments merge as long as splitting them evenly again would give the same bytes: same flags,
window, acknowledgement and options, sequence numbers without a gap, equal sizes but for the
last. What ends a burst (PSH, FIN, a short segment) is merged and completes the packet at once.
"""

from libc.string cimport memcpy

from netstack._abi cimport get_be32, u8, u16, u32
from netstack._checksum cimport csum_tcpudp_magic
from netstack._net cimport NETIF_F_GRO_FRAGLIST
from netstack._skb cimport CHECKSUM_PARTIAL, sk_buff, skb_headlen
from netstack.napi._gro_flow cimport (
    IP_HLEN, IPPROTO_TCP, get32, gro_append, gro_cb, gro_checksum_bad, gro_lookup, gro_state,
    inet_gro_flush, napi_gro_cb,
)
from netstack.napi._napi cimport gro_list


cdef enum:
    TCP_HLEN = 20
    FIN = 0x01                     # byte 13 of the header
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    URG = 0x20
    CWR = 0x80
    FLIST_MAX = 64                 # segments in a list of whole packets


cdef bint tcp_may_merge(sk_buff *p, const sk_buff *skb, u32 thlen, u32 len) noexcept nogil:
    """Tell whether skb, of ``len`` bytes of payload, continues the held packet p."""
    cdef const u8 *th = skb.data + IP_HLEN
    cdef const u8 *th2 = p.data + IP_HLEN
    cdef napi_gro_cb *cb = gro_cb(p)
    cdef u32 diff = (th[12] ^ th2[12]) | ((th[13] ^ th2[13]) & ~(FIN | PSH)) | (th[13] & CWR)
    cdef u32 i
    diff |= (th[14] ^ th2[14]) | (th[15] ^ th2[15])
    diff |= get32(th + 8) ^ get32(th2 + 8)
    diff |= (get_be32(th2 + 4) + (cb.len - cb.offset)) ^ get_be32(th + 4)
    if diff or len == 0 or len > cb.mss:
        return False
    for i in range(TCP_HLEN, thlen, 4):
        if get32(th + i) != get32(th2 + i):
            return False
    if cb.is_flist and (th[13] != th2[13] or skb.ip_summed != p.ip_summed
                        or cb.count >= FLIST_MAX):
        return False
    return not inet_gro_flush(p, skb)


cdef sk_buff **tcp4_gro_receive(gro_list *held, sk_buff *skb, gro_state *state) noexcept nogil:
    """Merge a segment with the held packet of its stream, if there is one and the rules allow.

    Gives the pointer to the held packet that is to be completed now, or NULL.
    """
    cdef u8 *th = skb.data + IP_HLEN
    cdef u32 headlen = skb_headlen(skb)
    cdef u32 thlen = (th[12] >> 4) * 4
    cdef u32 len
    cdef u32 mss = 1
    cdef sk_buff **link
    cdef bint ends
    if headlen < IP_HLEN + TCP_HLEN or thlen < TCP_HLEN or headlen < IP_HLEN + thlen:
        state.flush = True
        return NULL
    if not state.flush and gro_checksum_bad(skb, IPPROTO_TCP):
        state.flush = True
        return NULL
    state.offset = <u16>(IP_HLEN + thlen)
    len = skb.len - state.offset
    link = gro_lookup(held, skb)
    if link != NULL:
        state.is_flist = gro_cb(link[0]).is_flist
        if tcp_may_merge(link[0], skb, thlen, len) and gro_append(link[0], skb, state):
            mss = gro_cb(link[0]).mss
            link[0].data[IP_HLEN + 13] |= th[13] & (FIN | PSH)
    else:
        # No TCP socket lives here, so every stream is in transit. [tcp4_check_fraglist_gro()]
        state.is_flist = skb.dev.features & NETIF_F_GRO_FRAGLIST != 0
    ends = len < mss or th[13] & (URG | PSH | RST | SYN | FIN) != 0
    state.flush |= ends
    if link != NULL and (ends or not state.same_flow):
        return link
    return NULL


cdef void tcp4_gro_complete(sk_buff *skb) noexcept nogil:
    """Leave the checksum as for transmission: the pseudo header's sum, the rest to be added."""
    cdef u8 *iph = skb.data
    cdef u8 *th = iph + IP_HLEN
    cdef u16 check = ~csum_tcpudp_magic(
        get_be32(iph + 12), get_be32(iph + 16), skb.len - IP_HLEN, IPPROTO_TCP, 0)
    memcpy(th + 16, &check, 2)
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum = <u32>(th - skb.head) << 16 | 16
