"""What is for others; see ``_ip_forward.pyx``."""

from netstack._abi cimport u32
from netstack._net cimport net
from netstack._skb cimport sk_buff
from netstack.proto._route cimport rtable

# Would ip_forward take this packet, data at its IP header, as a CPU? Changes and counts nothing; fills rt.
cdef bint ip_forward_peek(net *n, sk_buff *skb, rtable *rt) noexcept nogil
# Send on a packet whose header is checked, and whose life does not end here. Consumes skb.
cdef void ip_forward(net *n, sk_buff *skb, const rtable *rt) noexcept nogil
