"""Receive-side coalescing; see ``_igb_rsc.pyx``."""

from netstack._abi cimport u32
from netstack.device._igb_nic cimport igb_nic

cdef u32 igb_rsc_step(igb_nic *nic, u32 budget) noexcept nogil
