"""affinity: the interrupt lines of a host as /proc/interrupts and /proc/irq show them, and where each goes.

Stage 3 of 8:  device driver [irq] napi netif nf proto sock
In       masks of CPUs                    netstack/procfs.py
Out      lines on other CPUs              irq/_irq.pyx
Context  process context; every CPU stands still while a line moves
Kernel   show_interrupts(), irq_affinity_proc_write(), kernel/irq/proc.c
"""

import errno

from netstack._abi cimport load_relaxed64, u32, u64
from netstack._net cimport MAX_CPUS, Net, net
from netstack.irq._cpu cimport cpus_release, cpus_take, cpus_wake
from netstack.irq._irq cimport irq_move
from netstack.napi._napi cimport MAX_IRQS, irq_desc, softnet_data

cdef struct line:
    u32 irq
    u32 cpu
    u64 affinity
    u64 count[MAX_CPUS]
    char name[32]


cdef u32 copy_lines(net *n, line *out) noexcept nogil:
    """Note every line that is connected; gives how many. As every CPU."""
    cdef irq_desc *desc
    cdef u32 count = 0
    cdef u32 i, cpu
    for i in range(MAX_IRQS):
        desc = <irq_desc *>n.irqs[i]
        if desc == NULL:
            continue
        out[count].irq = desc.irq
        out[count].cpu = desc.sd.cpu
        out[count].affinity = desc.affinity
        out[count].name = desc.name
        for cpu in range(n.nr_cpus):
            out[count].count[cpu] = load_relaxed64(&desc.count[cpu])
        count += 1
    return count


def lines(Net n):
    """Give every line: a list of (irq, name, count on each CPU, smp_affinity, the CPU that it goes to)."""
    cdef line found[MAX_IRQS]
    cdef u32 count, i
    with nogil:
        cpus_take(n.ptr)
        count = copy_lines(n.ptr, found)
        cpus_release(n.ptr)
    return [(found[i].irq, found[i].name.decode(), [found[i].count[cpu] for cpu in range(n.ptr.nr_cpus)],
             found[i].affinity, found[i].cpu) for i in range(count)]


def set_affinity(Net n, u32 irq, u64 mask):
    """Send a line to a CPU of ``mask``, bit n for CPU n: where it is if that is one, else the first. Under traffic too.

    Bits of CPUs that the host does not have are left out. OSError EINVAL when no CPU is left, ENOENT without the line.
    """
    cdef irq_desc *desc = NULL
    cdef irq_desc *each
    cdef u32 i
    cdef u32 to = 0
    mask &= (<u64>1 << n.ptr.nr_cpus) - 1
    if mask == 0:
        raise OSError(errno.EINVAL, f"irq {irq}: none of these CPUs is there; the host has {n.ptr.nr_cpus}, "
                                    "bit 0 is the first")
    while not mask >> to & 1:
        to += 1
    with nogil:
        cpus_take(n.ptr)
        for i in range(MAX_IRQS):
            each = <irq_desc *>n.ptr.irqs[i]
            if each != NULL and each.irq == irq:
                desc = each
        if desc != NULL:
            desc.affinity = mask
            if not mask >> desc.sd.cpu & 1:
                irq_move(desc, <softnet_data *>n.ptr.cpus[to])
        cpus_release(n.ptr)
        cpus_wake(n.ptr)
    if desc == NULL:
        raise OSError(errno.ENOENT, f"there is no irq {irq}; see netstack proc interrupts")
