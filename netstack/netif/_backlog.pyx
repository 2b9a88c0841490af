"""backlog: the queue in front of Python, and each CPU's queue of packets that no NAPI of its own polls.

Stage 5 of 8:  device driver irq napi [netif] nf proto sock
In       what the short cuts left alone   netif/_core.pyx
         packets for ourselves            driver/_loopback.pyx
         packets that RPS steers          netif/_core.pyx
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
    add_relaxed64, exchange32, fence, fetch_and32, fetch_or32, likely, load_acquire32, load_relaxed32, load_seq32,
    monotonic_ns, spin_lock, spin_unlock, store_relaxed32, store_release32, store_seq32, u32, u64, uintptr_t, unlikely,
)
from netstack._counters cimport (
    SKB_DROP_REASON_CPU_BACKLOG, SKB_DROP_REASON_DEV_READY, SKB_DROP_REASON_QUEUE_PURGE,
)
from netstack._eventfd cimport EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, eventfd, poll, pollfd
from netstack._net cimport (
    IFF_UP, SLOT_CPU0, SLOT_PROCESS, Net, dev_weight, dev_weight_rx_bias, net, net_now, net_realtime,
    netdev_max_backlog, netdev_tstamp_prequeue, rps_dev_flow, sysctl_get,
)
from netstack._skb cimport (
    dequeue, kfree_skb_reason, queue_init, queue_tail, sk_buff, sk_buff_head, skb_set_slot, skb_wrap,
)
from netstack.irq._cpu cimport cpu_release, cpu_take, cpu_wake
from netstack.irq._thread cimport sched_yield
from netstack.napi._napi cimport (
    IPI_BACKLOG, IPI_RPS, NAPIF_STATE_MISSED, NAPIF_STATE_SCHED, NAPI_POLL_WEIGHT, napi_enable, napi_init,
    napi_schedule_on, napi_struct, softnet_data,
)
from netstack.netif._core cimport __netif_receive_skb_core
from netstack.netif._flow_limit cimport skb_flow_limit
from netstack.netif._rps cimport get_rps_cpu, rps_wanted

cdef enum:
    INT_MAX = 0x7FFFFFFF
    LET_IN_NS = 100_000            # that a reader may need to get a core and the GIL


cdef struct seam:
    u32 lock
    u32 sleeping                   # Python waits on wake_fd
    u32 kicked                     # a timer was armed since Python last looked
    int wake_fd
    sk_buff_head queue
    u64 passed
    u64 dropped
    u32 in_hand                    # drained, and not ended yet; under lock
    u32 waiting                    # queue.qlen, for those who read it without the lock


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
        store_relaxed32(&s.waiting, s.queue.qlen)
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


cdef u32 waiting_for_python(net *n) noexcept nogil:
    """Packets at the seam, as struct net's seam_len(); no more than a hint."""
    return load_relaxed32(&(<seam *>n.seam).waiting)


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
    cdef readonly u32 drained      # frames that the last drain() took

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
        n.ptr.seam_len = waiting_for_python
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
        """Take packets of ``most`` frames, or a few more with the last; the list's SkBuffs own them, oldest first.

        ``ended`` says that one has.
        """
        cdef sk_buff *skb
        out = []
        self.drained = 0
        while self.drained < most:
            spin_lock(&self.s.lock)
            skb = dequeue(&self.s.queue)
            store_relaxed32(&self.s.waiting, self.s.queue.qlen)
            self.s.in_hand += skb != NULL      # in the same moment, so that nobody sees it nowhere
            spin_unlock(&self.s.lock)
            if skb == NULL:
                break
            self.drained += max(skb.frames, <u32>1)
            out.append(skb_wrap(skb, self.net_object))
        return out

    def let_readers_in(self):
        """Let those run who wait for the GIL with something in their sockets: who has it may keep it for 5 ms."""
        cdef net *n = (<Net>self.net_object).ptr
        cdef u64 end
        with nogil:
            end = monotonic_ns() + LET_IN_NS
            sched_yield()
            while load_acquire32(&n.back_to_python) and monotonic_ns() < end:
                sched_yield()

    def ended(self):
        """Note that who drained has handled one packet."""
        spin_lock(&self.s.lock)
        self.s.in_hand -= 1
        spin_unlock(&self.s.lock)

    @property
    def in_hand(self):
        """Packets that were drained and have not ended."""
        return self.s.in_hand

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
            store_relaxed32(&self.s.waiting, self.s.queue.qlen)
            spin_unlock(&self.s.lock)
            if skb == NULL:
                return
            skb_set_slot(skb, SLOT_PROCESS)
            kfree_skb_reason(skb, SKB_DROP_REASON_QUEUE_PURGE)


