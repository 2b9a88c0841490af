"""igb: spread frames over several receive queues, by the hash of their flow.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       frames on a wire                 device/_wire.pxd
Out      descriptors with DD set, of the queue that RETA names   driver/_igb_rx.pyx
Context  hardware, run by whoever is the CPU of its bus; no GIL; never allocates, never raises
Kernel   none; Intel 82576EB datasheet 7.1.1.7 (receive side scaling), 7.1.1.10 (dropping)

Which queue a frame is for is known when it has been read. Frames of one flow come in runs, so it is read right into the
buffer that the last frame's queue fills next, and copied only if it was for another. A queue without a descriptor
drops, and counts in RQDPC: with one queue frames stay on the wire then, but here they would stand in the way of those
for other queues. (The chip asks SRRCTL.DROP_EN, which igb sets as soon as it has several.)
"""

from libc.string cimport memcpy

from netstack._abi cimport (
    add_owned64, load_acquire32, store_relaxed32, store_release16, u8, u16, u32, u64, unlikely,
)
from netstack._counters cimport NIC_DROP_RNBC
from netstack._net cimport fate_add
from netstack.device._igb_nic cimport (
    IGB_STAT_GORC, IGB_STAT_GPRC, IGB_STAT_RQDPC, IGB_STAT_TPR, igb_cause, igb_nic, igb_rx_unit,
)
from netstack.device._igb_regs cimport (
    E1000_RXD_STAT_DD, E1000_RXD_STAT_VP, E1000_RXDADV_RSSTYPE_MASK, e1000_adv_rx_desc, e1000_adv_rx_wb,
)
from netstack.device._igb_rsc cimport igb_rsc_take
from netstack.device._igb_rss cimport igb_rss_rebuild
from netstack.device._igb_rx cimport igb_rx_admit, igb_rx_read, igb_rx_spread, igb_rx_writeback
from netstack.device._vnet cimport vnet_info

cdef struct arrival:               # a frame that has been read
    u8 *at
    u32 len
    u64 id
    e1000_adv_rx_wb wb
    vnet_info *info                # NULL on a wire that says nothing of its frames


cdef inline u32 igb_mq_queue(const igb_nic *nic, const e1000_adv_rx_wb *wb) noexcept nogil:
    """The queue of a frame: RETA's entry for the low 7 bits of its hash; 0 without a hash, or where none is enabled."""
    cdef u32 entry = wb.rss & 127
    cdef u32 queue
    if not wb.pkt_info & E1000_RXDADV_RSSTYPE_MASK:
        return 0
    queue = nic.reta[entry >> 2] >> 8 * (entry & 3) & 7
    return queue if nic.rx[queue].enabled else 0


cdef inline u32 igb_mq_free(igb_rx_unit *q) noexcept nogil:
    """Descriptors that the queue can fill."""
    cdef u32 tail = load_acquire32(&q.tail)
    return tail - q.head if tail >= q.head else q.count + tail - q.head


cdef void igb_mq_finish(igb_rx_unit *q, const arrival *frame, u32 status, u32 size) noexcept nogil:
    """Write a descriptor back. Its length goes last: with that it is the driver's."""
    cdef e1000_adv_rx_desc *desc = &q.ring[q.head]
    q.frame_id[q.head] = frame.id
    if q.info != NULL:
        q.info[q.head] = frame.info[0]
    igb_rx_writeback(desc, &frame.wb, status)
    store_relaxed32(&q.head, q.head + 1 if q.head + 1 < q.count else 0)
    store_release16(&desc.wb.length, <u16>size)


cdef bint igb_mq_store(igb_nic *nic, u32 queue, const arrival *frame) noexcept nogil:
    """Put a frame into a queue, in as many buffers as it needs. False: dropped, for want of descriptors."""
    cdef igb_rx_unit *q = &nic.rx[queue]
    cdef u32 need = (frame.len + q.size - 1) // q.size
    cdef u32 frames = 1 if frame.info == NULL else frame.info.frames
    cdef u32 done = 0
    cdef u32 part
    cdef u8 *buffer
    if unlikely(igb_mq_free(q) < need):
        add_owned64(&nic.stat[IGB_STAT_RQDPC + queue], frames)
        fate_add(nic.n, nic.slot, NIC_DROP_RNBC, frames)
        return False
    while done < frame.len:
        part = min(frame.len - done, q.size)
        buffer = <u8 *>q.ring[q.head].read.pkt_addr
        if buffer != frame.at:
            memcpy(buffer, frame.at + done, part)
        done += part
        igb_mq_finish(q, frame, frame.wb.status_error if done == frame.len else E1000_RXD_STAT_DD, part)
    return True


cdef bint igb_mq_take(igb_nic *nic, arrival *frame) noexcept nogil:
    """Read the next frame, and see whether it is for us. False: none waits. ``len`` is 0 for one that ended here."""
    cdef igb_rx_unit *q = &nic.rx[nic.rx_last]
    cdef u32 room = nic.fifo_size
    cdef u32 frames = 1
    frame.at = nic.fifo
    frame.info = NULL
    if nic.w.vnet_hdr:
        frame.info = &nic.fifo_info
        if not igb_rsc_take(nic, nic.fifo, &frame.id, frame.info):
            frame.len = 0
            return True
        frame.len = frame.info.len
    else:
        if nic.longest < q.size and igb_mq_free(q):
            frame.at = <u8 *>q.ring[q.head].read.pkt_addr
            room = q.size
        frame.len = <u32>igb_rx_read(nic, frame.at, room, &frame.id)
    if frame.len == 0:
        return False
    frame.len = igb_rx_admit(nic, frame.at, frame.len, &frame.wb, frame.info)
    if frame.len == 0:
        return True
    if frame.info != NULL:
        frames = frame.info.frames
        frame.info.len = frame.len
        if frame.wb.status_error & E1000_RXD_STAT_VP and frame.info.partial:
            frame.info.csum_start -= 4     # the tag is in the descriptor now
            frame.info.headers -= 4
        add_owned64(&nic.stat[IGB_STAT_GORC], <u64>(frames - 1) * frame.info.headers)
    add_owned64(&nic.stat[IGB_STAT_GPRC], frames)
    add_owned64(&nic.stat[IGB_STAT_GORC], frame.len)
    return True


cdef u32 igb_mq_step(igb_nic *nic, u32 budget) noexcept nogil:
    """Move up to ``budget`` frames into their queues, and latch the cause of each that got some. Gives how many."""
    cdef arrival frame
    cdef u32 causes = 0
    cdef u32 moved = 0
    cdef u32 _i, queue
    if unlikely(nic.rss_dirty):
        igb_rss_rebuild(nic)
    if unlikely(nic.fifo_len):             # begun when there was one queue
        if not igb_rx_spread(nic, &nic.rx[0]):
            return 0
        causes = nic.rx[0].eicr
    for _i in range(budget):
        if not igb_mq_take(nic, &frame):
            break
        moved += 1 if frame.info == NULL or frame.len == 0 else frame.info.frames
        if frame.len == 0:
            continue
        queue = igb_mq_queue(nic, &frame.wb)
        if igb_mq_store(nic, queue, &frame):
            causes |= nic.rx[queue].eicr
            nic.rx_last = queue
    if moved:
        add_owned64(&nic.stat[IGB_STAT_TPR], moved)
    if causes:
        igb_cause(nic, causes)
    return moved
