"""NAPI and the CPU it runs on: the structs that driver, irq and netif share.

``napi_struct`` is one source of packets; ``softnet_data`` is one CPU's side of the network. [netdevice.h]
"""

from netstack._abi cimport cas32, fetch_and32, fetch_or32, load_acquire32, store_release32, u8, u16, u32, u64
from netstack._net cimport MAX_CPUS, net, net_device
from netstack._skb cimport sk_buff, sk_buff_head, skb_pool
from netstack.device._device cimport hw_device


cdef enum:
    NAPI_POLL_WEIGHT = 64
    MIN_NAPI_ID = 8192             # ids below are CPUs' [busy_poll.h]
    GRO_HASH_BUCKETS = 8
    MAX_GRO_SKBS = 8
    JIFFY_NS = 4000000             # HZ=250: the grain in which GRO tells old packets from new
    MAX_HW = 8                     # pieces of hardware on one CPU
    MAX_IRQS = 96                  # interrupt lines of a host, and NAPIs of a CPU

cdef enum napi_state:
    NAPIF_STATE_SCHED = 1          # in a poll list, or being polled
    NAPIF_STATE_MISSED = 2         # scheduled again while SCHED: complete must reschedule
    NAPIF_STATE_DISABLE = 4        # napi_disable waits
    NAPIF_STATE_IN_BUSY_POLL = 8   # an application polls

cdef enum softirqs:                # in the kernel's order, which is the order of service
    HI_SOFTIRQ = 0
    TIMER_SOFTIRQ = 1
    NET_TX_SOFTIRQ = 2
    NET_RX_SOFTIRQ = 3
    BLOCK_SOFTIRQ = 4
    IRQ_POLL_SOFTIRQ = 5
    TASKLET_SOFTIRQ = 6
    SCHED_SOFTIRQ = 7
    HRTIMER_SOFTIRQ = 8
    RCU_SOFTIRQ = 9
    NR_SOFTIRQS = 10

cdef enum:
    IPI_BACKLOG = 1                # something was queued for the CPU by whoever
    IPI_RPS = 2                    # by another CPU [rps_trigger_softirq()]

cdef struct softnet_data

cdef struct gro_list:
    sk_buff *first                 # newest first, as in the kernel
    u32 count

cdef struct napi_struct:
    # Polls at most `budget` packets and gives how many. A poll that did less must have called napi_complete_done.
    int (*poll)(napi_struct *napi, int budget) noexcept nogil
    napi_struct *next              # in the poll list
    u32 state                      # NAPIF_STATE_*
    u32 weight
    u32 napi_id
    u32 gro_bitmask                # bit b: bucket b holds packets
    net_device *dev
    net *n
    softnet_data *sd               # the CPU that polls it
    gro_list gro_hash[GRO_HASH_BUCKETS]
    sk_buff_head rx_list           # GRO_NORMAL packets waiting for gro_normal_batch
    u32 rx_count                   # segments in rx_list
    u32 defer_hard_irqs_count
    u32 ready                      # frames that its device still held finished after the last poll
    u64 timer                      # when the gro_flush_timeout watchdog polls, ns; 0 for off
    u64 gro_age                    # jiffy of this poll: packets held in an earlier one are old
    # What GRO did, in frames.
    u64 gro_merged
    u64 gro_held
    u64 gro_normal
    u64 gro_packets_out            # merged packets passed up
    u64 polls

cdef struct irq_desc:
    # Hard IRQ context: acknowledge, napi_schedule, nothing else.
    void (*handler)(void *dev_id, softnet_data *sd) noexcept nogil
    void *dev_id
    # The line goes to another CPU: its driver takes along what the handler schedules. Called while every CPU stands
    # still, before the first interrupt there; NULL for nothing to do. [irq_set_affinity_notifier()]
    void (*moved)(void *dev_id, softnet_data *to) noexcept nogil
    softnet_data *sd               # the CPU that it goes to
    u64 affinity                   # bit n: CPU n may have it (smp_affinity)
    u32 pending                    # the line is raised
    u32 irq                        # number in /proc/interrupts
    u64 count[MAX_CPUS]
    char name[32]

