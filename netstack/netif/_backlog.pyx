"""backlog: the queue in front of Python, and the queue of packets that have no NAPI of their own.

Stage 5 of 8:  device driver irq napi [netif] nf proto sock
In       what the short cuts left alone   netif/_core.pyx
         packets for ourselves            proto/_ip.pyx
Out      the Python layers                proto/ip.py
         the device core                  netif/_core.pyx
Context  softirq and process; no GIL to put, the GIL to take
Kernel   enqueue_to_backlog(), process_backlog(), netif_rx(), net/core/dev.c

The seam is the only way from a CPU to Python: a bounded ring and an eventfd. A CPU never waits for it; what does not
fit is dropped as CPU_BACKLOG, so that a busy program delays only its own slow-path packets.
"""

cimport cython
import errno
import os

from libc.stdlib cimport calloc, free
from posix.unistd cimport close, read, write

from netstack._abi cimport (
    add_relaxed64, exchange32, fence, fetch_or32, fetch_and32, load_seq32, spin_lock, spin_unlock, store_seq32,
    u32, u64, uintptr_t,
)
from netstack._counters cimport SKB_DROP_REASON_CPU_BACKLOG, SKB_DROP_REASON_QUEUE_PURGE
from netstack._eventfd cimport EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, eventfd, poll, pollfd
from netstack._net cimport SLOT_CPU0, SLOT_PROCESS, Net, net, netdev_max_backlog, sysctl_get
from netstack._skb cimport (
    dequeue, kfree_skb_reason, queue_init, queue_tail, sk_buff, sk_buff_head, skb_set_slot, skb_wrap,
)
from netstack.irq._cpu cimport cpu_wake
from netstack.napi._napi cimport (
    IPI_BACKLOG, IPI_RPS, NAPIF_STATE_MISSED, NAPIF_STATE_SCHED, NAPI_POLL_WEIGHT, napi_enable,
    napi_init, napi_struct, softnet_data,
)
from netstack.netif._core cimport __netif_receive_skb_core


cdef struct seam:
    u32 lock
    u32 sleeping                   # Python waits on wake_fd
    u32 kicked                     # a timer was armed since Python last looked
    int wake_fd
    sk_buff_head queue
    u64 passed
    u64 dropped


# ---- the seam to Python

cdef void seam_wake(seam *s) noexcept nogil:
    cdef u64 one = 1
    fence()
    if load_seq32(&s.sleeping) and exchange32(&s.sleeping, 0):
        write(s.wake_fd, &one, 8)


cdef void to_python(net *n, void *p) noexcept nogil:
    """Leave a packet to the Python layers; bounded by netdev_max_backlog. Consumes skb. [enqueue_to_backlog()]"""
    cdef sk_buff *skb = <sk_buff *>p
    cdef seam *s = <seam *>n.seam
    cdef softnet_data *sd
    cdef bint fits
    spin_lock(&s.lock)
    fits = s.queue.qlen <= sysctl_get(n, netdev_max_backlog)
    if fits:
        s.passed += 1
        queue_tail(&s.queue, skb)
    else:
        s.dropped += 1
    spin_unlock(&s.lock)
    if fits:
        seam_wake(s)
        return
    if skb.slot != SLOT_PROCESS:
        sd = <softnet_data *>n.cpus[skb.slot - 1]
        add_relaxed64(&sd.dropped, 1)
    kfree_skb_reason(skb, SKB_DROP_REASON_CPU_BACKLOG)


cdef u32 seam_len(seam *s) noexcept nogil:
    cdef u32 qlen
    spin_lock(&s.lock)
    qlen = s.queue.qlen
    spin_unlock(&s.lock)
    return qlen


cdef void kick_python(net *n) noexcept nogil:
    """Let the Python side look at its timers."""
    cdef seam *s = <seam *>n.seam
    store_seq32(&s.kicked, 1)          # it may have looked already and not sleep yet
    seam_wake(s)


@cython.final
@cython.no_gc_clear
cdef class Seam:
    """Python's end of the ring: wait for packets, take them in batches."""
    cdef seam *s
    cdef object net_object

    def __cinit__(self, Net n):
        self.net_object = n
        self.s = <seam *>calloc(1, sizeof(seam))
        if self.s == NULL:
            raise MemoryError
        queue_init(&self.s.queue)
        self.s.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.s.wake_fd < 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE) + "; see ulimit -n")
        n.ptr.seam = self.s
        n.ptr.to_python = to_python
        n.ptr.kick_python = kick_python

    def __dealloc__(self):
        if self.s != NULL:
            close(self.s.wake_fd)
            free(self.s)

    def wait(self, timeout=None):
        """Sleep until there are packets, a kick, or ``timeout`` seconds are over. Without the GIL."""
        cdef pollfd fd
        cdef u64 word
        cdef int ms = -1 if timeout is None else max(0, min(int(timeout * 1000) + 1, 1 << 30))
        with nogil:
            store_seq32(&self.s.sleeping, 1)
            fence()
            if not exchange32(&self.s.kicked, 0) and seam_len(self.s) == 0:
                fd.fd = self.s.wake_fd
                fd.events = POLLIN
                poll(&fd, 1, ms)
            store_seq32(&self.s.sleeping, 0)
            read(self.s.wake_fd, &word, 8)

    def wake(self):
        """Make ``wait`` return, from any thread."""
        cdef u64 one = 1
        write(self.s.wake_fd, &one, 8)

    def drain(self, u32 most=64):
        """Take up to ``most`` packets, oldest first; the list's SkBuffs own them."""
        cdef sk_buff *skb
        out = []
        while len(out) < most:
            spin_lock(&self.s.lock)
            skb = dequeue(&self.s.queue)
            spin_unlock(&self.s.lock)
            if skb == NULL:
                break
            out.append(skb_wrap(skb, self.net_object))
        return out

    def __len__(self):
        return seam_len(self.s)

    def frames(self):
        """Frames off the wire that stand in the queue."""
        return queue_frames(&self.s.queue, &self.s.lock)

    @property
    def counters(self):
        """Packets that went through, and packets that found no room."""
        cdef u64 passed, dropped
        spin_lock(&self.s.lock)
        passed, dropped = self.s.passed, self.s.dropped
        spin_unlock(&self.s.lock)
        return passed, dropped

    def purge(self):
        """End everything that is queued: the host closes."""
        cdef sk_buff *skb
        while True:
            spin_lock(&self.s.lock)
            skb = dequeue(&self.s.queue)
            spin_unlock(&self.s.lock)
            if skb == NULL:
                return
            skb_set_slot(skb, SLOT_PROCESS)
            kfree_skb_reason(skb, SKB_DROP_REASON_QUEUE_PURGE)


