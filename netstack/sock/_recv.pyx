"""recv: from the receive queue to Python's objects.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       the oldest datagram              sock/_sock.pyx
Out      bytes, ancillary data            sock/_socket.pyx
Context  process context; the GIL is released to wait
Kernel   __skb_recv_udp(), udp_recvmsg(), net/ipv4/udp.c
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EBADF, ETIMEDOUT
from posix.unistd cimport usleep

from netstack._abi cimport fetch_add32, load_acquire32, monotonic_ns, u32, u64
from netstack.sock._calls cimport fail
from netstack.sock._cmsg cimport put_cmsgs, put_err_cmsgs, skb_meta, skb_meta_of
from netstack.sock._errqueue cimport sock_end_err, sock_first_err
from netstack.sock._queue cimport sock_first, sock_peek_at, sock_peek_end, sock_peeked
from netstack.sock._sock cimport (
    RCV_SHUTDOWN, SOCK_CB, SOCK_ERR_CB, SOCKF_CLOSED, SOCKF_PEEK_OFF, sock_err_cb, sock_has_data,
    sock_readable, sock_skb_cb,
)
from netstack.sock._wake cimport sock_poll_once, sock_take_err, sock_wait


cdef int get_writable(object buffer, Py_buffer *view, str caller) except -1:
    """Take hold of a buffer to be filled; ``caller`` is the method that complains."""
    try:
        return PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE)
    except (BufferError, TypeError):
        if caller == "recvmsg_into":
            raise TypeError("recvmsg_into() argument 1 must be an iterable of single-segment read-write "
                            "buffers") from None
        raise TypeError(f"{caller}() argument 1 must be read-write bytes-like object, "
                        f"not {type(buffer).__name__}") from None


cdef sk_buff *recv_wait(sock *sk, long long timeout, int flags) except? NULL:
    """Report an error, say that nothing is there, or wait until something is.

    The oldest datagram with the reader's lock held; NULL when no more will come. ``timeout`` in ns: 0 is
    not to wait, -1 as long as SO_RCVTIMEO says, which like MSG_DONTWAIT ends in BlockingIOError.
    """
    cdef sk_buff *skb
    cdef u64 until = 0
    cdef bint polled = False
    cdef bint beyond = False
    cdef u32 err
    cdef int rc
    if timeout > 0:
        until = monotonic_ns() + <u64>timeout
    elif timeout < 0 and sk.rcvtimeo:
        until = monotonic_ns() + sk.rcvtimeo
    while True:
        if load_acquire32(&sk.flags) & SOCKF_CLOSED:
            fail(EBADF)
        if flags & MSG_ERRQUEUE:
            skb = sock_first_err(sk)
            beyond = skb == NULL and sock_readable(sk)
        else:
            err = sock_take_err(sk)
            if err:
                fail(<int>err)
            skb = sock_first(sk)
            if skb != NULL and flags & MSG_PEEK and load_acquire32(&sk.flags) & SOCKF_PEEK_OFF:
                skb = sock_peek_at(sk, skb)
                beyond = skb == NULL
        if skb != NULL:
            return skb
        if timeout == 0 or (timeout < 0 and flags & (MSG_DONTWAIT | MSG_ERRQUEUE)):
            if polled or not sk.busy_poll_us:
                fail(EAGAIN)
            polled = True
            with nogil:
                sock_poll_once(sk)
            continue
        if timeout < 0 and load_acquire32(&sk.shutdown) & RCV_SHUTDOWN:
            return NULL
        with nogil:
            if beyond:                 # all that is here has been looked at (SO_PEEK_OFF), or is no error
                # (MSG_ERRQUEUE), so that the socket is readable all the time: look for more now and then
                usleep(1000)
                rc = 0
            else:
                rc = sock_wait(sk, until)
            fetch_add32(&sk.n.back_to_python, 1)
        fetch_add32(&sk.n.back_to_python, <u32>-1)
        PyErr_CheckSignals()
        if rc == ETIMEDOUT or (until and monotonic_ns() >= until and (beyond or not sock_has_data(sk))):
            if timeout < 0:
                fail(EAGAIN)
            raise TimeoutError("timed out")


cdef void recv_end_odd(sock *sk, sk_buff *skb, int flags, u32 copied) noexcept:
    """End what was only looked at, or what is no datagram but an error. Unlocks."""
    if flags & MSG_ERRQUEUE:
        sock_end_err(sk, skb)
    else:
        if sk.flags & SOCKF_PEEK_OFF:
            sock_peek_end(sk, skb, copied)
        sock_peeked(sk)


cdef tuple recv_message(sock *sk, sk_buff *skb, Py_buffer *views, int n, Py_ssize_t room,
                        Py_ssize_t ancbufsize, int flags):
    """Make (data or size, ancillary data, flags) of what sock_first() gave, and end that.

    Without ``views`` the data is bytes, at most ``room``; else it goes into the ``n`` views, which have
    that much room together.
    """
    cdef sock_skb_cb cb = SOCK_CB(skb)[0]
    cdef sock_err_cb error
    cdef skb_meta meta
    cdef u32 size = data_left(skb)
    cdef u32 gso_size = skb.gso_size if skb.gso_type else 0
    cdef int msg_flags = MSG_TRUNC if <Py_ssize_t>size > room else 0
    cdef u32 offset = 0
    cdef u32 part
    cdef int i
    skb_meta_of(sk, skb, &meta)
    if flags & MSG_ERRQUEUE:
        error = SOCK_ERR_CB(skb)[0]
    if views != NULL:
        for i in range(n):
            part = <u32>min(views[i].len, <Py_ssize_t>(size - offset))
            copy_bits(skb, offset, <char *>views[i].buf, part)
            offset += part
        recv_end(sk, skb, flags, offset)
        data = size if flags & MSG_TRUNC else offset
    else:
        data = take_bytes(sk, skb, room, flags)
    if flags & MSG_ERRQUEUE:
        return data, put_err_cmsgs(sk, &error, &meta, ancbufsize, &msg_flags), msg_flags | MSG_ERRQUEUE
    return data, put_cmsgs(sk, &cb, &meta, gso_size, ancbufsize, &msg_flags), msg_flags