cdef u64 queue_frames(sk_buff_head *q, u32 *lock) noexcept nogil:
    cdef u64 total = 0
    cdef sk_buff *skb
    cdef sk_buff *frag
    spin_lock(lock)
    skb = q.first
    while skb != NULL:
        total += skb.frames
        frag = skb.frag_list           # what GRO merged
        while frag != NULL:
            total += frag.frames
            frag = frag.next
        skb = skb.next
    spin_unlock(lock)
    return total


# ---- a CPU's backlog

cdef void rps_send_ipi(softnet_data *sd, u32 ipi) noexcept nogil:
    """Interrupt another CPU: it polls its backlog. [net_rps_send_ipi()]"""
    if fetch_or32(&sd.ipi_pending, ipi) == 0:
        cpu_wake(sd)


cdef void net_rps_action(softnet_data *sd) noexcept nogil:
    """Interrupt those whose backlogs this CPU has filled. [net_rps_action_and_irq_enable()]"""
    cdef net *n = sd.n
    cdef u32 waiting = sd.rps_ipi_mask
    cdef u32 cpu
    sd.rps_ipi_mask = 0
    for cpu in range(n.nr_cpus):
        if waiting >> cpu & 1:
            rps_send_ipi(<softnet_data *>n.cpus[cpu], IPI_RPS)


cdef inline void napi_schedule_rps(softnet_data *sd, softnet_data *mysd, u32 ipi) noexcept nogil:
    """See that a backlog is polled, which NAPIF_STATE_SCHED promises already. [napi_schedule_rps()]

    Other CPUs are told once a net_rx_action, not once a packet.
    """
    if mysd == NULL or not mysd.in_net_rx_action:
        rps_send_ipi(sd, IPI_BACKLOG if sd == mysd else ipi)
    elif sd == mysd:
        napi_schedule_on(sd, &sd.backlog)
    else:
        mysd.rps_ipi_mask |= <u32>1 << sd.cpu


cdef int enqueue_to_backlog(sk_buff *skb, u32 cpu, u32 *qtail, softnet_data *mysd, u32 ipi) noexcept nogil:
    """Queue a packet (data at its network header) for a CPU. Consumes skb. [enqueue_to_backlog()]

    ``mysd``: this CPU, NULL in process context; ``ipi``: how the other is told. ``qtail``, if given, is where the queue
    then ends. 0, or 1 (NET_RX_DROP) when the device is down, the backlog is full, or the flow has too much of it.
    """
    cdef net *n = skb.pool.n
    cdef softnet_data *sd = <softnet_data *>n.cpus[cpu]
    cdef u32 max_backlog = <u32>sysctl_get(n, netdev_max_backlog)
    cdef u32 reason = SKB_DROP_REASON_DEV_READY
    cdef u32 qlen, tail
    cdef bint idle
    if likely(load_relaxed32(&skb.dev.flags) & IFF_UP):
        reason = SKB_DROP_REASON_CPU_BACKLOG
        spin_lock(&sd.input_lock)
        qlen = sd.input_pkt_queue.qlen
        if likely(qlen <= max_backlog) and not skb_flow_limit(skb, qlen, max_backlog, sd if mysd == NULL else mysd):
            # Whoever finds the backlog idle, under the lock, schedules it; process_backlog ends under the lock.
            idle = not load_acquire32(&sd.backlog.state) & NAPIF_STATE_SCHED
            if idle:
                fetch_or32(&sd.backlog.state, NAPIF_STATE_SCHED)
            queue_tail(&sd.input_pkt_queue, skb)
            sd.input_queue_tail += 1
            tail = sd.input_queue_tail
            spin_unlock(&sd.input_lock)
            if qtail != NULL:
                store_relaxed32(qtail, tail)
            if idle:
                napi_schedule_rps(sd, mysd, ipi)
            return 0
        spin_unlock(&sd.input_lock)
        add_relaxed64(&sd.dropped, 1)
    add_relaxed64(&skb.dev.stats.rx_dropped, 1)
    kfree_skb_reason(skb, reason)
    return 1


