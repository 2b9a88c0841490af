"""Other ring sizes under traffic; see ``_igb_ring.pyx``."""

from netstack._abi cimport u32
from netstack.driver._igb cimport igb_adapter

cdef void igb_drain_rx(igb_adapter *adapter) noexcept nogil
cdef int igb_set_ringparam(igb_adapter *adapter, u32 rx_count, u32 tx_count) except -1
