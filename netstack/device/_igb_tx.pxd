"""The transmit unit; see ``_igb_tx.pyx``."""

from netstack._abi cimport u32, u64
from netstack.device._igb_nic cimport igb_nic, igb_tx_unit

cdef void igb_tx_tail(igb_nic *nic, igb_tx_unit *q, u32 tail) noexcept nogil
cdef void igb_tx_retry(igb_nic *nic, u64 now) noexcept nogil
