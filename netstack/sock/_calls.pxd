"""Calls of a socket that are made once, or seldom; see ``_calls.pyx``."""

from netstack._net cimport Net
from netstack.sock._sock cimport sock

cdef enum:
    SOCK_NONBLOCK = 0x800

cdef int fail(int errno) except -1
cdef tuple items_of(object given, str what)
cdef sock *inet_create(Net net, int family, int type, int protocol, void *owner) except NULL
cdef int inet_bind(sock *sk, object address) except -1
cdef int inet_connect(sock *sk, object address, str caller) except 1
cdef int inet_shutdown(sock *sk, int how) except -1
cdef long long parse_timeout(object value) except? -2
cdef dict sock_info(sock *sk)
