"""The register file by offset; see ``_igb_csr.pyx``."""

from netstack._abi cimport u32
from netstack.device._igb_nic cimport igb_nic

cdef u32 rd32(igb_nic *nic, u32 offset) noexcept nogil
cdef void wr32(igb_nic *nic, u32 offset, u32 value) noexcept nogil
cdef void igb_reset(igb_nic *nic) noexcept nogil
