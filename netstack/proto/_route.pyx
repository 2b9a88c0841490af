"""route: find where a packet goes, and refuse addresses that can't be.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       the addresses of a packet        proto/_ip.pyx, proto/_arp.pyx
Out      an rtable, or a drop reason
Context  any; no GIL; never allocates, never raises
Kernel   ip_route_input_slow(), ip_route_output_key_hash_rcu(), net/ipv4/route.c;
         fib_validate_source(), net/ipv4/fib_frontend.c

The table (_fib_table.pyx) is asked from the longest prefix length that exists to the shortest, so a look-up costs the
same however many routes there are. What a CPU has found for a pair of addresses it remembers, until anything changes.
"""

from libc.errno cimport EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH, ENODEV
from libc.string cimport memcpy

from netstack._abi cimport (
    fetch_add32, get_be32, likely, load_acquire32, load_acquire64, load_acquire_ptr, load_relaxed64, u8, u16, u32, u64,
    unlikely,
)
from netstack._counters cimport (
    SKB_DROP_REASON_INVALID_PROTO, SKB_DROP_REASON_IP_INVALID_DEST, SKB_DROP_REASON_IP_INVALID_SOURCE,
    SKB_DROP_REASON_IP_LOCAL_SOURCE, SKB_DROP_REASON_IP_LOCALNET, SKB_DROP_REASON_IP_RPFILTER, SKB_NOT_DROPPED_YET,
)
from netstack._net cimport (
    CNF_ACCEPT_LOCAL, CNF_RP_FILTER, CNF_SEND_REDIRECTS, CNF_SHARED_MEDIA, IFF_LOOPBACK, IFF_UP, in_dev_forward,
    in_dev_maxconf, in_dev_orconf, ip_forward_use_pmtu, net, net_device, net_now, sysctl_get,
)
from netstack.proto._fib_table cimport fib_entry, fib_find, fib_table, prefix_mask
from netstack.proto._inet cimport (
    ETH_P_IP, RTCF_BROADCAST, RTCF_LOCAL, RTCF_MULTICAST, RTN_BLACKHOLE, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST,
    RTN_PROHIBIT, RTN_UNICAST, RTN_UNREACHABLE, ipv4_is_lbcast, ipv4_is_loopback, ipv4_is_multicast, ipv4_is_zeronet,
)
from netstack.proto._mc cimport ip_check_mc


cdef const fib_entry *fib_lookup(net *n, u32 addr) noexcept nogil:
    """Find the longest prefix that covers ``addr``, or NULL. [fib_lookup()]

    The entry lives until the next change of the table: use it as a CPU, under the GIL, or between ``fib_enter`` and
    ``fib_leave``.
    """
    cdef fib_table *table = <fib_table *>load_acquire_ptr(<void **>&(<fib *>n.fib).table)
    cdef const fib_entry *entry
    cdef u64 lengths = load_acquire64(&table.lengths)
    cdef int length = 32
    while lengths:
        if lengths >> length & 1:
            entry = fib_find(table, addr & prefix_mask(length), length)
            if entry != NULL:
                return entry
            lengths &= ~(<u64>1 << length)
        length -= 1
    return NULL


cdef const fib_entry *fib_lookup_oif(net *n, u32 addr, u32 oif) noexcept nogil:
    """Find the longest prefix that covers ``addr`` with a route through a device; NULL also where one refuses before.

    Lives as what fib_lookup() gives. [fib_table_lookup() with flowi4_oif]
    """
    cdef fib_table *table = <fib_table *>load_acquire_ptr(<void **>&(<fib *>n.fib).table)
    cdef const fib_entry *entry
    cdef int length
    for length in range(32, -1, -1):
        entry = fib_find(table, addr & prefix_mask(length), length)
        while entry != NULL:
            if entry.type in (RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT):
                return NULL
            if entry.dev.ifindex == oif:
                return entry
            entry = entry.more
    return NULL


cdef bint inet_addr_is_local(net *n, u32 addr) noexcept nogil:
    """Is it an address of ours? [inet_lookup_ifaddr_rcu()]"""
    cdef fib_table *table = <fib_table *>load_acquire_ptr(<void **>&(<fib *>n.fib).table)
    cdef const fib_entry *entry = fib_find(table, addr, 32)
    return entry != NULL and entry.type == RTN_LOCAL


