"""neigh: give a packet the Ethernet address of its next hop, or let it wait for one.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       a packet and its next hop        proto/_ip_output.pyx
Out      a frame for dev_queue_xmit       netif/_xmit.pyx
Context  any; no GIL; never allocates, never raises; the table's lock is held for a few dozen instructions
Kernel   neigh_resolve_output(), neigh_update(), neigh_event_send(), net/core/neighbour.c

The state machine's timers are in arp.py. What an arriving or leaving packet does to an entry is here.
"""

from libc.errno cimport ENOBUFS
from libc.string cimport memcmp, memcpy, memset
from netstack._abi cimport get_be32, likely, put_be16, spin_lock, spin_unlock, u8, u32, u64
from netstack._counters cimport (
    SKB_DROP_REASON_NEIGH_CREATEFAIL, SKB_DROP_REASON_NEIGH_FAILED, SKB_DROP_REASON_NEIGH_QUEUEFULL,
    SKB_DROP_REASON_NOMEM, SKB_DROP_REASON_QUEUE_PURGE, SKB_FORWARDED,
)
from netstack._net cimport (
    ETH_ALEN, ETH_HLEN, SLOT_PROCESS, neigh_base_reachable_time_ms, neigh_delay_first_probe_time, neigh_gc_thresh2,
    neigh_gc_thresh3, neigh_mcast_solicit, neigh_retrans_time_ms, neigh_ucast_solicit, neigh_unres_qlen_bytes, net,
    net_device, net_now, sysctl_get,
)
from netstack._skb cimport (
    dequeue, dev_queue_xmit, kfree_skb_reason, queue_init, queue_tail, sk_buff, sk_buff_head, skb_end, skb_push,
    skb_set_slot,
)
from netstack.proto._inet cimport ETH_P_IP, IP_SADDR
from netstack.proto._ip_alloc cimport ip_copy

cdef enum:
    GC_PAUSE = 100_000_000         # ns after a collection that found nothing: a flood must not cost a sweep a frame


# ---- entries; all with the lock held

cdef void neigh_unlink(neigh_table *t, neighbour *neigh, sk_buff_head *dead) noexcept nogil:
    """Forget an entry; what waited for it goes to ``dead``."""
    cdef neighbour **link = &t.hash[neigh_hashfn(neigh.primary_key, neigh.dev)]
    cdef sk_buff *skb
    while link[0] != neigh:
        link = &link[0].next
    link[0] = neigh.next
    while True:
        skb = dequeue(&neigh.arp_queue)
        if skb == NULL:
            break
        queue_tail(dead, skb)
    neigh.dev = NULL
    neigh.timer = 0
    neigh.next = t.free
    t.free = neigh
    t.entries -= 1


cdef u32 neigh_forced_gc(net *n, neigh_table *t, u64 now, sk_buff_head *dead) noexcept nogil:
    """Make room: forget what has failed, or stood unchanged and idle for 5 s. Gives how many. [neigh_forced_gc()]"""
    cdef u64 thresh2 = sysctl_get(n, neigh_gc_thresh2)
    cdef u32 max_clean = t.entries - <u32>thresh2 if t.entries > thresh2 else 1
    cdef u32 shrunk = 0
    cdef neighbour *neigh
    cdef u32 i
    for i in range(t.fresh):
        neigh = &t.base[i]
        if neigh.dev == NULL or neigh.nud_state & (NUD_PERMANENT | NUD_IN_TIMER):
            continue
        if neigh.nud_state == NUD_FAILED or now - neigh.updated > 5 * <u64>NS_PER_S:
            neigh_unlink(t, neigh, dead)
            shrunk += 1
            if shrunk == max_clean:
                break
    t.last_flush = now
    return shrunk


cdef neighbour *neigh_create(net *n, neigh_table *t, u32 addr, net_device *dev, u64 now,
                             sk_buff_head *dead) noexcept nogil:
    """Add an entry in state NONE, or give NULL: the table is full. [neigh_alloc(), neigh_create()]"""
    cdef u64 thresh3 = sysctl_get(n, neigh_gc_thresh3)
    cdef neighbour *neigh
    cdef u32 bucket
    if t.entries >= thresh3:
        if now - t.last_flush < GC_PAUSE or not neigh_forced_gc(n, t, now, dead):
            return NULL
    elif t.entries >= sysctl_get(n, neigh_gc_thresh2) and now - t.last_flush > 5 * <u64>NS_PER_S:
        neigh_forced_gc(n, t, now, dead)
    neigh = t.free
    if neigh != NULL:
        t.free = neigh.next
    elif t.fresh < NEIGH_MAX:
        neigh = &t.base[t.fresh]
        t.fresh += 1
    else:
        return NULL
    memset(neigh, 0, sizeof(neighbour))
    neigh.dev = dev
    neigh.primary_key = addr
    neigh.updated = now
    neigh.used = now
    neigh.confirmed = now
    memcpy(&neigh.hh[ETH_ALEN], dev.dev_addr, ETH_ALEN)
    put_be16(&neigh.hh[2 * ETH_ALEN], ETH_P_IP)
    bucket = neigh_hashfn(addr, dev)
    neigh.next = t.hash[bucket]
    t.hash[bucket] = neigh
    t.entries += 1
    return neigh


