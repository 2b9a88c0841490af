"""igb: the NIC as a piece of hardware: it runs in steps, and interrupts when it may.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       steps of the CPU's bus           irq/_softirq.pyx
Out      vectors that fire                irq/_irq.pyx
Context  hardware, run by whoever is the CPU; no GIL; never allocates, never raises
Kernel   none; Intel 82576EB datasheet 7.3 (interrupts)
"""

from libc.errno cimport EAGAIN, EMSGSIZE
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from netstack._abi cimport (
    fetch_and32, load_relaxed32, load_relaxed64, store_relaxed64, u8, u32, u64, unlikely,
)
from netstack._net cimport net
from netstack.device._device cimport hw_device
from netstack.device._igb_nic cimport IGB_MAX_FRAME, IGB_STAT_MPC, igb_nic
from netstack.device._igb_csr cimport igb_reset
from netstack.device._igb_regs cimport (
    E1000_EITR_INTERVAL, E1000_GPIE_EIAME, IGB_MAX_QUEUES, IGB_MAX_VECTORS,
)
from netstack.device._igb_mq cimport igb_mq_step
from netstack.device._igb_rsc cimport igb_rsc_step
from netstack.device._igb_rx cimport igb_rx_can_go, igb_rx_step
from netstack.device._igb_tx cimport igb_tx_retry
from netstack.device._vnet cimport VNET_MAX_FRAME
from netstack.device._wire cimport wire

cdef enum:
    FIFO_HEADROOM = 64             # in front of a frame: a virtio header fits


cdef void igb_fire(igb_nic *nic, u32 pending) noexcept nogil:
    """Send the message of every unmasked cause whose throttle lets it. 7.3.4.

    EIAC clears the cause and EIAM masks the vector in the same moment, so that the handler has no
    register to write.
    """
    cdef u32 vector, bit
    for vector in range(IGB_MAX_VECTORS):
        bit = <u32>1 << vector
        if pending & bit and nic.now >= nic.next_fire[vector]:
            if nic.eiac & bit:
                fetch_and32(&nic.eicr, ~bit)
            if nic.eiam & bit and nic.gpie & E1000_GPIE_EIAME:
                fetch_and32(&nic.eims, ~bit)
            # The interval is in bits 14:2, in microseconds: value / 4 * 1000 ns.
            nic.next_fire[vector] = nic.now + <u64>(load_relaxed32(&nic.eitr[vector]) & E1000_EITR_INTERVAL) * 250
            if nic.hw.fire != NULL:
                nic.hw.fire(nic.hw.fire_arg, vector)


cdef u32 igb_step(hw_device *hw, u64 now, u32 budget) noexcept nogil:
    """Run for a moment: send what had to wait, receive up to ``budget`` frames, interrupt."""
    cdef igb_nic *nic = <igb_nic *>hw.priv
    cdef u32 moved = 0
    cdef u32 pending
    cdef u64 retry = load_relaxed64(&nic.tx_retry)
    nic.now = now
    if unlikely(retry) and retry <= now:
        igb_tx_retry(nic, now)
    if nic.rx_on and (nic.rx_pending or nic.fifo_len):
        if unlikely(nic.mq):
            moved = igb_mq_step(nic, budget)
        else:
            moved = igb_rsc_step(nic, budget) if nic.w.vnet_hdr else igb_rx_step(nic, budget)
    pending = load_relaxed32(&nic.eicr) & load_relaxed32(&nic.eims)
    if pending:
        igb_fire(nic, pending)
    return moved


cdef u64 igb_deadline(hw_device *hw) noexcept nogil:
    """When the first throttle with a cause behind it runs out, or a frame is to be sent again."""
    cdef igb_nic *nic = <igb_nic *>hw.priv
    cdef u32 pending = load_relaxed32(&nic.eicr) & load_relaxed32(&nic.eims)
    cdef u64 first = load_relaxed64(&nic.tx_retry)
    cdef u32 vector
    for vector in range(IGB_MAX_VECTORS):
        if pending >> vector & 1 and (first == 0 or nic.next_fire[vector] < first):
            first = max(nic.next_fire[vector], 1)
    return first


