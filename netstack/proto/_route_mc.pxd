"""Routes of groups; see ``_route_mc.pyx``."""

from netstack._abi cimport u8, u16, u32
from netstack._net cimport net, net_device
from netstack.proto._route cimport rtable

cdef u32 ip_route_input_mc(net *n, u32 daddr, u32 saddr, net_device *dev, u16 ethertype, u8 protocol,
                           rtable *rt) noexcept nogil
cdef u32 fib_compute_spec_dst(net *n, u32 daddr, u32 saddr, u32 ifindex) noexcept nogil
# The way to a group, or to everybody, through a device that the sender names. 0 or a negative errno.
cdef int ip_route_output_oif(net *n, u32 daddr, u32 saddr, u32 oif, rtable *rt) noexcept nogil
