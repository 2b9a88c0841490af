"""The receive unit; see ``_igb_rx.pyx``."""

from netstack._abi cimport (
    add_owned64, load_acquire32, prefetchw, store_relaxed32, store_release32, u8, u32, u64, unlikely,
)
from netstack._skb cimport new_frame_id
from netstack.device._igb_nic cimport IGB_STAT_RNBC, igb_nic, igb_rx_unit, igb_set_link
from netstack.device._igb_regs cimport e1000_adv_rx_desc, e1000_adv_rx_wb
from netstack.device._vnet cimport vnet_info
from netstack.device._wire cimport wire_rx

cdef enum:
    RX_PREFETCH_MIN = 640          # of less, little is written, and the driver hands the buffer on at once

cdef u32 igb_rx_step(igb_nic *nic, u32 budget) noexcept nogil

# What receive-side coalescing does as plain frames do.
cdef u32 igb_rx_admit(igb_nic *nic, u8 *frame, u32 size, e1000_adv_rx_wb *wb, const vnet_info *info) noexcept nogil
cdef bint igb_rx_spread(igb_nic *nic, igb_rx_unit *q) noexcept nogil


cdef inline bint igb_rx_can_go(igb_nic *nic) noexcept nogil:
    """True when a frame may wait and a descriptor is free for it."""
    return (nic.rx_on and (nic.rx_pending or nic.fifo_len)
            and (nic.mq or nic.rx[0].head != load_acquire32(&nic.rx[0].tail))
            and (nic.mq or nic.w.vnet_hdr == 0 or nic.nr_large != 0 or nic.large_dry or nic.fifo_len))


cdef inline int igb_rx_read(igb_nic *nic, u8 *buffer, u32 room, u64 *frame_id) noexcept nogil:
    """Take a frame off the wire and give it its number. Its length, or 0 when none is there."""
    cdef int got = wire_rx(nic.w, buffer, room)
    if unlikely(got <= 0):
        nic.rx_pending = 0
        store_relaxed32(&nic.rx[0].starved, 0)
        if got < 0:
            igb_set_link(nic, False)
        return 0
    frame_id[0] = new_frame_id(nic.n, nic.slot)
    if unlikely(nic.rx[0].starved):
        # The driver was late with descriptors, and this frame had to wait for one.
        store_relaxed32(&nic.rx[0].starved, 0)
        add_owned64(&nic.stat[IGB_STAT_RNBC], 1)
    return got


cdef inline void igb_rx_fetch(const u8 *buffer, u32 size) noexcept nogil:
    """Fetch a buffer of the ring that will be written, or a little more: it has room for the longest frame."""
    cdef u32 at = 0
    while at < size:
        prefetchw(buffer + at)
        prefetchw(buffer + at + 64)
        prefetchw(buffer + at + 128)
        prefetchw(buffer + at + 192)
        prefetchw(buffer + at + 256)
        prefetchw(buffer + at + 320)
        prefetchw(buffer + at + 384)
        prefetchw(buffer + at + 448)
        at += 512


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
