"""flow_limit: a flow that floods a CPU's backlog loses its own packets, not those of the others.

Stage 5 of 8:  device driver irq napi [netif] nf proto sock
In       packets for a backlog that is half full  netif/_backlog.pyx
Out      drop, or not                     netif/_backlog.pyx
Context  softirq and process; no GIL; never allocates, never raises
Kernel   skb_flow_limit(), net/core/dev.c; flow_limit_cpu_sysctl(), net/core/sysctl_net_core.c

Of the last 128 packets that met a half-full backlog, a flow may have 64. Off until net.core.flow_limit_cpu_bitmap
names the CPU; its table then has net.core.flow_limit_table_len buckets and keeps that size until it is taken away.
"""

from libc.stdlib cimport calloc, free

from netstack._abi cimport (
    add_relaxed64, spin_lock, spin_unlock, store_relaxed64, store_release_ptr, u64,
)
from netstack.netif._flow_dissector cimport skb_get_hash


cdef inline u32 hash_32(u32 value, u32 bits) noexcept nogil:
    """The upper bits of a product with the golden ratio. [hash_32()]"""
    return <u32>(<u64>(<u32>(value * <u32>0x61C88647)) >> 32 - bits)


cdef bint flow_limit_check(sk_buff *skb, softnet_data *sd, sd_flow_limit *fl) noexcept nogil:
    """Put a packet into the history; True when more than half of that is its flow's."""
    cdef u32 new_flow = hash_32(skb_get_hash(skb), fl.log_buckets)
    cdef u32 old_flow
    cdef bint over
    spin_lock(&fl.lock)
    old_flow = fl.history[fl.history_head]
    fl.history[fl.history_head] = new_flow
    fl.history_head = fl.history_head + 1 & FLOW_LIMIT_HISTORY - 1
    if fl.buckets[old_flow]:       # not before the history has gone round once
        fl.buckets[old_flow] -= 1
    fl.buckets[new_flow] += 1
    over = fl.buckets[new_flow] > FLOW_LIMIT_HISTORY >> 1
    spin_unlock(&fl.lock)
    if over:
        add_relaxed64(&sd.flow_limit_count, 1)
    return over


cdef void flow_limit_take(softnet_data *sd) noexcept nogil:
    """Take a CPU's limit away, and with it what it counted. Process context, no role held."""
    cdef void *old
    spin_lock(&sd.input_lock)      # senders look while they hold it
    old = sd.flow_limit
    store_release_ptr(&sd.flow_limit, NULL)
    spin_unlock(&sd.input_lock)
    sd.n.synchronize(sd.n)         # CPUs look as themselves
    store_relaxed64(&sd.flow_limit_count, 0)
    free(old)


cdef int flow_limit_set(net *n, u32 cpus, u32 table_len) except -1:
    """Give a limit to the CPUs whose bits are set, and take it from the others. [flow_limit_cpu_sysctl()]"""
    cdef sd_flow_limit *fl
    cdef softnet_data *sd
    cdef u32 cpu
    for cpu in range(n.nr_cpus):
        sd = <softnet_data *>n.cpus[cpu]
        if sd.flow_limit != NULL and not cpus >> cpu & 1:
            with nogil:
                flow_limit_take(sd)
        elif sd.flow_limit == NULL and cpus >> cpu & 1:
            fl = <sd_flow_limit *>calloc(1, sizeof(sd_flow_limit) + table_len)
            if fl == NULL:
                raise MemoryError
            while <u32>1 << fl.log_buckets < table_len:
                fl.log_buckets += 1
            store_release_ptr(&sd.flow_limit, fl)
    return 0
