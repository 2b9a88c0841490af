"""frag: make one packet of many.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       fragments in order               proto/frag.py
Out      one packet with a frag_list      proto/frag.py
Context  process
Kernel   inet_frag_reasm_prepare(), inet_frag_reasm_finish(), net/ipv4/inet_fragment.c
"""

from libc.string cimport memcpy

from netstack._abi cimport put_be16, u8, u16, u32
from netstack._checksum cimport ip_fast_csum
from netstack._skb cimport (
    CHECKSUM_NONE, CHECKSUM_UNNECESSARY, SkBuff, sk_buff, skb_headlen, skb_network_header, skb_pull, skb_wrap,
)
from netstack.proto._inet cimport IP_CSUM, IP_DF, IP_FRAGOFF, IP_TOS, IP_TOTLEN, ip_ihl
from netstack.proto._ip cimport skb_trim


def trim(SkBuff skb not None, u32 size):
    """Cut a packet to ``size`` bytes from data on. [pskb_trim_rcsum()]"""
    cdef sk_buff *packet = skb.peek()
    if size < packet.len:
        skb_trim(packet, size)


def truesize(SkBuff skb not None):
    """Say how much memory a packet takes."""
    return skb.peek().truesize


def frames(SkBuff skb not None):
    """Count the frames off the wire that end with this packet."""
    cdef sk_buff *packet = skb.peek()
    cdef sk_buff *frag = packet.frag_list
    cdef u32 total = packet.frames
    while frag != NULL:
        total += frag.frames
        frag = frag.next
    return total


cdef void append(sk_buff *head, sk_buff *skb) noexcept nogil:
    """Hang a packet's buffer, and then its further ones, behind the head's. Consumes skb."""
    cdef sk_buff *further = skb.frag_list
    cdef sk_buff *tail = skb.frag_tail
    head.len += skb.len
    head.data_len += skb.len
    head.truesize += skb.truesize
    head.tstamp = max(head.tstamp, skb.tstamp)     # when the last fragment came [inet_frag_reasm_finish()]
    skb.len = skb_headlen(skb)
    skb.data_len = 0
    skb.frag_list = NULL
    skb.frag_tail = NULL
    skb.next = further
    if head.frag_list == NULL:
        head.frag_list = skb
    else:
        head.frag_tail.next = skb
    head.frag_tail = tail if further != NULL else skb


def reassemble(list fragments not None, u8 ecn, bint df):
    """Make one packet of fragments, in order of offset, data at the IP header. Consumes them.

    The header is the first's, with the length of the whole, ``ecn`` added to its tos, and DF as said. Every frame
    ends with the packet.
    """
    cdef SkBuff first = fragments[0]
    cdef SkBuff following
    cdef sk_buff *head = first.take()
    cdef sk_buff *skb
    cdef u8 *iph
    cdef u16 check
    if head.ip_summed != CHECKSUM_UNNECESSARY:
        head.ip_summed = CHECKSUM_NONE
    for following in fragments[1:]:
        skb = following.take()
        if skb.ip_summed != CHECKSUM_UNNECESSARY:
            head.ip_summed = CHECKSUM_NONE
        skb_pull(skb, ip_ihl(skb.data))
        append(head, skb)
    iph = skb_network_header(head)
    iph[IP_TOS] |= ecn
    put_be16(iph + IP_TOTLEN, <u16>head.len)
    put_be16(iph + IP_FRAGOFF, IP_DF if df else 0)
    put_be16(iph + IP_CSUM, 0)
    check = ip_fast_csum(iph, ip_ihl(iph) >> 2)
    memcpy(iph + IP_CSUM, &check, 2)
    return skb_wrap(head, first.net_object)
