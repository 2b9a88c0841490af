"""busy: an application is the CPU, instead of being woken by it.

Stage 3 of 8:  device driver [irq] napi netif nf proto sock
In       a thread whose socket is empty   sock/_wake.pyx
Out      polls of the CPU's NAPIs         irq/_softirq.pyx
Context  process context, in the role of the CPU; no GIL
Kernel   napi_busy_loop(), net/core/dev.c; ep_suspend_napi_irqs(), fs/eventpoll.c

An application takes the role, polls until its socket has something, and leaves with the role free and the wires to
nobody: it will be back before a frame has waited long, and if not, the thread takes the wires after
irq_suspend_timeout. So between two polls no frame wakes anybody, and no third thread wants a core.

When polling no longer pays it sleeps, and does so as the idle CPU: on ``idle_epfd``, where the wires are. A frame wakes
the application itself, and one switch of threads is all that the frame costs. Only one thread can be that; the wires
stay in its set while it is awake. Others sleep on their sockets, and whoever polls wakes them.

A CPU whose NIC has queues that other CPUs poll is not given away: while its application does something else, their
frames would stand on the wire.

Who waits for the role:

- An application asks for it with ``want_role`` while the CPU's own thread has it: the thread gives way after the poll
  it is in, a microsecond when it found nothing. So the application spins first, and then sleeps, since the thread may
  be waiting for the core that it spins on. While another application polls it does not wait.
- The thread, and those who set up or synchronize, block with ``role`` 2: an application that polls lets them in.

No frame is lost or overtaken between two holders: everything that a pass has begun is in the softnet_data, and changes
hands with it.
"""

from libc.errno cimport EBUSY, EINTR, ETIMEDOUT, errno
from posix.unistd cimport read, write

from netstack._abi cimport (
    cas32, cpu_relax, exchange32, fence, load_acquire32, load_relaxed32, load_seq32, monotonic_ns, store_relaxed64,
    store_release32,
    store_seq32, u32, u64,
)
from netstack._net cimport irq_suspend_timeout, net, sysctl_get
from netstack.irq._cpu cimport cpu_let_in, cpu_release, cpu_take, cpu_try_take, cpu_wake, sleep_time
from netstack.irq._irq cimport irq_resume, irq_suspend, irq_watch, wires_move
from netstack.irq._softirq cimport napi_busy_poll
from netstack.irq._thread cimport epoll_event, epoll_wait_ns, sched_yield
from netstack.napi._napi cimport softnet_data

cdef enum:
    ASK_NS = 50_000                # that an application waits for the role at least
    ROLE_SPIN_NS = 4_000           # of that without sleeping
    IDLE_EVENTS = 8
    PYTHON_BATCH = 64              # packets: what kworker.py takes at once
    PYTHON_NS = 300_000            # that it gets for a part of them, if it has no core but ours


# ---- the role

cdef bint cpu_ask(softnet_data *sd, void *sk, bint (*ready)(void *) noexcept nogil, u64 until) noexcept nogil:
    """Become the CPU in an application's thread; False when it became ready before, or another application polls."""
    cdef bint got = cpu_try_take(sd)
    cdef u64 spin
    if not got:
        store_release32(&sd.want_role, 1)
        spin = min(until, monotonic_ns() + ROLE_SPIN_NS)
        while not got and not ready(sk) and not load_acquire32(&sd.in_busy_poll):
            if monotonic_ns() >= spin:
                cpu_take(sd)
                got = True
            else:
                cpu_relax()
                got = cas32(&sd.role, 0, 1)
        store_seq32(&sd.want_role, 0)
        if not got:                # the thread may have left the wires to us in the last moment, see given_away()
            got = cpu_try_take(sd)
    if got:
        store_release32(&sd.in_busy_poll, 1)
    return got


cdef void cpu_leave(softnet_data *sd) noexcept nogil:
    """Stop being the CPU."""
    store_release32(&sd.in_busy_poll, 0)
    cpu_release(sd)


cdef bint cpu_give_way(softnet_data *sd, void *sk, bint (*ready)(void *) noexcept nogil, u64 until) noexcept nogil:
    """Let those in who block for the role, and ask for it again."""
    cpu_leave(sd)
    cpu_let_in(sd)
    return cpu_ask(sd, sk, ready, max(until, monotonic_ns() + ASK_NS))


# ---- polling

cdef void claim_wires(softnet_data *sd) noexcept nogil:
    """See to the wires in this thread: no frame is to wake another."""
    if not sd.irq_suspended:
        irq_suspend(sd, -1)
    elif sd.wires_epfd == sd.idle_epfd and load_seq32(&sd.idle_app):
        wires_move(sd, -1)
        irq_watch(sd, sysctl_get(sd.n, irq_suspend_timeout))


cdef void let_python_catch_up(softnet_data *sd, void *sk, bint (*ready)(void *) noexcept nogil,
                              u64 until) noexcept nogil:
    """Leave frames on the wire for a while, and the core to the Python layers, when they have more than a batch to do.

    What is polled meanwhile they could only lose, and they may be what fills the socket.
    """
    cdef u64 end
    if sd.n.seam_len == NULL or sd.n.seam_len(sd.n) < PYTHON_BATCH:
        return
    end = monotonic_ns() + PYTHON_NS
    if until:
        end = min(end, until)
    while (not ready(sk) and load_acquire32(&sd.role) != 2 and sd.n.seam_len(sd.n) >= PYTHON_BATCH
           and monotonic_ns() < end):
        sched_yield()


