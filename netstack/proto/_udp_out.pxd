"""UDP's way out; see ``_udp_out.pyx``."""

from netstack._abi cimport u32
from netstack._net cimport net
from netstack._skb cimport sk_buff
from netstack.proto._route cimport rtable
from netstack.sock._sock cimport sock, sock_msg

cdef int udp_autobind(sock *sk) noexcept nogil
cdef int udp_route(sock *sk, u32 daddr, u32 saddr, u32 dev_if, rtable *rt, bint dontroute) noexcept nogil
cdef int find_way(net *n, u32 daddr, u32 saddr, u32 dev_if, rtable *rt) noexcept nogil
cdef void sk_mark_skb(const sock *sk, const sock_msg *msg, sk_buff *skb) noexcept nogil
cdef int udp_sendmsg(sock *sk, sock_msg *msg) noexcept nogil
cdef u32 udp_sendmmsg(sock *sk, sock_msg *msgs, u32 count, int *err) noexcept nogil
cdef bint ip_dont_fragment(const sock *sk, const rtable *rt) noexcept nogil
cdef void ip_generic_getfrag(sk_buff *skb, u32 done, const sock_msg *msg, size_t offset, u32 size) noexcept nogil
