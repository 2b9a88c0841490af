"""Interrupt lines and the CPU that serves them; see ``_irq.pyx`` and ``_softirq.pyx``."""

from netstack._abi cimport u32, u64
from netstack._net cimport net
from netstack.device._device cimport hw_device
from netstack.napi._napi cimport irq_desc, softnet_data

cdef softnet_data *cpu_create(net *n, u32 cpu, const u32 *pool_counts) except NULL
cdef void cpu_destroy(softnet_data *sd) noexcept
cdef int cpu_start(softnet_data *sd) except -1
cdef void cpu_stop(softnet_data *sd) noexcept nogil

# Connect hardware to a CPU's bus, and a vector to a CPU. [request_irq()] The descriptor is the caller's.
cdef int hw_attach(softnet_data *sd, hw_device *hw) except -1
cdef void hw_detach(softnet_data *sd, hw_device *hw) noexcept
cdef int request_irq(softnet_data *sd, irq_desc *desc) except -1
cdef void free_irq(softnet_data *sd, irq_desc *desc) noexcept
cdef void irq_raise(softnet_data *sd, irq_desc *desc) noexcept nogil

# Be the CPU. cpu_take waits (without the GIL), cpu_try_take does not; cpu_release ends it.
cdef void cpu_take(softnet_data *sd) noexcept nogil
cdef bint cpu_try_take(softnet_data *sd) noexcept nogil
cdef void cpu_release(softnet_data *sd) noexcept nogil
cdef u32 cpu_run(softnet_data *sd) noexcept nogil
cdef void cpu_wake(softnet_data *sd) noexcept nogil
