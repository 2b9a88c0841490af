"""The transmit side of the driver; see ``_igb_tx.pyx``."""

from netstack._abi cimport u32
from netstack._net cimport net_device
from netstack._skb cimport sk_buff
from netstack.driver._igb cimport igb_q_vector, igb_tx_ring

cdef int igb_xmit_frame(void *skb, net_device *dev) noexcept nogil
cdef u32 igb_clean_tx(igb_tx_ring *ring, u32 slot, u32 budget) noexcept nogil
cdef void igb_tx_map(igb_tx_ring *ring, sk_buff *skb) noexcept nogil
cdef bint igb_clean_tx_irq(igb_q_vector *q) noexcept nogil
cdef void igb_clean_tx_ring(igb_tx_ring *ring, u32 slot) noexcept nogil
