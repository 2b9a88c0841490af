"""igb: probe, open, close; the interrupt handlers and the poll.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       vectors that fire, polls         irq/_irq.pyx, irq/_softirq.pyx
Out      clean_tx, then clean_rx          driver/_igb_tx.pyx, driver/_igb_rx.pyx
Context  set-up in process context; handlers in hard IRQ; the poll in softirq; no GIL in both
Kernel   __igb_open(), igb_msix_ring(), igb_poll(), drivers/net/ethernet/intel/igb/igb_main.c

Opening is a list of steps, and each knows how to be undone: a step that fails undoes those before
it, and closing undoes them all.
"""

import errno

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strerror, strncpy
from posix.stdlib cimport posix_memalign

from netstack._abi cimport fetch_and32, fetch_or32, store_relaxed32, u8, u32, u64, unlikely
from netstack._net cimport (
    IFF_BROADCAST, IFF_MULTICAST, IFF_RUNNING, IFF_UP, NETIF_F_GRO, NETIF_F_GRO_FRAGLIST, NETIF_F_GRO_HW,
    NETIF_F_GRO_UDP_FWD, NETIF_F_GSO_UDP_L4, NETIF_F_HW_CSUM, NETIF_F_HW_VLAN_CTAG_RX, NETIF_F_RXALL, NETIF_F_RXCSUM,
    NETIF_F_RXHASH, Net, net, net_device,
)
from netstack._skb cimport skb_pool_add_huge
from netstack.device._igb_csr cimport igb_reset, rd32, wr32
from netstack.device._igb_nic cimport ether_addr_to_u64, igb_nic_create, igb_nic_destroy
from netstack.device._igb_regs cimport (
    E1000_EIMS, E1000_ICR, E1000_ICR_LSC, E1000_STATUS, E1000_STATUS_LU, e1000_adv_rx_desc, e1000_adv_tx_desc,
    E1000_EICS, IGB_MAX_QUEUES,
)
from netstack.device._vnet cimport vnet_info
from netstack.device._wire cimport wire
from netstack.driver._igb cimport (
    IGB_HUGE_BUFFERS, IGB_REFILL_NS, IGB_RX_WINDOW, IGB_START_ITR, IGB_VECTOR_RING, igb_adapter, igb_q_vector,
    igb_rx_buffer, igb_rx_ring, igb_rx_unused, igb_rx_wanted, igb_tx_buffer, igb_tx_ring, lowest_latency,
)
from netstack.driver._igb_affinity cimport igb_count_away, igb_moved, igb_set_cpu
from netstack.driver._igb_hw cimport (
    igb_configure, igb_irq_disable, igb_irq_enable, igb_ring_irq_enable, igb_set_rx_mode,
)
from netstack.driver._igb_itr cimport igb_write_itr
from netstack.driver._igb_rx cimport igb_alloc_rx_buffers, igb_clean_rx_irq, igb_clean_rx_ring
from netstack.driver._igb_tx cimport igb_clean_tx_irq, igb_clean_tx_ring, igb_xmit_frame
from netstack.irq._cpu cimport cpu_wake, cpus_release, cpus_take, cpus_wake
from netstack.irq._irq cimport free_irq, hw_attach, hw_detach, irq_raise, request_irq
from netstack.napi._napi cimport (
    NAPI_POLL_WEIGHT, napi_add, napi_complete_done, napi_del, napi_disable, napi_enable, napi_init, napi_schedule,
    napi_struct, softnet_data,
)

cdef enum:
    ARPHRD_ETHER = 1


# ---- interrupts and poll

cdef void igb_fire(void *arg, u32 vector) noexcept nogil:
    """Route the NIC's messages to the CPU's interrupt lines."""
    cdef igb_adapter *adapter = <igb_adapter *>arg
    cdef igb_q_vector *q
    if vector < IGB_VECTOR_RING:
        irq_raise(&adapter.other)
        return
    q = &adapter.q_vector[vector - IGB_VECTOR_RING]
    irq_raise(&q.irq)
    if unlikely(q.rx.remote != NULL):
        cpu_wake(adapter.sd)       # a sender rings for a frame that the wire has no room for: the NIC must try again


