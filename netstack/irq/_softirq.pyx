"""softirq: run what the interrupts raised, within a budget.

Stage 3 of 8:  device driver [irq] napi netif nf proto sock
In       vectors that fired               device/_igb_nic.pyx
Out      polls of the scheduled NAPIs     driver/_igb.pyx
Context  hard IRQ, then softirq, both played by whoever is the CPU; no GIL
Kernel   handle_softirqs(), kernel/softirq.c; net_rx_action(), net/core/dev.c
"""

from netstack._abi cimport (
    add_owned64, exchange32, fetch_and32, i64, load_acquire32, load_relaxed32, u32, u64, unlikely,
)
from netstack._net cimport net, net_now, netdev_budget, netdev_budget_usecs, sysctl_get
from netstack.device._device cimport hw_device
from netstack.irq._irq cimport look_at_wires
from netstack.napi._gro cimport gro_normal_list, napi_gro_flush
from netstack.napi._napi cimport (
    IPI_RPS, JIFFY_NS, NAPI_POLL_WEIGHT, NAPIF_STATE_DISABLE, NAPIF_STATE_SCHED, NET_RX_SOFTIRQ, NR_SOFTIRQS, irq_desc,
    napi_complete_done, napi_schedule_on, napi_struct, napi_timers, raise_softirq, softnet_data,
)

cdef enum:
    MAX_SOFTIRQ_RESTART = 10
    MAX_SOFTIRQ_TIME_NS = 2_000_000


cdef void hw_run(softnet_data *sd, u64 now) noexcept nogil:
    """Let the hardware on this CPU's bus go on for a moment: what happens beside the CPU in a real machine."""
    cdef hw_device *hw
    cdef u32 i
    sd.hw_ran = 1
    for i in range(sd.nr_hw):
        hw = sd.hw[i]
        hw.step(hw, now, NAPI_POLL_WEIGHT)


cdef bint hw_busy(softnet_data *sd) noexcept nogil:
    """Would the hardware do something at once?"""
    cdef u32 i
    for i in range(sd.nr_hw):
        if sd.hw[i].busy(sd.hw[i]):
            return True
    return False


cdef void rps_trigger_softirq(softnet_data *sd) noexcept nogil:
    """Poll the backlog: who queued there has set NAPIF_STATE_SCHED on our behalf. [rps_trigger_softirq()]"""
    cdef u32 why = exchange32(&sd.ipi_pending, 0)
    if why:
        sd.received_rps += why & IPI_RPS != 0
        napi_schedule_on(sd, &sd.backlog)


cdef void handle_irqs(softnet_data *sd) noexcept nogil:
    """Hard IRQ context: run the handler of every vector that fired, and take in what other CPUs queued here."""
    cdef irq_desc *desc
    cdef u32 i
    if load_acquire32(&sd.irq_pending) and exchange32(&sd.irq_pending, 0):
        sd.in_hardirq = 1
        for i in range(sd.nr_irqs):
            desc = sd.irqs[i]
            if exchange32(&desc.pending, 0):
                add_owned64(&desc.count[sd.cpu], 1)
                sd.hardirqs += 1
                desc.handler(desc.dev_id, sd)
        sd.in_hardirq = 0
    if load_acquire32(&sd.ipi_pending):
        rps_trigger_softirq(sd)


cdef bint do_softirq(softnet_data *sd) noexcept nogil:
    """Run the raised softirqs. True when some are left for ksoftirqd, after 10 restarts or 2 ms. [handle_softirqs()]

    Or when an application wants to go on with them itself.
    """
    cdef u64 end = net_now(sd.n) + MAX_SOFTIRQ_TIME_NS
    cdef u32 restart = MAX_SOFTIRQ_RESTART
    cdef u32 pending = exchange32(&sd.softirq_pending, 0)
    cdef u32 nr
    sd.in_softirq = 1
    while pending:
        for nr in range(NR_SOFTIRQS):
            if pending & <u32>1 << nr:
                sd.softirqs[nr] += 1
        if pending & <u32>1 << NET_RX_SOFTIRQ:
            net_rx_action(sd)
        if load_acquire32(&sd.softirq_pending) == 0:
            break
        restart -= 1
        if restart == 0 or net_now(sd.n) >= end or load_relaxed32(&sd.want_role):
            break
        if sd.crowd_ns and load_relaxed32(&sd.has_thread):
            break                  # the thread is to pause
        pending = exchange32(&sd.softirq_pending, 0)
    sd.in_softirq = 0
    return load_acquire32(&sd.softirq_pending) != 0