cdef u32 local_iif(net *n, u32 daddr, u32 ifindex) noexcept nogil:
    """Give the device that has the address ``daddr``; ``ifindex``, which the packet came through, if none has."""
    cdef fib_table *table = <fib_table *>load_acquire_ptr(<void **>&(<fib *>n.fib).table)
    cdef const fib_entry *entry = fib_find(table, daddr, 32)
    return entry.dev.ifindex if entry != NULL and entry.type == RTN_LOCAL else ifindex


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


cdef u32 inet_select_addr_link(net *n, net_device *dev) noexcept nogil:
    """Choose a source: the device's first address, else one of another device; 0 for none. [inet_select_addr()]"""
    cdef u32 i
    cdef net_device *other
    if dev.nr_addrs and not dev.flags & IFF_LOOPBACK:
        return inet_select_addr(dev, 0)
    for i in range(n.nr_devices):
        other = n.devices[i]
        if other != NULL and other.nr_addrs and not other.flags & IFF_LOOPBACK:
            return inet_select_addr(other, 0)
    return 0


cdef net_device *dev_get_by_index(net *n, u32 ifindex) noexcept nogil:
    return n.devices[ifindex - 1] if 0 < ifindex <= n.nr_devices else NULL


# ---- input

cdef bint inet_addr_onlink(net_device *dev, u32 a, u32 b) noexcept nogil:
    """Are both in one subnet of the device? ``b`` 0: any. [inet_addr_onlink()]"""
    cdef u32 i
    for i in range(dev.nr_addrs):
        if (dev.addr[i].local ^ a) & dev.addr[i].mask == 0:
            if b == 0 or (dev.addr[i].local ^ b) & dev.addr[i].mask == 0:
                return True
    return False


cdef u32 fib_validate_source(net *n, u32 saddr, net_device *dev, const net_device *out, bint *on_link) noexcept nogil:
    """Check that ``saddr`` may come in through ``dev`` and go on through ``out`` (NULL: it is for us).

    A drop reason, or 0; ``on_link`` says then that the sender is no farther than the next hop.
    """
    cdef u32 rpf = in_dev_maxconf(dev, CNF_RP_FILTER)
    cdef u32 last_resort = SKB_DROP_REASON_IP_RPFILTER if rpf else SKB_NOT_DROPPED_YET
    cdef const fib_entry *entry
    on_link[0] = False
    if not rpf and (dev != out or not in_dev_orconf(dev, CNF_SEND_REDIRECTS)):
        if in_dev_orconf(dev, CNF_ACCEPT_LOCAL) or not inet_addr_is_local(n, saddr):
            return SKB_NOT_DROPPED_YET
        return SKB_DROP_REASON_IP_LOCAL_SOURCE
    entry = fib_lookup(n, saddr)
    if entry == NULL or entry.type in (RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT):
        return last_resort
    if entry.type == RTN_LOCAL and not in_dev_orconf(dev, CNF_ACCEPT_LOCAL):
        return SKB_DROP_REASON_IP_LOCAL_SOURCE
    if entry.type != RTN_UNICAST and entry.type != RTN_LOCAL:
        return SKB_DROP_REASON_IP_INVALID_SOURCE
    if entry.dev == dev:
        on_link[0] = entry.gateway == 0
        return SKB_NOT_DROPPED_YET
    if dev.nr_addrs == 0:
        return last_resort
    return SKB_DROP_REASON_IP_RPFILTER if rpf == 1 else SKB_NOT_DROPPED_YET


cdef void rt_set(rtable *rt, net_device *dev, u32 daddr, u32 saddr, u32 gateway, u32 flags,
                 u32 rtype) noexcept nogil:
    rt.dev = dev
    rt.daddr = daddr
    rt.saddr = saddr
    rt.gateway = gateway
    rt.flags = flags
    rt.mtu = dev.mtu
    rt.type = rtype
    rt.mtu_locked = False
    rt.redirect = False
    rt.learned = False
    rt.error = 0


