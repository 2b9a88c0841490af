"""Other numbers of queues under traffic; see ``_igb_channels.pyx``."""

from netstack._abi cimport u8, u32
from netstack.driver._igb cimport igb_adapter

cdef int igb_set_channels(igb_adapter *adapter, u32 count) except -1
cdef void igb_rss_default(igb_adapter *adapter) noexcept nogil
cdef void igb_set_rss(igb_adapter *adapter, const u8 *key, const u8 *indir, int udp) noexcept nogil
