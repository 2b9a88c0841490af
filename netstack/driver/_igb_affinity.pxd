"""Which CPU polls a queue; see ``_igb_affinity.pyx``."""

from netstack.driver._igb cimport igb_q_vector
from netstack.napi._napi cimport softnet_data

cdef void igb_set_cpu(igb_q_vector *q) noexcept nogil
cdef void igb_count_away(igb_q_vector *q) noexcept nogil
cdef void igb_moved(void *dev_id, softnet_data *to) noexcept nogil
cdef void igb_drain(igb_q_vector *q) noexcept nogil
