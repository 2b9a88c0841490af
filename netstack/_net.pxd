"""One host: what the kernel keeps in ``struct net`` (the namespace), and its devices.

There is no other state: everything hangs off a ``net``, so two hosts fit in one process.
"""

cimport cython
from netstack._abi cimport (
    add_owned64, add_relaxed64, load_acquire_ptr, load_relaxed32, load_relaxed64, realtime_ns, store_relaxed32, u8, u16,
    u32, u64,
)
from netstack._counters cimport MIB_NR, SKB_FATE_NR


cpdef enum sysctl:
    # Every number a user can turn at run time. ``config.py`` gives each its unit, range, default and names.
    netdev_budget
    netdev_budget_usecs
    dev_weight
    dev_weight_rx_bias
    netdev_max_backlog
    flow_limit_cpu_bitmap          # bit n: CPU n has a flow limit
    flow_limit_table_len
    rps_sock_flow_entries
    netdev_tstamp_prequeue
    gro_normal_batch
    gro_flush_timeout              # ns, of every NAPI
    napi_defer_hard_irqs
    busy_poll                      # us that poll/select may spin
    busy_read                      # us that a blocking receive may spin
    poll_spin_usecs                # us that an idle CPU polls before it sleeps (ours)
    irq_suspend_timeout            # ns the interrupt stays off after an application polled itself
    rmem_default
    rmem_max
    wmem_default
    wmem_max
    udp_mem_min                    # bytes here, pages in the sysctl
    udp_mem_pressure
    udp_mem_max
    udp_rmem_min
    ip_default_ttl
    ip_forward                     # all.forwarding too; what counts is each device's CNF_FORWARDING
    ip_forward_use_pmtu
    ip_local_port_range_min
    ip_local_port_range_max
    drop_unicast_in_l2_multicast
    ipfrag_high_thresh
    ipfrag_low_thresh
    ipfrag_time                    # s
    ipfrag_max_dist
    icmp_ratelimit                 # ms
    icmp_ratemask
    icmp_msgs_per_sec
    icmp_msgs_burst
    icmp_echo_ignore_all
    icmp_echo_ignore_broadcasts
    route_min_pmtu
    route_mtu_expires              # s
    route_gc_timeout               # s
    route_redirect_load            # ticks of 4 ms, as the next four
    route_redirect_silence
    route_error_cost
    route_error_burst
    route_redirect_number
    ping_group_range_min
    ping_group_range_max
    neigh_base_reachable_time_ms
    neigh_retrans_time_ms
    neigh_delay_first_probe_time   # s
    neigh_gc_stale_time            # s
    neigh_ucast_solicit
    neigh_mcast_solicit
    neigh_gc_thresh1
    neigh_gc_thresh2
    neigh_gc_thresh3
    neigh_unres_qlen_bytes
    igmp_max_memberships
    igmp_max_msf
    igmp_qrv
    igmp_link_local_mcast_reports
    fast_path                      # 1: the compiled short cut of proto/; 0: every packet through Python (ours)
    SYSCTL_NR

cpdef enum devconf:
    # What a device has of its own, net.ipv4.conf.DEVICE.*: see config_devices.py. [struct in_device, IPV4_DEVCONF_*]
    CNF_FORWARDING
    CNF_RP_FILTER
    CNF_ACCEPT_LOCAL
    CNF_ACCEPT_REDIRECTS
    CNF_SECURE_REDIRECTS
    CNF_SEND_REDIRECTS
    CNF_SHARED_MEDIA
    CNF_FORCE_IGMP_VERSION
    CNF_IGMPV2_UNSOLICITED_REPORT_INTERVAL     # ms, as the next
    CNF_IGMPV3_UNSOLICITED_REPORT_INTERVAL
    CNF_NR

cpdef enum devconf_numbers:
    # `Net.get` and `Net.set` take these beside `sysctl`: DEVCONF_ALL + place * 256 + CNF_*; a device's place is
    # 1 + ifindex.
    DEVCONF_ALL = 0x10000
    DEVCONF_DEFAULT = 0x10100

cpdef enum tap_stage:
    # Where a packet can be captured. STAGE_PREROUTING + h is netfilter's hook h.
    STAGE_WIRE                     # the device's side of the device core, both ways: where Linux has its taps
    STAGE_NIC
    STAGE_GRO
    STAGE_PREROUTING
    STAGE_INPUT
    STAGE_FORWARD
    STAGE_OUTPUT
    STAGE_POSTROUTING
    STAGE_SOCKET
    STAGE_DROP
    STAGE_NR

