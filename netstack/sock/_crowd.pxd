"""Full queues; see ``_crowd.pyx``."""

from netstack.napi._napi cimport softnet_data
from netstack.sock._sock cimport sock

cdef void sock_crowd_drop(sock *sk, softnet_data *sd) noexcept nogil
cdef void sock_crowd_look(sock *sk, softnet_data *sd) noexcept nogil
