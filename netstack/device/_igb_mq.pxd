"""Several receive queues; see ``_igb_mq.pyx``."""

from netstack._abi cimport u32
from netstack.device._igb_nic cimport igb_nic

cdef u32 igb_mq_step(igb_nic *nic, u32 budget) noexcept nogil
