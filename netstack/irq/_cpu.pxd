"""The CPU as a role; see ``_cpu.pyx``."""

from netstack._abi cimport u32, u64
from netstack._net cimport net
from netstack.napi._napi cimport softnet_data

# Be the CPU. cpu_take waits (without the GIL), cpu_try_take does not; cpu_release ends it. cpus_take makes the caller
# every CPU of the host: set-up that more than one of them sees. Nobody who is one CPU may ask for another. Who has
# given the role back and will be the CPU again calls cpu_let_in before that.
cdef void cpu_take(softnet_data *sd) noexcept nogil
cdef bint cpu_try_take(softnet_data *sd) noexcept nogil
cdef void cpu_let_in(softnet_data *sd) noexcept nogil
cdef void cpu_release(softnet_data *sd) noexcept nogil
cdef void cpus_take(net *n) noexcept nogil
cdef void cpus_release(net *n) noexcept nogil
cdef void cpus_wake(net *n) noexcept nogil
cdef void synchronize(net *n) noexcept nogil
cdef void cpu_run(softnet_data *sd, bint own) noexcept nogil
cdef void cpu_wake(softnet_data *sd) noexcept nogil
cdef long long sleep_time(softnet_data *sd) noexcept nogil
