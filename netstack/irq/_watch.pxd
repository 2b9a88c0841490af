"""What the CPU's thread does about applications that have its wires; see ``_watch.pyx``."""

from netstack._abi cimport u64
from netstack.irq._thread cimport epoll_event
from netstack.napi._napi cimport softnet_data

cdef void watch_applications(softnet_data *sd) noexcept nogil
cdef bint only_watching(softnet_data *sd, epoll_event *event, int got) noexcept nogil
cdef int taken_over(softnet_data *sd, u64 since, u64 now) noexcept nogil
cdef bint given_away(softnet_data *sd, u64 since) noexcept nogil
