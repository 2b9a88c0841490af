"""The softirq loop; see ``_softirq.pyx``."""

from netstack._abi cimport u64
from netstack.napi._napi cimport softnet_data

cdef void hw_run(softnet_data *sd, u64 now) noexcept nogil
cdef bint hw_busy(softnet_data *sd) noexcept nogil
cdef void handle_irqs(softnet_data *sd) noexcept nogil
cdef bint do_softirq(softnet_data *sd) noexcept nogil
cdef void net_rx_action(softnet_data *sd) noexcept nogil
cdef bint napi_busy_poll(softnet_data *sd) noexcept nogil
