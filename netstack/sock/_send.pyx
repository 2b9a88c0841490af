"""send: from Python's buffers to the protocol.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       bytes and addresses              sock/_socket.pyx
Out      a sock_msg for the protocol      proto/_udp_out.pyx
Context  process context; the GIL is released for the protocol, which may write to the wire
Kernel   sock_sendmsg(), net/socket.c; inet_sendmsg(), net/ipv4/af_inet.c
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact
from libc.errno cimport EMSGSIZE, EOPNOTSUPP
from libc.string cimport memset

from netstack._abi cimport u8, unlikely
from netstack.sock._address cimport parse_sockaddr
from netstack.sock._calls cimport fail, items_of
from netstack.sock._cmsg cimport get_cmsgs
from netstack.sock._cork cimport sock_cork_send, sock_corks
from netstack.sock._packet cimport AF_PACKET
from netstack.sock._packet_addr cimport packet_destination
from netstack.sock._sock cimport SOCKO_CORK, sock_iov, sock_rps_record_flow


cdef void empty_message(sock_msg *msg) noexcept:
    memset(msg, 0, sizeof(sock_msg))
    msg.ttl = -1
    msg.tos = -1


cdef inline Py_ssize_t send_message(sock *sk, sock_msg *msg, int flags) except -1:
    """Hand a message to the protocol: the bytes sent."""
    cdef int rc
    if flags & MSG_OOB:
        fail(EOPNOTSUPP)
    sock_rps_record_flow(sk)
    msg.dontroute = flags & MSG_DONTROUTE != 0
    if unlikely(flags & MSG_MORE or sk.cork != NULL or sk.opts & SOCKO_CORK) and sock_corks(sk):
        return sock_cork_send(sk, msg, flags & MSG_MORE or sk.opts & SOCKO_CORK)
    with nogil:
        rc = sk.prot.sendmsg(sk, msg)
    if rc < 0:
        fail(-rc)
    return <Py_ssize_t>msg.len


cdef Py_ssize_t send_buffer(sock *sk, object data, int flags, sock_msg *msg) except -1:
    """Send one bytes-like object; ``msg`` says where to."""
    cdef sock_iov iov
    cdef Py_buffer view
    msg.iov = &iov
    msg.nr_iov = 1
    if PyBytes_CheckExact(data):
        iov.base = <const u8 *>PyBytes_AS_STRING(data)
        msg.len = iov.len = len(<bytes>data)
        return send_message(sk, msg, flags)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        iov.base = <const u8 *>view.buf
        msg.len = iov.len = view.len
        return send_message(sk, msg, flags)
    finally:
        PyBuffer_Release(&view)


cdef tuple buffers_of(object buffers, str caller):
    """Take the buffers of sendmsg() or recvmsg_into(); EMSGSIZE for more than Linux takes. [import_iovec()]"""
    cdef tuple items = items_of(buffers, f"{caller}() argument 1")
    if len(items) > UIO_MAXIOV:
        fail(EMSGSIZE)
    return items


cdef Py_ssize_t send_buffers(sock *sk, object buffers, object ancdata, int flags, object address) except -1:
    """Send several bytes-like objects as one datagram, with control messages."""
    cdef tuple items = buffers_of(buffers, "sendmsg")
    cdef Py_buffer few_views[FEW_VIEWS]
    cdef sock_iov few_iov[FEW_VIEWS]
    if len(items) <= FEW_VIEWS:
        return send_items(sk, items, few_views, few_iov, ancdata, flags, address)
    views = bytearray(len(items) * sizeof(Py_buffer))
    iov = bytearray(len(items) * sizeof(sock_iov))
    return send_items(sk, items, <Py_buffer *><char *>views, <sock_iov *><char *>iov, ancdata, flags, address)


cdef Py_ssize_t send_items(sock *sk, tuple items, Py_buffer *views, sock_iov *iov, object ancdata, int flags,
                           object address) except -1:
    cdef sock_msg msg
    cdef int n = 0
    empty_message(&msg)
    msg.iov = iov
    try:
        for buffer in items:
            PyObject_GetBuffer(buffer, &views[n], PyBUF_SIMPLE)
            iov[n].base = <const u8 *>views[n].buf
            iov[n].len = views[n].len
            msg.len += iov[n].len
            n += 1
        msg.nr_iov = n
        get_cmsgs(sk, ancdata, &msg)
        if address is not None:
            if sk.prot.family == AF_PACKET:
                packet_destination(sk, address, "sendmsg")
            else:
                parse_sockaddr(address, "sendmsg", &msg.daddr, &msg.dport)
            msg.has_addr = True
        return send_message(sk, &msg, flags)
    finally:
        while n:
            n -= 1
            PyBuffer_Release(&views[n])
