"""igb: give a running device another number of queue pairs, or another way to spread over them.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       counts and tables that were checked   driver/_igb.pyx
Out      a NIC that spreads over its queues    driver/_igb_hw.pyx
Context  process context, as every CPU; allocates before it takes the roles
Kernel   igb_set_channels(), igb_set_rxfh(), drivers/net/ethernet/intel/igb/igb_ethtool.c

Linux takes the interface down for a moment. Here every CPU stands still, and with them the NIC, so nothing comes in
meanwhile. What the NIC has finished goes up before a flow may change its queue: nothing is overtaken. What a queue that
goes away had no room on the wire for leaves through the first.
"""

from libc.string cimport memcpy

from netstack._abi cimport spin_lock, spin_unlock, store_release32, u8, u32
from netstack._skb cimport sk_buff
from netstack.device._igb_csr cimport wr32
from netstack.device._igb_regs cimport E1000_EIAC, E1000_EIAM, E1000_EIMC, E1000_EIMS, E1000_RXDCTL, E1000_TXDCTL
from netstack.driver._igb cimport igb_q_vector, igb_tx_ring
from netstack.driver._igb_affinity cimport igb_count_away, igb_drain
from netstack.driver._igb_hw cimport (
    igb_configure_msix, igb_configure_rx, igb_configure_tx, igb_setup_mrqc, igb_setup_srrctl,
)
from netstack.driver._igb_main cimport (
    igb_fill_rx, igb_free_rx_resources, igb_free_tx_resources, igb_request_ring_irq, igb_setup_rx_resources,
    igb_setup_tx_resources,
)
from netstack.driver._igb_ring cimport igb_drain_rx, igb_put_unsent, igb_take_unsent
from netstack.driver._igb_rx cimport igb_alloc_rx_buffers, igb_clean_rx_ring, igb_free_posted
from netstack.driver._igb_tx cimport igb_clean_tx
from netstack.irq._cpu cimport cpus_release, cpus_take, cpus_wake
from netstack.irq._irq cimport free_irq
from netstack.napi._napi cimport napi_add, napi_del, napi_disable, napi_enable

cdef enum:
    RETA_SIZE = 128
    QUEUE_STRIDE = 0x40


