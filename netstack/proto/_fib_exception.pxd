"""What was learned of the way to one destination; see ``_fib_exception.pyx``."""

from netstack._abi cimport u32, u64
from netstack._net cimport net, net_device

cdef void ip_rt_learn_redirect(net *n, u32 daddr, u32 old_gw, u32 new_gw, net_device *dev, u64 seconds) noexcept nogil
cdef void ip_rt_update_pmtu(net *n, u32 daddr, u32 saddr, u32 mtu) noexcept nogil
