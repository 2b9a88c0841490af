"""From the receive queue to Python's objects; see ``_recv.pyx``."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.string cimport memcpy

from netstack._abi cimport load_acquire32, u8, u32, u64, unlikely
from netstack._net cimport SLOT_PROCESS, mib_inc
from netstack._skb cimport sk_buff, skb_copy_bits
from netstack.sock._queue cimport sock_peek_bwd, sock_peeked, sock_read
from netstack.sock._sock cimport SOCK_CB, SOCKF_PEEK_OFF, sock, sock_skb_cb

cdef extern from "Python.h":
    PyObject *PyBytes_FromStringAndSize(const char *data, Py_ssize_t size)
    char *PyBytes_AS_STRING(PyObject *o)

cdef enum:
    MSG_PEEK = 2                   # <bits/socket.h>
    MSG_TRUNC = 0x20
    MSG_DONTWAIT = 0x40
    MSG_ERRQUEUE = 0x2000

cdef void recv_end_odd(sock *sk, sk_buff *skb, int flags, u32 copied) noexcept
cdef int get_writable(object buffer, Py_buffer *view, str caller) except -1
cdef sk_buff *recv_wait(sock *sk, long long timeout, int flags) except? NULL
cdef tuple recv_message(sock *sk, sk_buff *skb, Py_buffer *views, int n, Py_ssize_t room,
                        Py_ssize_t ancbufsize, int flags)


cdef inline u32 data_left(const sk_buff *skb) noexcept nogil:
    """Bytes of a datagram, or those of a merged packet that batch calls have not read."""
    return skb.len if skb.data_len == 0 else skb.len - SOCK_CB(<sk_buff *>skb).taken

cdef inline void copy_bits(const sk_buff *skb, u32 offset, char *to, u32 size) noexcept nogil:
    """Copy ``size`` bytes of what is left of a datagram, from ``offset`` on."""
    if skb.data_len == 0:
        memcpy(to, skb.data + offset, size)
    else:
        skb_copy_bits(skb, SOCK_CB(<sk_buff *>skb).taken + offset, <u8 *>to, size)

cdef inline Py_ssize_t copy_out(sk_buff *skb, char *to, Py_ssize_t size) noexcept:
    """Copy a datagram, at most ``size`` bytes of it; give how many."""
    if size > <Py_ssize_t>data_left(skb):
        size = data_left(skb)
    copy_bits(skb, 0, to, <u32>size)
    return size

cdef inline void recv_end(sock *sk, sk_buff *skb, int flags, u32 copied) noexcept:
    """End what sock_first() gave, or leave it where it is when ``copied`` bytes were only looked at. Unlocks."""
    if flags & (MSG_PEEK | MSG_ERRQUEUE):
        recv_end_odd(sk, skb, flags, copied)
    else:
        mib_inc(sk.n, SLOT_PROCESS, sk.prot.in_datagrams)
        if unlikely(load_acquire32(&sk.flags) & SOCKF_PEEK_OFF):
            sock_peek_bwd(sk, data_left(skb) if flags & MSG_TRUNC else copied)
        sock_read(sk, skb)

cdef inline bytes take_bytes(sock *sk, sk_buff *skb, Py_ssize_t size, int flags):
    """Make bytes of a datagram, at most ``size``, and end it. Unlocks."""
    cdef PyObject *data
    if size > <Py_ssize_t>data_left(skb):
        size = data_left(skb)
    if skb.data_len == 0:
        data = PyBytes_FromStringAndSize(<char *>skb.data, size)
    else:
        data = PyBytes_FromStringAndSize(NULL, size)
        if data != NULL:
            copy_out(skb, PyBytes_AS_STRING(data), size)
    if data == NULL:
        sock_peeked(sk)
        raise MemoryError
    recv_end(sk, skb, flags, <u32>size)
    value = <bytes>data
    Py_XDECREF(data)
    return value

cdef inline u64 peer_key(const sock_skb_cb *cb) noexcept nogil:
    """Who sent a datagram: address << 16 | port."""
    return <u64>cb.saddr << 16 | cb.sport