cdef void igb_rss_default(igb_adapter *adapter) noexcept nogil:
    """Spread the hash values over the queues in equal parts. [igb_init_interrupt_scheme(), rss_indir_tbl_init]"""
    cdef u32 i
    for i in range(RETA_SIZE):
        adapter.rss_indir[i] = <u8>(i * adapter.num_queues // RETA_SIZE)


cdef void igb_set_rss(igb_adapter *adapter, const u8 *key, const u8 *indir, int udp) noexcept nogil:
    """Spread otherwise: another key, table, or fields; NULL and -1 leave them. [igb_set_rxfh(), igb_set_rxnfc()]"""
    cpus_take(adapter.n)
    if adapter.q_vector.rx.desc != NULL:
        igb_drain_rx(adapter)
    if key != NULL:
        memcpy(adapter.rss_key, key, 40)
    if indir != NULL:
        memcpy(adapter.rss_indir, indir, RETA_SIZE)
    if udp >= 0:
        adapter.rss_udp = udp
    if adapter.q_vector.rx.desc != NULL:
        igb_setup_mrqc(adapter)
    cpus_release(adapter.n)
    cpus_wake(adapter.n)


# ---- one queue more, or less; as every CPU

cdef int igb_add_queue(igb_q_vector *q) except -1:
    """Put a pair with rings into service. Undoes what it did when that fails."""
    try:
        igb_configure_tx(q)
        igb_configure_rx(q)
        igb_fill_rx(&q.rx)
        igb_request_ring_irq(q)
        napi_add(&q.napi)
    except BaseException:
        igb_stop_queue(q)
        free_irq(&q.irq)
        igb_clean_rx_ring(&q.rx)
        raise
    napi_enable(&q.napi)
    spin_lock(&q.tx.lock)          # who chose this queue a moment ago, when it was there before, may be looking
    q.tx.up = 1
    spin_unlock(&q.tx.lock)
    return 0


cdef void igb_stop_queue(igb_q_vector *q) noexcept nogil:
    """Let the hardware leave a pair alone."""
    cdef u32 at = q.rx.queue_index * QUEUE_STRIDE
    wr32(q.adapter.nic, E1000_RXDCTL + at, 0)
    wr32(q.adapter.nic, E1000_TXDCTL + at, 0)


cdef void igb_drop_queue(igb_q_vector *q) noexcept:
    """Take a pair out of service: what it received goes up, what it did not send leaves through the first."""
    cdef igb_tx_ring *first = &q.adapter.q_vector.tx
    cdef sk_buff *skb
    igb_drain(q)
    igb_stop_queue(q)
    wr32(q.adapter.nic, E1000_EIMC, q.eims_value)
    spin_lock(&q.tx.lock)
    q.tx.up = 0
    igb_clean_tx(&q.tx, q.rx.slot, q.tx.count)
    skb = igb_take_unsent(&q.tx)
    q.tx.next_to_clean = q.tx.next_to_use = 0
    spin_unlock(&q.tx.lock)
    spin_lock(&first.lock)
    igb_put_unsent(first, skb)
    spin_unlock(&first.lock)
    napi_disable(&q.napi)
    napi_del(&q.napi)
    free_irq(&q.irq)
    igb_count_away(q)
    igb_clean_rx_ring(&q.rx)


cdef void igb_spread(igb_adapter *adapter) noexcept nogil:
    """Tell the hardware of the pairs that there are now."""
    cdef u32 i
    if adapter.num_queues > 1:
        igb_free_posted(adapter.nic)
    else:
        igb_alloc_rx_buffers(&adapter.q_vector.rx, 0)      # nothing but large ones, where the wire needs them
    for i in range(adapter.num_queues):
        igb_setup_srrctl(&adapter.q_vector[i])
    igb_rss_default(adapter)
    igb_setup_mrqc(adapter)
    igb_configure_msix(adapter)
    wr32(adapter.nic, E1000_EIAC, adapter.eims_enable_mask)
    wr32(adapter.nic, E1000_EIAM, adapter.eims_enable_mask)


cdef void igb_change_channels(igb_adapter *adapter, u32 count) except *:
    """Bring pairs up or down until there are ``count``."""
    cdef u32 before = adapter.num_queues
    igb_drain_rx(adapter)
    try:
        while adapter.num_queues < count:
            igb_add_queue(&adapter.q_vector[adapter.num_queues])
            store_release32(&adapter.num_queues, adapter.num_queues + 1)
    except BaseException:
        count = before
        raise
    finally:
        while adapter.num_queues > count:
            store_release32(&adapter.num_queues, adapter.num_queues - 1)
            igb_drop_queue(&adapter.q_vector[adapter.num_queues])
        igb_spread(adapter)
        wr32(adapter.nic, E1000_EIMS, adapter.eims_enable_mask)


cdef int igb_set_channels(igb_adapter *adapter, u32 count) except -1:
    """Change the number of an open device's queue pairs; when that fails, those there go on. [igb_set_channels()]"""
    cdef u32 before = adapter.num_queues
    cdef igb_q_vector *q
    cdef u32 i
    try:
        for i in range(before, count):
            q = &adapter.q_vector[i]
            q.rx.count, q.tx.count = adapter.q_vector.rx.count, adapter.q_vector.tx.count
            igb_setup_rx_resources(&q.rx)
            igb_setup_tx_resources(&q.tx)
        with nogil:
            cpus_take(adapter.n)
        try:
            igb_change_channels(adapter, count)
        finally:
            cpus_release(adapter.n)
            cpus_wake(adapter.n)
    finally:
        for i in range(adapter.num_queues, max(before, count)):
            q = &adapter.q_vector[i]
            igb_free_rx_resources(&q.rx)
            spin_lock(&q.tx.lock)
            igb_free_tx_resources(&q.tx)
            spin_unlock(&q.tx.lock)
    return 0