cdef void rt_use_exceptions(net *n, rtable *rt, bint pmtu) noexcept nogil:
    """Take what was learned for the destination, as long as it is fresh: router and MTU. [find_exception()]

    Who forwards heeds the MTU only if it is locked, or ``pmtu`` says so. [ip_dst_mtu_maybe_forward()]
    """
    cdef fib *table = <fib *>n.fib
    cdef fib_nh_exception *path = pmtu_of(table, rt.daddr)
    cdef fib_redirect *said = redirect_of(table, rt.daddr)
    cdef u64 key = load_relaxed64(&path.key)
    cdef u32 seq = load_acquire32(&said.seq)
    cdef u32 new_gw = said.new_gw
    if <u32>(key >> 32) == rt.daddr and net_now(n) < load_relaxed64(&path.expires):
        rt.learned = True
        rt.mtu_locked = key >> 31 & 1
        if pmtu or rt.mtu_locked:
            rt.mtu = min(rt.mtu, <u32>key & 0x7FFFFFFF)
    if (new_gw and not seq & 1 and said.daddr == rt.daddr and said.old_gw == rt.gateway
            and said.ifindex == rt.dev.ifindex and net_now(n) < said.expires and load_acquire32(&said.seq) == seq):
        rt.learned = True
        rt.gateway = new_gw


cdef void rt_cache_flush(net *n) noexcept nogil:
    """Let nobody use what he remembers of routes. [rt_cache_flush()]"""
    fetch_add32(&(<fib *>n.fib).generation, 1)


cdef u32 brd_input(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol, rtable *rt) noexcept nogil:
    cdef u32 reason
    cdef bint on_link
    if protocol != ETH_P_IP:
        return SKB_DROP_REASON_INVALID_PROTO
    if not ipv4_is_zeronet(saddr):
        reason = fib_validate_source(n, saddr, dev, NULL, &on_link)
        if reason:
            return reason
    rt_set(rt, dev, daddr, daddr, daddr, RTCF_BROADCAST | RTCF_LOCAL, RTN_BROADCAST)
    return SKB_NOT_DROPPED_YET


cdef u32 ip_mkroute_input(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol, const fib_entry *entry,
                          rtable *rt) noexcept nogil:
    """Let a packet go on through the device of a route. [__mkroute_input()]"""
    cdef bint on_link
    cdef u32 reason = fib_validate_source(n, saddr, dev, entry.dev, &on_link)
    if reason:
        return reason
    rt_set(rt, entry.dev, daddr, entry.prefsrc, entry.gateway if entry.gateway else daddr, 0, RTN_UNICAST)
    if entry.dev == dev and on_link and protocol == ETH_P_IP and in_dev_orconf(dev, CNF_SEND_REDIRECTS):
        rt.redirect = (in_dev_orconf(dev, CNF_SHARED_MEDIA) != 0
                       or inet_addr_onlink(dev, saddr, entry.gateway))
    if unlikely(load_acquire32(&(<fib *>n.fib).nr_exceptions) != 0):
        rt_use_exceptions(n, rt, sysctl_get(n, ip_forward_use_pmtu) != 0)
    return SKB_NOT_DROPPED_YET


cdef u32 ip_route_input_slow(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol,
                             const fib_entry *entry, rtable *rt) noexcept nogil:
    """Decide by the table, once the martians are out."""
    cdef u32 reason
    cdef bint on_link
    if entry != NULL and entry.type == RTN_BROADCAST:
        return brd_input(n, daddr, saddr, dev, protocol, rt)
    if entry != NULL and entry.type == RTN_LOCAL:
        reason = fib_validate_source(n, saddr, dev, NULL, &on_link)
        if reason == SKB_NOT_DROPPED_YET:
            rt_set(rt, dev, daddr, daddr, daddr, RTCF_LOCAL, RTN_LOCAL)
        return reason
    if in_dev_forward(dev) and entry != NULL and entry.type == RTN_UNICAST:
        return ip_mkroute_input(n, daddr, saddr, dev, protocol, entry, rt)
    rt_set(rt, dev, daddr, 0, daddr, 0, RTN_UNREACHABLE)
    if not in_dev_forward(dev):
        rt.error = EHOSTUNREACH
    else:
        rt.error = ENETUNREACH if entry == NULL else route_error(entry.type)
    return SKB_NOT_DROPPED_YET


cdef u32 ip_route_input(net *n, u32 daddr, u32 saddr, net_device *dev, u16 protocol, rtable *rt) noexcept nogil:
    """Find what to do with a packet that came in through ``dev``; a drop reason, or 0 and ``rt`` filled.

    ``rt.type`` is RTN_UNREACHABLE, with ``rt.error``, for what is neither for us nor to be forwarded. Changes and
    counts nothing. [ip_route_input_noref()]
    """
    if ipv4_is_multicast(daddr):
        return SKB_DROP_REASON_IP_INVALID_DEST     # see _route_mc.pyx
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


