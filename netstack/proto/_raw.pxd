"""Raw sockets by IP protocol; see ``_raw.pyx`` (in), ``_raw_out.pyx`` (out)."""

from netstack._abi cimport u32
from netstack._net cimport net
from netstack._skb cimport sk_buff
from netstack.sock._sock cimport proto, sock


cdef struct raw_table:             # n.raw; under the lock of the host's table of sockets
    proto prot
    sock *head[256]                # by the low byte of the IP protocol

cdef int raw_local_deliver(net *n, sk_buff *skb) noexcept nogil
cdef int raw_rcv(net *n, sock *sk, sk_buff *skb) noexcept nogil
