from enum import IntEnum
from typing import Any, final

class sysctl(IntEnum):
    netdev_budget = 0
    netdev_budget_usecs = 1
    dev_weight = 2
    dev_weight_rx_bias = 3
    netdev_max_backlog = 4
    flow_limit_cpu_bitmap = 5
    flow_limit_table_len = 6
    rps_sock_flow_entries = 7
    netdev_tstamp_prequeue = 8
    gro_normal_batch = 9
    gro_flush_timeout = 10
    napi_defer_hard_irqs = 11
    busy_poll = 12
    busy_read = 13
    poll_spin_usecs = 14
    irq_suspend_timeout = 15
    rmem_default = 16
    rmem_max = 17
    wmem_default = 18
    wmem_max = 19
    udp_mem_min = 20
    udp_mem_pressure = 21
    udp_mem_max = 22
    udp_rmem_min = 23
    ip_default_ttl = 24
    ip_forward = 25
    ip_forward_use_pmtu = 26
    ip_local_port_range_min = 27
    ip_local_port_range_max = 28
    drop_unicast_in_l2_multicast = 29
    ipfrag_high_thresh = 30
    ipfrag_low_thresh = 31
    ipfrag_time = 32
    ipfrag_max_dist = 33
    icmp_ratelimit = 34
    icmp_ratemask = 35
    icmp_msgs_per_sec = 36
    icmp_msgs_burst = 37
    icmp_echo_ignore_all = 38
    icmp_echo_ignore_broadcasts = 39
    route_min_pmtu = 40
    route_mtu_expires = 41
    route_gc_timeout = 42
    route_redirect_load = 43
    route_redirect_silence = 44
    route_error_cost = 45
    route_error_burst = 46
    route_redirect_number = 47
    ping_group_range_min = 48
    ping_group_range_max = 49
    neigh_base_reachable_time_ms = 50
    neigh_retrans_time_ms = 51
    neigh_delay_first_probe_time = 52
    neigh_gc_stale_time = 53
    neigh_ucast_solicit = 54
    neigh_mcast_solicit = 55
    neigh_gc_thresh1 = 56
    neigh_gc_thresh2 = 57
    neigh_gc_thresh3 = 58
    neigh_unres_qlen_bytes = 59
    igmp_max_memberships = 60
    igmp_max_msf = 61
    igmp_qrv = 62
    igmp_link_local_mcast_reports = 63
    fast_path = 64
    SYSCTL_NR = 65

class devconf(IntEnum):
    CNF_FORWARDING = 0
    CNF_RP_FILTER = 1
    CNF_ACCEPT_LOCAL = 2
    CNF_ACCEPT_REDIRECTS = 3
    CNF_SECURE_REDIRECTS = 4
    CNF_SEND_REDIRECTS = 5
    CNF_SHARED_MEDIA = 6
    CNF_FORCE_IGMP_VERSION = 7
    CNF_IGMPV2_UNSOLICITED_REPORT_INTERVAL = 8
    CNF_IGMPV3_UNSOLICITED_REPORT_INTERVAL = 9
    CNF_NR = 10

class devconf_numbers(IntEnum):
    DEVCONF_ALL = 0x10000
    DEVCONF_DEFAULT = 0x10100

class netif_features(IntEnum):
    NETIF_F_RXCSUM = 1
    NETIF_F_RXHASH = 2
    NETIF_F_GRO = 4
    NETIF_F_HW_VLAN_CTAG_RX = 8
    NETIF_F_GRO_FRAGLIST = 16
    NETIF_F_GRO_UDP_FWD = 32
    NETIF_F_RXALL = 64
    NETIF_F_GRO_HW = 128
    NETIF_F_HW_CSUM = 256
    NETIF_F_GSO_UDP_L4 = 512

class tap_stage(IntEnum):
    STAGE_WIRE = 0
    STAGE_NIC = 1
    STAGE_GRO = 2
    STAGE_PREROUTING = 3
    STAGE_INPUT = 4
    STAGE_FORWARD = 5
    STAGE_OUTPUT = 6
    STAGE_POSTROUTING = 7
    STAGE_SOCKET = 8
    STAGE_DROP = 9
    STAGE_NR = 10

class iff(IntEnum):
    IFF_UP = 1
    IFF_BROADCAST = 2
    IFF_LOOPBACK = 8
    IFF_RUNNING = 0x40
    IFF_NOARP = 0x80
    IFF_PROMISC = 0x100
    IFF_ALLMULTI = 0x200
    IFF_MULTICAST = 0x1000

@final
class ManualClock:
    def __new__(cls, start: int = 1000000000) -> ManualClock: ...
    def advance(self, seconds: float) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def ns(self) -> int: ...

@final
class Net:
    nf_hooks: int
    multicast: Any
    def __new__(cls, nr_cpus: int = 1, clock: ManualClock | None = None) -> Net: ...
    def keep(self, owner: object) -> None: ...
    @property
    def cpus(self) -> int: ...
    def now(self) -> int: ...
    def get(self, which: int) -> int: ...
    def set(self, which: int, value: int) -> None: ...
    def devconf_init(self, ifindex: int) -> None: ...
    def set_forwarding(self, on: bool) -> None: ...
    def mib(self, which: int) -> int: ...
    def count(self, which: int, by: int = 1) -> None: ...
    def fate(self, which: int) -> int: ...
    def counted(self) -> tuple[dict[int, int], dict[int, int]]: ...
    def rx_frames(self) -> int: ...
    @property
    def nf_rules(self) -> int: ...
    def want_protocol(self, protocol: int, wanted: bool) -> None: ...