cdef enum:
    NF_TAP_SHIFT = 8               # bit 8 + h of net.nf_rules: somebody captures at hook h
    SLOT_PROCESS = 0               # process context: any thread, so counted with atomic operations
    SLOT_CPU0 = 1                  # CPU n counts in slot n + 1, and is the only one that does
    MAX_CPUS = 16
    MAX_DEVICES = 32
    MAX_ADDRS = 16                 # IPv4 addresses of a device
    MAX_PTYPES = 64
    MAX_RX_QUEUES = 16             # of a device
    ETH_ALEN = 6
    ETH_HLEN = 14

cdef struct mib_slot:
    u64 mib[MIB_NR + 1]            # the last one: what nobody counts
    u64 fate[SKB_FATE_NR]          # frames by how they ended
    u64 rx_frames                  # frames that came off a wire
    u64 pad[8]

# Lower than the structs it is passed: here `void *skb` is a sk_buff, `void *sd` a softnet_data. Callers use the typed
# inline functions of _skb.pxd and napi/_napi.pxd.

cdef struct net
cdef struct net_device

cdef struct ifaddr:
    u32 local                      # host order
    u32 mask

cdef struct net_device_ops:
    # Consumes skb. 0, or a negative errno when the frame was dropped (and freed, and counted).
    int (*ndo_start_xmit)(void *skb, net_device *dev) noexcept nogil
    # Write the address filters anew, as promiscuity, all_multicast and mc say. NULL: the device takes everything.
    void (*ndo_set_rx_mode)(net_device *dev) noexcept nogil

cdef struct net_device_stats:
    # One writer each: the CPU of the queue (rx_*), the holder of the transmit lock (tx_*).
    u64 rx_packets
    u64 rx_bytes
    u64 rx_dropped
    u64 rx_nohandler
    u64 multicast
    u64 tx_packets
    u64 tx_bytes
    u64 tx_dropped
    u64 tx_errors

cdef struct rps_dev_flow:          # flows of one queue whose hashes meet here
    u32 cpu                        # that their packets go to; RPS_NO_CPU for none yet
    u32 last_qtail                 # where its backlog ended when the last of them was queued

cdef struct rps_dev_flow_table:
    u32 log                        # 2 to the power of it: entries
    rps_dev_flow flows[1]

cdef struct rps_sock_flow_table:   # who reads a flow, for all queues
    u32 mask                       # entries - 1
    u32 ents[1]                    # upper bits of the hash, and in rps_cpu_mask's the CPU of the reader

cdef struct netdev_rx_queue:       # as netif/_rps.pyx sees it
    u32 rps_cpus                   # bit n: CPU n takes packets of this queue; 0 for no RPS
    rps_dev_flow_table *rps_flow_table  # NULL for no RFS

cdef struct net_device:
    net *net
    void *priv                     # the driver's own (netdev_priv)
    const net_device_ops *ops
    u32 ifindex
    u32 mtu
    u32 flags                      # IFF_*
    u32 nr_addrs
    u8 dev_addr[6]
    u16 type                       # ARPHRD_*
    ifaddr addr[MAX_ADDRS]
    char name[16]
    u64 features                   # NETIF_F_*
    u32 promiscuity                # how many ask for every frame
    u32 all_multicast              # how many ask for every group's frames
    net_device_stats stats
    u32 cnf[CNF_NR]                # net.ipv4.conf.NAME.*
    netdev_rx_queue rx[MAX_RX_QUEUES]

cpdef enum netif_features:
    NETIF_F_RXCSUM = 1
    NETIF_F_RXHASH = 2
    NETIF_F_GRO = 4
    NETIF_F_HW_VLAN_CTAG_RX = 8
    NETIF_F_GRO_FRAGLIST = 16      # rx-gro-list
    NETIF_F_GRO_UDP_FWD = 32       # rx-udp-gro-forwarding
    NETIF_F_RXALL = 64
    NETIF_F_GRO_HW = 128           # rx-gro-hw: coalesced frames come whole
    NETIF_F_HW_CSUM = 256          # tx-checksum-ip-generic: checksums are left to the device
    NETIF_F_GSO_UDP_L4 = 512       # tx-udp-segmentation: datagrams of UDP_SEGMENT leave whole

cpdef enum iff:
    IFF_UP = 1
    IFF_BROADCAST = 2
    IFF_LOOPBACK = 8
    IFF_RUNNING = 0x40
    IFF_NOARP = 0x80
    IFF_PROMISC = 0x100
    IFF_ALLMULTI = 0x200
    IFF_MULTICAST = 0x1000

ctypedef void (*inet_fast_rcv)(net *n, void *skb, void *sd) noexcept nogil

cdef struct inet_fast_ops:
    # The compiled short cut of one IP protocol. `peek` looks without changing or counting anything: 1 when `rcv` would
    # take the packet (data at the IP header, header already found to be plain), 0 to leave it to Python.
    # It may leave what it found in skb.cb. `rcv` consumes; data stands at the transport header.
    bint (*peek)(net *n, void *skb) noexcept nogil
    inet_fast_rcv rcv              # another while somebody captures at the sockets: load_acquire_ptr

