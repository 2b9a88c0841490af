"""Sending, from Python's buffers to the protocol; see ``_send.pyx``."""

from netstack.sock._sock cimport sock, sock_msg

cdef enum:
    UIO_MAXIOV = 1024              # buffers of one sendmsg or recvmsg_into
    FEW_VIEWS = 16                 # as many are held without asking for memory
    MSG_OOB = 1
    MSG_DONTROUTE = 4
    MSG_MORE = 0x8000

cdef tuple buffers_of(object buffers, str caller)
cdef void empty_message(sock_msg *msg) noexcept
cdef Py_ssize_t send_buffer(sock *sk, object data, int flags, sock_msg *msg) except -1
cdef Py_ssize_t send_buffers(sock *sk, object buffers, object ancdata, int flags, object address) except -1