cdef void igb_msix_ring(void *dev_id, softnet_data *sd) noexcept nogil:
    """Write the throttle chosen last time, and ask for a poll. [igb_msix_ring()]

    The NIC has masked the vector and cleared its cause when it fired (EIAM, EIAC).
    """
    cdef igb_q_vector *q = <igb_q_vector *>dev_id
    igb_write_itr(q)
    napi_schedule(&q.napi)


cdef void igb_msix_other(void *dev_id, softnet_data *sd) noexcept nogil:
    """Take a change of the link. [igb_msix_other()]"""
    cdef igb_adapter *adapter = <igb_adapter *>dev_id
    if rd32(adapter.nic, E1000_ICR) & E1000_ICR_LSC:
        igb_check_link(adapter)
    wr32(adapter.nic, E1000_EIMS, adapter.eims_other)


cdef void igb_check_link(igb_adapter *adapter) noexcept nogil:
    """Carry the link over to the device: netif_carrier_on() or _off()."""
    cdef u32 flags = adapter.dev.flags & ~<u32>IFF_RUNNING
    if rd32(adapter.nic, E1000_STATUS) & E1000_STATUS_LU:
        flags |= IFF_RUNNING
    if flags != adapter.dev.flags:
        store_relaxed32(&adapter.dev.flags, flags)
        adapter.link_changes += 1


cdef void igb_watchdog_task(igb_adapter *adapter) noexcept nogil:
    """Look at the link, and ring the queues' vectors: a frame whose interrupt was lost is found. As the CPU.

    [igb_watchdog_task()]
    """
    cdef u32 i
    igb_check_link(adapter)
    if adapter.dev.flags & IFF_RUNNING:
        for i in range(adapter.num_queues):
            wr32(adapter.nic, E1000_EICS, adapter.q_vector[i].eims_value)


cdef int igb_poll(napi_struct *napi, int budget) noexcept nogil:
    """Clean what was sent, then what came; complete when both are done. [igb_poll()]"""
    cdef igb_q_vector *q = <igb_q_vector *>napi
    cdef bint clean_complete = igb_clean_tx_irq(q)
    cdef int work_done = igb_clean_rx_irq(q, budget)
    if work_done >= budget or not clean_complete:
        return budget
    if napi_complete_done(napi, work_done):
        igb_ring_irq_enable(q)
    if igb_rx_unused(&q.rx) == q.rx.count - 1:
        # The pool had not one buffer: no frame can come in, so no interrupt would bring us back.
        napi.timer = napi.sd.now + IGB_REFILL_NS
    return work_done


# ---- memory

cdef int igb_setup_tx_resources(igb_tx_ring *ring) except -1:
    """Allocate the two arrays of a transmit ring. [igb_setup_tx_resources()]"""
    if posix_memalign(<void **>&ring.desc, 4096, ring.count * sizeof(e1000_adv_tx_desc)):
        ring.desc = NULL
        raise MemoryError("no memory for a transmit ring")
    memset(ring.desc, 0, ring.count * sizeof(e1000_adv_tx_desc))
    ring.buffer = <igb_tx_buffer *>calloc(ring.count, sizeof(igb_tx_buffer))
    ring.next_to_use = ring.next_to_clean = ring.stopped = 0
    if ring.buffer == NULL:
        igb_free_tx_resources(ring)
        raise MemoryError("no memory for a transmit ring")
    return 0


cdef void igb_free_tx_resources(igb_tx_ring *ring) noexcept:
    free(ring.desc)
    free(ring.buffer)
    ring.desc = NULL
    ring.buffer = NULL


