"""The interrupt throttle; see ``_igb_itr.pyx``."""

from netstack._abi cimport u32
from netstack.driver._igb cimport igb_adapter, igb_q_vector

cdef void igb_set_itr(igb_q_vector *q) noexcept nogil
cdef void igb_write_itr(igb_q_vector *q) noexcept nogil
cdef void igb_set_coalesce(igb_adapter *adapter, u32 setting) noexcept nogil
