"""rps_conf: turn RPS, RFS and the flow limit, while packets move.

Stage 5 of 8:  device driver irq napi [netif] nf proto sock
In       values that have been checked    config.py, sysfs.py
Out      masks and tables                 netif/_rps.pyx, netif/_flow_limit.pyx
Context  process, with the GIL
Kernel   store_rps_map(), store_rps_dev_flow_table_cnt(), net/core/net-sysfs.c; rps_sock_flow_sysctl(),
         net/core/sysctl_net_core.c

Linux lets the old table and the new one overlap for a moment, so a flow that changes its CPU then may be overtaken by
itself. Here whoever changes something becomes every CPU in turn, hands up what their backlogs hold, changes it, and
lets them go on: no flow is reordered by a change, but for what threads of this process send over lo meanwhile.

A table that has been used is kept until the host's end, one of each size, and used again: an application that looks
up its own without a lock always finds memory that is a table.
"""

cimport cython
import errno
import os

from libc.stdlib cimport calloc, free

from netstack._abi cimport load_relaxed32, store_relaxed32, store_release_ptr, u32, u64, uintptr_t
from netstack._net cimport (
    MAX_DEVICES, MAX_RX_QUEUES, Net, net, net_device, netdev_rx_queue, rps_dev_flow, rps_dev_flow_table,
    rps_sock_flow_table,
)
from netstack.irq._cpu cimport cpus_release, cpus_take
from netstack.napi._napi cimport softnet_data
from netstack.netif._backlog cimport flush_backlog, rps_steer
from netstack.netif._flow_limit cimport flow_limit_set
from netstack.netif._rps cimport RFS_MAX_LOG, RFS_MAX_SOCK_LOG, RPS_NO_CPU


cdef void stop_machine(net *n) noexcept nogil:
    """Be every CPU, with empty backlogs. [stop_machine()]"""
    cdef u32 cpu
    cpus_take(n)
    for cpu in range(n.nr_cpus):
        flush_backlog(<softnet_data *>n.cpus[cpu])


cdef void rps_update_needed(net *n) noexcept nogil:
    """Let packets pass get_rps_cpu only while some queue has use for it. [static_branch_inc(&rps_needed)]"""
    cdef net_device *dev
    cdef bint needed = False
    cdef u32 i, q
    for i in range(MAX_DEVICES):
        dev = n.devices[i]
        if dev != NULL:
            for q in range(MAX_RX_QUEUES):
                needed = needed or dev.rx[q].rps_cpus != 0 or dev.rx[q].rps_flow_table != NULL
    store_release_ptr(<void **>&n.rps_steer, <void *>rps_steer if needed else NULL)


cdef u32 log_of(u64 count) noexcept:
    """The power of two that is at least ``count``. [ilog2(roundup_pow_of_two())]"""
    cdef u32 log = 0
    while <u64>1 << log < count:
        log += 1
    return log


