"""neigh: the neighbour table in the hands of Python, for its timers and for who looks at it.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       timers that ran out              proto/arp.py
Out      state changes; packets that nobody answered for
Context  process
Kernel   neigh_timer_handler(), neigh_periodic_work(), neigh_dump_info(), net/core/neighbour.c
"""

cimport cython
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

from netstack._abi cimport get_be32, spin_lock, spin_unlock, u8, u32, u64
from netstack._counters cimport SKB_DROP_REASON_QUEUE_PURGE
from netstack._net cimport (
    ETH_ALEN, Net, neigh_gc_stale_time, neigh_gc_thresh1, neigh_ucast_solicit, net, net_device, net_now,
    sysctl_get,
)
from netstack._skb cimport dequeue, queue_init, sk_buff, sk_buff_head, skb_wrap
from netstack.proto._inet cimport IP_SADDR
from netstack.proto._neigh cimport (
    NEIGH_MAX, NEIGH_UPDATE_F_ADMIN, NEIGH_UPDATE_F_OVERRIDE, NS_PER_S, NUD_FAILED, NUD_IN_TIMER,
    NUD_PERMANENT, NUD_PROBE, NUD_VALID, drop_list, neigh_event_ns, neigh_event_send, neigh_find,
    neigh_set_timer, neigh_table,
    neigh_unlink, neigh_update, neighbour, reachable_time,
)

from netstack.errors import InternalError

cdef enum:
    RAND_INTERVAL_S = 300          # how often a new reachable_time is drawn


cdef tuple describe(neighbour *neigh):
    """(ifindex, address, hardware address, nud state, probes, confirmed, used, updated); times in ns."""
    return (neigh.dev.ifindex, neigh.primary_key, <bytes>neigh.hh[:ETH_ALEN], neigh.nud_state, neigh.probes,
            neigh.confirmed, neigh.used, neigh.updated)