cdef int igb_setup_rx_resources(igb_rx_ring *ring) except -1:
    """Allocate the arrays of a receive ring. [igb_setup_rx_resources()]"""
    if posix_memalign(<void **>&ring.desc, 4096, ring.count * sizeof(e1000_adv_rx_desc)):
        ring.desc = NULL
        raise MemoryError("no memory for a receive ring")
    memset(ring.desc, 0, ring.count * sizeof(e1000_adv_rx_desc))
    ring.buffer = <igb_rx_buffer *>calloc(ring.count, sizeof(igb_rx_buffer))
    ring.frame_id = <u64 *>calloc(ring.count, sizeof(u64))
    ring.next_to_use = ring.next_to_clean = ring.next_to_alloc = 0
    ring.window = min(ring.count - 1, <u32>IGB_RX_WINDOW)
    if ring.nic.line.vnet_hdr:
        ring.info = <vnet_info *>calloc(ring.count, sizeof(vnet_info))
    if ring.buffer == NULL or ring.frame_id == NULL or (ring.nic.line.vnet_hdr and ring.info == NULL):
        igb_free_rx_resources(ring)
        raise MemoryError("no memory for a receive ring")
    return 0


cdef void igb_free_rx_resources(igb_rx_ring *ring) noexcept:
    free(ring.desc)
    free(ring.buffer)
    free(ring.frame_id)
    free(ring.info)
    ring.info = NULL
    ring.desc = NULL
    ring.buffer = NULL
    ring.frame_id = NULL


# ---- open and close, a step at a time, all as the CPU

cdef enum:
    OPEN_TX_RESOURCES
    OPEN_RX_RESOURCES
    OPEN_CONFIGURE
    OPEN_IRQ_OTHER
    OPEN_IRQ_RING
    OPEN_NAPI
    OPEN_BUS
    OPEN_START
    OPEN_STEPS


cdef int igb_fill_rx(igb_rx_ring *ring) except -1:
    igb_alloc_rx_buffers(ring, igb_rx_wanted(ring))
    if igb_rx_unused(ring) == ring.count - 1:
        raise OSError(errno.ENOMEM, "the packet pool has no buffer left for the receive ring; "
                                    "close sockets with full queues, or give the host a larger pool")
    return 0


cdef void igb_start(igb_adapter *adapter) noexcept nogil:
    """From here on frames come and go. [the end of __igb_open()]"""
    cdef u32 i
    fetch_or32(&adapter.dev.flags, IFF_UP)
    for i in range(adapter.num_queues):
        adapter.q_vector[i].tx.up = 1
    igb_irq_enable(adapter)
    igb_check_link(adapter)


cdef int igb_open_step(igb_adapter *adapter, int step) except -1:
    cdef igb_q_vector *q
    cdef u32 i
    if step == OPEN_CONFIGURE:
        igb_configure(adapter)
    elif step == OPEN_IRQ_OTHER:
        request_irq(adapter.sd, &adapter.other)
    elif step == OPEN_BUS:
        hw_attach(adapter.sd, &adapter.nic.hw)
    elif step == OPEN_START:
        igb_start(adapter)
    for i in range(adapter.num_queues):
        q = &adapter.q_vector[i]
        if step == OPEN_TX_RESOURCES:
            igb_setup_tx_resources(&q.tx)
        elif step == OPEN_RX_RESOURCES:
            igb_setup_rx_resources(&q.rx)
        elif step == OPEN_CONFIGURE:
            igb_fill_rx(&q.rx)
        elif step == OPEN_IRQ_RING:
            igb_request_ring_irq(q)
        elif step == OPEN_NAPI:
            napi_add(&q.napi)
            napi_enable(&q.napi)
    return 0


cdef int igb_request_ring_irq(igb_q_vector *q) except -1:
    """Connect a queue's vector to the CPU that polls the queue; the line may move to another later."""
    request_irq(q.napi.sd, &q.irq)
    igb_count_away(q)
    return 0


