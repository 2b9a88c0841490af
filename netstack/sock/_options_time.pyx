"""options: spans of time: SO_RCVTIMEO, SO_SNDTIMEO, SO_LINGER.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       setsockopt, getsockopt           sock/_options.pyx
Out      fields of struct sock
Context  process context
Kernel   sock_set_timeout(), sock_get_timeout(), sk_setsockopt(), net/core/sock.c
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EDOM, EINVAL
from libc.string cimport memcpy

from netstack._abi cimport i32, i64, u64
from netstack.sock._calls cimport fail


cdef int set_timeout(sock *sk, bint receive, const char *value, Py_ssize_t size) except -1:
    """Set SO_RCVTIMEO or SO_SNDTIMEO from a struct timeval; zero is for ever. [sock_set_timeout()]"""
    cdef i64 parts[2]
    cdef u64 ns = 0
    if size < <Py_ssize_t>sizeof(parts):
        return fail(EINVAL)
    memcpy(parts, value, sizeof(parts))
    if not 0 <= parts[1] < 1_000_000:
        return fail(EDOM)
    if parts[0] < 0:
        ns = 1
    elif parts[0] < 9_000_000_000:
        ns = <u64>parts[0] * 1_000_000_000 + <u64>parts[1] * 1000
    if receive:
        sk.rcvtimeo = ns
    else:
        sk.sndtimeo = ns
    return 0


cdef bytes get_timeout(sock *sk, bint receive):
    """A struct timeval."""
    cdef u64 us = (sk.rcvtimeo if receive else sk.sndtimeo) // 1000
    cdef u64 parts[2]
    parts = [us // 1_000_000, us % 1_000_000]
    return PyBytes_FromStringAndSize(<const char *>parts, sizeof(parts))


cdef int set_linger(sock *sk, const char *value, Py_ssize_t size) except -1:
    """Keep a struct linger: closing a datagram socket waits for nothing. Off leaves the time as it is."""
    cdef i32 parts[2]
    if size < <Py_ssize_t>sizeof(parts):
        return fail(EINVAL)
    memcpy(parts, value, sizeof(parts))
    sk.linger_on = parts[0] != 0
    if sk.linger_on:
        sk.linger = parts[1]
    return 0


cdef bytes get_linger(sock *sk):
    """A struct linger."""
    cdef i32 parts[2]
    parts = [<i32>sk.linger_on, sk.linger]
    return PyBytes_FromStringAndSize(<const char *>parts, sizeof(parts))