cdef enum udp_gro_answer:
    UDP_GRO_HAS_SOCKET = 1         # a socket would receive the datagram
    UDP_GRO_ENABLED = 2            # and it has UDP_GRO set

ctypedef u64 (*clock_fn)(void *arg) noexcept nogil

cdef struct net:
    u64 sysctl[SYSCTL_NR]
    mib_slot *slots                # [nr_slots]
    u32 nr_slots
    u32 nr_devices
    net_device *devices[MAX_DEVICES]    # by ifindex - 1
    clock_fn clock
    void *clock_arg
    # Back-edges, wired in _fastpath.pyx: a lower stage calls up (or over) only through these.
    void (*netif_receive_skb_list)(net *n, void *head, void *sd) noexcept nogil
    int (*dev_queue_xmit)(void *skb) noexcept nogil
    # UDP and its neighbours hang themselves in here: [inet_protos]
    inet_fast_ops inet_fast[256]
    # What GRO asks about a datagram, UDP_GRO_* bits; addresses and ports in host order. NULL while no socket of the
    # host has UDP_GRO set. [udp_encap_needed_key, udp4_gro_lookup_skb()]
    int (*udp_gro_lookup)(net *n, u32 saddr, u16 sport, u32 daddr, u16 dport) noexcept nogil
    # Wait until nobody who was a CPU at the time of the call still is: after it, what was unlinked before can be
    # freed. [synchronize_net()] Call it without the GIL and without a lock that a CPU takes.
    void (*synchronize)(net *n) noexcept nogil
    void (*to_python)(net *n, void *skb) noexcept nogil      # the seam: netif/_backlog
    u32 (*seam_len)(net *n) noexcept nogil                      # packets that stand there; NULL while there is none
    u32 back_to_python             # readers that have got what they waited for, but not the GIL yet
    void (*kick_python)(net *n) noexcept nogil                  # a timer of the Python side must be looked at
    # Be a CPU until ready(sk): poll until `spin`, then sleep as the idle CPU with its number + 1 in `idle`, until
    # `until` (both ns by the monotonic clock; 0: for ever). 0 ready, ETIMEDOUT, EINTR, or EBUSY when another sees to
    # the wires. Whoever takes the number out of `idle` calls busy_wake with the CPU. busy_poll_once polls without
    # waiting. [napi_busy_loop()]
    int (*busy_loop)(net *n, u32 cpu, void *sk, bint (*ready)(void *) noexcept nogil, u32 *idle, u64 spin,
                     u64 until) noexcept nogil
    void (*busy_poll_once)(net *n, u32 cpu) noexcept nogil
    void (*busy_wake)(net *n, u32 cpu) noexcept nogil
    int (*netif_rx)(void *skb) noexcept nogil
    # Send packets of a batch to the CPUs that RPS chooses; gives the list of those that stay. NULL while no queue has
    # RPS or RFS. [static_branch rps_needed]
    void *(*rps_steer)(net *n, void *head, void *sd) noexcept nogil
    rps_sock_flow_table *rps_sock_flow_table   # NULL: RFS is off. [net_hotdata.rps_sock_flow_table]
    u32 rps_cpu_mask               # low bits of an entry that hold the CPU
    u64 hash_key[2]                # of skb_get_hash
    # One pointer a layer; each layer knows its own.
    void *seam                     # netif/_backlog.pxd
    void *ptypes                   # netif/_core.pxd
    void *taps                     # netif/_tap.pxd
    u32 tap_users                  # threads that walk the taps at the moment
    u32 tap_stages                 # bit s: somebody captures at stage s
    void (*tap_stage)(net *n, void *skb, u32 stage, u32 reason) noexcept nogil     # call it if the stage's bit is set
    void *neigh                    # proto/_neigh.pxd
    void *fib                      # proto/_route.pxd
    void (*rt_cache_flush)(net *n) noexcept nogil      # what routes gave is remembered no more [rt_cache_flush()]
    u32 devconf[2][CNF_NR]         # net.ipv4.conf.all.*, net.ipv4.conf.default.*
    void *mc                       # proto/_mc.pxd
    void *multicast                # the Python object that setsockopt asks about groups; Net keeps it
    void *ip                       # proto/_ip_output.pxd
    void *icmp                     # proto/_icmp.pxd
    void *udp                      # sock/_table.pxd, the table of the UDP protocol
    void *packet                   # sock/_packet.pxd
    u32 packet_wanted              # packet sockets: 1 for ETH_P_ALL, 2 for one EtherType
    void *raw                      # proto/_raw.pxd
    void *ping                     # proto/_ping.pyx
    void *protos                   # sock/_sock.pxd: a struct proto for each kind of socket [inetsw]
    u32 raw_protocols[8]           # bitmap: IP protocols that a raw socket or a Python handler wants a copy of
    u32 python_protocols[8]        # of these, the ones with a Python handler
    u32 nf_hooks                   # bit h: a Python hook is registered at hook h
    u32 nf_rules                   # bit h: there are rules at hook h; bit NF_TAP_SHIFT + h: a capture
    void *nf                       # nf/_rules.pxd
    void *cpus[MAX_CPUS]          # softnet_data
    void *irqs[96]                 # irq_desc: the host's interrupt lines; number 24 is the first
    void *pools                    # skb_pool: all of the host, which live as long as it
    void (*pools_destroy)(net *n) noexcept
    void *pool                     # skb_pool: packets made in process context: skb_alloc_process
    u32 nr_cpus
    u32 napi_ids                   # NAPIs ever made
    u32 netstamp_needed            # sockets that want to know when a packet came [netstamp_needed_key]
    u64 udp_memory                 # bytes of truesize in UDP receive queues


