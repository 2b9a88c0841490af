"""A held packet: what GRO notes in it, how the next one of its flow finds it, how they merge.

Nothing is copied when packets merge. The later sk_buff moves its ``data`` past the headers and
is chained to ``frag_list`` of the first one, so every frame keeps its own headers, in front of
``data``, and ``_gso.skb_gro_split`` gives the frames back as they came.
"""

from libc.string cimport memcpy

from netstack._abi cimport get_be16, get_be32, likely, u8, u16, u32, u64
from netstack._checksum cimport csum_add, csum_fold, csum_partial, csum_tcpudp_nofold
from netstack._skb cimport (
    CHECKSUM_COMPLETE, CHECKSUM_NONE, CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, sk_buff, skb_mac_header,
)
from netstack.napi._napi cimport gro_list


cdef enum:
    ETH_P_IP = 0x0800
    IPPROTO_TCP = 6
    IPPROTO_UDP = 17
    IP_HLEN = 20                   # the only header length that GRO takes
    IP_DF = 0x4000
    IP_MF = 0x2000
    IP_OFFSET = 0x1FFF
    GRO_MAX_SIZE = 65536           # gro_ipv4_max_size: a merged packet stays below it

cdef struct napi_gro_cb:
    # In ``cb`` of a held packet. ``data`` of a held packet stands at its IP header.
    u64 age                        # jiffy of the poll that held it
    u32 len                        # of the packet as Linux counts it: with all payload, FRAGLIST too
    u16 offset                     # of the payload, from the IP header
    u16 mss                        # payload of the first frame
    u16 count                      # frames
    bint is_flist                  # merged as a list of whole packets
    bint fixed_id                  # every frame has the same IP ID
    u8 tcp_flags                   # of the first frame, as they came

cdef struct gro_state:
    # What is found out about the packet at hand; lives as long as the call.
    u16 offset                     # of the payload, from the IP header
    bint flush                     # it is neither to be merged nor to be held
    bint same_flow                 # it has been merged
    bint is_flist


cdef inline napi_gro_cb *gro_cb(sk_buff *skb) noexcept nogil:
    return <napi_gro_cb *>skb.cb

cdef inline u64 get64(const u8 *p) noexcept nogil:
    cdef u64 v
    memcpy(&v, p, 8)
    return v

cdef inline u32 get32(const u8 *p) noexcept nogil:
    cdef u32 v
    memcpy(&v, p, 4)
    return v

cdef inline bint same_flow(const sk_buff *p, const sk_buff *skb) noexcept nogil:
    """Tell whether device, VLAN, Ethernet header, protocol, addresses and ports are all equal."""
    cdef const u8 *a = p.data
    cdef const u8 *b = skb.data
    cdef u64 diff = <u64>p.dev ^ <u64>skb.dev
    diff |= (p.vlan_present ^ skb.vlan_present) | (p.vlan_tci ^ skb.vlan_tci)
    diff |= get64(a + 12) ^ get64(b + 12)
    diff |= get32(a + 20) ^ get32(b + 20)
    diff |= a[9] ^ b[9]
    a = skb_mac_header(p)
    b = skb_mac_header(skb)
    diff |= (get64(a) ^ get64(b)) | (get64(a + 6) ^ get64(b + 6))
    return diff == 0

cdef inline sk_buff **gro_lookup(gro_list *held, const sk_buff *skb) noexcept nogil:
    """Find the held packet of skb's flow: the pointer that points to it, or NULL.

    [gro_list_prepare(), and what each protocol's gro_receive then rules out]
    """
    cdef sk_buff **link = &held.first
    while link[0] != NULL:
        if link[0].hash == skb.hash and likely(same_flow(link[0], skb)):
            return link
        link = &link[0].next
    return NULL

cdef inline bint inet_gro_flush(sk_buff *p, const sk_buff *skb) noexcept nogil:
    """Tell whether TTL, TOS, DF or ID forbid to merge. [inet_gro_flush()]

    The second frame decides whether the ID of this packet stands still or counts.
    """
    cdef const u8 *a = p.data
    cdef const u8 *b = skb.data
    cdef napi_gro_cb *cb = gro_cb(p)
    cdef u16 step = get_be16(b + 4) - get_be16(a + 4)
    if (a[8] ^ b[8]) | (a[1] ^ b[1]) | ((a[6] ^ b[6]) & (IP_DF >> 8)):
        return True
    if cb.count == 1 and step == 0:
        cb.fixed_id = True
    return step != (0 if cb.fixed_id else cb.count)

cdef inline bint gro_append(sk_buff *p, sk_buff *skb, gro_state *state) noexcept nogil:
    """Chain skb to the held packet p. False when they would be too long together.

    [skb_gro_receive(), and skb_gro_receive_list() for a list of whole packets]
    """
    cdef napi_gro_cb *cb = gro_cb(p)
    cdef u32 payload = skb.len - state.offset
    if state.flush or cb.len + (skb.len if cb.is_flist else payload) >= GRO_MAX_SIZE:
        return False
    if not cb.is_flist:
        skb.data += state.offset
        skb.len = payload
        p.len += payload
        p.data_len += payload
    cb.len += payload
    cb.count += 1
    p.truesize += skb.truesize
    if p.frag_list == NULL:
        p.frag_list = skb
    else:
        p.frag_tail.next = skb
    p.frag_tail = skb
    skb.next = NULL
    state.same_flow = True
    return True

cdef inline bint gro_checksum_bad(sk_buff *skb, u8 protocol) noexcept nogil:
    """Tell whether the TCP or UDP checksum is wrong; what is found right needs no further look.

    [skb_gro_checksum_validate()]
    """
    cdef const u8 *iph = skb.data
    cdef u32 size = skb.len - IP_HLEN
    cdef u32 pseudo
    if likely(skb.ip_summed == CHECKSUM_UNNECESSARY) or skb.ip_summed == CHECKSUM_PARTIAL:
        return False
    pseudo = csum_tcpudp_nofold(get_be32(iph + 12), get_be32(iph + 16), size, protocol, 0)
    if skb.ip_summed == CHECKSUM_COMPLETE and csum_fold(csum_add(skb.csum, pseudo)) == 0:
        return False
    if csum_fold(csum_partial(iph + IP_HLEN, size, pseudo)) != 0:
        return True
    if skb.ip_summed == CHECKSUM_NONE:
        skb.ip_summed = CHECKSUM_UNNECESSARY
    return False
