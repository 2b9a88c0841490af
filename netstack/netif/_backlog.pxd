"""A CPU's backlog; see ``_backlog.pyx``."""

from netstack._abi cimport u32
from netstack._net cimport net
from netstack._skb cimport sk_buff
from netstack.napi._napi cimport softnet_data

cdef int enqueue_to_backlog(sk_buff *skb, u32 cpu, u32 *qtail, softnet_data *mysd, u32 ipi) noexcept nogil
cdef void *rps_steer(net *n, void *head, void *sd) noexcept nogil
cdef void flush_backlog(softnet_data *sd) noexcept nogil
