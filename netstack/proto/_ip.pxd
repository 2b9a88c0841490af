"""IPv4's entry points; see ``_ip.pyx`` (in) and ``_ip_output.pyx`` (out)."""

from netstack._abi cimport u8, u16, u32
from netstack._net cimport net
from netstack._skb cimport sk_buff
from netstack.proto._ip_output cimport ip_alloc_skb, ip_send_skb, skb_checksum, skb_store_bits
from netstack.proto._route cimport ip_route_output, rtable


# The compiled short cut, data at the IP header. 1 = consumed; 0 = untouched and uncounted, for Python.
cdef bint ip_rcv_fast(net *n, sk_buff *skb, void *sd) noexcept nogil

# The steps, for the short cut and for ip.py alike. A drop reason, or 0 to go on.
cdef u32 ip_rcv_route(net *n, sk_buff *skb) noexcept nogil
cdef u32 ip_rcv_finish_core(net *n, sk_buff *skb) noexcept nogil
cdef void skb_trim(sk_buff *skb, u32 size) noexcept nogil
