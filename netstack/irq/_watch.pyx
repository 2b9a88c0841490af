"""watch: whether an application still sees to the wires that the thread of the CPU has left to it.

Stage 3 of 8:  device driver [irq] napi netif nf proto sock
In       a timer of the thread            irq/_cpu.pyx
Out      wires that nobody sees to        irq/_irq.pyx
Context  the thread ksoftirqd/n, with the role or without; no GIL
Kernel   irq-suspend-timeout: napi_suspend_irqs(), napi_resume_irqs(), net/core/dev.c

An application that polls has said so in ``last_busy_poll``. While it goes on the thread must not stand in its way: on
two cores a third thread that wants one costs more than all that it could do.
"""

from posix.unistd cimport read

from netstack._abi cimport (
    exchange32, fence, load_acquire32, load_relaxed64, load_seq32, monotonic_ns, u64,
)
from netstack._net cimport irq_suspend_timeout, sysctl_get
from netstack.irq._irq cimport irq_resume, irq_watch
from netstack.irq._thread cimport epoll_event, sched_yield
from netstack.napi._napi cimport softnet_data

cdef enum:
    HAND_OVER_NS = 100_000         # that an application may take to take what it asked for


cdef void watch_applications(softnet_data *sd) noexcept nogil:
    """Take the wires back if the application that has them no longer polls, nor sleeps as the idle CPU."""
    cdef u64 until = load_relaxed64(&sd.last_busy_poll) + sysctl_get(sd.n, irq_suspend_timeout)
    cdef u64 now = monotonic_ns()
    exchange32(&sd.timer_armed, 0)
    fence()
    if not sd.irq_suspended or (load_seq32(&sd.idle_app) and sd.wires_epfd == sd.idle_epfd):
        return
    if now >= until:
        irq_resume(sd)
    else:
        irq_watch(sd, until - now)


cdef bint only_watching(softnet_data *sd, epoll_event *event, int got) noexcept nogil:
    """Did a timer wake the thread while an application polls? Then it looks again later, without the role.

    The application's polls run the timers of hardware and NAPIs too. Becoming the CPU now would put a third thread
    between it and the core that it polls on.
    """
    cdef u64 word, until, now
    if got > 1 or (got == 1 and event.data.ptr != &sd.timer_fd):
        return False
    until = load_relaxed64(&sd.last_busy_poll) + sysctl_get(sd.n, irq_suspend_timeout)
    now = monotonic_ns()
    if got < 0 or not load_acquire32(&sd.irq_suspended) or now >= until or load_acquire32(&sd.stop):
        return False
    if got == 1:
        read(sd.timer_fd, &word, 8)
        exchange32(&sd.timer_armed, 0)
        fence()
    irq_watch(sd, until - now)     # if interrupts came on meanwhile, it finds that and does nothing
    return True


cdef int taken_over(softnet_data *sd, u64 since, u64 now) noexcept nogil:
    """Has an application taken by ``now`` what was given up at ``since``? 1 or 0; -1: it may be about to.

    It may have stopped asking in that very moment. It looks for the role once more then, so one of the two sees the
    other. And it may have polled and left long ago when this thread gets the core again: what it did says more than the
    time. So the clock is read first, then who asks and who has the role, and last what they have done.
    """
    cdef bint asks = load_seq32(&sd.want_role) != 0
    cdef bint held = load_seq32(&sd.role) != 0
    if load_acquire32(&sd.in_busy_poll) or load_relaxed64(&sd.last_busy_poll) >= since:
        return 1
    if not asks and not held:
        return 0
    return asks if now - since >= HAND_OVER_NS else -1


cdef bint given_away(softnet_data *sd, u64 since) noexcept nogil:
    """Wait until it is clear whether an application has taken what was given up at ``since``, and tell."""
    cdef int taken = taken_over(sd, since, since)
    while taken < 0:
        sched_yield()              # it may wait for this very core, and keep it long after it has polled
        taken = taken_over(sd, since, monotonic_ns())
    return taken != 0
