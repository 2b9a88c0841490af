"""gro_udp: merge the datagrams of a UDP flow, for those who asked.

Stage 4 of 8:  device driver irq [napi] netif nf proto sock
In       a plain IPv4 packet, and those held   napi/_gro.pyx
Out      what to do with each of the two       napi/_gro.pyx
Context  softirq; no GIL; never allocates, never raises
Kernel   udp4_gro_receive(), udp_gro_receive_segment(), net/ipv4/udp_offload.c

A datagram has borders that mean something, so it merges only where they can be found again:
for a socket with UDP_GRO, which is told the size; or as a list of whole packets (rx-gro-list),
or on its way through (rx-udp-gro-forwarding), which is cut apart before anybody reads it.
"""

from libc.string cimport memcpy

from netstack._abi cimport get_be16, get_be32, load_acquire_ptr, put_be16, u8, u16, u32, u64
from netstack._checksum cimport csum_tcpudp_magic
from netstack._net cimport (
    NETIF_F_GRO_FRAGLIST, NETIF_F_GRO_UDP_FWD, UDP_GRO_ENABLED, net,
)
from netstack._skb cimport CHECKSUM_PARTIAL, sk_buff
from netstack.napi._gro_flow cimport (
    IP_HLEN, IPPROTO_UDP, gro_append, gro_cb, gro_checksum_bad, gro_lookup, gro_state,
    inet_gro_flush,
)
from netstack.napi._napi cimport gro_list


cdef enum:
    UDP_HLEN = 8
    UDP_GRO_CNT_MAX = 64

ctypedef int (*udp_gro_lookup_fn)(net *n, u32 saddr, u16 sport, u32 daddr,
                                  u16 dport) noexcept nogil


cdef bint udp_gro_wanted(net *n, const sk_buff *skb, bint *is_flist) noexcept nogil:
    """Tell whether anybody wants this datagram merged, and in which form. [udp_gro_receive()]

    A socket with UDP_GRO goes before rx-gro-list, any socket before rx-udp-gro-forwarding.
    """
    cdef udp_gro_lookup_fn lookup = <udp_gro_lookup_fn>load_acquire_ptr(<void **>&n.udp_gro_lookup)
    cdef const u8 *iph = skb.data
    cdef const u8 *uh = iph + IP_HLEN
    cdef u64 features = skb.dev.features
    cdef int sk = 0
    if lookup != NULL:
        sk = lookup(n, get_be32(iph + 12), get_be16(uh), get_be32(iph + 16), get_be16(uh + 2))
    is_flist[0] = features & NETIF_F_GRO_FRAGLIST != 0 and not sk & UDP_GRO_ENABLED
    return (is_flist[0] or sk & UDP_GRO_ENABLED != 0
            or (sk == 0 and features & NETIF_F_GRO_UDP_FWD != 0))


cdef sk_buff **udp4_gro_receive(net *n, gro_list *held, sk_buff *skb,
                                gro_state *state) noexcept nogil:
    """Merge a datagram with the held packet of its flow, if there is one and the rules allow.

    Gives the pointer to the held packet that is to be completed now, or NULL.
    """
    cdef const u8 *uh = skb.data + IP_HLEN
    cdef u32 ulen = get_be16(uh + 4)
    cdef u32 ulen2
    cdef sk_buff **link
    cdef sk_buff *p
    # Without a checksum GSO could not make it again. Padded datagrams are not worth the trouble.
    if (not udp_gro_wanted(n, skb, &state.is_flist) or get_be16(uh + 6) == 0
            or ulen <= UDP_HLEN or ulen != skb.len - IP_HLEN
            or (not state.flush and gro_checksum_bad(skb, IPPROTO_UDP))):
        state.flush = True
        return NULL
    state.offset = IP_HLEN + UDP_HLEN
    link = gro_lookup(held, skb)
    if link == NULL:
        return NULL
    p = link[0]
    if state.is_flist != gro_cb(p).is_flist:
        state.flush = True
        return link
    ulen2 = get_be16(p.data + IP_HLEN + 4)
    if ulen > ulen2 or inet_gro_flush(p, skb):
        return link
    if state.is_flist and skb.ip_summed != p.ip_summed:
        state.flush = True
        return NULL
    # A shorter datagram is merged, and is the last: sizes must be equal up to there.
    if (not gro_append(p, skb, state) or ulen != ulen2
            or gro_cb(p).count >= UDP_GRO_CNT_MAX):
        return link
    return NULL


cdef void udp4_gro_complete(sk_buff *skb) noexcept nogil:
    """Set the length, and leave the checksum as for transmission: the pseudo header's sum."""
    cdef u8 *iph = skb.data
    cdef u8 *uh = iph + IP_HLEN
    cdef u16 ulen = <u16>(skb.len - IP_HLEN)
    cdef u16 check = ~csum_tcpudp_magic(
        get_be32(iph + 12), get_be32(iph + 16), ulen, IPPROTO_UDP, 0)
    put_be16(uh + 4, ulen)
    memcpy(uh + 6, &check, 2)
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum = <u32>(uh - skb.head) << 16 | 6
