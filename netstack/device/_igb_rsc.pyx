"""igb: receive-side coalescing: up to 64 KiB of frames of a flow as one.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       frames of a virtual wire, each behind a virtio header   device/_vnet.pyx
Out      descriptors with DD set          driver/_igb_rx.pyx
Context  hardware, run by whoever is the CPU; no GIL; never allocates, never raises
Kernel   none; Intel 82599 datasheet 7.11 (receive side coalescing), which the 82576 does not have

Nobody knows how long the next frame is, so it is read into a large buffer. What is short is copied to the buffers
of the ring, and the large one is used again while it is in the cache; what is long stays where it is, and the
driver posts another. Out of large buffers the NIC interrupts at once (7.3.4, LLI); when the driver has none left
it goes on with its own memory, and copies everything.
"""

from libc.string cimport memcpy

from netstack._abi cimport (
    add_owned64, likely, load_acquire32, store_relaxed32, store_release16, u8, u16, u32, u64, unlikely,
)
from netstack._counters cimport SKB_DROP_REASON_DEV_HDR, SKB_NOT_DROPPED_YET
from netstack._net cimport fate_add
from netstack.device._igb_nic cimport (
    IGB_STAT_GORC, IGB_STAT_GPRC, IGB_STAT_TPR, igb_cause, igb_nic, igb_rx_unit,
)
from netstack.device._igb_regs cimport E1000_RXD_STAT_VP, IGB_MAX_VECTORS, e1000_adv_rx_desc
from netstack.device._igb_rss cimport igb_rss_rebuild
from netstack.device._igb_rx cimport (
    RX_PREFETCH_MIN, igb_rx_admit, igb_rx_fetch, igb_rx_read, igb_rx_spread, igb_rx_writeback,
)
from netstack.device._vnet cimport (
    VNET_HDR, VNET_MAX_FRAME, virtio_net_hdr, vnet_info, vnet_parse,
)

cdef enum:
    RSC_COPY = 4                   # coalesced frames that fit in so many buffers of the ring are copied
    RSC_LINES = 256                # bytes; libc copies more than that in fewer instructions


cdef bint igb_rsc_take(igb_nic *nic, u8 *buffer, u64 *frame_id, vnet_info *info) noexcept nogil:
    """rsc_take() for several queues."""
    return rsc_take(nic, buffer, frame_id, info)


cdef inline bint rsc_take(igb_nic *nic, u8 *buffer, u64 *frame_id, vnet_info *info) noexcept nogil:
    """Read the next frame into ``buffer`` and check its header. info.len is 0 when none waits; False: dropped."""
    cdef int got = igb_rx_read(nic, buffer - VNET_HDR, VNET_HDR + VNET_MAX_FRAME + 1, frame_id)
    cdef virtio_net_hdr hdr
    cdef u32 reason = SKB_DROP_REASON_DEV_HDR
    if got == 0:
        info.len = 0
        return True
    if got > VNET_HDR and got <= VNET_HDR + VNET_MAX_FRAME:
        memcpy(&hdr, buffer - VNET_HDR, VNET_HDR)
        reason = vnet_parse(&hdr, buffer, <u32>got - VNET_HDR, info)
    if unlikely(reason != SKB_NOT_DROPPED_YET):
        fate_add(nic.n, nic.slot, reason, 1)
        return False
    if info.frames > 1:
        # The first of the frames has its number; the others have those that follow.
        add_owned64(&nic.n.slots[nic.slot].rx_frames, info.frames - 1)
    return True


cdef inline void rsc_finish(igb_nic *nic, igb_rx_unit *q, u32 length) noexcept nogil:
    """Finish the next descriptor, whose info is filled in already."""
    cdef e1000_adv_rx_desc *desc = &q.ring[q.head]
    q.frame_id[q.head] = nic.fifo_id
    igb_rx_writeback(desc, &nic.fifo_wb, nic.fifo_wb.status_error)
    store_relaxed32(&q.head, q.head + 1 if q.head + 1 < q.count else 0)
    store_release16(&desc.wb.length, <u16>length)