cdef bint ip_route_learn_hint(net *n, fib_hint *hint, const u8 *iph, net_device *dev) noexcept nogil:
    """Look a packet up; True, and remembered, when it is for an address of ours."""
    cdef u32 generation = load_acquire32(&(<fib *>n.fib).generation)
    cdef rtable rt
    if ip_route_input(n, get_be32(iph + 16), get_be32(iph + 12), dev, ETH_P_IP, &rt) or rt.type != RTN_LOCAL:
        return False
    hint.dev = dev
    memcpy(&hint.addresses, iph + 12, 8)
    hint.generation = generation
    return True


cdef bint ip_route_forward(net *n, u32 cpu, u32 daddr, u32 saddr, net_device *dev, rtable *rt) noexcept nogil:
    cdef fib *table = <fib *>n.fib
    cdef u32 generation = load_acquire32(&table.generation)
    cdef fib_forward *hint = &table.forward[cpu][(saddr ^ saddr >> 8 ^ daddr) % FIB_HINTS]
    if likely(hint.saddr == saddr and hint.daddr == daddr and hint.dev == dev and hint.generation == generation
              and hint.out != NULL):
        rt_set(rt, hint.out, daddr, 0, hint.gateway, 0, RTN_UNICAST)
        rt.mtu = hint.mtu
        return True
    if ip_route_input(n, daddr, saddr, dev, ETH_P_IP, rt) or rt.type != RTN_UNICAST or rt.redirect:
        return False
    if not rt.learned:
        hint.dev, hint.out, hint.saddr, hint.daddr = dev, rt.dev, saddr, daddr
        hint.gateway, hint.mtu, hint.generation = rt.gateway, rt.mtu, generation
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
        flags = RTCF_MULTICAST | (RTCF_LOCAL if ip_check_mc(n, dev.ifindex, daddr, saddr, 0) else 0)
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
            return -ENETUNREACH
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
            rt.flags = RTCF_MULTICAST | (RTCF_LOCAL if ip_check_mc(n, entry.dev.ifindex, daddr, saddr, 0) else 0)
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
    if unlikely(load_acquire32(&table.nr_exceptions) != 0) and err == 0 and rt.type == RTN_UNICAST:
        rt_use_exceptions(n, rt, True)
    return err


cdef int route_output_dev(net *n, u32 daddr, u32 saddr, net_device *dev, rtable *rt) noexcept nogil:
    cdef const fib_entry *entry
    if saddr:
        if ipv4_is_multicast(saddr) or ipv4_is_lbcast(saddr) or ipv4_is_zeronet(saddr):
            return -EINVAL
        if inet_addr_type(n, saddr) != RTN_LOCAL:
            return -ENETUNREACH
    if daddr == 0:
        return route_output(n, daddr, saddr if saddr else inet_select_addr(dev, 0), rt)
    entry = fib_lookup_oif(n, daddr, dev.ifindex)
    if ipv4_is_zeronet(daddr):
        return -EINVAL
    if entry != NULL:
        return mkroute_output(n, daddr, saddr, entry, rt)
    if ipv4_is_loopback(saddr) and not dev.flags & IFF_LOOPBACK:
        return -EINVAL
    rt_set(rt, dev, daddr, saddr if saddr else inet_select_addr_link(n, dev), daddr,
           RTCF_LOCAL if dev.flags & IFF_LOOPBACK else 0, RTN_LOCAL if dev.flags & IFF_LOOPBACK else RTN_UNICAST)
    return 0


cdef int ip_route_output_dev(net *n, u32 daddr, u32 saddr, u32 oif, rtable *rt) noexcept nogil:
    """Find the way to one host through a device that the sender names. 0 or a negative errno.

    Where no route leads through it the destination counts as on its link, as in Linux.
    """
    cdef fib *table = <fib *>n.fib
    cdef net_device *dev = dev_get_by_index(n, oif)
    cdef int err
    if dev == NULL:
        return -ENODEV
    if not load_acquire32(&dev.flags) & IFF_UP:
        return -ENETUNREACH
    fetch_add32(&table.readers, 1)
    err = route_output_dev(n, daddr, saddr, dev, rt)
    fetch_add32(&table.readers, <u32>-1)
    if unlikely(load_acquire32(&table.nr_exceptions) != 0) and err == 0 and rt.type == RTN_UNICAST:
        rt_use_exceptions(n, rt, True)
    return err