cdef int netif_rx(void *p) noexcept nogil:
    """Receive a packet (data at its network header) of a driver without NAPI, from any context. Consumes skb.

    It goes into the backlog of the CPU that RPS chooses, else of the one that has it; from process context into CPU
    0's, so that what one thread sends stays in order. 0, or 1 (NET_RX_DROP). [netif_rx()]
    """
    cdef sk_buff *skb = <sk_buff *>p
    cdef rps_dev_flow *rflow = NULL
    cdef int cpu = -1
    if unlikely(load_relaxed32(&skb.pool.n.netstamp_needed)) and sysctl_get(skb.pool.n, netdev_tstamp_prequeue):
        skb.tstamp = net_realtime(skb.pool.n)
    if unlikely(rps_wanted(skb.dev)):
        cpu = get_rps_cpu(skb.pool.n, skb, &rflow)
    if cpu < 0:
        cpu = <int>skb.slot - SLOT_CPU0 if skb.slot != SLOT_PROCESS else 0
        return enqueue_to_backlog(skb, <u32>cpu, NULL, NULL, IPI_BACKLOG)
    return enqueue_to_backlog(skb, <u32>cpu, &rflow.last_qtail if rflow != NULL else NULL, NULL, IPI_RPS)


cdef void *rps_steer(net *n, void *head, void *sd) noexcept nogil:
    """Send packets of a batch to the CPUs that get_rps_cpu names; gives the list of the others, in order."""
    cdef sk_buff *skb = <sk_buff *>head
    cdef sk_buff *following
    cdef sk_buff_head staying
    cdef rps_dev_flow *rflow
    cdef int cpu
    queue_init(&staying)
    while skb != NULL:
        following = skb.next
        skb.next = NULL
        rflow = NULL
        cpu = get_rps_cpu(n, skb, &rflow)
        if cpu < 0:
            queue_tail(&staying, skb)
        else:
            enqueue_to_backlog(skb, <u32>cpu, &rflow.last_qtail if rflow != NULL else NULL, <softnet_data *>sd, IPI_RPS)
        skb = following
    return staying.first


# ---- process_backlog

cdef int process_queue(softnet_data *sd, int quota) noexcept nogil:
    """Hand up to ``quota`` packets of process_queue up; how many it were."""
    cdef sk_buff *skb
    cdef int work = 0
    while work < quota:
        skb = dequeue(&sd.process_queue)
        if skb == NULL:
            break
        skb_set_slot(skb, sd.slot)
        __netif_receive_skb_core(sd.n, skb, sd)
        # After all that the packet caused: RFS may now let its flow go elsewhere. [rps_input_queue_head_incr()]
        store_release32(&sd.input_queue_head, sd.input_queue_head + 1)
        work += 1
    return work


cdef int process_backlog(napi_struct *napi, int quota) noexcept nogil:
    """The poll of the CPU's backlog: hand up what netif_rx and RPS queued. [process_backlog()]"""
    cdef softnet_data *sd = napi.sd
    cdef int work = 0
    cdef bint again = True
    if unlikely(sd.rps_ipi_mask):
        net_rps_action(sd)
    napi.weight = <u32>min(sysctl_get(sd.n, dev_weight) * sysctl_get(sd.n, dev_weight_rx_bias), <u64>INT_MAX)
    while again:
        work += process_queue(sd, quota - work)
        if work >= quota:
            return work
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


cdef void flush_backlog(softnet_data *sd) noexcept nogil:
    """Hand up all that stands in a CPU's backlog at the time of the call, as that CPU."""
    sd.now = net_now(sd.n)
    process_queue(sd, INT_MAX)
    spin_lock(&sd.input_lock)
    sd.process_queue = sd.input_pkt_queue
    queue_init(&sd.input_pkt_queue)
    spin_unlock(&sd.input_lock)
    process_queue(sd, INT_MAX)
    if sd.wake_list != NULL:
        sd.wake_all(sd)


def backlog_init(Net n, uintptr_t cpu):
    """Give a CPU its backlog NAPI, and the host ``netif_rx``. [net_dev_init()]"""
    cdef softnet_data *sd = <softnet_data *>cpu
    napi_init(&sd.backlog, n.ptr, NULL, sd, process_backlog, NAPI_POLL_WEIGHT)
    napi_enable(&sd.backlog)
    sd.net_rps_action = net_rps_action
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
    """Frames off the wire in a CPU's backlog. Waits for whoever is that CPU."""
    cdef softnet_data *sd = <softnet_data *>cpu
    cdef u64 frames
    with nogil:
        cpu_take(sd)
        frames = (queue_frames(&sd.process_queue, &sd.input_lock) + queue_frames(&sd.input_pkt_queue, &sd.input_lock))
        cpu_release(sd)
    return frames
