"""Hardware that fails: a layer between a NIC and its CPU that loses, delays and damages, by dice with a seed.

It stands in the place of the hardware's own functions (``hw_device``), so a NIC without it runs as if it did not
exist. Everything here runs as the CPU, where the hardware's step runs.
"""

cimport cython

from netstack._abi cimport fetch_or32, store_release16, u16, u32, u64, uintptr_t
from netstack._net cimport net
from netstack._skb cimport SKB_CLASSES, sk_buff, skb_pool
from netstack.device._device cimport hw_device
from netstack.device._igb_nic cimport igb_cause, igb_nic, igb_rx_unit
from netstack.device._igb_regs cimport (
    E1000_RXD_STAT_EOP, E1000_RXDEXT_STATERR_CE, E1000_RXDEXT_STATERR_CXE, E1000_RXDEXT_STATERR_IPE,
    E1000_RXDEXT_STATERR_RXE, E1000_RXDEXT_STATERR_SE, E1000_RXDEXT_STATERR_SEQ, E1000_RXDEXT_STATERR_TCPE,
    IGB_MAX_QUEUES, IGB_MAX_VECTORS, e1000_adv_rx_desc,
)
from netstack.driver._igb cimport igb_adapter
from netstack.irq._cpu cimport cpu_release, cpu_try_take, cpu_wake, cpus_release, cpus_take, cpus_wake
from netstack.irq._irq cimport irq_move
from netstack.napi._napi cimport softnet_data

cdef enum:
    LOST_INTERRUPT
    LATE_INTERRUPT
    STUCK_THROTTLE
    BAD_DESCRIPTOR
    LATE_WRITEBACK
    FAILED_ALLOCATION
    AFFINITY_MOVED
    FAULTS

NAMES = ("lost_interrupt", "late_interrupt", "stuck_throttle", "bad_descriptor", "late_writeback",
         "failed_allocation", "affinity_moved")

cdef u32 *ERRORS = [
    E1000_RXDEXT_STATERR_CE, E1000_RXDEXT_STATERR_SE, E1000_RXDEXT_STATERR_SEQ, E1000_RXDEXT_STATERR_CXE,
    <u32>E1000_RXDEXT_STATERR_RXE, E1000_RXDEXT_STATERR_TCPE, E1000_RXDEXT_STATERR_IPE,
]

cdef struct hidden_desc:           # a descriptor whose write-back is under way
    igb_rx_unit *queue
    e1000_adv_rx_desc *desc
    u16 length
    u64 due                        # ns, 0 for none

cdef struct stolen_slab:           # what a pool had, while it has nothing
    sk_buff *free
    u32 nr_free
    u32 fresh

cdef struct injector:
    hw_device real                 # the hardware's own functions
    igb_nic *nic
    igb_adapter *adapter
    softnet_data *sd
    u64 random
    u64 chance[FAULTS]             # of 2**32
    u64 ns[FAULTS]                 # how long it lasts
    u64 count[FAULTS]
    hidden_desc hidden
    u32 late_vectors
    u64 late_due
    stolen_slab stolen[SKB_CLASSES]
    u64 starved_until
    u64 last_now


cdef bint draw(injector *f, u32 fault) noexcept nogil:
    """Throw the dice for one fault. [xorshift64]"""
    cdef u64 x = f.random
    if f.chance[fault] == 0:
        return False
    x ^= x << 13
    x ^= x >> 7
    x ^= x << 17
    f.random = x
    if x >> 32 >= f.chance[fault]:
        return False
    f.count[fault] += 1
    return True


cdef void faulty_fire(void *arg, u32 vector) noexcept nogil:
    """Lose a cause, or hold the message back."""
    cdef injector *f = <injector *>arg
    if draw(f, LOST_INTERRUPT):
        # The cause is gone and nobody was told: neither is the vector masked.
        fetch_or32(&f.nic.eims, <u32>1 << vector)
        f.nic.next_fire[vector] = f.last_now
    elif draw(f, LATE_INTERRUPT):
        f.late_vectors |= <u32>1 << vector
        if f.late_due == 0:
            f.late_due = f.last_now + f.ns[LATE_INTERRUPT]
    else:
        f.real.fire(f.real.fire_arg, vector)


