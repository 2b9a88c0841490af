"""The receive unit; see ``_igb_rx.pyx``."""

from netstack._abi cimport load_acquire32, store_release32, u8, u32, u64
from netstack.device._igb_nic cimport igb_nic, igb_rx_unit
from netstack.device._igb_regs cimport e1000_adv_rx_desc, e1000_adv_rx_wb
from netstack.device._vnet cimport vnet_info

cdef u32 igb_rx_step(igb_nic *nic, u32 budget) noexcept nogil

# What receive-side coalescing does as plain frames do.
cdef int igb_rx_take(igb_nic *nic, u8 *buffer, u32 room, u64 *frame_id) noexcept nogil
cdef u32 igb_rx_admit(igb_nic *nic, u8 *frame, u32 size, e1000_adv_rx_wb *wb, const vnet_info *info) noexcept nogil
cdef bint igb_rx_spread(igb_nic *nic, igb_rx_unit *q) noexcept nogil


cdef inline bint igb_rx_can_go(igb_nic *nic) noexcept nogil:
    """True when a frame may wait and a descriptor is free for it."""
    return (nic.rx_on and (nic.rx_pending or nic.fifo_len)
            and (nic.mq or nic.rx[0].head != load_acquire32(&nic.rx[0].tail))
            and (nic.mq or nic.w.vnet_hdr == 0 or nic.nr_large != 0 or nic.large_dry or nic.fifo_len))


cdef inline void igb_rx_writeback(e1000_adv_rx_desc *desc, const e1000_adv_rx_wb *wb, u32 status) noexcept nogil:
    """Fill in what a descriptor says, but for its length, which comes last: with that it is the driver's."""
    desc.wb.pkt_info = wb.pkt_info
    desc.wb.hdr_info = wb.hdr_info
    desc.wb.rss = wb.rss
    desc.wb.vlan = wb.vlan
    desc.wb.status_error = status


cdef inline void igb_rx_tail(igb_rx_unit *q, u32 tail) noexcept nogil:
    """Write RDT: the descriptors up to ``tail`` are the hardware's. The doorbell."""
    store_release32(&q.tail, tail)
