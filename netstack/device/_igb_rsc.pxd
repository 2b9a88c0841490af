"""Receive-side coalescing; see ``_igb_rsc.pyx``."""

from netstack._abi cimport u8, u32, u64
from netstack.device._igb_nic cimport igb_nic
from netstack.device._vnet cimport vnet_info

cdef u32 igb_rsc_step(igb_nic *nic, u32 budget) noexcept nogil
cdef bint igb_rsc_take(igb_nic *nic, u8 *buffer, u64 *frame_id, vnet_info *info) noexcept nogil
