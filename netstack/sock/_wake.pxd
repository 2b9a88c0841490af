"""Waking and waiting; see ``_wake.pyx``."""

from netstack._abi cimport u32, u64
from netstack.napi._napi cimport softnet_data
from netstack.sock._sock cimport sock

cdef void sock_data_ready(sock *sk, softnet_data *sd) noexcept nogil
cdef void sock_wake(sock *sk) noexcept nogil
cdef void sock_wake_all(softnet_data *sd) noexcept nogil
cdef void sock_set_err(sock *sk, u32 err) noexcept nogil
cdef u32 sock_take_err(sock *sk) noexcept nogil
cdef void sock_poll_once(sock *sk) noexcept nogil
cdef int sock_wait(sock *sk, u64 until) noexcept nogil
cdef int sock_poll_fd(sock *sk) except -1
cdef void sock_sync_fd(sock *sk) noexcept nogil
