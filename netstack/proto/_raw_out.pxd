"""The way out of raw sockets; see ``_raw_out.pyx``."""

from netstack.sock._sock cimport sock, sock_msg

cdef int raw_sendmsg(sock *sk, sock_msg *msg) noexcept nogil
