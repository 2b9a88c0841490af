"""GRO of TCP over IPv4; see ``_gro_tcp.pyx``."""

from netstack._skb cimport sk_buff
from netstack.napi._gro_flow cimport gro_state
from netstack.napi._napi cimport gro_list

cdef sk_buff **tcp4_gro_receive(gro_list *held, sk_buff *skb, gro_state *state) noexcept nogil
cdef void tcp4_gro_complete(sk_buff *skb) noexcept nogil
