"""IPv4's way out; see ``_ip_output.pyx``. Other protocols cimport these names from ``_ip.pxd``."""

from netstack._abi cimport u8, u16, u32, u64
from netstack._net cimport net, net_device
from netstack._skb cimport sk_buff
from netstack.proto._ip_alloc cimport (
    IP_OPTIONS_MAX, LL_MAX_HEADER, ip_alloc_skb, ip_copy, ip_out_cb, skb_checksum, skb_fill, skb_store_bits,
)
from netstack.proto._route cimport rtable


cdef enum:
    IP_IDENTS = 2048               # generators of IP ids

cdef struct ip_state:              # net.ip
    u64 seed
    u32 idents[IP_IDENTS]
    # Take a packet of a program past Python's hooks and send it: 0 or a negative errno. See _local_out.pyx.
    int (*local_out)(void *arg, sk_buff *skb) noexcept nogil
    void *local_out_arg

# Put an IP header in front of skb and send it. Consumes skb. 0, or a negative errno. The first is for programs' threads
# without the GIL and without a lock: a Python hook is asked there and then, and its verdict is in what comes back.
cdef int ip_send_skb(net *n, sk_buff *skb, const rtable *rt, u8 protocol, u8 tos, u8 ttl, u16 frag_off) noexcept nogil
cdef int ip_send_skb_opt(net *n, sk_buff *skb, const rtable *rt, u8 protocol, u8 tos, u8 ttl, u16 frag_off,
                         const u8 *opt, u32 optlen) noexcept nogil
# Send a program's packet whose header stands, past Python's hooks. Consumes skb. 0, or a negative errno.
cdef int ip_local_out(net *n, sk_buff *skb) noexcept nogil
cdef u16 ip_select_ident(net *n, u32 daddr, u32 saddr, u8 protocol) noexcept nogil
# The rest of the way for a packet whose header stands (it was forwarded).
cdef int ip_output(net *n, sk_buff *skb) noexcept nogil


cdef inline void use_route(sk_buff *skb, const rtable *rt) noexcept nogil:
    """Write down the way of a packet. [skb_dst_set()]"""
    skb.protocol = 0x0800
    skb.dev = rt.dev
    skb.rt_flags = rt.flags
    skb.rt_type = rt.type
    (<ip_out_cb *>skb.cb).nexthop = rt.gateway
    (<ip_out_cb *>skb.cb).mtu = rt.mtu
