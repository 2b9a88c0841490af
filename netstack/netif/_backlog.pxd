"""The queue of packets that have no NAPI of their own; see ``_backlog.pyx``."""

from netstack._abi cimport u32
from netstack._net cimport net
from netstack._skb cimport sk_buff

cdef int enqueue_to_backlog(net *n, sk_buff *skb, u32 cpu) noexcept nogil
