"""GRO's entry points; see ``_gro.pyx``. Splitting is in ``netstack/_gso.pxd``."""

from netstack._skb cimport sk_buff
from netstack.napi._napi cimport napi_struct


cdef enum gro_result:
    GRO_MERGED                     # chained to the held packet of its flow
    GRO_MERGED_FREE                # never here: a frame keeps its buffer, so nothing is left over
    GRO_HELD                       # waits for the next of its flow
    GRO_NORMAL                     # goes on as it came
    GRO_CONSUMED                   # never here: no protocol finishes in the background

cdef void napi_gro_receive(napi_struct *napi, sk_buff *skb) noexcept nogil
cdef gro_result dev_gro_receive(napi_struct *napi, sk_buff *skb) noexcept nogil
cdef void napi_gro_flush(napi_struct *napi, bint flush_old) noexcept nogil
cdef void gro_normal_list(napi_struct *napi) noexcept nogil
