"""Routes: which device, next hop and source address; see ``_route.pyx``."""

from netstack._abi cimport u8, u16, u32, u64
from netstack._net cimport net, net_device


cdef struct rtable:                # what a lookup gives, by value: nothing to release
    net_device *dev
    u32 daddr
    u32 saddr                      # ours: the source to use, or the address that was reached
    u32 gateway                    # next hop: the router, or the destination itself
    u32 flags                      # RTCF_*
    u32 mtu
    u32 type                       # RTN_*
    int error                      # errno of an unreachable destination (input), else 0

cdef struct fib_entry:
    u32 prefix
    u32 gateway                    # 0: on the link
    u32 prefsrc
    u8 prefixlen
    u8 type                        # RTN_*; RTN_UNSPEC: a free place of the hash
    u16 pad
    net_device *dev

cdef struct fib_table:             # never changed once published
    u64 lengths                    # bit l: there are routes of prefix length l
    u32 mask                       # places of the hash less one
    u32 count
    fib_entry hash[1]

cdef struct fib:
    fib_table *table               # replaced as a whole
    u32 readers                    # process contexts that are in a lookup; CPUs are waited for by n.synchronize
    net_device *lo                 # where packets to ourselves go


cdef const fib_entry *fib_lookup(net *n, u32 addr) noexcept nogil
cdef bint inet_addr_is_local(net *n, u32 addr) noexcept nogil
cdef u32 inet_select_addr(net_device *dev, u32 dst) noexcept nogil
cdef u32 inet_addr_type(net *n, u32 addr) noexcept nogil
cdef u32 ip_route_input(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol, rtable *rt) noexcept nogil
cdef int ip_route_output(net *n, u32 daddr, u32 saddr, rtable *rt) noexcept nogil