@cython.final
@cython.no_gc_clear
cdef class NeighTable:
    """Own ``net.neigh``; keep it as long as packets move, then ``flush``. Every method takes the lock for itself.

    ``seed`` makes the random part of the reachable time repeatable.
    """
    cdef net *n
    cdef Net net_object
    cdef neigh_table t

    def __cinit__(self, Net n not None, u64 seed=1):
        cdef void *base
        if n.ptr.neigh != NULL:
            raise InternalError("the host has a neighbour table already")
        base = mmap(NULL, NEIGH_MAX * sizeof(neighbour), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if base == MAP_FAILED:
            raise MemoryError
        self.t.base = <neighbour *>base
        self.t.seed = seed | 1
        self.net_object = n
        self.n = n.ptr
        self.n.neigh = &self.t
        self.draw(net_now(self.n))

    def __dealloc__(self):
        if self.t.base != NULL:
            self.n.neigh = NULL
            munmap(self.t.base, NEIGH_MAX * sizeof(neighbour))

    cdef void draw(self, u64 now) noexcept:
        """Draw a new reachable_time. [neigh_rand_reach_time()]"""
        self.t.seed ^= self.t.seed << 13
        self.t.seed ^= self.t.seed >> 7
        self.t.seed ^= self.t.seed << 17
        self.t.rand = <u32>(self.t.seed >> 48)
        self.t.last_rand = now

    cdef net_device *device(self, u32 ifindex) except NULL:
        if not 0 < ifindex <= self.n.nr_devices or self.n.devices[ifindex - 1] == NULL:
            raise InternalError(f"no device has index {ifindex}")
        return self.n.devices[ifindex - 1]

    def __len__(self):
        cdef u32 entries
        spin_lock(&self.t.lock)
        entries = self.t.entries
        spin_unlock(&self.t.lock)
        return entries

    def entries(self):
        """List all entries: (ifindex, address, hardware address, state, probes, confirmed, used, updated)."""
        cdef neighbour seen
        cdef u32 i, fresh
        rows = []
        spin_lock(&self.t.lock)
        fresh = self.t.fresh
        spin_unlock(&self.t.lock)
        for i in range(fresh):
            spin_lock(&self.t.lock)
            seen = self.t.base[i]
            spin_unlock(&self.t.lock)
            if seen.dev != NULL:
                rows.append(describe(&seen))
        return rows

    def lookup(self, u32 ifindex, u32 address):
        """Give one entry as ``entries`` does, or None."""
        cdef net_device *dev = self.device(ifindex)
        cdef neighbour *neigh
        cdef neighbour seen
        spin_lock(&self.t.lock)
        neigh = neigh_find(&self.t, address, dev)
        if neigh != NULL:
            seen = neigh[0]
        spin_unlock(&self.t.lock)
        return describe(&seen) if neigh != NULL else None

    def event_ns(self, u32 ifindex, u32 address, bytes lladdr not None):
        """Remember who asked for us. False when the table is full. [neigh_event_ns()]"""
        cdef net_device *dev = self.device(ifindex)
        cdef const u8 *ha = lladdr
        cdef bint known
        if len(lladdr) != ETH_ALEN:
            raise ValueError(f"a hardware address has {ETH_ALEN} bytes, not {len(lladdr)}")
        with nogil:
            known = neigh_event_ns(self.n, dev, address, ha)
        return known

    def update(self, u32 ifindex, u32 address, bytes lladdr not None, u32 state, *, bint override=False,
               bint admin=False, bint create=False):
        """Take in news about a neighbour; False when it is not in the table. [neigh_update()]"""
        cdef net_device *dev = self.device(ifindex)
        cdef const u8 *ha = lladdr
        cdef u32 flags = (NEIGH_UPDATE_F_OVERRIDE if override else 0) | (NEIGH_UPDATE_F_ADMIN if admin else 0)
        cdef bint known
        if len(lladdr) != ETH_ALEN:
            raise ValueError(f"a hardware address has {ETH_ALEN} bytes, not {len(lladdr)}")
        if not state & NUD_VALID:
            raise ValueError(f"state={state}: news about a neighbour say that it is there (NUD_VALID)")
        with nogil:
            known = neigh_update(self.n, dev, address, ha, state, flags, create)
        return known

    def delete(self, u32 ifindex, u32 address):
        """Forget an entry, with what waits for it; False when there is none."""
        cdef net_device *dev = self.device(ifindex)
        cdef neighbour *neigh
        cdef sk_buff_head dead
        queue_init(&dead)
        spin_lock(&self.t.lock)
        neigh = neigh_find(&self.t, address, dev)
        if neigh != NULL:
            neigh_unlink(&self.t, neigh, &dead)
        spin_unlock(&self.t.lock)
        drop_list(&dead, SKB_DROP_REASON_QUEUE_PURGE)
        return neigh != NULL

    cpdef flush(self):
        """Forget every entry: the host closes. [neigh_ifdown()]"""
        cdef sk_buff_head dead
        cdef u32 i
        queue_init(&dead)
        spin_lock(&self.t.lock)
        for i in range(self.t.fresh):
            if self.t.base[i].dev != NULL:
                neigh_unlink(&self.t, &self.t.base[i], &dead)
        self.t.next_timer = 0
        spin_unlock(&self.t.lock)
        drop_list(&dead, SKB_DROP_REASON_QUEUE_PURGE)

    def event_send(self, u32 ifindex, u32 address):
        """Ask for a neighbour, without a packet that waits for the answer. [neigh_event_send()]"""
        neigh_event_send(self.n, self.device(ifindex), address)

    def frames(self):
        """Frames off the wire that wait here for an answer: packets that are passed on."""
        cdef u64 total = 0
        cdef sk_buff *skb
        cdef u32 i
        spin_lock(&self.t.lock)
        for i in range(self.t.fresh):
            skb = self.t.base[i].arp_queue.first if self.t.base[i].dev != NULL else NULL
            while skb != NULL:
                total += skb.frames
                skb = skb.next
        spin_unlock(&self.t.lock)
        return total

    def queued(self, u32 ifindex, u32 address):
        """Say how many packets wait for a neighbour."""
        cdef net_device *dev = self.device(ifindex)
        cdef neighbour *neigh
        cdef u32 qlen = 0
        spin_lock(&self.t.lock)
        neigh = neigh_find(&self.t, address, dev)
        if neigh != NULL:
            qlen = neigh.arp_queue.qlen
        spin_unlock(&self.t.lock)
        return qlen

    # ---- timers

    def next_deadline(self):
        """When the next timer may run out, ns; 0 for none."""
        cdef u64 when
        spin_lock(&self.t.lock)
        when = self.t.next_timer
        spin_unlock(&self.t.lock)
        return when

    def reachable_ns(self):
        """How long an answer counts, ns."""
        return reachable_time(self.n, &self.t)

    def expired(self, u64 now):
        """Disarm the timers that have run out, and list their entries."""
        cdef neighbour *neigh
        cdef neighbour seen
        cdef u32 i, fresh
        due = []
        spin_lock(&self.t.lock)
        self.t.next_timer = 0          # found anew below; who arms a timer meanwhile adds his own
        fresh = self.t.fresh
        spin_unlock(&self.t.lock)
        for i in range(fresh):
            neigh = &self.t.base[i]
            spin_lock(&self.t.lock)
            seen = neigh[0]
            if seen.dev != NULL and seen.timer:
                if seen.timer <= now:
                    neigh.timer = 0
                else:
                    neigh_set_timer(self.n, &self.t, neigh, seen.timer)
            spin_unlock(&self.t.lock)
            if seen.dev != NULL and 0 < seen.timer <= now:
                due.append(describe(&seen))
        return due

    def transition(self, u32 ifindex, u32 address, u32 old, u32 new, u64 timer, u64 now):
        """Move an entry on, unless a packet changed it meanwhile; True when done.

        Its timer is armed for ``timer`` (ns; 0 for never). Entering PROBE starts to count the requests anew.
        """
        cdef net_device *dev = self.device(ifindex)
        cdef neighbour *neigh
        cdef bint done = False
        spin_lock(&self.t.lock)
        neigh = neigh_find(&self.t, address, dev)
        if neigh != NULL and neigh.nud_state == old and neigh.timer == 0:
            done = True
            if new != old:
                neigh.nud_state = new
                neigh.updated = now
                if new == NUD_PROBE:
                    neigh.probes = 0
            if timer:
                neigh_set_timer(self.n, &self.t, neigh, timer)
        spin_unlock(&self.t.lock)
        return done

    def probe(self, u32 ifindex, u32 address):
        """Ask once more: its known address for the first ucast_solicit times, else everybody. [neigh_probe()]"""
        cdef net_device *dev = self.device(ifindex)
        cdef neighbour *neigh
        cdef u8 dst[ETH_ALEN]
        cdef u32 saddr = 0
        cdef bint unicast = False
        spin_lock(&self.t.lock)
        neigh = neigh_find(&self.t, address, dev)
        if neigh != NULL:
            unicast = neigh.nud_state & NUD_VALID and neigh.probes < sysctl_get(self.n, neigh_ucast_solicit)
            dst = neigh.hh[:ETH_ALEN]
            neigh.probes += 1
            saddr = waiting_source(neigh)
        spin_unlock(&self.t.lock)
        if neigh != NULL:
            with nogil:
                self.t.solicit(self.n, dev, address, saddr, dst if unicast else NULL)

    def take_queue(self, u32 ifindex, u32 address):
        """Give the packets that waited for a neighbour in vain. [neigh_invalidate()]"""
        cdef net_device *dev = self.device(ifindex)
        cdef neighbour *neigh
        cdef sk_buff_head waiting
        cdef sk_buff *skb
        queue_init(&waiting)
        spin_lock(&self.t.lock)
        neigh = neigh_find(&self.t, address, dev)
        if neigh != NULL and neigh.nud_state == NUD_FAILED:
            waiting = neigh.arp_queue
            queue_init(&neigh.arp_queue)
            neigh.arp_queue_len_bytes = 0
        spin_unlock(&self.t.lock)
        packets = []
        while True:
            skb = dequeue(&waiting)
            if skb == NULL:
                return packets
            packets.append(skb_wrap(skb, self.net_object))

    def periodic_work(self, u64 now):
        """Forget what failed or was not used for gc_stale_time; gives how many. [neigh_periodic_work()]"""
        cdef u64 stale = sysctl_get(self.n, neigh_gc_stale_time) * NS_PER_S
        cdef sk_buff_head dead
        cdef neighbour *neigh
        cdef u32 i
        cdef u32 shrunk = 0
        queue_init(&dead)
        spin_lock(&self.t.lock)
        if now - self.t.last_rand > <u64>RAND_INTERVAL_S * NS_PER_S:
            self.draw(now)
        if self.t.entries >= sysctl_get(self.n, neigh_gc_thresh1):
            for i in range(self.t.fresh):
                neigh = &self.t.base[i]
                if neigh.dev == NULL or neigh.nud_state & (NUD_PERMANENT | NUD_IN_TIMER):
                    continue
                neigh.used = max(neigh.used, neigh.confirmed)
                if neigh.nud_state == NUD_FAILED or now - neigh.used > stale:
                    neigh_unlink(&self.t, neigh, &dead)
                    shrunk += 1
        spin_unlock(&self.t.lock)
        drop_list(&dead, SKB_DROP_REASON_QUEUE_PURGE)
        return shrunk


cdef u32 waiting_source(neighbour *neigh) noexcept:
    """Give the source address of the newest packet that waits: the kernel asks on its behalf."""
    if neigh.arp_queue.first == NULL:
        return 0
    return get_be32(neigh.arp_queue.last.data + IP_SADDR)
