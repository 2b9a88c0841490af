"""route: find where a packet goes, and refuse addresses that can't be.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       the addresses of a packet        proto/_ip.pyx, proto/_arp.pyx
Out      an rtable, or a drop reason
Context  any; no GIL; never allocates, never raises
Kernel   ip_route_input_slow(), ip_route_output_key_hash_rcu(), net/ipv4/route.c;
         fib_validate_source(), net/ipv4/fib_frontend.c

The table is a hash over (prefix, length), asked from the longest length that exists to the shortest, so its cost does
not grow with the number of routes. It is never changed: route.py builds a new one and publishes it.
"""

cimport cython
from libc.errno cimport EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netstack._abi cimport (
    cpu_relax, fetch_add32, load_acquire32, load_acquire_ptr, store_release32, store_release_ptr,
    u16, u32, u64, unlikely,
)
from netstack._counters cimport (
    SKB_DROP_REASON_INVALID_PROTO, SKB_DROP_REASON_IP_INVALID_DEST, SKB_DROP_REASON_IP_INVALID_SOURCE,
    SKB_DROP_REASON_IP_LOCAL_SOURCE, SKB_DROP_REASON_IP_LOCALNET, SKB_DROP_REASON_IP_RPFILTER, SKB_NOT_DROPPED_YET,
)
from netstack._net cimport (
    IFF_LOOPBACK, MAX_ADDRS, Net, ip_forward, net, net_device, rp_filter, sysctl_get,
)
from netstack.proto._inet cimport (
    ETH_P_IP, RTCF_BROADCAST, RTCF_LOCAL, RTCF_MULTICAST, RTN_BLACKHOLE, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST,
    RTN_PROHIBIT, RTN_UNICAST, RTN_UNREACHABLE, RTN_UNSPEC, ipv4_is_lbcast, ipv4_is_loopback, ipv4_is_multicast,
    ipv4_is_zeronet,
)

from netstack.errors import InternalError

cdef enum:
    ALLHOSTS_GROUP = 0xE0000001     # 224.0.0.1: every host is a member (RFC 1112 section 4)


cdef inline u32 prefix_mask(u32 length) noexcept nogil:
    return <u32>(<u64>0xFFFFFFFF << (32 - length))

cdef inline u32 fib_hash(u32 prefix, u32 length) noexcept nogil:
    return (prefix * <u32>0x9E3779B1 ^ length * <u32>0x85EBCA6B) * <u32>0xC2B2AE35 >> 7

cdef inline const fib_entry *fib_find(const fib_table *table, u32 prefix, u32 length) noexcept nogil:
    """Find the route with exactly this prefix, or NULL."""
    cdef u32 place = fib_hash(prefix, length) & table.mask
    cdef const fib_entry *entry
    while True:
        entry = &table.hash[place]
        if entry.type == RTN_UNSPEC:
            return NULL
        if entry.prefix == prefix and entry.prefixlen == length:
            return entry
        place = (place + 1) & table.mask


cdef const fib_entry *fib_lookup(net *n, u32 addr) noexcept nogil:
    """Find the longest prefix that covers ``addr``, or NULL. [fib_lookup()]

    The entry lives until the next change of the table: use it as a CPU, under the GIL, or between ``fib_enter`` and
    ``fib_leave``.
    """
    cdef const fib_table *table = <fib_table *>load_acquire_ptr(<void **>&(<fib *>n.fib).table)
    cdef const fib_entry *entry
    cdef u64 lengths = table.lengths
    cdef int length = 32
    while lengths:
        if lengths >> length & 1:
            entry = fib_find(table, addr & prefix_mask(length), length)
            if entry != NULL:
                return entry
            lengths &= ~(<u64>1 << length)
        length -= 1
    return NULL


cdef bint inet_addr_is_local(net *n, u32 addr) noexcept nogil:
    """Is it an address of ours? [inet_lookup_ifaddr_rcu()]"""
    cdef const fib_table *table = <fib_table *>load_acquire_ptr(<void **>&(<fib *>n.fib).table)
    cdef const fib_entry *entry = fib_find(table, addr, 32)
    return entry != NULL and entry.type == RTN_LOCAL