cdef inline u64 net_now(net *n) noexcept nogil:
    """Nanoseconds on the clock that the host was given."""
    return n.clock(n.clock_arg)

cdef inline u64 net_realtime(net *n) noexcept nogil:
    """Nanoseconds since 1970, or on the clock that the host was given. [ktime_get_real()]"""
    return n.clock(n.clock_arg) if n.clock_arg != NULL else realtime_ns()

cdef inline u64 sysctl_get(net *n, int which) noexcept nogil:
    return load_relaxed64(&n.sysctl[which])

cdef inline u32 in_dev_orconf(net_device *dev, int which) noexcept nogil:
    """Is it on for the device, or for all? [IN_DEV_ORCONF()]"""
    return load_relaxed32(&dev.net.devconf[0][which]) | load_relaxed32(&dev.cnf[which])

cdef inline u32 in_dev_andconf(net_device *dev, int which) noexcept nogil:
    return load_relaxed32(&dev.net.devconf[0][which]) & load_relaxed32(&dev.cnf[which])

cdef inline u32 in_dev_maxconf(net_device *dev, int which) noexcept nogil:
    return max(load_relaxed32(&dev.net.devconf[0][which]), load_relaxed32(&dev.cnf[which]))

cdef inline u32 in_dev_forward(net_device *dev) noexcept nogil:
    """Does the device pass on what comes in for others? [IN_DEV_FORWARD()]"""
    return load_relaxed32(&dev.cnf[<int>CNF_FORWARDING])

cdef inline void mib_add(net *n, u32 slot, int which, u64 by) noexcept nogil:
    """Add to a counter of the slot: plainly for the CPU that owns it, atomically in process context."""
    if slot != SLOT_PROCESS:
        add_owned64(&n.slots[slot].mib[which], by)
    else:
        add_relaxed64(&n.slots[SLOT_PROCESS].mib[which], by)

cdef inline void mib_inc(net *n, u32 slot, int which) noexcept nogil:
    mib_add(n, slot, which, 1)

cdef inline void fate_add(net *n, u32 slot, int fate, u64 frames) noexcept nogil:
    if slot != SLOT_PROCESS:
        add_owned64(&n.slots[slot].fate[fate], frames)
    else:
        add_relaxed64(&n.slots[SLOT_PROCESS].fate[fate], frames)


cdef extern from *:
    """
    #include <sched.h>
    """
    int sched_getcpu() noexcept nogil

cdef inline u32 smp_processor_id(net *n) noexcept nogil:
    """The CPU of the host that an application's thread runs on: that of the same number as the machine's."""
    cdef int cpu = sched_getcpu()
    return <u32>cpu % n.nr_cpus if cpu > 0 else 0

cdef inline void rps_record_sock_flow(net *n, u32 hash) noexcept nogil:
    """Note that the flow is read here: on the CPU of this thread. [rps_record_sock_flow()]

    A table that is no longer used stays where it is (netif/_rps_conf.pyx), so none has to be held.
    """
    cdef rps_sock_flow_table *table = <rps_sock_flow_table *>load_acquire_ptr(<void **>&n.rps_sock_flow_table)
    cdef u32 *entry
    cdef u32 ident
    if table == NULL or hash == 0:
        return
    entry = &table.ents[hash & load_relaxed32(&table.mask)]
    ident = hash & ~n.rps_cpu_mask | smp_processor_id(n)
    if load_relaxed32(entry) != ident:
        store_relaxed32(entry, ident)


@cython.final
cdef class Net:
    """A host's ``struct net`` as Python sees it: tunables by number, counters summed over the slots."""
    cdef net *ptr
    cdef object clock_object
    cdef list kept                 # owners of what hangs off the struct
    cdef object multicast_object
    cdef object __weakref__
    cdef u32 *devconf(self, int which) except NULL
