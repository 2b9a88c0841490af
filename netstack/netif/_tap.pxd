"""Taps: copies of frames for those who watch; see ``_tap.pyx``."""

from netstack._abi cimport u32, u64
from netstack._net cimport net
from netstack._skb cimport sk_buff

# Show a packet to who captures at a stage, STAGE_*; with the drop reason at STAGE_DROP. Call it if
# net.tap_stages has the stage's bit. The packet stays the caller's.
cdef void tap_stage(net *n, void *skb, u32 stage, u32 reason) noexcept nogil
cdef void tap_deliver(net *n, sk_buff *skb, u64 now) noexcept nogil
