"""What a socket wants of groups; see ``_mcast.pyx``."""

from netstack._abi cimport u32
from netstack.sock._sock cimport sock


cdef struct ip_mc_socklist:        # one membership; its sources follow it
    u32 group
    u32 ifindex
    u32 mode                       # MCAST_EXCLUDE, MCAST_INCLUDE
    u32 sl_count
    u32 sl_addr[0]

cdef struct ip_mc_memberships:     # sk.mc_list: replaced as a whole, under the lock of the table of sockets
    u32 count
    u32 bytes

# Does a filter of the socket let the datagram in? The lock of the table is held.
cdef bint mc_sf_allow(const sock *sk, u32 loc_addr, u32 rmt_addr, u32 dif) noexcept nogil
cdef int mc_publish(sock *sk, object rows) except -1
cdef int mcast_set(sock *sk, int name, const char *value, Py_ssize_t size) except -1
cdef object mcast_get(sock *sk, int name, object buffer, int size)
cdef bint is_mcast_option(int name) noexcept
cdef int mcast_drop(sock *sk) except -1


cdef inline bint ip_mc_sf_allow(const sock *sk, u32 loc_addr, u32 rmt_addr, u32 dif) noexcept nogil:
    """Does the socket want what came from ``rmt_addr`` to ``loc_addr`` through this device? [ip_mc_sf_allow()]"""
    return loc_addr >> 28 != 0xE or mc_sf_allow(sk, loc_addr, rmt_addr, dif)