cdef u32 inet_addr_type(net *n, u32 addr) noexcept nogil:
    """Give the RTN_* kind of an address, as seen from here. [inet_addr_type()]"""
    cdef const fib_entry *entry
    if ipv4_is_zeronet(addr) or ipv4_is_lbcast(addr):
        return RTN_BROADCAST
    if ipv4_is_multicast(addr):
        return RTN_MULTICAST
    entry = fib_lookup(n, addr)
    return entry.type if entry != NULL else RTN_UNICAST


cdef u32 inet_select_addr(net_device *dev, u32 dst) noexcept nogil:
    """Choose the source for ``dst``: our address in its subnet, else the device's first; 0 for none."""
    cdef u32 i
    for i in range(dev.nr_addrs):
        if (dev.addr[i].local ^ dst) & dev.addr[i].mask == 0:
            return dev.addr[i].local
    return dev.addr[0].local if dev.nr_addrs else 0


# ---- input

cdef u32 fib_validate_source(net *n, u32 saddr, net_device *dev) noexcept nogil:
    """Check that ``saddr`` may come in through ``dev``; a drop reason, or 0."""
    cdef u64 rpf = sysctl_get(n, rp_filter)
    cdef const fib_entry *entry
    if not rpf:
        return SKB_DROP_REASON_IP_LOCAL_SOURCE if inet_addr_is_local(n, saddr) else SKB_NOT_DROPPED_YET
    entry = fib_lookup(n, saddr)
    if entry == NULL:
        return SKB_DROP_REASON_IP_RPFILTER
    if entry.type == RTN_LOCAL:
        return SKB_DROP_REASON_IP_LOCAL_SOURCE
    if entry.type != RTN_UNICAST:
        return SKB_DROP_REASON_IP_INVALID_SOURCE
    if entry.dev != dev and rpf == 1:
        return SKB_DROP_REASON_IP_RPFILTER
    return SKB_NOT_DROPPED_YET


cdef inline void rt_set(rtable *rt, net_device *dev, u32 daddr, u32 saddr, u32 gateway, u32 flags,
                        u32 rtype) noexcept nogil:
    rt.dev = dev
    rt.daddr = daddr
    rt.saddr = saddr
    rt.gateway = gateway
    rt.flags = flags
    rt.mtu = dev.mtu
    rt.type = rtype
    rt.mtu_locked = False
    rt.error = 0


cdef u32 ip_route_input_mc(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol, rtable *rt) noexcept nogil:
    """Take in what goes to a group that we are a member of."""
    cdef u32 reason
    if daddr != ALLHOSTS_GROUP:
        return SKB_DROP_REASON_IP_INVALID_DEST
    if ipv4_is_multicast(saddr) or ipv4_is_lbcast(saddr):
        return SKB_DROP_REASON_IP_INVALID_SOURCE
    if protocol != ETH_P_IP:
        return SKB_DROP_REASON_INVALID_PROTO
    if ipv4_is_loopback(saddr):
        return SKB_DROP_REASON_IP_LOCALNET
    if not ipv4_is_zeronet(saddr):
        reason = fib_validate_source(n, saddr, dev)
        if reason:
            return reason
    rt_set(rt, dev, daddr, daddr, daddr, RTCF_MULTICAST | RTCF_LOCAL, RTN_MULTICAST)
    return SKB_NOT_DROPPED_YET


cdef u32 brd_input(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol, rtable *rt) noexcept nogil:
    cdef u32 reason
    if protocol != ETH_P_IP:
        return SKB_DROP_REASON_INVALID_PROTO
    if not ipv4_is_zeronet(saddr):
        reason = fib_validate_source(n, saddr, dev)
        if reason:
            return reason
    rt_set(rt, dev, daddr, daddr, daddr, RTCF_BROADCAST | RTCF_LOCAL, RTN_BROADCAST)
    return SKB_NOT_DROPPED_YET