cdef struct softnet_data:
    net *n
    u32 cpu
    u32 slot                       # cpu + 1
    # The role: whoever stored 1 here is this CPU.
    u32 role                       # 0 free, 1 taken, 2 taken and waited for
    u32 role_waiters               # threads that block for it, or are about to
    u32 sleeping                   # its own thread is in epoll_wait, or about to be
    u32 want_role                  # an application spins for the role, and its own thread holds it
    u32 stop
    u32 softirq_pending            # bit a softirq; hard IRQ handlers set it, do_softirq takes it
    u32 in_hardirq
    u32 in_softirq
    u32 in_net_rx_action
    u32 in_ksoftirqd
    napi_struct *poll_first        # poll_list
    napi_struct *poll_last
    napi_struct *napis[MAX_IRQS]   # every NAPI of this CPU, for timers
    u32 nr_napis
    u32 nr_hw
    u32 shared                     # queues of NICs on this CPU's bus that other CPUs poll
    u32 hw_ran                     # the hardware has had its moment since the last poll
    hw_device *hw[MAX_HW]
    irq_desc *irqs[MAX_IRQS]
    u32 nr_irqs
    u32 irq_pending                # some vector's `pending` is set
    skb_pool *pool                 # packets of this CPU
    bint (*receive)(softnet_data *sd) noexcept nogil   # one pass, True when there is more: _fastpath.pyx
    # Sockets with something new, to be woken at the end of the batch.
    void *wake_list
    void (*wake_all)(softnet_data *sd) noexcept nogil
    u64 crowd_ns                   # how long the thread is to leave the core to the readers of full sockets; 0: not
    u32 ipi_pending                # IPI_*: another context put packets into input_pkt_queue
    u64 now                        # the clock as of the current pass, ns
    # Counters: /proc/net/softnet_stat, /proc/softirqs, and how the three contexts shared the time.
    u64 processed
    u64 dropped
    u64 time_squeeze
    u64 received_rps
    u64 flow_limit_count
    u64 softirqs[NR_SOFTIRQS]
    u64 hardirqs
    u64 ksoftirqd_runs             # times the rest was left to ksoftirqd: 10 restarts or 2 ms
    u64 sleeps
    u64 spins_won                  # frames came while the idle CPU polled before sleeping
    u64 busy_polls                 # times an application was this CPU
    u64 reader_pauses              # times the thread left the core to the readers of full sockets
    u64 last_busy_poll             # ns by the monotonic clock, whatever the host's is
    u64 idle_since                 # ns, when the CPU last ran out of work
    u64 gap_ns                     # how long it then took until there was some, smoothed
    # process_backlog
    u32 input_lock
    u32 input_queue_tail           # packets ever put into input_pkt_queue; under the lock
    sk_buff_head input_pkt_queue
    sk_buff_head process_queue
    napi_struct backlog
    # RPS
    u32 input_queue_head           # packets of the backlog that are done with
    u32 rps_ipi_mask               # bit n: CPU n is to poll its backlog, and has not been told [rps_ipi_list]
    void (*net_rps_action)(softnet_data *sd) noexcept nogil    # tell them: netif/_backlog.pyx
    void *flow_limit               # netif/_flow_limit.pxd, NULL for none
    # The thread and what it sleeps on.
    int epfd
    int wake_fd                    # eventfd
    int timer_fd                   # timerfd: the end of irq_suspend_timeout
    u32 timer_armed                # it runs, or has run out and the thread has yet to see it
    u32 irq_suspended              # an application sees to the wires: interrupts stay masked
    # An application that sleeps as the idle CPU waits on a set of its own. The wires are in one of the two, or in none.
    int idle_epfd
    int idle_fd                    # eventfd: the application's socket got something by another hand
    int wires_epfd                 # the set that the wires are in, -1 for none
    u32 idle_app                   # an application sleeps on idle_epfd
    u32 in_busy_poll               # an application is this CPU, and polls
    u32 has_thread
    u64 thread
    u32 tid


cdef void napi_init(napi_struct *napi, net *n, net_device *dev, softnet_data *sd,
                    int (*poll)(napi_struct *, int) noexcept nogil, u32 weight) noexcept
cdef int napi_add(napi_struct *napi) except -1
cdef void napi_del(napi_struct *napi) noexcept nogil
cdef bint napi_complete_done(napi_struct *napi, int work_done) noexcept nogil
cdef void napi_enable(napi_struct *napi) noexcept nogil
cdef void napi_disable(napi_struct *napi) noexcept nogil
cdef void napi_move(napi_struct *napi, softnet_data *to) noexcept nogil
cdef void napi_timers(softnet_data *sd, u64 now) noexcept nogil
cdef u64 napi_frames(napi_struct *napi) noexcept nogil
cdef u64 napi_next_timer(softnet_data *sd) noexcept nogil


cdef inline bint napi_schedule_prep(napi_struct *napi) noexcept nogil:
    """True when the caller may schedule: not disabled, and nobody else has. Sets MISSED if somebody has."""
    cdef u32 old
    cdef u32 new
    while True:
        old = load_acquire32(&napi.state)
        if old & NAPIF_STATE_DISABLE:
            return False
        new = old | NAPIF_STATE_SCHED
        if old & NAPIF_STATE_SCHED:
            new |= NAPIF_STATE_MISSED
        if new == old or cas32(&napi.state, old, new):
            return not old & NAPIF_STATE_SCHED

cdef inline void raise_softirq(softnet_data *sd, u32 nr) noexcept nogil:
    fetch_or32(&sd.softirq_pending, <u32>1 << nr)

cdef inline void napi_list_tail(softnet_data *sd, napi_struct *napi) noexcept nogil:
    napi.next = NULL
    if sd.poll_first == NULL:
        sd.poll_first = napi
    else:
        sd.poll_last.next = napi
    sd.poll_last = napi

cdef inline void napi_schedule_on(softnet_data *sd, napi_struct *napi) noexcept nogil:
    """____napi_schedule(): put a NAPI in its CPU's poll list and raise the softirq. Only as that CPU."""
    napi_list_tail(sd, napi)
    if not sd.in_net_rx_action:
        raise_softirq(sd, NET_RX_SOFTIRQ)

cdef inline void napi_schedule(napi_struct *napi) noexcept nogil:
    """Ask for a poll. From the handler of the NAPI's vector, as its CPU. [napi_schedule()]"""
    if napi_schedule_prep(napi):
        napi_schedule_on(napi.sd, napi)