cdef void fire_late(injector *f) noexcept nogil:
    cdef u32 vector
    for vector in range(32):
        if f.late_vectors >> vector & 1:
            f.real.fire(f.real.fire_arg, vector)
    f.late_vectors = 0
    f.late_due = 0


cdef void reveal(injector *f) noexcept nogil:
    """Finish the write-back, with its cause."""
    store_release16(&f.hidden.desc.wb.length, f.hidden.length)
    f.hidden.due = 0
    igb_cause(f.nic, f.hidden.queue.eicr)


cdef void starve(injector *f) noexcept nogil:
    """Take from the CPU's pool all that it could give."""
    cdef skb_pool *pool = f.sd.pool
    cdef u32 cls
    for cls in range(SKB_CLASSES):
        f.stolen[cls].free = pool.slab[cls].free
        f.stolen[cls].nr_free = pool.slab[cls].nr_free
        f.stolen[cls].fresh = pool.slab[cls].fresh
        pool.slab[cls].free = NULL
        pool.slab[cls].nr_free = 0
        pool.slab[cls].fresh = pool.slab[cls].count
    f.starved_until = f.last_now + f.ns[FAILED_ALLOCATION]


cdef void feed(injector *f) noexcept nogil:
    """Give it back, in front of what was freed meanwhile."""
    cdef skb_pool *pool = f.sd.pool
    cdef sk_buff *last
    cdef u32 cls
    for cls in range(SKB_CLASSES):
        last = f.stolen[cls].free
        if last != NULL:
            while last.next != NULL:
                last = last.next
            last.next = pool.slab[cls].free
            pool.slab[cls].free = f.stolen[cls].free
            pool.slab[cls].nr_free += f.stolen[cls].nr_free
        pool.slab[cls].fresh = f.stolen[cls].fresh
    f.starved_until = 0


cdef void damage(injector *f, igb_rx_unit *q, u32 head) noexcept nogil:
    """Damage what the hardware has just written back: error bits, and write-backs that come after later ones."""
    cdef e1000_adv_rx_desc *desc
    while head != q.head:
        desc = &q.ring[head]
        if desc.wb.status_error & E1000_RXD_STAT_EOP:
            if draw(f, BAD_DESCRIPTOR):
                desc.wb.status_error |= ERRORS[f.random % 7]
            if f.hidden.due == 0 and draw(f, LATE_WRITEBACK):
                f.hidden.queue, f.hidden.desc, f.hidden.length = q, desc, desc.wb.length
                f.hidden.due = f.last_now + f.ns[LATE_WRITEBACK]
                desc.wb.length = 0
        head = head + 1 if head + 1 < q.count else 0


cdef u32 take_others(injector *f) noexcept nogil:
    """Become every other CPU of the host that can be had at once, up to the first that can't; gives where that was."""
    cdef net *n = f.sd.n
    cdef u32 i
    for i in range(n.nr_cpus):
        if i != f.sd.cpu and not cpu_try_take(<softnet_data *>n.cpus[i]):
            return i
    return n.nr_cpus


cdef void move_a_line(injector *f) noexcept nogil:
    """Send a queue's vector to a CPU by dice, between two polls, if every CPU can be held still for it."""
    cdef net *n = f.sd.n
    cdef u32 taken, i
    if n.nr_cpus == 1 or f.chance[AFFINITY_MOVED] == 0 or f.sd.in_softirq or f.sd.in_net_rx_action:
        return
    taken = take_others(f)
    if taken == n.nr_cpus and draw(f, AFFINITY_MOVED):
        irq_move(&f.adapter.q_vector[(f.random >> 8) % f.adapter.num_queues].irq,
                 <softnet_data *>n.cpus[(f.random >> 16) % n.nr_cpus])
    for i in range(taken):
        if i != f.sd.cpu:
            cpu_release(<softnet_data *>n.cpus[i])
            cpu_wake(<softnet_data *>n.cpus[i])