cdef u32 ip_route_input_slow(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol,
                             const fib_entry *entry, rtable *rt) noexcept nogil:
    """Decide by the table, once the martians are out."""
    cdef u32 reason
    cdef bint forward = sysctl_get(n, ip_forward) != 0
    if entry != NULL and entry.type == RTN_BROADCAST:
        return brd_input(n, daddr, saddr, dev, protocol, rt)
    if entry != NULL and entry.type == RTN_LOCAL:
        reason = fib_validate_source(n, saddr, dev)
        if reason == SKB_NOT_DROPPED_YET:
            rt_set(rt, dev, daddr, daddr, daddr, RTCF_LOCAL, RTN_LOCAL)
        return reason
    rt_set(rt, dev, daddr, 0, daddr, 0, RTN_UNREACHABLE)
    if not forward:
        rt.error = EHOSTUNREACH
    elif entry == NULL:
        rt.error = ENETUNREACH
    elif entry.type != RTN_UNICAST:
        rt.error = route_error(entry.type)
    else:
        reason = fib_validate_source(n, saddr, dev)
        if reason:
            return reason
        rt_set(rt, entry.dev, daddr, entry.prefsrc, entry.gateway if entry.gateway else daddr, 0, RTN_UNICAST)
    return SKB_NOT_DROPPED_YET


cdef u32 ip_route_input(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol, rtable *rt) noexcept nogil:
    """Find what to do with a packet that came in through ``dev``; a drop reason, or 0 and ``rt`` filled.

    ``rt.type`` is RTN_UNREACHABLE, with ``rt.error``, for what is neither for us nor to be forwarded. Changes and
    counts nothing. [ip_route_input_noref()]
    """
    if ipv4_is_multicast(daddr):
        return ip_route_input_mc(n, daddr, saddr, dev, protocol, rt)
    if ipv4_is_multicast(saddr) or ipv4_is_lbcast(saddr):
        return SKB_DROP_REASON_IP_INVALID_SOURCE
    if ipv4_is_lbcast(daddr) or (saddr == 0 and daddr == 0):
        return brd_input(n, daddr, saddr, dev, protocol, rt)
    if ipv4_is_zeronet(saddr):
        return SKB_DROP_REASON_IP_INVALID_SOURCE
    if ipv4_is_zeronet(daddr):
        return SKB_DROP_REASON_IP_INVALID_DEST
    if ipv4_is_loopback(daddr) or ipv4_is_loopback(saddr):
        return SKB_DROP_REASON_IP_LOCALNET
    return ip_route_input_slow(n, daddr, saddr, dev, protocol, fib_lookup(n, daddr), rt)


cdef bint ip_route_learn_hint(net *n, fib_hint *hint, u32 daddr, u32 saddr, net_device *dev) noexcept nogil:
    """Look a packet up; True, and remembered, when it is for an address of ours."""
    cdef u32 generation = load_acquire32(&(<fib *>n.fib).generation)
    cdef u32 rpf = <u32>sysctl_get(n, rp_filter)
    cdef rtable rt
    if ip_route_input(n, daddr, saddr, dev, ETH_P_IP, &rt) or rt.type != RTN_LOCAL:
        return False
    hint.dev = dev
    hint.saddr = saddr
    hint.daddr = daddr
    hint.generation = generation
    hint.rp_filter = rpf
    return True


# ---- output

cdef int route_error(u32 rtype) noexcept nogil:
    """Give the errno of a route that refuses. [fib_props]"""
    return EINVAL if rtype == RTN_BLACKHOLE else EACCES if rtype == RTN_PROHIBIT else EHOSTUNREACH


cdef int mkroute_output(net *n, u32 daddr, u32 saddr, const fib_entry *entry, rtable *rt) noexcept nogil:
    cdef fib *table = <fib *>n.fib
    cdef net_device *dev = entry.dev
    cdef u32 flags = 0
    cdef u32 rtype = entry.type
    if entry.type == RTN_LOCAL:
        if table.lo == NULL:
            return -ENETUNREACH
        rt_set(rt, table.lo, daddr, saddr if saddr else daddr, daddr, RTCF_LOCAL, RTN_LOCAL)
        return 0
    if ipv4_is_loopback(saddr) and not dev.flags & IFF_LOOPBACK:
        return -EINVAL
    if ipv4_is_lbcast(daddr):
        rtype = RTN_BROADCAST
    elif ipv4_is_multicast(daddr):
        rtype = RTN_MULTICAST
    if rtype == RTN_BROADCAST:
        flags = RTCF_BROADCAST | RTCF_LOCAL
    elif rtype == RTN_MULTICAST:
        flags = RTCF_MULTICAST | (RTCF_LOCAL if daddr == ALLHOSTS_GROUP else 0)
    elif rtype != RTN_UNICAST:
        return -route_error(rtype)
    if saddr == 0:
        saddr = entry.prefsrc if entry.prefsrc else inet_select_addr(dev, entry.gateway if entry.gateway else daddr)
    rt_set(rt, dev, daddr, saddr, entry.gateway if entry.gateway and rtype == RTN_UNICAST else daddr, flags, rtype)
    return 0


