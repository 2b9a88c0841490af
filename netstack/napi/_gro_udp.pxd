"""GRO of UDP over IPv4; see ``_gro_udp.pyx``."""

from netstack._abi cimport load_acquire_ptr, u8
from netstack._net cimport (
    NETIF_F_GRO_FRAGLIST, NETIF_F_GRO_UDP_FWD, net, net_device,
)
from netstack._skb cimport sk_buff
from netstack.napi._gro_flow cimport gro_state
from netstack.napi._napi cimport gro_list

cdef sk_buff **udp4_gro_receive(net *n, gro_list *held, sk_buff *skb,
                                gro_state *state) noexcept nogil
cdef void udp4_gro_complete(sk_buff *skb) noexcept nogil


cdef inline bint udp_gro_possible(net *n, const net_device *dev) noexcept nogil:
    """Tell whether any datagram at all could be merged: the question that most frames end with."""
    return (dev.features & (NETIF_F_GRO_FRAGLIST | NETIF_F_GRO_UDP_FWD) != 0
            or load_acquire_ptr(<void **>&n.udp_gro_lookup) != NULL)
