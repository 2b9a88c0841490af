"""The groups that devices are members of, as routing asks; see ``_mc.pyx``."""

from netstack._abi cimport u8, u32
from netstack._net cimport net


cdef enum:
    MC_HASH = 4096                 # buckets
    IPPROTO_IGMP = 2

cdef struct ip_sf:                 # a source that some socket names
    u32 addr
    u32 incl                       # sockets that want only it and others named
    u32 excl                       # sockets that want all but it and others named

cdef struct ip_mc_list:
    ip_mc_list *next               # same bucket
    u32 group
    u32 ifindex
    u32 excl                       # sockets that want all but some
    u32 count
    ip_sf sources[0]

cdef struct mc_table:              # net.mc
    u32 lock
    u32 count
    ip_mc_list *bucket[MC_HASH]

cdef inline u32 mc_hash(u32 group, u32 ifindex) noexcept nogil:
    return ((group ^ ifindex << 16) * <u32>0x9E3779B1) >> 20

# Is what goes from `src` to `group` through the device for us? [ip_check_mc_rcu()]
cdef bint ip_check_mc(net *n, u32 ifindex, u32 group, u32 src, u8 protocol) noexcept nogil