cdef int route_output(net *n, u32 daddr, u32 saddr, rtable *rt) noexcept nogil:
    cdef const fib_entry *entry
    if saddr:
        if ipv4_is_multicast(saddr) or ipv4_is_lbcast(saddr) or ipv4_is_zeronet(saddr):
            return -EINVAL
        if inet_addr_type(n, saddr) != RTN_LOCAL:
            return -EINVAL
    if daddr == 0:
        daddr = saddr if saddr else 0x7F000001
    entry = fib_lookup(n, daddr)
    if saddr and (ipv4_is_multicast(daddr) or ipv4_is_lbcast(daddr)):
        # The source address says which device: no route is needed.
        entry = fib_lookup(n, saddr)
        if entry == NULL or entry.dev == NULL:
            return -ENETUNREACH
        rt_set(rt, entry.dev, daddr, saddr, daddr, RTCF_BROADCAST | RTCF_LOCAL, RTN_BROADCAST)
        if ipv4_is_multicast(daddr):
            rt.flags = RTCF_MULTICAST | (RTCF_LOCAL if daddr == ALLHOSTS_GROUP else 0)
            rt.type = RTN_MULTICAST
        return 0
    if entry == NULL:
        return -ENETUNREACH
    if ipv4_is_zeronet(daddr):
        return -EINVAL
    return mkroute_output(n, daddr, saddr, entry, rt)


cdef int ip_route_output(net *n, u32 daddr, u32 saddr, rtable *rt) noexcept nogil:
    """Find the way to ``daddr``, from ``saddr`` or (0) from the address that fits. 0 or a negative errno.

    Any thread. [ip_route_output_key_hash_rcu()]
    """
    cdef fib *table = <fib *>n.fib
    cdef int err
    fetch_add32(&table.readers, 1)
    err = route_output(n, daddr, saddr, rt)
    fetch_add32(&table.readers, <u32>-1)
    if unlikely(load_acquire32(&table.nr_pmtu) != 0) and err == 0 and rt.type == RTN_UNICAST:
        rt_use_pmtu(n, table, rt)
    return err


# ---- set-up

cdef fib_table *fib_table_create(u32 count) noexcept:
    """Make an empty table with room for ``count`` routes at half load, or NULL."""
    cdef u32 places = 8
    cdef fib_table *table
    while places < 2 * count:
        places *= 2
    table = <fib_table *>calloc(1, sizeof(fib_table) + places * sizeof(fib_entry))
    if table != NULL:
        table.mask = places - 1
    return table


cdef void fib_insert(fib_table *table, const fib_entry *entry) noexcept:
    """Put a route in, unless there is one with the same prefix: the first wins."""
    cdef u32 place = fib_hash(entry.prefix, entry.prefixlen) & table.mask
    if fib_find(table, entry.prefix, entry.prefixlen) != NULL:
        return
    while table.hash[place].type != RTN_UNSPEC:
        place = (place + 1) & table.mask
    memcpy(&table.hash[place], entry, sizeof(fib_entry))
    table.lengths |= <u64>1 << entry.prefixlen
    table.count += 1


