"""Routes: which device, next hop and source address; see ``_route.pyx``."""

from libc.string cimport memcpy

from netstack._abi cimport u8, u16, u32, u64
from netstack._abi cimport load_acquire32, load_relaxed64, likely, unlikely
from netstack._net cimport IFF_LOOPBACK, MAX_CPUS, net, net_device, net_now
from netstack._skb cimport sk_buff
from netstack.proto._fib_table cimport fib_entry, fib_table


cdef struct rtable:                # what a lookup gives, by value: nothing to release
    net_device *dev
    u32 daddr
    u32 saddr                      # ours: the source to use, or the address that was reached
    u32 gateway                    # next hop: the router, or the destination itself
    u32 flags                      # RTCF_*
    u32 mtu
    u32 type                       # RTN_*
    bint mtu_locked                # the path's MTU is below net.ipv4.route.min_pmtu: fragment, and forget DF
    bint redirect                  # the sender could have asked the next hop itself (input)
    bint learned                   # an exception of the route is in it, which ends by itself
    int error                      # errno of an unreachable destination (input), else 0

cdef enum:
    FIB_HINTS_SHIFT = 9
    FIB_HINTS = 1 << FIB_HINTS_SHIFT       # pairs of addresses that a CPU remembers

cdef struct fib_hint:              # packets between these two addresses, through dev, are for us
    net_device *dev
    u64 addresses                  # source and destination as in the header
    u32 generation

cdef struct fib_forward:           # packets from saddr to daddr through dev go on
    net_device *dev
    net_device *out
    u32 saddr
    u32 daddr
    u32 gateway
    u32 mtu
    u32 generation

cdef enum:
    PMTU_ROUTES = 1024             # destinations whose path has an MTU or a router of its own

cdef struct fib_nh_exception:      # replaced as a whole, by whoever comes
    u64 key                        # destination << 32 | locked << 31 | MTU
    u64 expires                    # ns

cdef struct fib_redirect:          # what a router said (ICMP redirect); one writer at a time
    u32 seq                        # odd while it is written
    u32 daddr
    u32 old_gw                     # of the route, which may have another by now
    u32 new_gw
    u32 ifindex
    u64 expires                    # ns

cdef struct fib:
    fib_table *table               # replaced as a whole
    u32 generation                 # counts the replacements
    u32 readers                    # process contexts that are in a lookup; CPUs are waited for by n.synchronize
    net_device *lo                 # where packets to ourselves go
    u32 nr_exceptions              # 1: something was learned, look for it
    fib_nh_exception pmtu[PMTU_ROUTES]
    fib_redirect redirect[PMTU_ROUTES]
    fib_forward forward[MAX_CPUS][FIB_HINTS]
    fib_hint hints[MAX_CPUS][FIB_HINTS]    # each CPU's own


cdef const fib_entry *fib_lookup(net *n, u32 addr) noexcept nogil
cdef bint inet_addr_is_local(net *n, u32 addr) noexcept nogil
cdef u32 inet_select_addr(net_device *dev, u32 dst) noexcept nogil
cdef u32 fib_validate_source(net *n, u32 saddr, net_device *dev, const net_device *out, bint *on_link) noexcept nogil
cdef void rt_set(rtable *rt, net_device *dev, u32 daddr, u32 saddr, u32 gateway, u32 flags, u32 rtype) noexcept nogil
cdef u32 inet_addr_type(net *n, u32 addr) noexcept nogil
cdef u32 ip_route_input(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol, rtable *rt) noexcept nogil
cdef int ip_route_output(net *n, u32 daddr, u32 saddr, rtable *rt) noexcept nogil
cdef int ip_route_output_dev(net *n, u32 daddr, u32 saddr, u32 oif, rtable *rt) noexcept nogil
cdef u32 local_iif(net *n, u32 daddr, u32 ifindex) noexcept nogil
cdef net_device *dev_get_by_index(net *n, u32 ifindex) noexcept nogil
cdef u32 inet_select_addr_link(net *n, net_device *dev) noexcept nogil

# Take a packet's way out from memory, or find it, as that CPU. False: it does not go on, or not plainly.
cdef bint ip_route_forward(net *n, u32 cpu, u32 daddr, u32 saddr, net_device *dev, rtable *rt) noexcept nogil
cdef void rt_cache_flush(net *n) noexcept nogil
cdef bint inet_addr_onlink(net_device *dev, u32 a, u32 b) noexcept nogil
cdef bint ip_route_learn_hint(net *n, fib_hint *hint, const u8 *iph, net_device *dev) noexcept nogil


cdef inline u32 inet_iif(net *n, const sk_buff *skb, u32 daddr) noexcept nogil:
    """The device that a packet came through: of what went round by lo, that of our address. 0: none. [inet_iif()]"""
    if unlikely(skb.dev == NULL):
        return 0
    if unlikely(skb.dev.flags & IFF_LOOPBACK):
        return local_iif(n, daddr, skb.dev.ifindex)
    return skb.dev.ifindex


cdef inline bint ip_route_use_hint(net *n, u32 cpu, const u8 *iph, net_device *dev) noexcept nogil:
    """Is a packet for an address of ours, from a source that may be? As that CPU. [ip_route_use_hint()]

    One that was let in lately needs no look-up, as long as routes and settings stay what they were.
    """
    cdef fib *table = <fib *>n.fib
    cdef u64 addresses
    cdef fib_hint *hint
    memcpy(&addresses, iph + 12, 8)
    hint = &table.hints[cpu][addresses * <u64>0x9E3779B97F4A7C15 >> 64 - FIB_HINTS_SHIFT]
    if likely(hint.addresses == addresses and hint.dev == dev and hint.generation == load_acquire32(&table.generation)):
        return True
    return ip_route_learn_hint(n, hint, iph, dev)


# ---- path MTU and router of one destination; learned in _fib_exception.pyx

cdef inline fib_nh_exception *pmtu_of(fib *table, u32 daddr) noexcept nogil:
    return &table.pmtu[(daddr * <u32>0x9E3779B1) >> 22]

cdef inline fib_redirect *redirect_of(fib *table, u32 daddr) noexcept nogil:
    return &table.redirect[(daddr * <u32>0x9E3779B1) >> 22]
