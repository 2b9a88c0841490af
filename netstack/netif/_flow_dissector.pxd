"""The hash of a packet's flow; see ``_flow_dissector.pyx``."""

from netstack._abi cimport u32
from netstack._skb cimport SKB_HASH_NONE, sk_buff

cdef void __skb_get_hash(sk_buff *skb) noexcept nogil


cdef inline u32 skb_get_hash(sk_buff *skb) noexcept nogil:
    """The hash of the packet's flow, never 0: a NIC's if that covers the ports, else our own. [skb_get_hash()]"""
    if skb.l4_hash == SKB_HASH_NONE:
        __skb_get_hash(skb)
    return skb.hash
