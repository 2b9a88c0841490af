"""A CPU's limit for flows that flood a backlog; see ``_flow_limit.pyx``."""

from netstack._abi cimport likely, load_acquire_ptr, u8, u32
from netstack._net cimport net
from netstack._skb cimport sk_buff
from netstack.napi._napi cimport softnet_data

cdef enum:
    FLOW_LIMIT_HISTORY = 128       # packets that are looked back at; no more than a u8 counts

cdef struct sd_flow_limit:
    u32 lock                       # a CPU and senders in process context may both ask
    u32 log_buckets
    u32 history_head
    u32 history[FLOW_LIMIT_HISTORY]
    u8 buckets[1]                  # of the history's packets, how many fell here

cdef bint flow_limit_check(sk_buff *skb, softnet_data *sd, sd_flow_limit *fl) noexcept nogil
cdef int flow_limit_set(net *n, u32 cpus, u32 table_len) except -1


cdef inline bint skb_flow_limit(sk_buff *skb, u32 qlen, u32 max_backlog, softnet_data *sd) noexcept nogil:
    """True when the packet is to be dropped: its flow fills a backlog that is half full. [skb_flow_limit()]

    ``sd``: the CPU that queues, not the one whose backlog it is.
    """
    cdef sd_flow_limit *fl
    if likely(qlen < max_backlog >> 1):
        return False
    fl = <sd_flow_limit *>load_acquire_ptr(&sd.flow_limit)
    return fl != NULL and flow_limit_check(skb, sd, fl)
