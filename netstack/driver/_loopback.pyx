"""loopback: the device ``lo``: what is sent is received.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       packets for our own addresses    proto/_ip.pyx
Out      the CPU's backlog                netif/_backlog.pyx
Context  a sender's thread, or softirq; no GIL; never allocates, never raises
Kernel   loopback_xmit(), drivers/net/loopback.c
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netstack._abi cimport add_relaxed64, get_be16, u16, u32, u64, uintptr_t
from netstack._net cimport (
    ETH_HLEN, IFF_LOOPBACK, IFF_RUNNING, IFF_UP, NETIF_F_GSO_UDP_L4, NETIF_F_HW_CSUM, NETIF_F_RXCSUM, Net, net_device,
    net_device_ops,
)
from netstack._skb cimport PACKET_HOST, sk_buff, skb_pull

cdef net_device_ops loopback_ops

cdef enum:
    ARPHRD_LOOPBACK = 772

cdef tuple FIXED_ON = ("tx-scatter-gather", "tx-scatter-gather-fraglist", "generic-segmentation-offload", "highdma",
                       "vlan-challenged", "loopback")


cdef int loopback_xmit(void *p, net_device *dev) noexcept nogil:
    """Turn a frame round into the backlog. Consumes skb.

    What is on no cable needs no cut and no checksum: datagrams of UDP_SEGMENT stay one packet as far as the socket.
    """
    cdef sk_buff *skb = <sk_buff *>p
    cdef u32 size = skb.len - ETH_HLEN
    skb.mac_header = <u16>(skb.data - skb.head)
    skb.protocol = get_be16(skb.data + 12)
    skb_pull(skb, ETH_HLEN)
    skb.pkt_type = PACKET_HOST
    skb.dev = dev
    if dev.net.netif_rx(skb) == 0:     # what the backlog has no room for, it counts as rx_dropped
        add_relaxed64(&dev.stats.tx_packets, 1)
        add_relaxed64(&dev.stats.tx_bytes, size)
        add_relaxed64(&dev.stats.rx_packets, 1)
        add_relaxed64(&dev.stats.rx_bytes, size)
    return 0

loopback_ops.ndo_start_xmit = loopback_xmit


@cython.final
@cython.no_gc_clear
cdef class Loopback:
    """The device ``lo`` with 127.0.0.1/8 of one host."""
    cdef net_device *dev

    def __cinit__(self, Net n, u32 ifindex=1, u32 mtu=65536):
        cdef net_device *dev = <net_device *>calloc(1, sizeof(net_device))
        if dev == NULL:
            raise MemoryError
        self.dev = dev
        dev.net = n.ptr
        dev.ops = &loopback_ops
        dev.ifindex = ifindex
        dev.mtu = mtu
        dev.flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK
        dev.features = NETIF_F_RXCSUM | NETIF_F_HW_CSUM | NETIF_F_GSO_UDP_L4
        dev.type = ARPHRD_LOOPBACK
        memcpy(dev.name, b"lo", 3)
        dev.addr[0].local = 0x7F000001
        dev.addr[0].mask = 0xFF000000
        dev.nr_addrs = 1
        n.ptr.devices[ifindex - 1] = dev
        if n.ptr.nr_devices < ifindex:
            n.ptr.nr_devices = ifindex

    def __dealloc__(self):
        free(self.dev)

    @property
    def address(self):
        """The net_device, for set-up code of other stages."""
        return <uintptr_t>self.dev

    @property
    def name(self):
        """``lo``."""
        return "lo"

    @property
    def mtu(self):
        """Bytes of the largest packet."""
        return self.dev.mtu

    @property
    def flags(self):
        """IFF_* bits."""
        return self.dev.flags

    @property
    def features(self):
        """NETIF_F_* bits. What is set holds from the next packet on."""
        return self.dev.features

    @features.setter
    def features(self, u64 bits):
        self.dev.features = bits

    @property
    def hw_features(self):
        """NETIF_F_* bits that may be switched."""
        return NETIF_F_GSO_UDP_L4

    @property
    def fixed_on(self):
        """Features without a bit that are on, by ethtool's names."""
        return FIXED_ON

    def queued(self):
        """None: what is sent stands in the CPU's backlog."""
        return 0

    def link_stats(self):
        """The device's counters, under the names of rtnl_link_stats64."""
        return {"rx_packets": self.dev.stats.rx_packets, "rx_bytes": self.dev.stats.rx_bytes,
                "rx_dropped": self.dev.stats.rx_dropped, "tx_packets": self.dev.stats.tx_packets,
                "tx_bytes": self.dev.stats.tx_bytes, "tx_dropped": self.dev.stats.tx_dropped}
