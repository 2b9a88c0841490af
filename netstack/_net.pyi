from enum import IntEnum
from typing import final

class sysctl(IntEnum):
    netdev_budget = 0
    netdev_budget_usecs = 1
    dev_weight = 2
    netdev_max_backlog = 3
    gro_normal_batch = 4
    gro_flush_timeout = 5
    napi_defer_hard_irqs = 6
    busy_poll = 7
    busy_read = 8
    poll_spin_usecs = 9
    irq_suspend_timeout = 10
    rmem_default = 11
    rmem_max = 12
    wmem_default = 13
    wmem_max = 14
    udp_mem_min = 15
    udp_mem_pressure = 16
    udp_mem_max = 17
    udp_rmem_min = 18
    ip_default_ttl = 19
    ip_forward = 20
    ip_forward_use_pmtu = 21
    ip_local_port_range_min = 22
    ip_local_port_range_max = 23
    drop_unicast_in_l2_multicast = 24
    ipfrag_high_thresh = 25
    ipfrag_low_thresh = 26
    ipfrag_time = 27
    ipfrag_max_dist = 28
    icmp_ratelimit = 29
    icmp_ratemask = 30
    icmp_msgs_per_sec = 31
    icmp_msgs_burst = 32
    icmp_echo_ignore_all = 33
    icmp_echo_ignore_broadcasts = 34
    route_min_pmtu = 35
    route_mtu_expires = 36
    route_gc_timeout = 37
    route_redirect_load = 38
    route_redirect_silence = 39
    route_error_cost = 40
    route_error_burst = 41
    route_redirect_number = 42
    ping_group_range_min = 43
    ping_group_range_max = 44
    neigh_base_reachable_time_ms = 45
    neigh_retrans_time_ms = 46
    neigh_delay_first_probe_time = 47
    neigh_gc_stale_time = 48
    neigh_ucast_solicit = 49
    neigh_mcast_solicit = 50
    neigh_gc_thresh1 = 51
    neigh_gc_thresh2 = 52
    neigh_gc_thresh3 = 53
    neigh_unres_qlen_bytes = 54
    fast_path = 55
    SYSCTL_NR = 56

class devconf(IntEnum):
    CNF_FORWARDING = 0
    CNF_RP_FILTER = 1
    CNF_ACCEPT_LOCAL = 2
    CNF_ACCEPT_REDIRECTS = 3
    CNF_SECURE_REDIRECTS = 4
    CNF_SEND_REDIRECTS = 5
    CNF_SHARED_MEDIA = 6
    CNF_NR = 7

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