cdef inline void rsc_copy(u8 *to, const u8 *buffer, u32 size) noexcept nogil:
    """Copy a frame into a buffer of the ring: whole cache lines, for which both have room, when they are few."""
    cdef u32 at = 0
    if size > RSC_LINES:
        memcpy(to, buffer, size)
        return
    while at < size:
        memcpy(to + at, buffer + at, 64)
        at += 64


cdef void rsc_interrupt(igb_nic *nic) noexcept nogil:
    """Let the queue's vector fire without waiting for its throttle: low latency interrupt."""
    cdef u32 vector
    for vector in range(IGB_MAX_VECTORS):
        if nic.rx[0].eicr == <u32>1 << vector:
            nic.next_fire[vector] = 0


cdef inline u8 *rsc_buffer(igb_nic *nic, const u8 *next, u32 size) noexcept nogil:
    """Give the buffer to read into; fetch the ring's ``next``, where the frame goes if it is like the last one."""
    if size > RX_PREFETCH_MIN:
        igb_rx_fetch(next, size)
    return nic.large[nic.nr_large - 1] if nic.nr_large else nic.fifo


cdef bint rsc_long(igb_nic *nic, igb_rx_unit *q, u8 *buffer, vnet_info *info) noexcept nogil:
    """Leave a frame that no buffer of the ring holds where it is, or spread it. False: descriptors ran out."""
    if info.gso_size and info.len > RSC_COPY * q.size and nic.nr_large:
        nic.nr_large -= 1          # it is on top
        info.large = buffer
        rsc_finish(nic, q, min(info.len, <u32>0xFFFF))
        return True
    nic.fifo_info = info[0]
    nic.fifo_at = buffer
    nic.fifo_len = info.len
    nic.fifo_done = 0
    return igb_rx_spread(nic, q)


cdef u32 rsc_receive(igb_nic *nic, igb_rx_unit *q, u32 budget, u64 *good, u64 *octets) noexcept nogil:
    """Move ``budget`` frames as they were on the wire, or a few more, coalesced with the last; gives how many."""
    cdef vnet_info *info
    cdef u8 *buffer
    cdef u8 *next
    cdef u32 moved = 0
    cdef u32 size = 0
    while moved < budget:
        if q.head == load_acquire32(&q.tail):
            store_relaxed32(&q.starved, 1)
            break
        if unlikely(nic.nr_large == 0 and not nic.large_dry):
            rsc_interrupt(nic)
            break
        info = &q.info[q.head]
        next = <u8 *>q.ring[q.head].read.pkt_addr
        buffer = rsc_buffer(nic, next, size)
        if not rsc_take(nic, buffer, &nic.fifo_id, info):
            moved += 1
            continue
        if info.len == 0:
            break
        moved += info.frames
        size = info.len = igb_rx_admit(nic, buffer, info.len, &nic.fifo_wb, info)
        if size == 0:
            continue
        good[0] += info.frames
        octets[0] += size + <u64>(info.frames - 1) * info.headers
        if unlikely(nic.fifo_wb.status_error & E1000_RXD_STAT_VP) and info.partial:
            info.csum_start -= 4   # the tag is in the descriptor now
            info.headers -= 4
        if likely(size <= q.size):
            rsc_copy(next, buffer, size)
            rsc_finish(nic, q, size)
        elif not rsc_long(nic, q, buffer, info):
            break
    return moved


cdef u32 igb_rsc_step(igb_nic *nic, u32 budget) noexcept nogil:
    """Move what is on the wire, about ``budget`` frames, and latch the queue's cause. Gives the number of frames."""
    cdef igb_rx_unit *q = &nic.rx[0]
    cdef u32 head = q.head
    cdef u32 moved = 0
    cdef u64 good = 0
    cdef u64 octets = 0
    if unlikely(nic.rss_dirty):
        igb_rss_rebuild(nic)
    if nic.fifo_len == 0 or igb_rx_spread(nic, q):
        moved = rsc_receive(nic, q, budget, &good, &octets)
    if moved:
        add_owned64(&nic.stat[IGB_STAT_TPR], moved)
    if good:
        add_owned64(&nic.stat[IGB_STAT_GPRC], good)
        add_owned64(&nic.stat[IGB_STAT_GORC], octets)
    if q.head != head:
        igb_cause(nic, q.eicr)
    return moved
