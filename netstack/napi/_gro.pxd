"""GRO's entry points; see ``_gro.pyx``. Splitting is in ``netstack/_gso.pxd``."""

from netstack._abi cimport add_owned64, likely, u32
from netstack._net cimport NETIF_F_GRO, gro_normal_batch, sysctl_get
from netstack._skb cimport queue_tail, sk_buff, skb_headlen
from netstack.napi._gro_flow cimport ETH_P_IP, IP_HLEN, IPPROTO_UDP
from netstack.napi._gro_udp cimport udp_gro_possible
from netstack.napi._napi cimport napi_struct


cdef enum gro_result:
    GRO_MERGED                     # chained to the held packet of its flow
    GRO_MERGED_FREE                # never here: a frame keeps its buffer, so nothing is left over
    GRO_HELD                       # waits for the next of its flow
    GRO_NORMAL                     # goes on as it came
    GRO_CONSUMED                   # never here: no protocol finishes in the background

cdef enum:
    SHORTEST = IP_HLEN + 8         # an IP and a UDP header

cdef gro_result dev_gro_receive(napi_struct *napi, sk_buff *skb) noexcept nogil
cdef void napi_gro_flush(napi_struct *napi, bint flush_old) noexcept nogil
cdef void gro_normal_list(napi_struct *napi) noexcept nogil


cdef inline void gro_normal_one(napi_struct *napi, sk_buff *skb, u32 segs) noexcept nogil:
    """Put a packet of ``segs`` frames on the list; pass the list up once it is a batch."""
    queue_tail(&napi.rx_list, skb)
    napi.rx_count += segs
    if napi.rx_count >= sysctl_get(napi.n, gro_normal_batch):
        gro_normal_list(napi)


cdef inline void napi_gro_receive(napi_struct *napi, sk_buff *skb) noexcept nogil:
    """Take a packet from the driver, data at the network header. Consumes skb.

    Most frames are UDP that nobody wants merged; they leave at the first test, not even looked up.
    [napi_gro_receive()]
    """
    skb.napi_id = napi.napi_id
    if (skb.protocol == ETH_P_IP and skb.dev.features & NETIF_F_GRO
            and likely(skb_headlen(skb) >= SHORTEST)
            and (skb.data[9] != IPPROTO_UDP or udp_gro_possible(napi.n, skb.dev))
            and dev_gro_receive(napi, skb) != GRO_NORMAL):
        return
    add_owned64(&napi.gro_normal, 1)
    gro_normal_one(napi, skb, 1)