@cython.final
@cython.no_gc_clear
cdef class Fib:
    """The routing table of a host as the data path reads it. Owns ``net.fib``; keep it as long as packets move."""
    cdef net *n
    cdef Net net_object
    cdef fib table

    def __cinit__(self, Net n not None):
        self.net_object = n
        self.n = n.ptr
        if self.n.fib != NULL:
            raise InternalError("the host has a routing table already")
        self.table.table = fib_table_create(0)
        if self.table.table == NULL:
            raise MemoryError
        self.n.fib = &self.table

    def __dealloc__(self):
        if self.n != NULL and self.n.fib == &self.table:
            self.n.fib = NULL
        free(self.table.table)

    cdef net_device *device(self, u32 ifindex) except NULL:
        if not 0 < ifindex <= self.n.nr_devices or self.n.devices[ifindex - 1] == NULL:
            raise InternalError(f"no device has index {ifindex}")
        return self.n.devices[ifindex - 1]

    cdef net_device *loopback(self) noexcept:
        cdef u32 i
        for i in range(self.n.nr_devices):
            if self.n.devices[i] != NULL and self.n.devices[i].flags & IFF_LOOPBACK:
                return self.n.devices[i]
        return NULL

    def publish(self, routes):
        """Replace the table by ``routes``: (prefix, prefixlen, RTN_* type, ifindex, gateway, prefsrc) each.

        Of two with one prefix the first counts. Returns when nobody reads the old table any more.
        """
        cdef fib_table *new
        cdef fib_table *old = self.table.table
        cdef fib_entry entry
        cdef list rows = list(routes)
        new = fib_table_create(<u32>len(rows))
        if new == NULL:
            raise MemoryError
        memset(&entry, 0, sizeof(entry))
        try:
            for prefix, prefixlen, rtype, ifindex, gateway, prefsrc in rows:
                entry.prefix, entry.prefixlen, entry.type = prefix, prefixlen, rtype
                entry.gateway, entry.prefsrc = gateway, prefsrc
                entry.dev = self.device(ifindex)
                fib_insert(new, &entry)
        except BaseException:
            free(new)
            raise
        self.table.lo = self.loopback()
        store_release_ptr(<void **>&self.table.table, new)
        store_release32(&self.table.generation, self.table.generation + 1)
        with nogil:
            if self.n.synchronize != NULL:
                self.n.synchronize(self.n)
            while load_acquire32(&self.table.readers):
                cpu_relax()
        free(old)

    def set_addresses(self, u32 ifindex, addresses):
        """Give a device its addresses: (local, mask) each."""
        cdef net_device *dev = self.device(ifindex)
        cdef u32 count = 0
        if len(addresses) > MAX_ADDRS:
            raise ValueError(f"{len(addresses)} addresses: a device has room for {MAX_ADDRS}")
        for local, mask in addresses:
            dev.addr[count].local, dev.addr[count].mask = local, mask
            count += 1
        dev.nr_addrs = count

    def route_output(self, u32 daddr, u32 saddr=0):
        """Look a destination up as a sender does: (errno, daddr, saddr, gateway, flags, mtu, type, ifindex)."""
        cdef rtable rt
        cdef int err = ip_route_output(self.n, daddr, saddr, &rt)
        if err:
            return -err, daddr, saddr, 0, 0, 0, RTN_UNREACHABLE, 0
        return 0, rt.daddr, rt.saddr, rt.gateway, rt.flags, rt.mtu, rt.type, rt.dev.ifindex

    def route_input(self, u32 daddr, u32 saddr, u32 ifindex, u16 protocol=ETH_P_IP):
        """Look a received packet up: (drop reason, errno, saddr, gateway, flags, mtu, type, ifindex out)."""
        cdef rtable rt
        cdef u32 reason
        fetch_add32(&self.table.readers, 1)
        reason = ip_route_input(self.n, daddr, saddr, self.device(ifindex), protocol, &rt)
        fetch_add32(&self.table.readers, <u32>-1)
        if reason:
            return reason, 0, 0, 0, 0, 0, RTN_UNREACHABLE, 0
        return 0, rt.error, rt.saddr, rt.gateway, rt.flags, rt.mtu, rt.type, rt.dev.ifindex

    def address_type(self, u32 address):
        """Give the RTN_* kind of an address, as seen from here."""
        cdef u32 rtype
        fetch_add32(&self.table.readers, 1)
        rtype = inet_addr_type(self.n, address)
        fetch_add32(&self.table.readers, <u32>-1)
        return rtype

    def select_address(self, u32 ifindex, u32 dst):
        """Choose one of the device's own addresses to speak to ``dst`` with; 0 for none."""
        return inet_select_addr(self.device(ifindex), dst)
