"""What UDP does with its sockets, and other datagram sockets too; see ``_udp_prot.pyx``."""

from netstack._abi cimport u16, u32
from netstack.sock._sock cimport sock

cdef int udp_connect(sock *sk, u32 addr, u16 port) noexcept nogil
cdef int ip4_datagram_connect(sock *sk, u32 addr, u16 port) noexcept nogil
cdef int udp_mtu(sock *sk) noexcept nogil
