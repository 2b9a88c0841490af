"""Interrupt lines, and the CPU that serves them; see ``_irq.pyx`` (lines) and ``_cpu.pyx`` (the CPU)."""

from netstack._abi cimport u32, u64
from netstack.device._device cimport hw_device
from netstack.napi._napi cimport irq_desc, softnet_data

# Connect hardware to a CPU's bus, and a vector to a CPU. The structs stay the caller's. Call them as that CPU.
cdef int hw_attach(softnet_data *sd, hw_device *hw) except -1
cdef void hw_detach(softnet_data *sd, hw_device *hw) noexcept
cdef int request_irq(softnet_data *sd, irq_desc *desc) except -1
cdef void free_irq(irq_desc *desc) noexcept
cdef void irq_raise(irq_desc *desc) noexcept nogil
cdef void irq_move(irq_desc *desc, softnet_data *to) noexcept nogil

# Who sees to the wires: the CPU's own thread, or an application (irq_suspend_timeout). All but irq_watch as that CPU.
cdef void wires_move(softnet_data *sd, int epfd) noexcept nogil
cdef void irq_watch(softnet_data *sd, u64 ns) noexcept nogil
cdef void irq_suspend(softnet_data *sd, int epfd) noexcept nogil
cdef void irq_resume(softnet_data *sd) noexcept nogil
cdef void look_at_wires(softnet_data *sd) noexcept nogil
