"""The receive unit; see ``_igb_rx.pyx``."""

from netstack._abi cimport u32
from netstack.device._igb_nic cimport igb_nic, igb_rx_unit

cdef u32 igb_rx_step(igb_nic *nic, u32 budget) noexcept nogil


cdef inline bint igb_rx_can_go(igb_nic *nic) noexcept nogil:
    """True when a frame may wait and a descriptor is free for it."""
    return (nic.rx_on and (nic.rx_pending or nic.fifo_len)
            and nic.rx[0].head != nic.rx[0].tail)


cdef inline void igb_rx_tail(igb_rx_unit *q, u32 tail) noexcept nogil:
    """Write RDT: the descriptors up to ``tail`` are the hardware's. The doorbell."""
    q.tail = tail
