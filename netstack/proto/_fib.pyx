"""fib: the routing table of a host, as route.py changes it and Python asks it.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       routes and addresses             proto/route.py
Out      the table without locks          proto/_fib_table.pyx
Context  process, under the GIL
Kernel   inet_rtm_newroute(), net/ipv4/fib_frontend.c
"""

cimport cython
from libc.stdlib cimport malloc
from libc.string cimport memset

from netstack._abi cimport (
    cpu_relax, fetch_add32, load_acquire32, store_release_ptr, u16, u32, u64,
)
from netstack._net cimport IFF_LOOPBACK, MAX_ADDRS, Net, net, net_device
from netstack.proto._fib_exception cimport ip_rt_learn_redirect
from netstack.proto._fib_table cimport (
    fib_entry, fib_entry_free, fib_table, fib_table_create, fib_table_delete, fib_table_free, fib_table_grow,
    fib_table_insert, fib_table_is_full,
)
from netstack.proto._inet cimport ETH_P_IP, RTN_UNREACHABLE
from netstack.proto._route cimport (
    fib, fib_lookup, inet_addr_onlink, inet_addr_type, inet_select_addr, ip_route_input, ip_route_output,
    ip_route_output_dev, rt_cache_flush, rtable,
)

from netstack.errors import InternalError


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
        self.n.rt_cache_flush = rt_cache_flush

    def __dealloc__(self):
        if self.n != NULL and self.n.fib == &self.table:
            self.n.rt_cache_flush = NULL
            self.n.fib = NULL
        fib_table_free(self.table.table, True)

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

    # ---- changes

    cdef fib_entry *entry(self, row) except NULL:
        """Make an entry of (prefix, prefixlen, RTN_* type, ifindex, gateway, prefsrc)."""
        cdef fib_entry *entry
        prefix, prefixlen, rtype, ifindex, gateway, prefsrc = row
        cdef net_device *dev = self.device(ifindex)
        entry = <fib_entry *>malloc(sizeof(fib_entry))
        if entry == NULL:
            raise MemoryError
        memset(entry, 0, sizeof(fib_entry))
        entry.prefix, entry.prefixlen, entry.type = prefix, prefixlen, rtype
        entry.gateway, entry.prefsrc = gateway, prefsrc
        entry.dev = dev
        return entry

    cdef fib_entry *entries(self, list rows) except? NULL:
        """Make the entries of rows, one behind the other by ``next``, those to one prefix by ``more``."""
        cdef fib_entry *made = NULL
        cdef fib_entry *entry
        try:
            for row in reversed(rows):
                entry = self.entry(row)
                entry.next = made
                if made != NULL and made.prefix == entry.prefix and made.prefixlen == entry.prefixlen:
                    entry.more = made
                    entry.next = made.next
                made = entry
        except BaseException:
            free_list(made)
            raise
        return made

    cdef void wait(self) noexcept:
        """Return when nobody reads what was taken out before. [synchronize_rcu()]"""
        with nogil:
            if self.n.synchronize != NULL:
                self.n.synchronize(self.n)
            while load_acquire32(&self.table.readers):
                cpu_relax()

    def publish(self, routes):
        """Replace the table by ``routes``: (prefix, prefixlen, RTN_* type, ifindex, gateway, prefsrc) each.

        Those with one prefix stand together, the best first. Returns when nobody reads the old table any more.
        """
        cdef fib_table *new
        cdef fib_table *old = self.table.table
        cdef fib_entry *made
        cdef fib_entry *entry
        cdef list rows = list(routes)
        made = self.entries(rows)
        new = fib_table_create(<u32>len(rows))
        if new == NULL:
            free_list(made)
            raise MemoryError
        while made != NULL:
            entry = made
            made = entry.next
            fib_entry_free(fib_table_insert(new, entry))
        self.table.lo = self.loopback()
        store_release_ptr(<void **>&self.table.table, new)
        rt_cache_flush(self.n)
        self.wait()
        fib_table_free(old, True)

    def update(self, routes, gone=()):
        """Put each of ``routes`` in place of what has its prefix, and take out ``gone``: (prefix, prefixlen) each.

        Those with one prefix stand together, the best first. Costs what is changed, not what there is. Returns when
        nobody reads what was replaced any more.
        """
        cdef fib_table *old = self.table.table
        cdef fib_table *new = old
        cdef fib_entry *made
        cdef fib_entry *dead = NULL
        cdef fib_entry *entry
        cdef list rows = list(routes)
        made = self.entries(rows)
        if fib_table_is_full(old, <u32>len(rows)):
            new = fib_table_grow(old, <u32>len(rows))
            if new == NULL:
                free_list(made)
                raise MemoryError
        if new != old:
            store_release_ptr(<void **>&self.table.table, new)
        while made != NULL:
            entry = made
            made = entry.next
            dead = bury(dead, fib_table_insert(new, entry))
        for prefix, length in gone:
            dead = bury(dead, fib_table_delete(new, prefix, length))
        rt_cache_flush(self.n)
        if dead != NULL or new != old:
            self.wait()
            free_list(dead)
        if new != old:
            fib_table_free(old, False)

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

    # ---- questions

    def route_output(self, u32 daddr, u32 saddr=0, u32 oif=0):
        """Look a destination up as a sender does: (errno, daddr, saddr, gateway, flags, mtu, type, ifindex, learned).

        ``oif``: the device that it has to leave through; 0 for any.
        """
        cdef rtable rt
        cdef int err = ip_route_output_dev(self.n, daddr, saddr, oif, &rt) if oif else ip_route_output(
            self.n, daddr, saddr, &rt)
        if err:
            return -err, daddr, saddr, 0, 0, 0, RTN_UNREACHABLE, 0, False
        return 0, rt.daddr, rt.saddr, rt.gateway, rt.flags, rt.mtu, rt.type, rt.dev.ifindex, rt.learned

    def route_input(self, u32 daddr, u32 saddr, u32 ifindex, u16 protocol=ETH_P_IP):
        """Look a received packet up: (drop reason, errno, saddr, gateway, flags, mtu, type, ifindex out, redirect)."""
        cdef rtable rt
        cdef u32 reason
        fetch_add32(&self.table.readers, 1)
        reason = ip_route_input(self.n, daddr, saddr, self.device(ifindex), protocol, &rt)
        fetch_add32(&self.table.readers, <u32>-1)
        if reason:
            return reason, 0, 0, 0, 0, 0, RTN_UNREACHABLE, 0, False
        return 0, rt.error, rt.saddr, rt.gateway, rt.flags, rt.mtu, rt.type, rt.dev.ifindex, rt.redirect

    def nexthop(self, u32 daddr):
        """Give router (0: none) and device of the route to an address, whatever was learned: (gateway, ifindex)."""
        cdef const fib_entry *entry = fib_lookup(self.n, daddr)
        if entry == NULL:
            return 0, 0
        return entry.gateway, entry.dev.ifindex

    def on_link(self, u32 ifindex, u32 a, u32 b):
        """Are both addresses in one subnet of a device?"""
        return inet_addr_onlink(self.device(ifindex), a, b)

    def learn_redirect(self, u32 daddr, u32 old_gw, u32 new_gw, u32 ifindex, u64 seconds):
        """Send what the route to ``daddr`` gives to one router to another, for a time. [update_or_create_fnhe()]"""
        ip_rt_learn_redirect(self.n, daddr, old_gw, new_gw, self.device(ifindex), seconds)

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


cdef fib_entry *bury(fib_entry *dead, fib_entry *entry) noexcept:
    """Put an entry that came out of the table to those to be freed."""
    if entry == NULL:
        return dead
    entry.next = dead
    return entry


cdef void free_list(fib_entry *entry) noexcept:
    cdef fib_entry *following
    while entry != NULL:
        following = entry.next
        fib_entry_free(entry)
        entry = following
