"""Applications in the role of the CPU; see ``_busy.pyx``."""

from netstack._abi cimport u32, u64
from netstack._net cimport net

cdef int busy_loop(net *n, u32 cpu, void *sk, bint (*ready)(void *) noexcept nogil, u32 *idle, u64 spin,
                   u64 until) noexcept nogil
cdef void busy_poll_once(net *n, u32 cpu) noexcept nogil
cdef void busy_wake(net *n, u32 cpu) noexcept nogil
