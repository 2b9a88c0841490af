"""cpu: the role of CPU n, and the thread that plays it when nobody else does.

Stage 3 of 8:  device driver [irq] napi netif nf proto sock
In       events of wires, timers, wake-ups  device/_tap.pyx
Out      hard IRQs and softirqs             irq/_softirq.pyx
Context  the thread ksoftirqd/n, or any thread that took the role; no GIL
Kernel   run_ksoftirqd(), kernel/softirq.c; the idle loop, kernel/sched/idle.c

A CPU is a role. Whoever changed ``sd.role`` from 0 is CPU n until it puts 0 back; no other state says who it is. The
CPU's own thread takes the role when an event wakes it and gives it back before it sleeps. An application whose queue is
empty may take it too and poll the hardware itself (``_busy.pyx``): no thread has to be woken, so none is switched to.

The thread gives way: when an application asks for the role (``want_role``), the thread ends its pass, leaves the wires
to the application (``irq_suspended``) and sleeps. It looks every irq_suspend_timeout whether one has polled since, and
takes the wires back if none has.
"""

cimport cython
import errno

from libc.errno cimport errno as c_errno
from libc.stdlib cimport calloc, free
from posix.unistd cimport close, read, usleep, write

from netstack._abi cimport (
    cas32, cpu_relax, exchange32, fence, fetch_add32, load_acquire32, load_relaxed64, load_seq32, monotonic_ns,
    store_release32, store_seq32, u32, u64, uintptr_t,
)
from netstack._net cimport (
    SLOT_CPU0, Net, busy_poll, net, net_now, poll_spin_usecs, sysctl_get,
)
from netstack._skb cimport pool_state, queue_init, skb_pool_create
from netstack.device._device cimport hw_device
from netstack.irq._irq cimport irq_resume, irq_suspend, look_at_wires
from netstack.irq._softirq cimport hw_busy
from netstack.irq._thread cimport (
    CLOCK_MONOTONIC, EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLLIN, IRQ_NICE,
    TFD_CLOEXEC, TFD_NONBLOCK, epoll_create1, epoll_ctl, epoll_event, epoll_wait_ns, eventfd, eventfd_wait, futex_wait,
    futex_wake, gettid, pthread_join, pthread_t, sched_yield, thread_nice, thread_setup, thread_start, timerfd_create,
)
from netstack.irq._watch cimport given_away, only_watching, watch_applications
from netstack.napi._napi cimport NR_SOFTIRQS, napi_frames, napi_next_timer, softnet_data


cdef enum:
    LET_IN_NS = 10_000_000         # that somebody woken may take to get a core


# ---- the role

cdef bint cpu_try_take(softnet_data *sd) noexcept nogil:
    """Become the CPU if nobody is."""
    return cas32(&sd.role, 0, 1)


cdef void cpu_take(softnet_data *sd) noexcept nogil:
    """Become the CPU; waits for whoever is, at most for the softirq it is in."""
    cdef u32 _tries
    for _tries in range(200):
        if cas32(&sd.role, 0, 1):
            return
        cpu_relax()
    fetch_add32(&sd.role_waiters, 1)
    while exchange32(&sd.role, 2) != 0:
        futex_wait(&sd.role, 2)
    fetch_add32(&sd.role_waiters, <u32>-1)


cdef void cpu_let_in(softnet_data *sd) noexcept nogil:
    """Wait, after the role was given back, until one of those who block for it has it: before it is taken again.

    Who is woken still has to get a core, which takes longer than a pass does. Without this the thread would be the CPU
    again by then, time after time, as long as frames keep coming.
    """
    cdef u64 start
    if load_seq32(&sd.role_waiters) == 0:
        return
    start = monotonic_ns()
    while load_seq32(&sd.role_waiters) and load_acquire32(&sd.role) == 0 and monotonic_ns() - start < LET_IN_NS:
        usleep(10)


cdef void cpu_release(softnet_data *sd) noexcept nogil:
    """Stop being the CPU."""
    if exchange32(&sd.role, 0) == 2:
        futex_wake(&sd.role)


cdef void cpus_take(net *n) noexcept nogil:
    """Become every CPU of the host, the first one first, so no two callers wait for each other. [stop_machine()]"""
    cdef u32 i
    for i in range(n.nr_cpus):
        cpu_take(<softnet_data *>n.cpus[i])


cdef void cpus_release(net *n) noexcept nogil:
    """Stop being them."""
    cdef u32 i
    for i in range(n.nr_cpus):
        cpu_release(<softnet_data *>n.cpus[i])


cdef void cpus_wake(net *n) noexcept nogil:
    """Let every CPU look around: what was set up may have left it something to do."""
    cdef u32 i
    for i in range(n.nr_cpus):
        cpu_wake(<softnet_data *>n.cpus[i])