cdef int napi_poll(softnet_data *sd, napi_struct *napi, bint *repoll) noexcept nogil:
    """Poll once with the NAPI's weight. [napi_poll(), __napi_poll()]

    The hardware goes on between two polls, but not further ahead than one poll reaches: what it has just written is
    in the cache then, and what stays on the wire is in nobody's way.
    """
    cdef int work = 0
    cdef int weight = <int>napi.weight     # the backlog's poll may change it, for the next
    if not sd.hw_ran and napi.ready < napi.weight:
        hw_run(sd, sd.now)
    sd.hw_ran = 0
    if load_acquire32(&napi.state) & NAPIF_STATE_SCHED:
        napi.polls += 1
        napi.gro_age = sd.now // JIFFY_NS
        work = napi.poll(napi, weight)
    if work < weight:
        return work
    # The whole weight was used, so the driver has not completed: there may be more.
    if unlikely(load_acquire32(&napi.state) & NAPIF_STATE_DISABLE):
        napi_complete_done(napi, work)
        return work
    if napi.gro_bitmask:
        napi_gro_flush(napi, False)
    gro_normal_list(napi)
    repoll[0] = True
    return work


cdef void splice_tail(softnet_data *sd, napi_struct *first, napi_struct *last) noexcept nogil:
    """Put a list behind what stands in the CPU's poll list."""
    if first == NULL:
        return
    if sd.poll_first == NULL:
        sd.poll_first = first
    else:
        sd.poll_last.next = first
    sd.poll_last = last


cdef void net_rx_action(softnet_data *sd) noexcept nogil:
    """Poll the scheduled NAPIs in turn until none is left, the budget is used or time is up. [net_rx_action()]

    A NAPI that used its whole weight goes to the end of the line. Running out of budget or time with work left counts
    one time_squeeze and raises the softirq again.
    """
    cdef net *n = sd.n
    cdef i64 budget = <i64>sysctl_get(n, netdev_budget)
    cdef u64 time_limit
    cdef napi_struct *napi
    cdef napi_struct *first
    cdef napi_struct *repoll_first = NULL
    cdef napi_struct *repoll_last = NULL
    cdef napi_struct *rest_last        # end of the list that starts with `first`
    cdef bint repoll
    sd.now = net_now(n)
    time_limit = sd.now + sysctl_get(n, netdev_budget_usecs) * 1000
    sd.in_net_rx_action = 1
    first = sd.poll_first
    rest_last = sd.poll_last
    sd.poll_first = sd.poll_last = NULL
    while True:
        if first == NULL:
            if repoll_first != NULL or sd.poll_first == NULL:
                break
            first, rest_last = sd.poll_first, sd.poll_last
            sd.poll_first = sd.poll_last = NULL
        napi = first
        first = napi.next
        napi.next = NULL
        repoll = False
        budget -= napi_poll(sd, napi, &repoll)
        if repoll:
            if repoll_first == NULL:
                repoll_first = napi
            else:
                repoll_last.next = napi
            repoll_last = napi
        if sd.wake_list != NULL:
            sd.wake_all(sd)
        handle_irqs(sd)
        sd.now = net_now(n)
        if budget <= 0 or sd.now >= time_limit:
            sd.time_squeeze += 1
            break
        if load_relaxed32(&sd.want_role):
            break                  # an application goes on
    # In the kernel's order: what is left of the list, what was scheduled meanwhile, what is to be polled again.
    if first != NULL:
        rest_last.next = sd.poll_first
        if sd.poll_first == NULL:
            sd.poll_last = rest_last
        sd.poll_first = first
    splice_tail(sd, repoll_first, repoll_last)
    if sd.poll_first != NULL:
        raise_softirq(sd, NET_RX_SOFTIRQ)
    sd.in_net_rx_action = 0
    if unlikely(sd.rps_ipi_mask):
        sd.net_rps_action(sd)


cdef bint napi_busy_poll(softnet_data *sd) noexcept nogil:
    """Poll every NAPI once, for an application that is the CPU. True when there is more. [busy_poll_stop()]

    Not a softirq, and it does not go on: what came may be what the application waits for.
    """
    sd.now = net_now(sd.n)
    look_at_wires(sd)
    hw_run(sd, sd.now)
    napi_timers(sd, sd.now)
    handle_irqs(sd)
    fetch_and32(&sd.softirq_pending, ~(<u32>1 << NET_RX_SOFTIRQ))
    if sd.poll_first != NULL:
        net_rx_action(sd)
    if sd.wake_list != NULL:
        sd.wake_all(sd)
    return (load_acquire32(&sd.softirq_pending) != 0 or load_acquire32(&sd.irq_pending) != 0
            or load_acquire32(&sd.ipi_pending) != 0 or hw_busy(sd))