cdef void run_out(injector *f, u64 now) noexcept nogil:
    """End the faults whose time is over."""
    if f.hidden.due and f.hidden.due <= now:
        reveal(f)
    if f.starved_until and f.starved_until <= now:
        feed(f)
    if f.late_due and f.late_due <= now:
        fire_late(f)


cdef u32 faulty_step(hw_device *hw, u64 now, u32 budget) noexcept nogil:
    cdef injector *f = <injector *>hw.faults
    cdef igb_nic *nic = f.nic
    cdef u32 head[IGB_MAX_QUEUES]
    cdef u32 moved, i
    f.last_now = now
    run_out(f, now)
    for i in range(IGB_MAX_QUEUES):
        head[i] = nic.rx[i].head
    moved = f.real.step(hw, now, budget)
    if moved == 0:
        return 0
    for i in range(IGB_MAX_QUEUES):
        # What another CPU polls may be in its hands by now.
        if nic.rx[i].enabled and f.adapter.q_vector[i].rx.remote == NULL:
            damage(f, &nic.rx[i], head[i])
    if draw(f, STUCK_THROTTLE):
        for i in range(1, IGB_MAX_VECTORS):
            nic.next_fire[i] = now + f.ns[STUCK_THROTTLE]
    if f.starved_until == 0 and draw(f, FAILED_ALLOCATION):
        starve(f)
    move_a_line(f)
    return moved


cdef u64 faulty_deadline(hw_device *hw) noexcept nogil:
    cdef injector *f = <injector *>hw.faults
    cdef u64 first = f.real.deadline(hw)
    cdef u64 *due = [f.hidden.due, f.late_due, f.starved_until]
    cdef u32 i
    for i in range(3):
        if due[i] and (first == 0 or due[i] < first):
            first = due[i]
    return first


@cython.final
@cython.no_gc_clear
cdef class Injector:
    """Put faults into the NIC of a device. ``netstack.testing.faults.Faults`` is made of this."""
    cdef injector f
    cdef hw_device *hw
    cdef object nic

    def __cinit__(self, nic not None, u64 seed, dict chances not None, dict seconds not None):
        cdef igb_adapter *adapter = <igb_adapter *><uintptr_t>nic.address
        self.nic = nic
        self.f.nic = adapter.nic
        self.f.adapter = adapter
        self.f.sd = adapter.sd
        self.f.random = (seed + 1) * <u64>0x9E3779B97F4A7C15 | 1
        for fault, name in enumerate(NAMES):
            self.f.chance[fault] = <u64>(chances.get(name, 0.0) * 4294967296.0)
            self.f.ns[fault] = <u64>(seconds.get(name, 0.0) * 1e9)
        with nogil:
            cpus_take(self.f.sd.n)
            self.hw = &adapter.nic.hw
            self.f.real = self.hw[0]
            self.hw.faults = &self.f
            self.hw.step = faulty_step
            self.hw.deadline = faulty_deadline
            self.hw.fire = faulty_fire
            self.hw.fire_arg = &self.f
            cpus_release(self.f.sd.n)

    def counts(self):
        """How often each fault happened."""
        return {name: self.f.count[fault] for fault, name in enumerate(NAMES)}

    def remove(self):
        """Mend the hardware: what was held back is let go, and it works as before."""
        if self.hw == NULL:
            return
        with nogil:
            cpus_take(self.f.sd.n)
            run_out(&self.f, <u64>-1)
            self.hw[0] = self.f.real
            self.hw = NULL
            cpus_release(self.f.sd.n)
            cpus_wake(self.f.sd.n)

    def __dealloc__(self):
        self.remove()
