"""The queue of errors of a socket; see ``_errqueue.pyx``."""

from netstack._skb cimport sk_buff
from netstack.sock._sock cimport sock

cdef bint sock_queue_err(sock *sk, sk_buff *skb) noexcept nogil
cdef sk_buff *sock_first_err(sock *sk) noexcept nogil
cdef void sock_end_err(sock *sk, sk_buff *skb) noexcept nogil
cdef void sock_purge_err(sock *sk) noexcept nogil
