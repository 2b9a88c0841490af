"""Many datagrams a call; see ``_batch.pyx``."""

from netstack._abi cimport u16, u32
from netstack._skb cimport sk_buff
from netstack.sock._address cimport peer_cache
from netstack.sock._sock cimport sock

cdef struct packet:                # a record of recv_batch_into() and send_batch_from()
    u32 offset
    u32 length
    u32 addr                       # host order
    u16 port
    u16 flags                      # MSG_TRUNC

cdef sock *batch_of(sock *sk) except NULL
cdef bint poll_as_cpu(sock *sk) noexcept
cdef int check_batch(Py_ssize_t n, str caller, int flags) except -1
cdef int get_records(object packets, Py_buffer *view, bint writable, str caller) except -1
cdef list recv_list(sock *sk, sk_buff *skb, Py_ssize_t most, Py_ssize_t bufsize, peer_cache *peers)
cdef Py_ssize_t recv_packets(sock *sk, sk_buff *skb, Py_buffer *data, Py_buffer *records) noexcept
cdef Py_ssize_t send_list(sock *sk, object messages, int flags, peer_cache *peers) except -1
cdef Py_ssize_t send_packets(sock *sk, object buffer, object packets, object n, int flags) except -1
