"""Other ring sizes under traffic; see ``_igb_ring.pyx``."""

from netstack._abi cimport u32
from netstack._skb cimport sk_buff
from netstack.driver._igb cimport igb_adapter, igb_rx_ring, igb_tx_ring

cdef sk_buff *igb_take_unsent(igb_tx_ring *ring) noexcept nogil
cdef void igb_put_unsent(igb_tx_ring *ring, sk_buff *skb) noexcept nogil
cdef u32 igb_queued_frames(igb_rx_ring *ring) noexcept nogil
cdef void igb_drain_rx(igb_adapter *adapter) noexcept nogil
cdef int igb_set_ringparam(igb_adapter *adapter, u32 rx_count, u32 tx_count) except -1