cdef sk_buff *neigh_own(net *n, sk_buff *skb) noexcept nogil:
    """Copy a packet that is passed on: no address that is silent may keep buffers which the CPU receives into."""
    cdef sk_buff *copy
    if skb.pool == n.pool:
        return skb
    copy = ip_copy(n, skb, 0, skb.len)
    if copy == NULL:
        kfree_skb_reason(skb, SKB_DROP_REASON_NOMEM)
        return NULL
    if skb.owner == NULL:
        copy.id, copy.frames, skb.frames = skb.id, skb.frames, 0
    skb_end(skb, SKB_FORWARDED)
    return copy


cdef void neigh_enqueue(net *n, neighbour *neigh, sk_buff *skb, sk_buff_head *dead) noexcept nogil:
    """Let a packet wait for the answer; the oldest make room. [__neigh_event_send()]"""
    cdef u64 limit = sysctl_get(n, neigh_unres_qlen_bytes)
    cdef sk_buff *oldest
    while neigh.arp_queue_len_bytes + skb.truesize > limit:
        oldest = dequeue(&neigh.arp_queue)
        if oldest == NULL:
            break
        neigh.arp_queue_len_bytes -= oldest.truesize
        queue_tail(dead, oldest)
    skb_set_slot(skb, SLOT_PROCESS)
    queue_tail(&neigh.arp_queue, skb)
    neigh.arp_queue_len_bytes += skb.truesize


# ---- what a packet does to its entry

cdef void drop_list(sk_buff_head *dead, u32 reason) noexcept nogil:
    cdef sk_buff *skb
    while True:
        skb = dequeue(dead)
        if skb == NULL:
            return
        kfree_skb_reason(skb, reason)


cdef inline int neigh_xmit(sk_buff *skb, const u8 *hh) noexcept nogil:
    skb_push(skb, ETH_HLEN)
    memcpy(skb.data, hh, ETH_HLEN)
    skb.mac_header = <u16>(skb.data - skb.head)
    return dev_queue_xmit(skb)


cdef int neigh_output(net *n, net_device *dev, u32 nexthop, sk_buff *skb) noexcept nogil:
    cdef neigh_table *t = <neigh_table *>n.neigh
    cdef neighbour *neigh
    cdef u8 hh[16]
    spin_lock(&t.lock)
    neigh = neigh_find(t, nexthop, dev)
    if likely(neigh != NULL and neigh.nud_state & NUD_CONNECTED):
        memcpy(hh, neigh.hh, sizeof(hh))
        spin_unlock(&t.lock)
        return neigh_xmit(skb, hh)
    return neigh_resolve_output(n, t, neigh, dev, nexthop, skb)


cdef (bint, bint) neigh_is_used(net *n, neigh_table *t, neighbour *neigh, u64 now) noexcept nogil:
    """Begin to ask for an entry that is wanted, or have it checked: (a request must leave, a timer was armed)."""
    neigh.used = now
    if neigh.nud_state in (NUD_NONE, NUD_FAILED):
        if sysctl_get(n, neigh_mcast_solicit) == 0:
            neigh.nud_state = NUD_FAILED
            return False, False
        # The first request leaves at once; it counts as one of mcast_solicit.
        neigh.probes = <u32>sysctl_get(n, neigh_ucast_solicit) + 1
        neigh.nud_state = NUD_INCOMPLETE
        neigh.updated = now
        neigh_set_timer(n, t, neigh, now + max(sysctl_get(n, neigh_retrans_time_ms), 10) * NS_PER_MS)
        return True, True
    if neigh.nud_state == NUD_STALE:
        neigh.nud_state = NUD_DELAY
        neigh.updated = now
        neigh_set_timer(n, t, neigh, now + sysctl_get(n, neigh_delay_first_probe_time) * NS_PER_S)
        return False, True
    return False, False


cdef void neigh_event_send(net *n, net_device *dev, u32 addr) noexcept nogil:
    """Ask for a neighbour although no packet waits for it. [neigh_event_send()]"""
    cdef neigh_table *t = <neigh_table *>n.neigh
    cdef u64 now = net_now(n)
    cdef sk_buff_head purged
    cdef neighbour *neigh
    cdef bint armed = False
    cdef bint ask = False
    queue_init(&purged)
    spin_lock(&t.lock)
    neigh = neigh_find(t, addr, dev)
    if neigh == NULL:
        neigh = neigh_create(n, t, addr, dev, now, &purged)
    if neigh != NULL:
        ask, armed = neigh_is_used(n, t, neigh, now)
    spin_unlock(&t.lock)
    drop_list(&purged, SKB_DROP_REASON_QUEUE_PURGE)
    if ask:
        t.solicit(n, dev, addr, 0, NULL)
    if armed:
        kick(n)