cdef void igb_close_step(igb_adapter *adapter, int step) noexcept:
    """Undo an open step, or what was done of it. Frames that were in the NIC or in a ring end as NIC_DROP_RESET."""
    cdef igb_q_vector *q
    cdef u32 i
    if step == OPEN_START:
        fetch_and32(&adapter.dev.flags, ~<u32>(IFF_UP | IFF_RUNNING))
        igb_irq_disable(adapter)
    elif step == OPEN_BUS:
        hw_detach(adapter.sd, &adapter.nic.hw)
    elif step == OPEN_IRQ_OTHER:
        free_irq(&adapter.other)
    elif step == OPEN_CONFIGURE:
        igb_reset(adapter.nic)
    for i in range(adapter.num_queues):
        q = &adapter.q_vector[i]
        if step == OPEN_START:
            igb_clean_tx_ring(&q.tx, q.rx.slot)
        elif step == OPEN_NAPI:
            napi_disable(&q.napi)
            napi_del(&q.napi)
        elif step == OPEN_IRQ_RING:
            free_irq(&q.irq)
            igb_count_away(q)
        elif step == OPEN_CONFIGURE:
            igb_clean_rx_ring(&q.rx)
        elif step == OPEN_RX_RESOURCES:
            igb_free_rx_resources(&q.rx)
        elif step == OPEN_TX_RESOURCES:
            igb_free_tx_resources(&q.tx)


cdef int igb_open(igb_adapter *adapter, int fail_at) except -1:
    """Open the device. On failure everything is as it was. ``fail_at`` is a step that tests fail. [__igb_open()]"""
    cdef int step = 0
    cdef int begun = -1
    with nogil:
        cpus_take(adapter.n)
    try:
        for step in range(OPEN_STEPS):
            if step == fail_at:
                raise OSError(errno.ENOMEM, f"step {step} of opening was told to fail")
            begun = step
            igb_open_step(adapter, step)
    except BaseException:
        for step in range(begun, -1, -1):
            igb_close_step(adapter, step)
        raise
    finally:
        cpus_release(adapter.n)
    cpus_wake(adapter.n)
    return 0


cdef void igb_close(igb_adapter *adapter) noexcept:
    """Close the device: afterwards it holds no packet, no vector and no memory. [__igb_close()]"""
    cdef int step
    with nogil:
        cpus_take(adapter.n)
    for step in range(OPEN_STEPS - 1, -1, -1):
        igb_close_step(adapter, step)
    cpus_release(adapter.n)


# ---- probe

cdef void igb_ndo_set_rx_mode(net_device *dev) noexcept nogil:
    """Write the filters anew: somebody asked for more frames, or for fewer. [igb_set_rx_mode()]"""
    cdef igb_adapter *adapter = <igb_adapter *>dev.priv
    cpus_take(adapter.n)
    if dev.flags & IFF_UP:
        igb_set_rx_mode(adapter)
    cpus_release(adapter.n)


cdef int igb_set_offload(igb_adapter *adapter) except -1:
    """Tell the wire what may come unfinished; coalesced frames need rx-checksumming. [virtnet_set_guest_offloads()]"""
    cdef wire *w = adapter.nic.line
    cdef bint csum = adapter.dev.features & NETIF_F_RXCSUM != 0
    cdef int err
    if w.set_offload == NULL:
        return 0
    err = w.set_offload(w, csum, adapter.dev.features & NETIF_F_GRO_HW != 0)
    if err < 0:
        raise OSError(-err, strerror(-err).decode())
    return 0


