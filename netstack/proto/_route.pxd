"""Routes: which device, next hop and source address; see ``_route.pyx``."""

from netstack._abi cimport u8, u16, u32, u64
from netstack._abi cimport load_acquire32, load_relaxed64, likely
from netstack._net cimport MAX_CPUS, net, net_device, net_now, rp_filter, sysctl_get


cdef struct rtable:                # what a lookup gives, by value: nothing to release
    net_device *dev
    u32 daddr
    u32 saddr                      # ours: the source to use, or the address that was reached
    u32 gateway                    # next hop: the router, or the destination itself
    u32 flags                      # RTCF_*
    u32 mtu
    u32 type                       # RTN_*
    bint mtu_locked                # the path's MTU is below net.ipv4.route.min_pmtu: fragment, and forget DF
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

cdef enum:
    FIB_HINTS = 512                # pairs of addresses that a CPU remembers

cdef struct fib_hint:              # packets from saddr to daddr through dev are for us
    net_device *dev
    u32 saddr
    u32 daddr
    u32 generation
    u32 rp_filter

cdef enum:
    PMTU_ROUTES = 1024             # destinations whose path has an MTU of its own

cdef struct fib_nh_exception:      # replaced as a whole, by whoever comes
    u64 key                        # destination << 32 | locked << 31 | MTU
    u64 expires                    # ns

cdef struct fib:
    fib_table *table               # replaced as a whole
    u32 generation                 # counts the replacements
    u32 readers                    # process contexts that are in a lookup; CPUs are waited for by n.synchronize
    net_device *lo                 # where packets to ourselves go
    u32 nr_pmtu                    # paths ever learned: 0, and nobody looks
    fib_nh_exception pmtu[PMTU_ROUTES]
    fib_hint hints[MAX_CPUS][FIB_HINTS]    # each CPU's own


cdef const fib_entry *fib_lookup(net *n, u32 addr) noexcept nogil
cdef bint inet_addr_is_local(net *n, u32 addr) noexcept nogil
cdef u32 inet_select_addr(net_device *dev, u32 dst) noexcept nogil
cdef u32 inet_addr_type(net *n, u32 addr) noexcept nogil
cdef u32 ip_route_input(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol, rtable *rt) noexcept nogil
cdef int ip_route_output(net *n, u32 daddr, u32 saddr, rtable *rt) noexcept nogil

cdef bint ip_route_learn_hint(net *n, fib_hint *hint, u32 daddr, u32 saddr, net_device *dev) noexcept nogil


cdef inline bint ip_route_use_hint(net *n, u32 cpu, u32 daddr, u32 saddr, net_device *dev) noexcept nogil:
    """Is a packet for an address of ours, from a source that may be? As that CPU. [ip_route_use_hint()]

    One that was let in lately needs no look-up, as long as the table and rp_filter stay what they were.
    """
    cdef fib *table = <fib *>n.fib
    cdef fib_hint *hint = &table.hints[cpu][(saddr ^ saddr >> 8 ^ daddr) % FIB_HINTS]
    if likely(hint.saddr == saddr and hint.daddr == daddr and hint.dev == dev
              and hint.generation == load_acquire32(&table.generation)
              and hint.rp_filter == <u32>sysctl_get(n, rp_filter)):
        return True
    return ip_route_learn_hint(n, hint, daddr, saddr, dev)


# ---- path MTU; learned in _icmp_err.pyx

cdef inline fib_nh_exception *pmtu_of(fib *table, u32 daddr) noexcept nogil:
    return &table.pmtu[(daddr * <u32>0x9E3779B1) >> 22]

cdef inline void rt_use_pmtu(net *n, fib *table, rtable *rt) noexcept nogil:
    """Take the MTU that was learned for the destination, as long as it is fresh. [find_exception()]"""
    cdef fib_nh_exception *path = pmtu_of(table, rt.daddr)
    cdef u64 key = load_relaxed64(&path.key)
    if <u32>(key >> 32) == rt.daddr and net_now(n) < load_relaxed64(&path.expires):
        rt.mtu = min(rt.mtu, <u32>key & 0x7FFFFFFF)
        rt.mtu_locked = key >> 31 & 1
