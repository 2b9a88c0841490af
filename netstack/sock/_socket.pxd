"""The class Socket, for modules that work on its ``sock``; see ``_socket.pyx``."""

from netstack._abi cimport u16, u32, u64
from netstack._net cimport Net
from netstack._skb cimport sk_buff
from netstack.sock._address cimport peer_cache
from netstack.sock._sock cimport sock

cdef class Socket:
    cdef sock *sk                  # NULL once closed
    cdef sock *memory              # the same, for as long as the object lives
    cdef Net net_object
    cdef long long timeout_ns      # -1: block; 0: never block
    cdef peer_cache peers
    cdef object sent_to            # the tuple last given to sendto, and what it says
    cdef u32 sent_addr
    cdef u16 sent_port
    cdef int asked_proto
    cdef public list mc_list       # proto/ip_sockglue.py: what it has joined, newest first
    cdef object __weakref__

    cdef sock *open(self) except NULL
    cdef object peer_name(self, u64 peer)
    cdef sk_buff *first(self, int flags) except? NULL
    cdef tuple recv_items(self, tuple items, Py_buffer *views, Py_ssize_t ancbufsize, int flags)
    cdef Py_ssize_t read_into(self, object buffer, Py_ssize_t nbytes, int flags, str name, u64 *peer,
                              bint *came) except -1
