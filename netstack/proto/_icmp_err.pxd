"""What an ICMP error means to a socket; see ``_icmp_err.pyx``."""

from netstack._abi cimport u8, u16, u32
from netstack._skb cimport sk_buff
from netstack.sock._sock cimport sock

cdef struct icmp_error:            # an ICMP error that came in, and what it quotes
    sk_buff *skb                   # the message, for its addresses; NULL when we say it ourselves
    u32 type
    u32 code
    u32 info                       # MTU, or pointer
    const u8 *quoted               # the packet of ours, from its IP header on
    u32 size

cdef bint icmp_convert(const icmp_error *error, const sock *sk, u32 *err) noexcept nogil
cdef void sock_icmp_error(sock *sk, const icmp_error *error, u32 err, bint hard, u16 port, u32 payload) noexcept nogil
cdef void ip_local_error(sock *sk, u32 err, u32 daddr, u16 port, u32 info) noexcept nogil
cdef void sk_update_pmtu(sock *sk, const icmp_error *error) noexcept nogil
