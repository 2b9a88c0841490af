"""rps: choose the CPU that takes a packet on, by its flow.

Stage 5 of 8:  device driver irq napi [netif] nf proto sock
In       packets after GRO, or of netif_rx  netif/_backlog.pyx
Out      a CPU                            netif/_backlog.pyx
Context  softirq and process; no GIL; never allocates, never raises
Kernel   get_rps_cpu(), set_rps_cpu(), net/core/dev.c

RPS: the packets of a queue are spread over the CPUs of its rps_cpus, those of a flow all to one. RFS: a flow goes to
the CPU where its reader runs, as recvmsg and sendmsg of connected sockets note in rps_sock_flow_table
(rps_record_sock_flow in _net.pxd). When the reader moves, the flow follows once its old CPU has done with the last
packet that was queued there, so that none is overtaken: that is what last_qtail and input_queue_head are for.
"""

from netstack._abi cimport i32, load_acquire32, store_relaxed32, u64, unlikely
from netstack._net cimport MAX_RX_QUEUES, netdev_rx_queue, rps_dev_flow_table, rps_sock_flow_table
from netstack.napi._napi cimport softnet_data
from netstack.netif._flow_dissector cimport skb_get_hash


cdef extern from *:
    u32 ctz "__builtin_ctz"(u32 v) noexcept nogil
    u32 popcount "__builtin_popcount"(u32 v) noexcept nogil


cdef inline u32 rps_map_cpu(u32 cpus, u32 hash) noexcept nogil:
    """The CPU of a map that a hash falls on: map->cpus[reciprocal_scale(hash, map->len)]."""
    cdef u32 nr = <u32>(<u64>hash * popcount(cpus) >> 32)
    while nr:
        cpus &= cpus - 1
        nr -= 1
    return ctz(cpus)


cdef inline rps_dev_flow *rfs_slot(u32 hash, rps_dev_flow_table *table) noexcept nogil:
    """The place of a flow in a queue's table. [rfs_slot()]"""
    return &table.flows[<u64>(<u32>(hash * <u32>0x61C88647)) >> 32 - table.log]


cdef bint all_done(net *n, rps_dev_flow *rflow, u32 cpu) noexcept nogil:
    """Has the CPU done with the last packet that this entry sent it?"""
    cdef u32 head = load_acquire32(&(<softnet_data *>n.cpus[cpu]).input_queue_head)
    return <i32>(head - load_relaxed32(&rflow.last_qtail)) >= 0


cdef int rfs_cpu(net *n, u32 hash, rps_dev_flow_table *table, rps_dev_flow **rflowp) noexcept nogil:
    """The CPU that reads the flow, or that it still has to go to; -1 when nobody is known to read it."""
    cdef rps_sock_flow_table *readers = <rps_sock_flow_table *>load_acquire_ptr(<void **>&n.rps_sock_flow_table)
    cdef rps_dev_flow *rflow
    cdef u32 ident, next_cpu, cpu
    if readers == NULL:
        return -1
    ident = load_relaxed32(&readers.ents[hash & load_relaxed32(&readers.mask)])
    if (ident ^ hash) & ~n.rps_cpu_mask:
        return -1                  # another flow's
    next_cpu = ident & n.rps_cpu_mask
    rflow = rfs_slot(hash, table)
    cpu = load_relaxed32(&rflow.cpu)
    if unlikely(cpu != next_cpu) and (cpu >= n.nr_cpus or all_done(n, rflow, cpu)) and next_cpu < n.nr_cpus:
        cpu = next_cpu             # [set_rps_cpu()]
        store_relaxed32(&rflow.last_qtail, load_acquire32(&(<softnet_data *>n.cpus[cpu]).input_queue_head))
        store_relaxed32(&rflow.cpu, cpu)
    if cpu >= n.nr_cpus:
        return -1
    rflowp[0] = rflow
    return <int>cpu


cdef int get_rps_cpu(net *n, sk_buff *skb, rps_dev_flow **rflowp) noexcept nogil:
    """The CPU that is to take the packet, -1 for this one. [get_rps_cpu()]

    ``rflowp``: where to note the end of that CPU's backlog, for RFS.
    """
    cdef netdev_rx_queue *rxqueue = &skb.dev.rx[skb.queue_mapping if skb.queue_mapping < MAX_RX_QUEUES else 0]
    cdef rps_dev_flow_table *table = <rps_dev_flow_table *>load_acquire_ptr(<void **>&rxqueue.rps_flow_table)
    cdef u32 cpus = load_relaxed32(&rxqueue.rps_cpus)
    cdef u32 hash
    cdef int cpu = -1
    if table == NULL and cpus == 0:
        return -1
    hash = skb_get_hash(skb)
    if table != NULL:
        cpu = rfs_cpu(n, hash, table, rflowp)
    if cpu < 0 and cpus:
        cpu = <int>rps_map_cpu(cpus, hash)
    return cpu
