"""The class Socket, for modules that work on its ``sock``; see ``_socket.pyx``."""

from cpython.object cimport PyObject

from netstack._abi cimport u16, u32, u64
from netstack._net cimport Net
from netstack._skb cimport sk_buff
from netstack.sock._sock cimport sock

cdef enum:
    PEERS = 8                      # addresses whose tuples are kept

cdef class Socket:
    cdef sock *sk                  # NULL once closed
    cdef sock *memory              # the same, for as long as the object lives
    cdef Net net_object
    cdef long long timeout_ns      # -1: block; 0: never block
    cdef u64 peer_keys[PEERS]      # address << 16 | port
    cdef PyObject *peers[PEERS]    # (host, port) of each key, or NULL
    cdef object sent_to            # the tuple last given to sendto, and what it says
    cdef u32 sent_addr
    cdef u16 sent_port
    cdef int asked_proto
    cdef object __weakref__

    cdef sock *open(self) except NULL
    cdef sk_buff *first(self, int flags) except? NULL
    cdef object peer_of(self, u32 addr, u16 port)
    cdef Py_ssize_t read_into(self, object buffer, Py_ssize_t nbytes, int flags, str name, u32 *addr,
                              u16 *port, bint *came) except -1