@cython.final
@cython.no_gc_clear
cdef class Rps:
    """RPS, RFS and flow limit of one host. Values are in range: ``config.py`` and ``sysfs.py`` see to that.

    ``key`` is 16 bytes for the flow hash, random if None. The host's Net keeps this alive.
    """
    cdef net *n
    cdef dict tables               # (queue or 0, log): the table's address
    cdef list limits               # the CPUs' flow limits, theirs to use and ours to free

    def __cinit__(self, Net n, bytes key=None):
        cdef u32 i
        key = key or os.urandom(16)
        if len(key) != 16:
            raise ValueError(f"key has {len(key)} bytes; give 16")
        self.n = n.ptr
        self.tables = {}
        for i in range(2):
            self.n.hash_key[i] = int.from_bytes(key[8 * i:8 * i + 8], "little")
        self.n.rps_cpu_mask = ((<u32>1) << log_of(self.n.nr_cpus)) - 1
        n.keep(self)

    def __dealloc__(self):
        # The Net goes first, and with it all that `n` points to.
        for address in [*(self.tables or {}).values(), *(self.limits or ())]:
            free(<void *><uintptr_t>address)

    def rps_cpus(self, uintptr_t device, u32 queue):
        """Give the mask of CPUs that take the packets of a queue; ``device`` is its net_device."""
        return load_relaxed32(&rx_queue(device, queue).rps_cpus)

    def set_rps_cpus(self, uintptr_t device, u32 queue, u32 cpus):
        """Set that mask, 0 for no RPS. [store_rps_map()]"""
        cdef netdev_rx_queue *rx = rx_queue(device, queue)
        with nogil:
            stop_machine(self.n)
            store_relaxed32(&rx.rps_cpus, cpus)
            rps_update_needed(self.n)
            cpus_release(self.n)

    def rps_flow_cnt(self, uintptr_t device, u32 queue):
        """Give the number of entries of a queue's flow table."""
        cdef rps_dev_flow_table *table = rx_queue(device, queue).rps_flow_table
        return 0 if table == NULL else 1 << table.log

    def set_rps_flow_cnt(self, uintptr_t device, u32 queue, u64 count):
        """Give a queue a flow table of at least ``count`` entries, 0 for none. [store_rps_dev_flow_table_cnt()]"""
        cdef netdev_rx_queue *rx = rx_queue(device, queue)
        cdef rps_dev_flow_table *table = NULL
        cdef u32 i
        cdef u32 log = log_of(count)
        if count:
            table = <rps_dev_flow_table *>self.table(<uintptr_t>rx, log, sizeof(rps_dev_flow_table),
                                                     sizeof(rps_dev_flow), RFS_MAX_LOG)
        with nogil:
            stop_machine(self.n)
            if table != NULL:
                table.log = log
                for i in range(<u32>1 << log):
                    store_relaxed32(&table.flows[i].cpu, RPS_NO_CPU)
            store_release_ptr(<void **>&rx.rps_flow_table, table)
            rps_update_needed(self.n)
            cpus_release(self.n)

    def set_rps_sock_flow_entries(self, u64 count):
        """Make room for ``count`` flows that are read, or more; 0: no RFS. Gives how many. [rps_sock_flow_sysctl()]"""
        cdef rps_sock_flow_table *table = NULL
        cdef u32 i
        cdef u32 log = log_of(count)
        if count:
            table = <rps_sock_flow_table *>self.table(0, log, sizeof(rps_sock_flow_table), sizeof(u32),
                                                      RFS_MAX_SOCK_LOG)
        with nogil:
            stop_machine(self.n)
            if table != NULL:
                store_relaxed32(&table.mask, (<u32>1 << log) - 1)
                for i in range(<u32>1 << log):
                    store_relaxed32(&table.ents[i], RPS_NO_CPU)
            store_release_ptr(<void **>&self.n.rps_sock_flow_table, table)
            cpus_release(self.n)
        return 1 << log if count else 0

    def set_flow_limit(self, u32 cpus, u32 table_len):
        """Give the CPUs whose bits are set a flow limit with ``table_len`` buckets, if they have none."""
        cdef u32 cpu
        try:
            flow_limit_set(self.n, cpus, table_len)
        finally:
            self.limits = [<uintptr_t>(<softnet_data *>self.n.cpus[cpu]).flow_limit for cpu in range(self.n.nr_cpus)]

    cdef void *table(self, uintptr_t owner, u32 log, size_t head, size_t entry, u32 most) except NULL:
        """Find or make the table of a size that belongs to ``owner``. Raises OSError (ENOMEM)."""
        cdef void *found
        if (owner, log) in self.tables:
            return <void *><uintptr_t>self.tables[owner, log]
        found = NULL if log > most else calloc(1, head + entry * (<size_t>1 << log))
        if found == NULL:
            raise OSError(errno.ENOMEM, f"no memory for a table of {1 << log} flows; {1 << most} is the most")
        self.tables[owner, log] = <uintptr_t>found
        return found


cdef netdev_rx_queue *rx_queue(uintptr_t device, u32 queue) except NULL:
    if queue >= MAX_RX_QUEUES:
        raise ValueError(f"queue {queue}: a device has at most {MAX_RX_QUEUES}")
    return &(<net_device *>device).rx[queue]
