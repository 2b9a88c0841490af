"""The transmit side of the driver; see ``_igb_tx.pyx``."""

from netstack._abi cimport u32
from netstack._net cimport net_device
from netstack.driver._igb cimport igb_q_vector, igb_tx_ring

cdef int igb_xmit_frame(void *skb, net_device *dev) noexcept nogil
cdef bint igb_clean_tx_irq(igb_q_vector *q) noexcept nogil
cdef void igb_clean_tx_ring(igb_tx_ring *ring, u32 slot) noexcept nogil