cdef u64 queue_frames(sk_buff_head *q, u32 *lock) noexcept nogil:
    cdef u64 total = 0
    cdef sk_buff *skb
    spin_lock(lock)
    skb = q.first
    while skb != NULL:
        total += skb.frames
        skb = skb.next
    spin_unlock(lock)
    return total


# ---- process_backlog

cdef int enqueue_to_backlog(net *n, sk_buff *skb, u32 cpu) noexcept nogil:
    """Queue a packet (data at its network header) for a CPU, and have that look. Consumes skb. [enqueue_to_backlog()]

    From any context. 0, or 1 (NET_RX_DROP) when netdev_max_backlog packets wait already.
    """
    cdef softnet_data *sd = <softnet_data *>n.cpus[cpu]
    cdef u32 ipi = IPI_BACKLOG
    if skb.slot != SLOT_PROCESS and skb.slot != sd.slot:
        ipi = IPI_BACKLOG | IPI_RPS
    spin_lock(&sd.input_lock)
    if sd.input_pkt_queue.qlen <= sysctl_get(n, netdev_max_backlog):
        queue_tail(&sd.input_pkt_queue, skb)
        spin_unlock(&sd.input_lock)
        if fetch_or32(&sd.ipi_pending, ipi) == 0:
            cpu_wake(sd)
        return 0
    spin_unlock(&sd.input_lock)
    add_relaxed64(&sd.dropped, 1)
    kfree_skb_reason(skb, SKB_DROP_REASON_CPU_BACKLOG)
    return 1


cdef int netif_rx(void *p) noexcept nogil:
    """Queue a packet for the backlog of the CPU that has it; from process context, for CPU 0's. [netif_rx()]"""
    cdef sk_buff *skb = <sk_buff *>p
    return enqueue_to_backlog(skb.pool.n, skb, skb.slot - SLOT_CPU0 if skb.slot != SLOT_PROCESS else 0)


cdef int process_backlog(napi_struct *napi, int quota) noexcept nogil:
    """The poll of the CPU's backlog: hand up what netif_rx queued. [process_backlog()]"""
    cdef softnet_data *sd = napi.sd
    cdef sk_buff *skb
    cdef int work = 0
    cdef bint again = True
    while again:
        skb = dequeue(&sd.process_queue)
        while skb != NULL:
            skb_set_slot(skb, sd.slot)
            __netif_receive_skb_core(sd.n, skb, sd)
            work += 1
            if work >= quota:
                return work
            skb = dequeue(&sd.process_queue)
        spin_lock(&sd.input_lock)
        if sd.input_pkt_queue.qlen == 0:
            # Under the lock: whoever queues next sees an idle NAPI and schedules it.
            fetch_and32(&napi.state, ~<u32>(NAPIF_STATE_SCHED | NAPIF_STATE_MISSED))
            again = False
        else:
            sd.process_queue = sd.input_pkt_queue
            queue_init(&sd.input_pkt_queue)
        spin_unlock(&sd.input_lock)
    return work


def backlog_init(Net n, uintptr_t cpu):
    """Give a CPU its backlog NAPI, and the host ``netif_rx``. [net_dev_init()]"""
    cdef softnet_data *sd = <softnet_data *>cpu
    napi_init(&sd.backlog, n.ptr, NULL, sd, process_backlog, NAPI_POLL_WEIGHT)
    napi_enable(&sd.backlog)
    n.ptr.netif_rx = netif_rx


def backlog_purge(uintptr_t cpu):
    """End what is queued in a CPU's backlog: the host closes."""
    cdef softnet_data *sd = <softnet_data *>cpu
    cdef sk_buff *skb = dequeue(&sd.process_queue)
    while skb != NULL:
        skb_set_slot(skb, SLOT_PROCESS)
        kfree_skb_reason(skb, SKB_DROP_REASON_QUEUE_PURGE)
        skb = dequeue(&sd.process_queue)
    skb = dequeue(&sd.input_pkt_queue)
    while skb != NULL:
        skb_set_slot(skb, SLOT_PROCESS)
        kfree_skb_reason(skb, SKB_DROP_REASON_QUEUE_PURGE)
        skb = dequeue(&sd.input_pkt_queue)


def backlog_frames(uintptr_t cpu):
    """Frames off the wire in a CPU's backlog."""
    cdef softnet_data *sd = <softnet_data *>cpu
    return queue_frames(&sd.process_queue, &sd.input_lock) + queue_frames(&sd.input_pkt_queue, &sd.input_lock)
