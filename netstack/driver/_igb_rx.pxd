"""The receive side of the driver; see ``_igb_rx.pyx``."""

from netstack._abi cimport u8, u32
from netstack._skb cimport NET_SKB_PAD, SKB_STRUCT, sk_buff
from netstack.device._igb_nic cimport igb_nic
from netstack.driver._igb cimport igb_q_vector, igb_rx_ring


cdef inline u8 *igb_rx_data(sk_buff *element) noexcept nogil:
    """Where the frame stands in a receive buffer: its DMA address."""
    return <u8 *>element + SKB_STRUCT + NET_SKB_PAD


cdef void igb_alloc_rx_buffers(igb_rx_ring *ring, u32 count) noexcept nogil
cdef int igb_clean_rx_irq(igb_q_vector *q, int budget) noexcept nogil
cdef void igb_free_posted(igb_nic *nic) noexcept nogil
cdef void igb_clean_rx_ring(igb_rx_ring *ring) noexcept nogil
