"""Datagrams that are gathered from several sends; see ``_cork.pyx``."""

from netstack.sock._sock cimport sock, sock_msg

cdef bint sock_corks(const sock *sk) noexcept
cdef Py_ssize_t sock_cork_send(sock *sk, const sock_msg *msg, bint more) except -1
cdef int sock_push(sock *sk) noexcept
