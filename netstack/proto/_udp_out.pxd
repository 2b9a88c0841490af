"""UDP's way out; see ``_udp_out.pyx``."""

from netstack._abi cimport u32
from netstack.proto._route cimport rtable
from netstack.sock._sock cimport sock, sock_msg

cdef int udp_autobind(sock *sk) noexcept nogil
cdef int udp_route(sock *sk, u32 daddr, u32 saddr, u32 dev_if, rtable *rt) noexcept nogil
cdef int udp_sendmsg(sock *sk, sock_msg *msg) noexcept nogil
cdef u32 udp_sendmmsg(sock *sk, sock_msg *msgs, u32 count, int *err) noexcept nogil