cdef void cpu_wake(softnet_data *sd) noexcept nogil:
    """Let the CPU's thread look around: something was left for it (a packet in its backlog, a line, the end)."""
    cdef u64 one = 1
    fence()
    if load_seq32(&sd.sleeping) and exchange32(&sd.sleeping, 0):
        write(sd.wake_fd, &one, 8)


cdef void synchronize(net *n) noexcept nogil:
    """Wait until every CPU has passed a point where it holds no pointer into a table. [synchronize_net()]"""
    cdef softnet_data *sd
    cdef u32 i
    for i in range(n.nr_cpus):
        sd = <softnet_data *>n.cpus[i]
        if load_seq32(&sd.role):
            cpu_take(sd)
            cpu_release(sd)


cdef inline bint wanted(softnet_data *sd) noexcept nogil:
    """Does somebody wait for the role?"""
    return load_acquire32(&sd.want_role) != 0 or load_acquire32(&sd.role) == 2


# ---- what the role does

cdef void cpu_run(softnet_data *sd, bint own) noexcept nogil:
    """Be the CPU until nothing is left to do, somebody waits for the role, or the thread is to pause or to end.

    One pass is ``_fastpath.receive``.

    What ten restarts or two milliseconds of softirq did not finish is ksoftirqd's: a context that shares the core with
    other threads, and yields to them between its rounds. ``own``: this is the CPU's thread, whose nice value changes.
    """
    cdef bint shares = False
    sd.crowd_ns = 0
    while True:
        if sd.irq_suspended:
            look_at_wires(sd)      # no interrupt would tell of frames that this pass takes off the wire
        if not sd.receive(sd):
            break
        if wanted(sd) or (own and (sd.crowd_ns or load_acquire32(&sd.stop))):
            break
        if load_acquire32(&sd.softirq_pending):
            sd.ksoftirqd_runs += 1
            sd.in_ksoftirqd = 1
            if own and not shares:
                shares = True
                thread_nice(0)
            sched_yield()
    sd.in_ksoftirqd = 0
    if shares:
        thread_nice(IRQ_NICE)


cdef bint spin_for_work(softnet_data *sd, u64 ns) noexcept nogil:
    """Poll the wires for up to ``ns`` before going to sleep. True when frames came."""
    cdef u64 start = monotonic_ns()
    cdef u64 before = sd.processed
    while monotonic_ns() - start < ns:
        if wanted(sd):             # before the pass: while frames keep coming none would be the last
            return False
        look_at_wires(sd)
        if sd.receive(sd) or sd.processed != before:
            sd.spins_won += 1
            return True
        sched_yield()              # whoever was woken may have no other core than this
    return False


cdef void note_gap(softnet_data *sd) noexcept nogil:
    """Learn how long the CPU was idle: spinning pays only where the next frame tends to come soon."""
    cdef u64 gap = monotonic_ns() - sd.idle_since
    if gap > 10_000_000:
        gap = 10_000_000
    sd.gap_ns = (sd.gap_ns * 3 + gap) / 4


cdef u64 spin_time(softnet_data *sd) noexcept nogil:
    """How long to poll before sleeping, ns: busy_poll, or poll_spin_usecs while gaps are short.

    A gap that ended with a wake-up was shorter by that, 40 microseconds here.
    """
    cdef u64 most = sysctl_get(sd.n, poll_spin_usecs) * 1000
    if sd.gap_ns >= most + 40_000:
        most = 0
    return max(most, sysctl_get(sd.n, busy_poll) * 1000)


# ---- the thread

cdef bint pause_for_readers(softnet_data *sd) noexcept nogil:
    """Leave core and role to the readers of full sockets for a while; False when there is something else to do."""
    cdef u64 ns = sd.crowd_ns      # it is the CPU's own, and we are not the CPU meanwhile
    cdef u64 word
    store_seq32(&sd.sleeping, 1)
    fence()
    if load_acquire32(&sd.stop) or load_acquire32(&sd.ipi_pending) or wanted(sd):
        store_seq32(&sd.sleeping, 0)
        return False
    sd.reader_pauses += 1
    cpu_release(sd)
    eventfd_wait(sd.wake_fd, ns)
    store_seq32(&sd.sleeping, 0)
    cpu_let_in(sd)
    cpu_take(sd)
    read(sd.wake_fd, &word, 8)
    return True


cdef u64 next_deadline(softnet_data *sd) noexcept nogil:
    """When a timer of the hardware or of a NAPI runs out, ns; 0 for none."""
    cdef u64 first = napi_next_timer(sd)
    cdef u64 t
    cdef u32 i
    for i in range(sd.nr_hw):
        t = sd.hw[i].deadline(sd.hw[i])
        if t and (first == 0 or t < first):
            first = t
    return first


