"""What the compiled loops of ``_traffic.pyx`` and ``_echo.pyx`` share."""

cimport cython

from netstack._abi cimport u32, u64

cdef struct tally:
    u64 packets
    u64 start
    u64 cpu_start
    u64 wall_ns
    u64 cpu_ns

cdef void tally_start(tally *t) noexcept nogil
cdef void tally_end(tally *t) noexcept nogil
cdef dict tally_dict(tally *t)


@cython.final
cdef class Stop:
    cdef u32 flag
