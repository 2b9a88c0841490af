"""testing: a NAPI and an application that do what a test tells them, to prove the rules of the CPU.

Stage 3 of 8:  device driver [irq] napi netif nf proto sock
In       packets that a test counts up
Out      polls, in the order of the loop  irq/_softirq.pyx
Context  tests only
Kernel   none
"""

cimport cython
from libc.stdlib cimport calloc, free
from posix.unistd cimport usleep

from netstack._abi cimport (
    exchange32, fetch_add32, fetch_add64, load_acquire32, load_acquire64, load_relaxed64, load_seq32,
    monotonic_ns, store_relaxed64, store_release32, store_seq32, u32, u64, uintptr_t,
)
from netstack._net cimport Net
from netstack.irq._cpu cimport cpu_release, cpu_take
from netstack.irq._irq cimport irq_raise, irq_resume, request_irq
from netstack.irq._thread cimport sched_yield
from netstack.irq._watch cimport given_away, taken_over
from netstack.napi._napi cimport (
    NAPIF_STATE_SCHED, irq_desc, napi_add, napi_complete_done, napi_disable, napi_enable, napi_init,
    napi_schedule, napi_struct, softnet_data,
)

cdef struct script:
    napi_struct napi               # first: a napi_struct * is a script *
    irq_desc irq
    u64 work                       # packets that wait
    u64 cost_ns                    # a poll moves the clock by this
    u64 *clock
    u32 number
    u32 *log                       # which NAPI was polled, in order
    u32 log_len
    u32 unmasked                   # times the driver might have unmasked its interrupt
    u64 crowd_ns                   # the pause that readers ask for in each poll


cdef int script_poll(napi_struct *napi, int budget) noexcept nogil:
    cdef script *s = <script *>napi
    cdef u32 *log = s.log
    cdef int done = <int>min(<u64>budget, load_acquire64(&s.work))
    if log[0] < s.log_len:
        log[0] += 1
        log[log[0]] = s.number
    if s.clock != NULL:
        s.clock[0] += s.cost_ns
    fetch_add64(&s.work, <u64>-done)
    napi.sd.crowd_ns = load_relaxed64(&s.crowd_ns)
    if done < budget and napi_complete_done(napi, done):
        s.unmasked += 1
    return done


cdef void script_irq(void *dev_id, softnet_data *sd) noexcept nogil:
    napi_schedule(&(<script *>dev_id).napi)


@cython.final
cdef class PollLog:
    """The order in which NAPIs were polled."""
    cdef u32 *log
    cdef u32 size

    def __cinit__(self, u32 size=4096):
        self.size = size
        self.log = <u32 *>calloc(size + 1, sizeof(u32))

    def __dealloc__(self):
        free(self.log)

    def take(self):
        """Give the order, and forget it."""
        out = [self.log[i + 1] for i in range(self.log[0])]
        self.log[0] = 0
        return out


@cython.final
cdef class ScriptedNapi:
    """A source of packets on a CPU, with an interrupt line."""
    cdef script *s
    cdef object keep

    def __cinit__(
        self, Net n, uintptr_t cpu, PollLog log, u32 number=0, u32 weight=64, uintptr_t clock=0, u64 cost_ns=0
    ):
        cdef softnet_data *sd = <softnet_data *>cpu
        self.s = <script *>calloc(1, sizeof(script))
        self.keep = (n, log)
        napi_init(&self.s.napi, n.ptr, NULL, sd, script_poll, weight)
        napi_add(&self.s.napi)
        napi_enable(&self.s.napi)
        self.s.log, self.s.log_len, self.s.number = log.log, log.size, number
        self.s.clock = <u64 *>clock
        self.s.cost_ns = cost_ns
        self.s.irq.handler = script_irq
        self.s.irq.dev_id = self.s
        request_irq(sd, &self.s.irq)

    def interrupt(self, u64 work=0):
        """Add packets and raise the line."""
        fetch_add64(&self.s.work, work)
        irq_raise(&self.s.irq)

    def crowd(self, u64 ns):
        """Let readers ask for a pause in each poll. Before there is one."""
        store_relaxed64(&self.s.crowd_ns, ns)

    def disable(self):
        """napi_disable()."""
        napi_disable(&self.s.napi)

    def enable(self):
        """napi_enable()."""
        napi_enable(&self.s.napi)

    @property
    def work(self):
        """Packets that wait."""
        return load_acquire64(&self.s.work)

    @property
    def unmasked(self):
        """How often a poll was allowed to unmask the interrupt."""
        return self.s.unmasked

    @property
    def scheduled(self):
        """NAPI_STATE_SCHED."""
        return bool(load_acquire32(&self.s.napi.state) & NAPIF_STATE_SCHED)


@cython.final
cdef class Application:
    """What a CPU's thread sees of an application that polls, step by step. It touches no wire."""
    cdef softnet_data *sd
    cdef object keep

    def __cinit__(self, Net n, uintptr_t cpu):
        self.sd = <softnet_data *>cpu
        self.keep = n

    def ask(self):
        """Ask for the role."""
        store_release32(&self.sd.want_role, 1)

    def stop_asking(self):
        """Ask no more."""
        store_seq32(&self.sd.want_role, 0)

    def take(self):
        """Be the CPU. It still asks then, so the thread waits however long it is until the next step."""
        with nogil:
            cpu_take(self.sd)

    def take_late(self, u32 us):
        """Be the CPU as cpu_take(), but without a core for a while each time after being woken. False: not in 10 s."""
        cdef u64 end = monotonic_ns() + 10_000_000_000
        cdef bint got = False
        with nogil:
            fetch_add32(&self.sd.role_waiters, 1)
            while not got and monotonic_ns() < end:
                got = exchange32(&self.sd.role, 2) == 0
                while not got and load_acquire32(&self.sd.role) == 2:
                    sched_yield()
                if not got:
                    usleep(us)
            fetch_add32(&self.sd.role_waiters, <u32>-1)
        return got

    def poll(self, u64 now):
        """Poll as the CPU, which took until ``now``."""
        store_release32(&self.sd.in_busy_poll, 1)
        store_relaxed64(&self.sd.last_busy_poll, now)

    def resume(self):
        """Leave the wires to the thread again."""
        irq_resume(self.sd)

    def leave(self):
        """Be the CPU no more."""
        store_release32(&self.sd.in_busy_poll, 0)
        cpu_release(self.sd)

    @property
    def has_wires(self):
        """Has the thread left the wires to applications, and the role to who comes?"""
        return load_acquire32(&self.sd.irq_suspended) != 0 and load_seq32(&self.sd.role) == 0

    def taken_over(self, u64 since, u64 now):
        """What the thread makes of it at ``now``; None: it looks again."""
        cdef int taken = taken_over(self.sd, since, now)
        return None if taken < 0 else taken != 0

    def given_away(self, u64 since):
        """What the thread makes of it in the end, by the machine's clock."""
        cdef bint given
        with nogil:
            given = given_away(self.sd, since)
        return given