cdef long long sleep_time(softnet_data *sd) noexcept nogil:
    """How long the thread may sleep, ns; -1 for as long as it likes. Called as the CPU, with `sleeping` set."""
    cdef u64 deadline, now
    if (load_acquire32(&sd.softirq_pending) or load_acquire32(&sd.irq_pending) or load_acquire32(&sd.ipi_pending)
            or hw_busy(sd) or load_acquire32(&sd.stop)):
        return 0
    deadline = next_deadline(sd)
    if deadline == 0:
        return -1
    now = net_now(sd.n)
    return <long long>(deadline - now) if deadline > now else 0


cdef void wait_for_event(softnet_data *sd, long long ns) noexcept nogil:
    """Sleep until a wire, a timer or a wake-up; afterwards the thread is the CPU again."""
    cdef epoll_event events[MAX_EVENTS]
    cdef u64 word
    cdef u32 k
    cdef int got = epoll_wait_ns(sd.epfd, events, MAX_EVENTS, ns)
    cdef int i
    while ns and only_watching(sd, events, got):
        got = epoll_wait_ns(sd.epfd, events, MAX_EVENTS, -1)
    store_seq32(&sd.sleeping, 0)
    cpu_let_in(sd)
    cpu_take(sd)
    for i in range(got):
        if events[i].data.ptr == &sd.wake_fd:
            read(sd.wake_fd, &word, 8)
        elif events[i].data.ptr == &sd.timer_fd:
            read(sd.timer_fd, &word, 8)
            watch_applications(sd)
        else:
            for k in range(sd.nr_hw):      # it may have been taken off the bus before we took the role
                if sd.hw[k] == <hw_device *>events[i].data.ptr:
                    sd.hw[k].wire_ready(sd.hw[k])

cdef enum:
    MAX_EVENTS = 16


cdef void *ksoftirqd(void *arg) noexcept nogil:
    """The CPU's own thread: be the CPU while there is work, poll a little longer, sleep."""
    cdef softnet_data *sd = <softnet_data *>arg
    cdef long long ns
    cdef bint given                # the wires, to applications
    cdef u64 since
    thread_setup(sd.cpu)
    store_release32(&sd.tid, <u32>gettid())
    cpu_take(sd)
    while not load_acquire32(&sd.stop):
        cpu_run(sd, True)
        if sd.crowd_ns and pause_for_readers(sd):
            continue
        sd.idle_since = monotonic_ns()
        if not sd.irq_suspended and spin_for_work(sd, spin_time(sd)):
            note_gap(sd)
            continue
        given = load_acquire32(&sd.want_role) != 0
        if given:
            irq_suspend(sd, -1)
        store_seq32(&sd.sleeping, 1)
        fence()
        ns = -1 if given else sleep_time(sd)
        since = monotonic_ns()
        cpu_release(sd)
        if given and not given_away(sd, since):
            store_seq32(&sd.sleeping, 0)
            cpu_let_in(sd)
            cpu_take(sd)
            irq_resume(sd)
            continue
        sd.sleeps += ns != 0
        wait_for_event(sd, ns)
        note_gap(sd)
    store_seq32(&sd.sleeping, 0)
    cpu_release(sd)
    return NULL


# ---- what Python sees

