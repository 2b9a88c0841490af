"""UDP's entry points; see ``_udp.pyx`` (in), ``_udp_out.pyx`` (out), ``_udp_prot.pyx`` (sockets)."""

from netstack._abi cimport u8, u16, u32
from netstack._net cimport net
from netstack._skb cimport sk_buff
from netstack.napi._napi cimport softnet_data
from netstack.sock._sock cimport sock
from netstack.sock._table cimport udp_table


cdef enum:
    IPPROTO_UDP = 17
    UDP_HLEN = 8
    CHECKSUM_BREAK = 76            # longer packets are summed when an application reads them

cdef bint udp_peek(net *n, void *p) noexcept nogil
cdef void udp_rcv_fast(net *n, void *p, void *sd) noexcept nogil
cdef void udp_rcv_tapped(net *n, void *p, void *sd) noexcept nogil

# The steps of udp_rcv. Each gives True to go on; False: the packet was dropped and counted.
cdef bint udp_csum_complete(net *n, sk_buff *skb) noexcept nogil
cdef bint udp_complete(sock *sk, sk_buff *skb) noexcept nogil
cdef void udp_mcast_deliver(net *n, sk_buff *skb) noexcept nogil


cdef inline udp_table *udp_table_of(net *n) noexcept nogil:
    return <udp_table *>n.udp
