"""Socket addresses between Python and C; see ``_address.pyx``."""

from cpython.object cimport PyObject

from netstack._abi cimport u16, u32, u64

cdef enum:
    PEERS = 8                      # addresses whose tuples are kept

cdef struct peer_cache:
    u64 key[PEERS]                 # address << 16 | port
    PyObject *peer[PEERS]          # the (host, port) tuple of each key, or NULL

cdef int parse_sockaddr(object address, str caller, u32 *addr, u16 *port) except -1
cdef int parse_host(object host, u32 *addr) except -1
cdef str format_ipv4(u32 addr)
cdef tuple make_sockaddr(u32 addr, u16 port)
cdef object peer_miss(peer_cache *peers, u32 at, u64 key)
cdef void peers_clear(peer_cache *peers) noexcept


cdef inline object peer_of(peer_cache *peers, u64 key):
    """Give the tuple of a peer (address << 16 | port), the one of last time if it is still kept."""
    cdef u32 at = <u32>(key * <u64>0x9E3779B97F4A7C15 >> 61)
    if peers.peer[at] != NULL and peers.key[at] == key:
        return <object>peers.peer[at]
    return peer_miss(peers, at, key)

cdef inline int peer_parse(peer_cache *peers, object address, str caller, u32 *addr, u16 *port) except -1:
    """Take a (host, port) pair apart, at once if it is a tuple that is kept."""
    cdef int i
    for i in range(PEERS):
        if peers.peer[i] == <PyObject *>address:
            addr[0] = <u32>(peers.key[i] >> 16)
            port[0] = <u16>peers.key[i]
            return 0
    return parse_sockaddr(address, caller, addr, port)
