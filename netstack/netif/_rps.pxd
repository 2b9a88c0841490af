"""Which CPU a packet goes to; see ``_rps.pyx``."""

from netstack._abi cimport load_acquire_ptr, load_relaxed32, u32
from netstack._net cimport net, net_device, rps_dev_flow
from netstack._skb cimport sk_buff

cdef enum:
    RPS_NO_CPU = 0xFFFF
    RFS_MAX_LOG = 20               # a queue's flow table has up to 1048576 entries
    RFS_MAX_SOCK_LOG = 24          # the table of who reads which flow up to 16777216

cdef int get_rps_cpu(net *n, sk_buff *skb, rps_dev_flow **rflowp) noexcept nogil


cdef inline bint rps_wanted(net_device *dev) noexcept nogil:
    """Does the first queue have RPS or RFS? What has no queue of its own (netif_rx) counts as received there."""
    return (load_relaxed32(&dev.rx[0].rps_cpus) != 0
            or load_acquire_ptr(<void **>&dev.rx[0].rps_flow_table) != NULL)
