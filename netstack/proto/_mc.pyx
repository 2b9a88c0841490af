"""mc: which groups a device is a member of, and from which sources.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       device, group, source            proto/_route.pyx, proto/_route_mc.pyx
Out      for us or not
Context  any; no GIL; never raises; a spinlock, so only packets for groups come here
Kernel   ip_check_mc_rcu(), net/ipv4/igmp.c

The memberships themselves, their timers and reports, are in igmp_groups.py, which writes here what has changed.
"""

cimport cython
from libc.stdlib cimport calloc, free

from netstack._abi cimport spin_lock, spin_unlock
from netstack._net cimport Net


cdef bint ip_check_mc(net *n, u32 ifindex, u32 group, u32 src, u8 protocol) noexcept nogil:
    cdef mc_table *table = <mc_table *>n.mc
    cdef const ip_mc_list *im
    cdef bint ours = False
    if table == NULL:
        return False
    spin_lock(&table.lock)
    im = table.bucket[mc_hash(group, ifindex)]
    while im != NULL and not (im.group == group and im.ifindex == ifindex):
        im = im.next
    if im != NULL:
        ours = protocol == IPPROTO_IGMP or src == 0 or source_allowed(im, src)
    spin_unlock(&table.lock)
    return ours


cdef inline bint source_allowed(const ip_mc_list *im, u32 src) noexcept nogil:
    """Does any socket want this source? Not if all that exclude some exclude this one, and none includes it."""
    cdef u32 i
    for i in range(im.count):
        if im.sources[i].addr == src:
            return im.sources[i].incl != 0 or im.sources[i].excl != im.excl
    return im.excl != 0


@cython.final
@cython.no_gc_clear
cdef class McTable:
    """A host's ``net.mc``: what Python says of memberships, for routing."""
    cdef Net net_object
    cdef mc_table *table

    def __cinit__(self, Net n not None):
        self.table = <mc_table *>calloc(1, sizeof(mc_table))
        if self.table == NULL:
            raise MemoryError
        self.net_object = n
        n.ptr.mc = self.table

    def __dealloc__(self):
        cdef ip_mc_list *im
        cdef u32 i
        if self.table == NULL:
            return
        if self.net_object.ptr.mc == self.table:
            self.net_object.ptr.mc = NULL
        for i in range(MC_HASH):
            while self.table.bucket[i] != NULL:
                im = self.table.bucket[i]
                self.table.bucket[i] = im.next
                free(im)
        free(self.table)

    def set(self, u32 ifindex, u32 group, u32 exclude, sources):
        """Put a membership in, or in the place of what it was; ``sources``: (address, include, exclude) each."""
        cdef list rows = list(sources)
        cdef ip_mc_list *im = <ip_mc_list *>calloc(1, sizeof(ip_mc_list) + len(rows) * sizeof(ip_sf))
        cdef u32 i = 0
        if im == NULL:
            raise MemoryError
        im.group, im.ifindex, im.excl = group, ifindex, exclude
        for addr, incl, excl in rows:
            im.sources[i].addr, im.sources[i].incl, im.sources[i].excl = addr, incl, excl
            i += 1
        im.count = i
        with nogil:
            replace(self.table, im, im)

    def remove(self, u32 ifindex, u32 group):
        """Take a membership out."""
        cdef ip_mc_list gone
        gone.group, gone.ifindex = group, ifindex
        with nogil:
            replace(self.table, &gone, NULL)

    def check(self, u32 ifindex, u32 group, u32 src=0, u8 protocol=0):
        """Ask as routing does."""
        return ip_check_mc(self.net_object.ptr, ifindex, group, src, protocol)

    def __len__(self):
        return self.table.count


cdef void replace(mc_table *table, const ip_mc_list *like, ip_mc_list *by) noexcept nogil:
    """Take out the membership of the same group and device, if there is one, and put in another, unless NULL."""
    cdef u32 place = mc_hash(like.group, like.ifindex)
    cdef ip_mc_list **link = &table.bucket[place]
    cdef ip_mc_list *old
    spin_lock(&table.lock)
    while link[0] != NULL and not (link[0].group == like.group and link[0].ifindex == like.ifindex):
        link = &link[0].next
    old = link[0]
    if old != NULL:
        link[0] = old.next
        table.count -= 1
    if by != NULL:
        by.next = table.bucket[place]
        table.bucket[place] = by
        table.count += 1
    spin_unlock(&table.lock)
    free(old)
