"""The interrupt throttle; see ``_igb_itr.pyx``."""

from netstack.driver._igb cimport igb_q_vector

cdef void igb_set_itr(igb_q_vector *q) noexcept nogil
cdef void igb_write_itr(igb_q_vector *q) noexcept nogil
