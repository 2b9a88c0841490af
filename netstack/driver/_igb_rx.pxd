"""The receive side of the driver; see ``_igb_rx.pyx``."""

from netstack._abi cimport u32
from netstack.driver._igb cimport igb_q_vector, igb_rx_ring

cdef void igb_alloc_rx_buffers(igb_rx_ring *ring, u32 count) noexcept nogil
cdef int igb_clean_rx_irq(igb_q_vector *q, int budget) noexcept nogil
cdef void igb_clean_rx_ring(igb_rx_ring *ring) noexcept nogil