@cython.final
@cython.no_gc_clear
cdef class Cpu:
    """One CPU of a host: its thread, its contexts, its counters."""
    cdef softnet_data *sd
    cdef object net_object
    cdef pthread_t thread

    def __cinit__(self, Net n, u32 cpu, counts):
        """Make CPU ``cpu`` of the host with a packet pool of ``counts`` (small, mid, large) elements."""
        cdef u32 classes[3]
        cdef epoll_event event
        classes[0], classes[1], classes[2] = counts
        self.net_object = n
        self.sd = <softnet_data *>calloc(1, sizeof(softnet_data))
        if self.sd == NULL:
            raise MemoryError
        self.sd.epfd = self.sd.wake_fd = self.sd.timer_fd = self.sd.idle_epfd = self.sd.idle_fd = -1
        self.sd.n = n.ptr
        self.sd.cpu = cpu
        self.sd.slot = SLOT_CPU0 + cpu
        self.sd.gap_ns = 10_000_000
        self.sd.pool = skb_pool_create(n.ptr, self.sd.slot, classes)
        self.sd.epfd = epoll_create1(EPOLL_CLOEXEC)
        self.sd.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        self.sd.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        self.sd.idle_epfd = epoll_create1(EPOLL_CLOEXEC)
        self.sd.idle_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)
        self.sd.wires_epfd = self.sd.epfd
        if self.sd.pool == NULL or min(self.sd.epfd, self.sd.wake_fd, self.sd.timer_fd, self.sd.idle_epfd,
                                       self.sd.idle_fd) < 0:
            raise OSError(c_errno, "no memory or no file descriptor for a CPU; see ulimit -n")
        event.events = EPOLLIN
        event.data.ptr = &self.sd.wake_fd
        epoll_ctl(self.sd.epfd, EPOLL_CTL_ADD, self.sd.wake_fd, &event)
        event.data.ptr = &self.sd.timer_fd
        epoll_ctl(self.sd.epfd, EPOLL_CTL_ADD, self.sd.timer_fd, &event)
        event.data.ptr = &self.sd.idle_fd
        epoll_ctl(self.sd.idle_epfd, EPOLL_CTL_ADD, self.sd.idle_fd, &event)
        queue_init(&self.sd.input_pkt_queue)
        queue_init(&self.sd.process_queue)
        n.ptr.cpus[cpu] = self.sd
        n.ptr.synchronize = synchronize

    def __dealloc__(self):
        if self.sd == NULL:
            return
        for fd in (self.sd.epfd, self.sd.wake_fd, self.sd.timer_fd, self.sd.idle_epfd, self.sd.idle_fd):
            if fd >= 0:
                close(fd)
        free(self.sd)

    @property
    def address(self):
        """The softnet_data, for set-up code of other stages."""
        return <uintptr_t>self.sd

    def start(self):
        """Start the thread ksoftirqd/n."""
        self.sd.stop = 0
        self.sd.tid = 0
        store_release32(&self.sd.has_thread, 1)
        if thread_start(&self.thread, ksoftirqd, self.sd) != 0:
            store_release32(&self.sd.has_thread, 0)
            raise OSError(errno.EAGAIN, "no thread for the CPU; see ulimit -u")
        with nogil:
            while load_acquire32(&self.sd.tid) == 0:
                sched_yield()

    def stop(self):
        """End the thread; what is queued stays queued."""
        if not self.sd.has_thread:
            return
        with nogil:
            store_release32(&self.sd.stop, 1)
            store_seq32(&self.sd.sleeping, 1)
            cpu_wake(self.sd)
            pthread_join(self.thread, NULL)
        store_release32(&self.sd.has_thread, 0)

    def run(self):
        """Be the CPU in this thread until it has nothing to do: hosts without threads, and tests."""
        cdef u32 i
        with nogil:
            cpu_take(self.sd)
            for i in range(self.sd.nr_hw):
                self.sd.hw[i].wire_ready(self.sd.hw[i])
            cpu_run(self.sd, False)
            cpu_release(self.sd)

    def pause(self):
        """How long readers of full sockets ask the thread to pause, ns."""
        return self.sd.crowd_ns

    def deadline(self):
        """When the CPU's next timer runs out, ns on the host's clock; 0 for none."""
        return next_deadline(self.sd)

    def gro_frames(self):
        """Frames that GRO holds at the moment, of every NAPI of this CPU."""
        cdef u64 total = 0
        cdef u32 i
        with nogil:
            cpu_take(self.sd)
            for i in range(self.sd.nr_napis):
                total += napi_frames(self.sd.napis[i])
            cpu_release(self.sd)
        return total

    def pool(self):
        """State of the CPU's packet pool: a list of (bytes of an element, free, total), one a size class."""
        return pool_state(self.sd.pool)

    def counters(self):
        """Give the fields of struct softnet_data that Linux shows, and those of our own, as a dict."""
        cdef softnet_data *sd = self.sd
        return {
            "cpu": sd.cpu, "processed": sd.processed, "dropped": load_relaxed64(&sd.dropped),
            "time_squeeze": sd.time_squeeze, "received_rps": sd.received_rps,
            "flow_limit_count": load_relaxed64(&sd.flow_limit_count),
            "input_qlen": sd.input_pkt_queue.qlen, "process_qlen": sd.process_queue.qlen,
            "hardirqs": sd.hardirqs, "ksoftirqd_runs": sd.ksoftirqd_runs, "sleeps": sd.sleeps,
            "spins_won": sd.spins_won, "busy_polls": sd.busy_polls, "reader_pauses": sd.reader_pauses, "tid": sd.tid,
        }

    def softirqs(self):
        """How often each softirq ran, in the order of /proc/softirqs."""
        return [self.sd.softirqs[<int>i] for i in range(NR_SOFTIRQS)]

    def interrupts(self):
        """The lines that go to this CPU: a list of (irq, count on this CPU, name)."""
        return [(self.sd.irqs[i].irq, load_relaxed64(&self.sd.irqs[i].count[self.sd.cpu]),
                 self.sd.irqs[i].name.decode()) for i in range(self.sd.nr_irqs)]

    def pending(self):
        """Has another context left something that the CPU has not looked at?"""
        return bool(load_acquire32(&self.sd.irq_pending) or load_acquire32(&self.sd.ipi_pending)
                    or load_acquire32(&self.sd.softirq_pending))
