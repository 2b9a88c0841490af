"""irq: connect interrupt lines to CPUs.

Stage 3 of 8:  device driver [irq] napi netif nf proto sock
In       a vector that fires              device/_igb_nic.pyx
Out      its handler, in hard IRQ context irq/_softirq.pyx
Context  set-up for request_irq(), any for irq_raise(), whoever is the CPU for irq_suspend(); no GIL
Kernel   request_threaded_irq(), irq_set_affinity(), kernel/irq/manage.c; napi_suspend_irqs(), net/core/dev.c
"""

import errno

from posix.unistd cimport write

from netstack._abi cimport (
    exchange32, fence, load_acquire32, load_acquire_ptr, load_seq32, store_release32, store_release_ptr, u32, u64,
)
from netstack._net cimport irq_suspend_timeout, net, sysctl_get
from netstack.irq._thread cimport (
    EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLET, EPOLLIN, epoll_ctl, epoll_event, timer_arm,
)
from netstack.napi._napi cimport MAX_HW, MAX_IRQS, NAPIF_STATE_SCHED, napi_schedule

cdef enum:
    FIRST_IRQ = 24                 # the numbers below are the machine's own


cdef int hw_attach(softnet_data *sd, hw_device *hw) except -1:
    """Put hardware on the CPU's bus: the CPU runs it, and wakes up when its wire has frames."""
    cdef epoll_event event
    if sd.nr_hw == MAX_HW:
        raise OSError(errno.ENOSPC, f"CPU {sd.cpu} has {MAX_HW} devices already; put this one on another CPU")
    irq_resume(sd)
    if hw.fd >= 0:
        event.events = EPOLLIN | EPOLLET
        event.data.ptr = hw
        if epoll_ctl(sd.epfd, EPOLL_CTL_ADD, hw.fd, &event) < 0:
            raise OSError(errno.EBADF, f"the wire's file descriptor {hw.fd} can't be waited on")
    sd.hw[sd.nr_hw] = hw
    sd.nr_hw += 1
    hw.wire_ready(hw)
    return 0


cdef void hw_detach(softnet_data *sd, hw_device *hw) noexcept:
    """Take hardware off the bus."""
    cdef epoll_event event
    cdef u32 i
    for i in range(sd.nr_hw):
        if sd.hw[i] == hw:
            sd.nr_hw -= 1
            sd.hw[i] = sd.hw[sd.nr_hw]
            if hw.fd >= 0 and sd.wires_epfd >= 0:
                epoll_ctl(sd.wires_epfd, EPOLL_CTL_DEL, hw.fd, &event)
            return


cdef int request_irq(softnet_data *sd, irq_desc *desc) except -1:
    """Let the CPU run ``desc.handler`` when the line is raised; numbers it as /proc/interrupts shows it."""
    cdef net *n = sd.n
    cdef u32 i = 0
    while i < MAX_IRQS and n.irqs[i] != NULL:
        i += 1
    if i == MAX_IRQS:
        raise OSError(errno.ENOSPC, f"the host has {MAX_IRQS} interrupt lines already; take NICs or queues away")
    desc.pending = 0
    desc.irq = FIRST_IRQ + i
    desc.affinity = (<u64>1 << n.nr_cpus) - 1
    n.irqs[i] = desc
    line_add(sd, desc)
    return 0


cdef void free_irq(irq_desc *desc) noexcept:
    """Disconnect the line if it is connected. No handler runs after. As its CPU."""
    cdef net *n
    if desc.irq:
        n = desc.sd.n
        line_del(desc)
        n.irqs[desc.irq - FIRST_IRQ] = NULL
        desc.irq = 0


cdef void line_add(softnet_data *sd, irq_desc *desc) noexcept nogil:
    sd.irqs[sd.nr_irqs] = desc
    sd.nr_irqs += 1
    store_release_ptr(<void **>&desc.sd, sd)


cdef void line_del(irq_desc *desc) noexcept nogil:
    cdef softnet_data *sd = desc.sd
    cdef u32 i
    for i in range(sd.nr_irqs):
        if sd.irqs[i] == desc:
            sd.nr_irqs -= 1
            sd.irqs[i] = sd.irqs[sd.nr_irqs]
            return


cdef void irq_move(irq_desc *desc, softnet_data *to) noexcept nogil:
    """Send the line to another CPU from now on. As every CPU (cpus_take). [irq_do_set_affinity()]

    Whoever raises it at this moment stores ``pending`` and then looks where to; we store where to, and then have the
    new CPU look at ``pending``. So one of the two sees the other, and no interrupt is lost.
    """
    if desc.sd == to:
        return
    line_del(desc)
    line_add(to, desc)
    fence()
    if desc.moved != NULL:
        desc.moved(desc.dev_id, to)
    exchange32(&to.irq_pending, 1)


cdef void irq_raise(irq_desc *desc) noexcept nogil:
    """Raise the line: its CPU runs the handler at its next step, and is woken if it sleeps. From any context."""
    cdef u64 one = 1
    cdef softnet_data *sd
    exchange32(&desc.pending, 1)
    fence()
    sd = <softnet_data *>load_acquire_ptr(<void **>&desc.sd)
    exchange32(&sd.irq_pending, 1)
    fence()
    if load_seq32(&sd.sleeping) and exchange32(&sd.sleeping, 0):
        write(sd.wake_fd, &one, 8)


# ---- interrupts on and off, as the CPU

cdef void wires_move(softnet_data *sd, int epfd) noexcept nogil:
    """Let the wires report to ``epfd``, -1 for nobody. A set that they come into finds what came meanwhile."""
    cdef epoll_event event
    cdef u32 i
    if sd.wires_epfd == epfd:
        return
    event.events = EPOLLIN | EPOLLET
    for i in range(sd.nr_hw):
        if sd.hw[i].fd < 0:
            continue
        if sd.wires_epfd >= 0:
            epoll_ctl(sd.wires_epfd, EPOLL_CTL_DEL, sd.hw[i].fd, &event)
        if epfd >= 0:
            event.data.ptr = sd.hw[i]
            epoll_ctl(epfd, EPOLL_CTL_ADD, sd.hw[i].fd, &event)
    sd.wires_epfd = epfd


cdef void irq_watch(softnet_data *sd, u64 ns) noexcept nogil:
    """Let the thread look in ``ns`` whether an application still sees to the wires. In any thread."""
    if exchange32(&sd.timer_armed, 1) == 0:
        timer_arm(sd.timer_fd, max(ns, 1))


cdef void irq_suspend(softnet_data *sd, int epfd) noexcept nogil:
    """Leave the wires to an application: interrupts stay masked, the thread sleeps on. [napi_suspend_irqs()]"""
    wires_move(sd, epfd)
    store_release32(&sd.irq_suspended, 1)
    irq_watch(sd, sysctl_get(sd.n, irq_suspend_timeout))


cdef void irq_resume(softnet_data *sd) noexcept nogil:
    """Leave the wires to the thread. The caller runs a pass: its polls unmask the interrupts. [napi_resume_irqs()]"""
    if sd.irq_suspended:
        store_release32(&sd.irq_suspended, 0)
        look_at_wires(sd)
        wires_move(sd, sd.epfd)


cdef void look_at_wires(softnet_data *sd) noexcept nogil:
    """Poll every NAPI at the next pass, without waiting for an interrupt."""
    cdef u32 i
    for i in range(sd.nr_hw):
        sd.hw[i].wire_ready(sd.hw[i])
    for i in range(sd.nr_napis):
        if not load_acquire32(&sd.napis[i].state) & NAPIF_STATE_SCHED:
            napi_schedule(sd.napis[i])
