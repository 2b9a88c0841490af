"""gro: merge packets of one flow, and pass packets up in batches.

Stage 4 of 8:  device driver irq [napi] netif nf proto sock
In       one sk_buff each                 driver/_igb.pyx
Out      a list of sk_buffs               netif/_core.pyx
Context  softirq; no GIL; never allocates, never raises
Kernel   dev_gro_receive(), gro_normal_one(), net/core/gro.c
"""

from netstack._abi cimport u32
from netstack._net cimport gro_normal_batch, sysctl_get
from netstack._skb cimport queue_init, queue_tail, sk_buff
from netstack.napi._napi cimport napi_struct


cdef void gro_normal_list(napi_struct *napi) noexcept nogil:
    """Pass up what waits for a full batch. [gro_normal_list()]"""
    cdef sk_buff *head = napi.rx_list.first
    if head == NULL:
        return
    queue_init(&napi.rx_list)
    napi.rx_count = 0
    napi.n.netif_receive_skb_list(napi.n, head, napi.sd)


cdef void gro_normal_one(napi_struct *napi, sk_buff *skb, u32 segs) noexcept nogil:
    """Put a packet of ``segs`` frames on the list, and pass the list up once it holds a batch. Consumes skb."""
    queue_tail(&napi.rx_list, skb)
    napi.rx_count += segs
    if napi.rx_count >= sysctl_get(napi.n, gro_normal_batch):
        gro_normal_list(napi)


cdef void napi_gro_receive(napi_struct *napi, sk_buff *skb) noexcept nogil:
    """Take a packet from the driver, data at the network header. Consumes skb. [napi_gro_receive()]"""
    skb.napi_id = napi.napi_id
    napi.gro_normal += 1
    gro_normal_one(napi, skb, 1)


cdef void napi_gro_flush(napi_struct *napi, bint flush_old) noexcept nogil:
    """Complete what is held; with ``flush_old`` only what was held before this poll. [napi_gro_flush()]"""


cdef sk_buff *skb_gro_split(sk_buff *skb) noexcept nogil:
    """Undo a merge: the list of packets as they came. Consumes skb."""
    return skb