cdef igb_adapter *igb_probe(Net n, softnet_data *sd, wire *w, bytes name, bytes mac, u32 queues) except NULL:
    """Find the NIC, and make a device of it, closed yet. [igb_probe(), igb_sw_init()]"""
    cdef igb_adapter *adapter = <igb_adapter *>calloc(1, sizeof(igb_adapter))
    cdef u32 i
    if adapter == NULL:
        raise MemoryError
    adapter.q_vector = <igb_q_vector *>calloc(IGB_MAX_QUEUES, sizeof(igb_q_vector))
    adapter.nic = igb_nic_create(n.ptr, sd.slot, w, mac)
    if adapter.q_vector == NULL or adapter.nic == NULL:
        igb_remove(adapter)
        raise MemoryError
    adapter.n = n.ptr
    adapter.sd = sd
    adapter.nic.hw.fire = igb_fire
    adapter.nic.hw.fire_arg = adapter
    adapter.rx_itr_setting = 3
    adapter.ops.ndo_start_xmit = igb_xmit_frame
    adapter.ops.ndo_set_rx_mode = igb_ndo_set_rx_mode
    adapter.dev.net = n.ptr
    adapter.dev.priv = adapter
    adapter.dev.ops = &adapter.ops
    adapter.dev.type = ARPHRD_ETHER
    adapter.dev.flags = IFF_BROADCAST | IFF_MULTICAST
    adapter.dev.features = NETIF_F_RXCSUM | NETIF_F_RXHASH | NETIF_F_GRO | NETIF_F_HW_VLAN_CTAG_RX
    adapter.hw_features = adapter.dev.features | NETIF_F_GRO_FRAGLIST | NETIF_F_GRO_UDP_FWD | NETIF_F_RXALL
    if w.vnet_hdr:
        adapter.dev.features |= NETIF_F_GRO_HW | NETIF_F_HW_CSUM | NETIF_F_GSO_UDP_L4
        adapter.hw_features |= NETIF_F_HW_CSUM | NETIF_F_GSO_UDP_L4
        adapter.hw_features |= NETIF_F_GRO_HW if w.set_offload != NULL else 0
        igb_set_offload(adapter)
        skb_pool_add_huge(sd.pool, IGB_HUGE_BUFFERS)
    strncpy(adapter.dev.name, name, 15)
    memcpy(adapter.dev.dev_addr, <const u8 *>mac, 6)
    adapter.other.handler = igb_msix_other
    adapter.other.dev_id = adapter
    strncpy(adapter.other.name, name, 31)
    adapter.num_queues = queues
    for i in range(IGB_MAX_QUEUES):
        igb_alloc_q_vector(adapter, i, name)
    return adapter


cdef int igb_alloc_q_vector(igb_adapter *adapter, u32 i, bytes name) except -1:
    """Tie NAPI, rings and vector of pair ``i`` together. [igb_alloc_q_vector()]

    The pairs go round the CPUs, from the one of the NIC's bus on.
    """
    cdef igb_q_vector *q = &adapter.q_vector[i]
    cdef net *n = adapter.n
    q.adapter = adapter
    q.vector = IGB_VECTOR_RING + i
    q.itr_val = IGB_START_ITR
    q.rx.itr = q.tx.itr = lowest_latency
    q.rx.queue_index = i
    q.rx.hw = &adapter.nic.rx[i]
    q.rx.nic = adapter.nic
    q.rx.dev = &adapter.dev
    q.rx.mac = ether_addr_to_u64(adapter.dev.dev_addr)
    q.tx.hw = &adapter.nic.tx[i]
    q.tx.nic = adapter.nic
    napi_init(&q.napi, n, &adapter.dev, <softnet_data *>n.cpus[(adapter.sd.cpu + i) % n.nr_cpus], igb_poll,
              NAPI_POLL_WEIGHT)
    igb_set_cpu(q)
    q.irq.handler = igb_msix_ring
    q.irq.moved = igb_moved
    q.irq.dev_id = q
    strncpy(q.irq.name, name + b"-TxRx-%d" % i, 31)
    return 0


cdef void igb_remove(igb_adapter *adapter) noexcept:
    """Forget the device; it must be closed. [igb_remove()]"""
    if adapter.nic != NULL:
        igb_nic_destroy(adapter.nic)
    free(adapter.q_vector)
    free(adapter)
