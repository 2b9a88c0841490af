"""Socket addresses between Python and C; see ``_address.pyx``."""

from netstack._abi cimport u16, u32

cdef int parse_sockaddr(object address, str caller, u32 *addr, u16 *port) except -1
cdef int parse_host(object host, u32 *addr) except -1
cdef str format_ipv4(u32 addr)
cdef tuple make_sockaddr(u32 addr, u16 port)