cdef int busy_spin(softnet_data *sd, void *sk, bint (*ready)(void *) noexcept nogil, u64 spin,
                   u64 until) noexcept nogil:
    """Poll until ready (0), or ``spin`` is over and nothing is left to do (ETIMEDOUT). EBUSY: the role is another's."""
    cdef bint more
    cdef u64 now
    claim_wires(sd)
    while True:
        more = napi_busy_poll(sd)
        if not ready(sk):
            let_python_catch_up(sd, sk, ready, until)
        now = monotonic_ns()
        store_relaxed64(&sd.last_busy_poll, now)
        if ready(sk):
            return 0
        if load_acquire32(&sd.role) == 2:
            if not cpu_give_way(sd, sk, ready, spin):
                return EBUSY
            claim_wires(sd)
        if now >= spin and (not more or (until and now >= until)):
            return ETIMEDOUT


# ---- sleeping

cdef int idle_sleep(softnet_data *sd, void *sk, bint (*ready)(void *) noexcept nogil, u32 *idle,
                    u64 until) noexcept nogil:
    """Give the role back and sleep as the idle CPU until a frame, a timer, or something in the socket. 0 or EINTR."""
    cdef epoll_event events[IDLE_EVENTS]
    cdef u64 word, now
    cdef long long ns
    cdef int got = 0
    wires_move(sd, sd.idle_epfd)
    store_seq32(&sd.idle_app, 1)
    store_seq32(idle, sd.cpu + 1)
    fence()
    ns = sleep_time(sd)
    cpu_leave(sd)
    if not ready(sk):
        if until:
            now = monotonic_ns()
            if now >= until:
                ns = 0
            elif ns < 0 or <u64>ns > until - now:
                ns = <long long>(until - now)
        got = epoll_wait_ns(sd.idle_epfd, events, IDLE_EVENTS, ns)
        if got < 0:
            got = -errno
    if exchange32(idle, 0) == 0:
        # Who took the number wakes us, or is about to: what is written must be read, by us and not by the next sleeper.
        while read(sd.idle_fd, &word, 8) < 0:
            sched_yield()
    store_seq32(&sd.idle_app, 0)
    fence()
    irq_watch(sd, sysctl_get(sd.n, irq_suspend_timeout))
    return EINTR if got == -EINTR else 0


cdef int idle_loop(softnet_data *sd, void *sk, bint (*ready)(void *) noexcept nogil, u32 *idle, u64 spin,
                   u64 until) noexcept nogil:
    """Poll, sleep, poll, as the CPU at the start. 0, ETIMEDOUT, EINTR or EBUSY; the role is free afterwards."""
    cdef long long due
    cdef int why
    while True:
        why = busy_spin(sd, sk, ready, spin, until)
        if why == EBUSY:
            return 0 if ready(sk) else EBUSY
        if why == 0:
            cpu_leave(sd)
            return 0
        if until and monotonic_ns() >= until:
            break
        if sd.nr_hw == 0:
            why = EBUSY            # no wire to sleep on: an interrupt wakes the thread, and that the socket
            break
        if load_seq32(&sd.idle_app):
            # One sleeps on the wires already. It will see to ours.
            wires_move(sd, sd.idle_epfd)
            cpu_leave(sd)
            return EBUSY
        why = idle_sleep(sd, sk, ready, idle, until)
        if ready(sk):
            return 0
        if not cpu_ask(sd, sk, ready, monotonic_ns() + ASK_NS):
            return EINTR if why == EINTR else 0 if ready(sk) else EBUSY
        if why == EINTR:
            break
        spin = 0
    # We leave without having got anything, and may not come back: the thread takes the wires.
    irq_resume(sd)
    sd.receive(sd)
    due = sleep_time(sd)
    cpu_leave(sd)
    if due >= 0:
        cpu_wake(sd)
    return why


cdef int busy_loop(net *n, u32 cpu, void *sk, bint (*ready)(void *) noexcept nogil, u32 *idle, u64 spin,
                   u64 until) noexcept nogil:
    """Be CPU ``cpu`` in an application's thread until ``ready(sk)``; see ``struct net``. [napi_busy_loop()]"""
    cdef softnet_data *sd = <softnet_data *>n.cpus[cpu]
    if not load_acquire32(&sd.has_thread) or load_relaxed32(&sd.shared):
        return EBUSY
    if not cpu_ask(sd, sk, ready, max(spin, monotonic_ns() + ASK_NS)):
        return 0 if ready(sk) else EBUSY
    sd.busy_polls += 1
    return idle_loop(sd, sk, ready, idle, spin, until)


cdef void busy_poll_once(net *n, u32 cpu) noexcept nogil:
    """Poll once in an application's thread, unless another is the CPU."""
    cdef softnet_data *sd = <softnet_data *>n.cpus[cpu]
    cdef bint more
    if load_acquire32(&sd.has_thread) and cpu_try_take(sd):
        sd.busy_polls += 1
        more = napi_busy_poll(sd)
        store_relaxed64(&sd.last_busy_poll, monotonic_ns())
        cpu_release(sd)
        if more:
            cpu_wake(sd)


cdef void busy_wake(net *n, u32 cpu) noexcept nogil:
    """Wake the application that sleeps as the idle CPU: the caller has taken its number out of the socket's word."""
    cdef softnet_data *sd = <softnet_data *>n.cpus[cpu]
    cdef u64 one = 1
    write(sd.idle_fd, &one, 8)