cdef bint igb_busy(hw_device *hw) noexcept nogil:
    cdef igb_nic *nic = <igb_nic *>hw.priv
    cdef u32 pending, vector
    if igb_rx_can_go(nic):
        return True
    pending = load_relaxed32(&nic.eicr) & load_relaxed32(&nic.eims)
    for vector in range(IGB_MAX_VECTORS):
        if pending >> vector & 1 and nic.next_fire[vector] <= nic.now:
            return True
    return False


cdef void igb_wire_ready(hw_device *hw) noexcept nogil:
    (<igb_nic *>hw.priv).rx_pending = 1


cdef int igb_loop_tx(wire *w, const u8 *buf, u32 size) noexcept nogil:
    """Take a frame from the transmit unit: there is room for one. RCTL.LBM, 3.5.6.3.3."""
    cdef igb_nic *nic = <igb_nic *>w.priv
    if nic.loop_len:
        return -EAGAIN
    if size > sizeof(nic.loop_fifo):
        return -EMSGSIZE
    memcpy(nic.loop_fifo, buf, size)
    nic.loop_len = size
    nic.rx_pending = 1
    return 0


cdef int igb_loop_rx(wire *w, u8 *buf, u32 size) noexcept nogil:
    """Give it to the receive unit."""
    cdef igb_nic *nic = <igb_nic *>w.priv
    cdef u32 got = nic.loop_len
    memcpy(buf, nic.loop_fifo, min(got, size))
    nic.loop_len = 0
    return <int>got


cdef igb_nic *igb_nic_create(net *n, u32 slot, wire *w, const u8 *mac) noexcept:
    """Plug a NIC with the permanent address ``mac`` into a wire; NULL when there is no memory.

    It counts frames in ``slot``, that of the CPU on whose bus it will sit.
    """
    cdef igb_nic *nic = <igb_nic *>calloc(1, sizeof(igb_nic))
    if nic == NULL:
        return NULL
    nic.n = n
    nic.slot = slot
    nic.w = nic.line = w
    nic.loop.priv = nic
    nic.loop.rx = igb_loop_rx
    nic.loop.tx = igb_loop_tx
    nic.loop.fd = -1
    nic.loop.vnet_hdr = w.vnet_hdr
    if not igb_nic_memory(nic):
        igb_nic_destroy(nic)
        return NULL
    memcpy(nic.perm_addr, mac, 6)
    nic.hw.step = igb_step
    nic.hw.deadline = igb_deadline
    nic.hw.wire_ready = igb_wire_ready
    nic.hw.busy = igb_busy
    nic.hw.fd = w.fd
    nic.hw.priv = nic
    igb_reset(nic)
    return nic


cdef void igb_nic_destroy(igb_nic *nic) noexcept:
    """Unplug it. It must be off the bus."""
    cdef u32 q
    if nic.fifo != NULL:
        free(nic.fifo - FIFO_HEADROOM)
    for q in range(IGB_MAX_QUEUES):
        if nic.tx[q].fifo != NULL:
            free(nic.tx[q].fifo - FIFO_HEADROOM)
    free(nic)


cdef bint igb_nic_memory(igb_nic *nic) noexcept:
    """Give the NIC its memories on the chip, each as large as the longest frame of its wire. False: no memory."""
    cdef u32 q
    nic.fifo_size = (VNET_MAX_FRAME if nic.line.vnet_hdr else IGB_MAX_FRAME) + 64
    nic.fifo = igb_chip_memory(nic.fifo_size)
    for q in range(IGB_MAX_QUEUES):
        nic.tx[q].fifo = igb_chip_memory(nic.fifo_size)
        if nic.tx[q].fifo == NULL:
            return False
    return nic.fifo != NULL


cdef u8 *igb_chip_memory(u32 size) noexcept:
    cdef u8 *memory = <u8 *>malloc(FIFO_HEADROOM + size)
    return memory + FIFO_HEADROOM if memory != NULL else NULL


cdef void igb_set_missed(igb_nic *nic, u64 total) noexcept nogil:
    """Tell how many frames the wire's queue, our packet buffer, has lost since the start: MPC."""
    store_relaxed64(&nic.stat[IGB_STAT_MPC], total)
