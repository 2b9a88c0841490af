"""igb: give a running device rings of other sizes, and lose no frame.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       sizes that were checked          driver/_igb.pyx
Out      a NIC that works with new rings  driver/_igb_hw.pyx
Context  process context, as the CPU; allocates before it takes the role
Kernel   igb_set_ringparam(), drivers/net/ethernet/intel/igb/igb_ethtool.c

Linux takes the interface down for a moment. Here whoever is the CPU runs the hardware too, so nothing comes in
meanwhile: finished frames are cleaned, what the wire had no room for moves to the new ring, and senders wait for the
ring's lock.
"""

from libc.string cimport memset

from netstack._abi cimport spin_lock, spin_unlock, u32
from netstack._counters cimport SKB_DROP_REASON_DEV_READY
from netstack._skb cimport kfree_skb_reason, sk_buff, skb_free_raw
from netstack.device._igb_regs cimport E1000_RXD_STAT_EOP, IGB_MAX_QUEUES
from netstack.driver._igb cimport (
    igb_q_vector, igb_rx_ring, igb_rx_wanted, igb_tx_buffer, igb_tx_ring, igb_tx_unused,
)
from netstack.driver._igb_affinity cimport igb_drain
from netstack.driver._igb_hw cimport igb_configure_rx, igb_configure_tx
from netstack.driver._igb_main cimport (
    igb_free_rx_resources, igb_free_tx_resources, igb_setup_rx_resources, igb_setup_tx_resources,
)
from netstack.driver._igb_rx cimport igb_alloc_rx_buffers
from netstack.driver._igb_tx cimport igb_clean_tx, igb_tx_map
from netstack.irq._cpu cimport cpus_release, cpus_take, cpus_wake
from netstack.napi._napi cimport napi_schedule

cdef void igb_drain_rx(igb_adapter *adapter) noexcept nogil:
    """Clean every frame that the NIC has finished, and pass it up. As every CPU."""
    cdef u32 i
    for i in range(adapter.num_queues):
        igb_drain(&adapter.q_vector[i])
        napi_schedule(&adapter.q_vector[i].napi)


cdef void igb_swap_rx(igb_q_vector *q, igb_rx_ring *new) noexcept nogil:
    """Put the arrays of ``new`` into service; afterwards ``new`` has those that were in it."""
    cdef igb_rx_ring *ring = &q.rx
    cdef igb_rx_ring old = ring[0]
    cdef u32 i
    for i in range(ring.count):
        if ring.buffer[i].skb != NULL:
            skb_free_raw(ring.buffer[i].skb)
    ring.desc, ring.buffer, ring.frame_id, ring.count = new.desc, new.buffer, new.frame_id, new.count
    ring.info, ring.window = new.info, new.window
    ring.next_to_use = ring.next_to_clean = ring.next_to_alloc = 0
    new.desc, new.buffer, new.frame_id, new.info = old.desc, old.buffer, old.frame_id, old.info
    igb_configure_rx(q)
    igb_alloc_rx_buffers(ring, igb_rx_wanted(ring))


cdef sk_buff *igb_take_unsent(igb_tx_ring *ring) noexcept nogil:
    """Take the packets that have not left out of a ring, oldest first."""
    cdef sk_buff *head = NULL
    cdef sk_buff **end = &head
    cdef igb_tx_buffer *buffer
    cdef u32 i = ring.next_to_clean
    while i != ring.next_to_use:
        buffer = &ring.buffer[i]
        end[0] = buffer.skb
        end = &buffer.skb.next
        i = buffer.next_to_watch + 1 if buffer.next_to_watch + 1 < ring.count else 0
    end[0] = NULL
    return head


cdef u32 igb_descs_of(const sk_buff *skb) noexcept nogil:
    cdef u32 count = 2             # a context and the first buffer
    cdef const sk_buff *part = skb.frag_list
    while part != NULL:
        count += 1
        part = part.next
    return count


cdef void igb_swap_tx(igb_q_vector *q, igb_tx_ring *new) noexcept nogil:
    """The same for the transmit ring. A packet that a smaller ring has no room for is dropped (DEV_READY)."""
    cdef igb_tx_ring *ring = &q.tx
    cdef igb_tx_ring old
    cdef sk_buff *skb
    spin_lock(&ring.lock)
    igb_clean_tx(ring, q.rx.slot, ring.count)
    skb = igb_take_unsent(ring)
    old = ring[0]
    ring.desc, ring.buffer, ring.count = new.desc, new.buffer, new.count
    ring.next_to_use = ring.next_to_clean = ring.stopped = 0
    new.desc, new.buffer = old.desc, old.buffer
    igb_configure_tx(q)
    igb_put_unsent(ring, skb)
    spin_unlock(&ring.lock)


cdef void igb_put_unsent(igb_tx_ring *ring, sk_buff *skb) noexcept nogil:
    """Send a list of packets, oldest first; what there is no room for is dropped (DEV_READY). Under the lock."""
    cdef sk_buff *following
    while skb != NULL:
        following = skb.next
        skb.next = NULL
        if igb_descs_of(skb) <= igb_tx_unused(ring):
            igb_tx_map(ring, skb)
        else:
            kfree_skb_reason(skb, SKB_DROP_REASON_DEV_READY)
        skb = following


cdef int igb_set_ringparam(igb_adapter *adapter, u32 rx_count, u32 tx_count) except -1:
    """Change the sizes of an open device's rings; without memory nothing has changed. [igb_set_ringparam()]"""
    cdef igb_rx_ring rx[IGB_MAX_QUEUES]
    cdef igb_tx_ring tx[IGB_MAX_QUEUES]
    cdef igb_q_vector *q
    cdef u32 i
    memset(rx, 0, sizeof(rx))
    memset(tx, 0, sizeof(tx))
    try:
        for i in range(adapter.num_queues):
            rx[i].count, tx[i].count = rx_count, tx_count
            rx[i].nic = adapter.nic
            igb_setup_rx_resources(&rx[i])
            igb_setup_tx_resources(&tx[i])
        with nogil:
            cpus_take(adapter.n)
            for i in range(adapter.num_queues):
                q = &adapter.q_vector[i]
                if rx_count != q.rx.count:
                    igb_drain(q)
                    napi_schedule(&q.napi)
                    igb_swap_rx(q, &rx[i])
                if tx_count != q.tx.count:
                    igb_swap_tx(q, &tx[i])
            cpus_release(adapter.n)
            cpus_wake(adapter.n)
    finally:
        for i in range(IGB_MAX_QUEUES):
            igb_free_rx_resources(&rx[i])
            igb_free_tx_resources(&tx[i])
    return 0


cdef u32 igb_queued_frames(igb_rx_ring *ring) noexcept nogil:
    """Count them; as every CPU."""
    cdef u32 i = ring.next_to_clean
    cdef u32 count = ring.skb.frames if ring.skb != NULL else 0
    cdef bint inside = ring.skb != NULL
    if ring.desc == NULL:
        return 0
    while i != ring.next_to_use and ring.desc[i].wb.length:
        count += 0 if inside else ring.info[i].frames if ring.info != NULL else 1
        inside = not ring.desc[i].wb.status_error & E1000_RXD_STAT_EOP
        i = i + 1 if i + 1 < ring.count else 0
    return count
