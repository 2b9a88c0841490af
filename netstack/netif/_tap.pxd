"""Taps: copies of frames for those who watch; see ``_tap.pyx``."""

from netstack._abi cimport u64
from netstack._net cimport net
from netstack._skb cimport sk_buff

cdef void tap_deliver(net *n, sk_buff *skb, u64 now) noexcept nogil