cdef int neigh_resolve_output(net *n, neigh_table *t, neighbour *neigh, net_device *dev, u32 nexthop,
                              sk_buff *skb) noexcept nogil:
    """Send at a known address and have it checked, or start to ask and let the packet wait. Lets the lock go."""
    cdef u64 now = net_now(n)
    cdef sk_buff_head dead
    cdef sk_buff_head purged
    cdef bint armed = False
    cdef bint ask = False
    cdef bint queued = False
    cdef u32 saddr = get_be32(skb.data + IP_SADDR)
    cdef u8 hh[16]
    queue_init(&dead)
    queue_init(&purged)
    if neigh == NULL:
        neigh = neigh_create(n, t, nexthop, dev, now, &purged)
    if neigh == NULL:
        spin_unlock(&t.lock)
        kfree_skb_reason(skb, SKB_DROP_REASON_NEIGH_CREATEFAIL)
        return -ENOBUFS
    ask, armed = neigh_is_used(n, t, neigh, now)
    if neigh.nud_state == NUD_FAILED:
        spin_unlock(&t.lock)
        kfree_skb_reason(skb, SKB_DROP_REASON_NEIGH_FAILED)
        return 0
    if neigh.nud_state == NUD_INCOMPLETE:
        skb = neigh_own(n, skb)
        if skb != NULL:
            neigh_enqueue(n, neigh, skb, &dead)
        queued = True
    else:
        memcpy(hh, neigh.hh, sizeof(hh))
    spin_unlock(&t.lock)
    drop_list(&dead, SKB_DROP_REASON_NEIGH_QUEUEFULL)
    drop_list(&purged, SKB_DROP_REASON_QUEUE_PURGE)
    if ask:
        t.solicit(n, dev, nexthop, saddr, NULL)
    if armed:
        kick(n)
    return 0 if queued else neigh_xmit(skb, hh)


cdef bint neigh_change(net *n, neigh_table *t, neighbour *neigh, const u8 *lladdr, u32 new, u32 flags, u64 now,
                       sk_buff_head *waiting) noexcept nogil:
    """Apply news about an entry; True when a timer was armed. What may go out now is in ``waiting``.

    [__neigh_update()]
    """
    cdef u32 old = neigh.nud_state
    cdef bint same = memcmp(lladdr, neigh.hh, ETH_ALEN) == 0
    cdef bint armed = False
    if old & (NUD_NOARP | NUD_PERMANENT) and not flags & NEIGH_UPDATE_F_ADMIN:
        return False
    if new & NUD_CONNECTED:
        neigh.confirmed = now
    if old & NUD_VALID:
        if not same and not flags & NEIGH_UPDATE_F_OVERRIDE:
            return False
        if same and new == NUD_STALE and not flags & NEIGH_UPDATE_F_ADMIN:
            new = old              # old news don't make a fresh entry stale
    if new != old or not same:
        neigh.updated = now
    if new != old:
        neigh.timer = 0
        if new & NUD_IN_TIMER:
            neigh_set_timer(n, t, neigh, now + (reachable_time(n, t) if new & NUD_REACHABLE else 0))
            armed = True
        neigh.nud_state = new
    if not same:
        memcpy(neigh.hh, lladdr, ETH_ALEN)
        if not new & NUD_CONNECTED:
            neigh.confirmed = now - min(now, 2 * sysctl_get(n, neigh_base_reachable_time_ms) * NS_PER_MS)
    if new & NUD_VALID and not old & NUD_VALID:
        waiting[0] = neigh.arp_queue
        queue_init(&neigh.arp_queue)
        neigh.arp_queue_len_bytes = 0
    return armed


cdef bint neigh_update(net *n, net_device *dev, u32 addr, const u8 *lladdr, u32 state, u32 flags,
                       bint create) noexcept nogil:
    """Take in what is known about a neighbour, and send what waited for it. False when there is no entry.

    The table's lock is not held while it is sent, so what another thread sends in that moment may pass it,
    as in Linux.
    """
    cdef neigh_table *t = <neigh_table *>n.neigh
    cdef u64 now = net_now(n)
    cdef sk_buff_head waiting
    cdef sk_buff_head purged
    cdef neighbour *neigh
    cdef sk_buff *skb
    cdef bint armed = False
    queue_init(&waiting)
    queue_init(&purged)
    spin_lock(&t.lock)
    neigh = neigh_find(t, addr, dev)
    if neigh == NULL and create:
        neigh = neigh_create(n, t, addr, dev, now, &purged)
        armed = t.entries == 1         # from now on old entries must be looked for
    if neigh != NULL:
        armed |= neigh_change(n, t, neigh, lladdr, state, flags, now, &waiting)
    spin_unlock(&t.lock)
    drop_list(&purged, SKB_DROP_REASON_QUEUE_PURGE)
    while True:
        skb = dequeue(&waiting)
        if skb == NULL:
            break
        neigh_output(n, dev, addr, skb)
    if armed:
        kick(n)
    return neigh != NULL


cdef bint neigh_event_ns(net *n, net_device *dev, u32 addr, const u8 *lladdr) noexcept nogil:
    return neigh_update(n, dev, addr, lladdr, NUD_STALE, NEIGH_UPDATE_F_OVERRIDE, True)
