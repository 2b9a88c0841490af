"""napi: schedule a source of packets, and decide when it may interrupt again.

Stage 4 of 8:  device driver irq [napi] netif nf proto sock
In       napi_schedule() from a handler   driver/_igb.pyx
Out      polls                            irq/_softirq.pyx
Context  softirq; no GIL; never allocates, never raises
Kernel   napi_complete_done(), napi_watchdog(), net/core/dev.c
"""

from libc.string cimport memset

from netstack._abi cimport cas32, fetch_or32, load_acquire32, store_release32, u32, u64
from netstack._net cimport (
    gro_flush_timeout, napi_defer_hard_irqs, net, net_device, net_now, sysctl_get,
)
from netstack._skb cimport queue_init, sk_buff
from netstack.napi._gro cimport gro_normal_list, napi_gro_flush


cdef void napi_init(napi_struct *napi, net *n, net_device *dev, softnet_data *sd,
                    int (*poll)(napi_struct *, int) noexcept nogil, u32 weight) noexcept:
    """Make a NAPI of CPU ``sd``, not yet enabled. [netif_napi_add_weight()]"""
    memset(napi, 0, sizeof(napi_struct))
    napi.n = n
    napi.dev = dev
    napi.sd = sd
    napi.poll = poll
    napi.weight = weight
    napi.state = NAPIF_STATE_SCHED
    queue_init(&napi.rx_list)
    n.napi_ids += 1
    napi.napi_id = MIN_NAPI_ID + n.napi_ids


cdef int napi_add(napi_struct *napi) except -1:
    """Give the NAPI's timers to its CPU. Call it as that CPU."""
    cdef softnet_data *sd = napi.sd
    if sd.nr_napis == MAX_IRQS:
        raise ValueError(f"CPU {sd.cpu} has {MAX_IRQS} NAPIs already: use another CPU")
    sd.napis[sd.nr_napis] = napi
    sd.nr_napis += 1
    return 0


cdef void napi_del(napi_struct *napi) noexcept nogil:
    """Take a disabled NAPI off its CPU. Call it as that CPU. [netif_napi_del()]"""
    cdef softnet_data *sd = napi.sd
    cdef u32 i
    for i in range(sd.nr_napis):
        if sd.napis[i] == napi:
            sd.nr_napis -= 1
            sd.napis[i] = sd.napis[sd.nr_napis]
            return


cdef void napi_enable(napi_struct *napi) noexcept nogil:
    """Let it be scheduled. [napi_enable()]"""
    store_release32(&napi.state, 0)


cdef bint poll_list_del(napi_struct *napi) noexcept nogil:
    """Take a NAPI out of its CPU's poll list. True when it stood there. As its CPU."""
    cdef softnet_data *sd = napi.sd
    cdef napi_struct *walk = sd.poll_first
    cdef napi_struct *before = NULL
    while walk != NULL and walk != napi:
        before = walk
        walk = walk.next
    if walk == NULL:
        return False
    if before == NULL:
        sd.poll_first = napi.next
    else:
        before.next = napi.next
    if sd.poll_last == napi:
        sd.poll_last = before
    napi.next = NULL
    return True


cdef void napi_move(napi_struct *napi, softnet_data *to) noexcept nogil:
    """Let another CPU poll from now on. Call it as both. What GRO held goes up first, so nothing is overtaken.

    In Linux a NAPI goes where its interrupt goes, at the next one; a poll that is under way ends where it is.
    """
    cdef bint scheduled = poll_list_del(napi)
    napi_gro_flush(napi, False)
    gro_normal_list(napi)
    napi_del(napi)
    napi.sd = to
    to.napis[to.nr_napis] = napi
    to.nr_napis += 1
    if scheduled:
        napi_list_tail(to, napi)
        raise_softirq(to, NET_RX_SOFTIRQ)


cdef void napi_disable(napi_struct *napi) noexcept nogil:
    """Take it out of service: what it held goes up, nothing is polled after. Call it as its CPU. [napi_disable()]"""
    fetch_or32(&napi.state, NAPIF_STATE_DISABLE)
    poll_list_del(napi)
    napi.timer = 0
    napi_gro_flush(napi, False)
    gro_normal_list(napi)
    store_release32(&napi.state, NAPIF_STATE_SCHED)


cdef bint napi_complete_done(napi_struct *napi, int work_done) noexcept nogil:
    """End a poll that did less than its budget. True when the driver may unmask its interrupt. [napi_complete_done()]

    With napi_defer_hard_irqs and gro_flush_timeout set, the interrupt stays off for that many empty polls, and the
    watchdog polls instead; packets that GRO holds then wait for it too. While an application polls it stays off.
    """
    cdef net *n = napi.n
    cdef u64 timeout = 0
    cdef bint unmask = napi.sd.irq_suspended == 0
    cdef u32 old, new
    if load_acquire32(&napi.state) & NAPIF_STATE_IN_BUSY_POLL:
        return False
    if work_done:
        if napi.gro_bitmask:
            timeout = sysctl_get(n, gro_flush_timeout)
        napi.defer_hard_irqs_count = <u32>sysctl_get(n, napi_defer_hard_irqs)
    if napi.defer_hard_irqs_count:
        napi.defer_hard_irqs_count -= 1
        timeout = sysctl_get(n, gro_flush_timeout)
        if timeout:
            unmask = False
    if napi.gro_bitmask:
        napi_gro_flush(napi, timeout != 0)
    gro_normal_list(napi)
    while True:
        old = load_acquire32(&napi.state)
        new = old & ~<u32>(NAPIF_STATE_SCHED | NAPIF_STATE_MISSED)
        if old & NAPIF_STATE_MISSED:
            new |= NAPIF_STATE_SCHED
        if cas32(&napi.state, old, new):
            break
    if old & NAPIF_STATE_MISSED:
        napi_schedule_on(napi.sd, napi)
        return False
    if timeout:
        napi.timer = net_now(n) + timeout
    return unmask


cdef void napi_timers(softnet_data *sd, u64 now) noexcept nogil:
    """Poll every NAPI whose watchdog ran out. [napi_watchdog()]"""
    cdef napi_struct *napi
    cdef u32 i
    for i in range(sd.nr_napis):
        napi = sd.napis[i]
        if napi.timer and napi.timer <= now:
            napi.timer = 0
            napi_schedule(napi)


cdef u64 napi_next_timer(softnet_data *sd) noexcept nogil:
    """When the first watchdog of this CPU runs out, ns; 0 for none."""
    cdef u64 first = 0
    cdef u32 i
    for i in range(sd.nr_napis):
        if sd.napis[i].timer and (first == 0 or sd.napis[i].timer < first):
            first = sd.napis[i].timer
    return first


cdef u64 list_frames(sk_buff *skb) noexcept nogil:
    cdef u64 total = 0
    cdef sk_buff *frag
    while skb != NULL:
        total += skb.frames
        frag = skb.frag_list
        while frag != NULL:
            total += frag.frames
            frag = frag.next
        skb = skb.next
    return total


cdef u64 napi_frames(napi_struct *napi) noexcept nogil:
    """Frames that GRO holds, merged ones by their parts, and those waiting for a full batch. As the NAPI's CPU."""
    cdef u64 total = list_frames(napi.rx_list.first)
    cdef u32 i
    for i in range(GRO_HASH_BUCKETS):
        total += list_frames(napi.gro_hash[i].first)
    return total
