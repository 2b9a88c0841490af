"""GRO's entry points; see ``_gro.pyx``."""

from netstack._abi cimport u32
from netstack._skb cimport sk_buff
from netstack.napi._napi cimport napi_struct

cdef void napi_gro_receive(napi_struct *napi, sk_buff *skb) noexcept nogil
cdef void napi_gro_flush(napi_struct *napi, bint flush_old) noexcept nogil
cdef void gro_normal_list(napi_struct *napi) noexcept nogil
cdef sk_buff *skb_gro_split(sk_buff *skb) noexcept nogil
