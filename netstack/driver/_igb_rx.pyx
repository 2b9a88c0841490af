"""igb: move finished descriptors out of the ring.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       descriptors with DD set          device/_igb_rx.pyx
Out      one sk_buff each                 napi/_gro.pyx
Context  softirq; no GIL; takes buffers from the CPU's pool, never raises
Kernel   igb_clean_rx_irq(), drivers/net/ethernet/intel/igb/igb_main.c

A receive buffer is an SKB_LARGE element: the NIC writes the frame where it will stay, and
``build_skb`` is nothing but ``skb_init``. A short frame is copied into a small element instead, and
the buffer goes back to the ring as it is, so that a queue of small packets holds little memory.
"""

from libc.string cimport memcpy

from netstack._abi cimport (
    add_owned64, fence, get_be16, likely, load_acquire16, load_relaxed32, prefetch, prefetchw, u8, u16, u32, u64,
    unlikely,
)
from netstack._counters cimport NIC_DROP_RESET, NIC_DROP_RXERR
from netstack._net cimport (
    ETH_HLEN, NETIF_F_RXALL, NETIF_F_RXCSUM, NETIF_F_RXHASH, STAGE_NIC, fate_add,
)
from netstack._skb cimport (
    CHECKSUM_PARTIAL, CHECKSUM_UNNECESSARY, NET_SKB_PAD, PACKET_BROADCAST, PACKET_HOST, PACKET_MULTICAST,
    PACKET_OTHERHOST, SKB_HUGE, SKB_LARGE, SKB_STRUCT, kfree_skb_reason, sk_buff, skb_alloc_raw,
    skb_class_for, skb_free_raw, skb_init, skb_pull,
)
from netstack._gso cimport skb_checksum_help
from netstack.device._igb_nic cimport IGB_RSC_BUFFERS, ether_addr_to_u64, igb_nic
from netstack.device._igb_regs cimport (
    E1000_RXD_STAT_DD, E1000_RXD_STAT_EOP, E1000_RXD_STAT_IXSM, E1000_RXD_STAT_TCPCS, E1000_RXD_STAT_UDPCS,
    E1000_RXD_STAT_VP, E1000_RXDADV_RSSTYPE_IPV4, E1000_RXDADV_RSSTYPE_MASK,
    E1000_RXDEXT_STATERR_CE, E1000_RXDEXT_STATERR_CXE, E1000_RXDEXT_STATERR_IPE,
    E1000_RXDEXT_STATERR_RXE, E1000_RXDEXT_STATERR_SE, E1000_RXDEXT_STATERR_SEQ,
    E1000_RXDEXT_STATERR_TCPE, e1000_adv_rx_desc,
)
from netstack.device._igb_rx cimport igb_rx_tail
from netstack.device._vnet cimport vnet_info
from netstack.driver._igb cimport (
    IGB_RX_BUFFER_WRITE, IGB_RX_WINDOW_MIN, igb_q_vector, igb_rx_buffer, igb_rx_finished, igb_rx_ring,
    igb_rx_unused, igb_rx_wanted,
)
from netstack.irq._cpu cimport cpu_wake
from netstack.napi._gro cimport napi_gro_receive

cdef enum:
    ETH_P_802_3_MIN = 0x0600
    ETH_P_802_3 = 0x0001
    ETH_P_802_2 = 0x0004
    FRAME_ERR_MASK = (E1000_RXDEXT_STATERR_CE | E1000_RXDEXT_STATERR_SE | E1000_RXDEXT_STATERR_SEQ
                      | E1000_RXDEXT_STATERR_CXE | E1000_RXDEXT_STATERR_RXE)


# ---- buffers

cdef inline sk_buff *igb_rx_element(u8 *data) noexcept nogil:
    """The element of a receive buffer: the way back from igb_rx_data()."""
    return <sk_buff *>(data - NET_SKB_PAD - SKB_STRUCT)


cdef void igb_alloc_rx_buffers(igb_rx_ring *ring, u32 count) noexcept nogil:
    """Give up to ``count`` descriptors back to the hardware. [igb_alloc_rx_buffers()]

    Where the pool is used up the rest waits for a later poll, and alloc_failed counts it.
    """
    cdef u32 i = ring.next_to_use
    cdef igb_rx_buffer *buffer
    cdef e1000_adv_rx_desc *desc
    while count:
        buffer = &ring.buffer[i]
        if i == ring.next_to_alloc:
            buffer.skb = skb_alloc_raw(ring.pool, SKB_LARGE)
            if unlikely(buffer.skb == NULL):
                add_owned64(&ring.alloc_failed, 1)
                break
            ring.next_to_alloc = i + 1 if i + 1 < ring.count else 0
        desc = &ring.desc[i]
        desc.read.pkt_addr = <u64>igb_rx_data(buffer.skb)
        desc.read.hdr_addr = 0
        i += 1
        if i == ring.count:
            i = 0
        count -= 1
    if ring.info != NULL:
        igb_alloc_large(ring)
    # The descriptor after the last is not the hardware's, and must not look finished.
    ring.desc[i].wb.length = 0
    if i != ring.next_to_use:
        ring.next_to_use = i
        igb_rx_tail(ring.hw, i)
        if unlikely(ring.remote != NULL):
            igb_nudge(ring)


cdef void igb_nudge(igb_rx_ring *ring) noexcept nogil:
    """Wake the CPU that runs the NIC if that went to sleep for want of a descriptor: it is not us."""
    fence()
    if load_relaxed32(&ring.hw.starved):
        cpu_wake(ring.remote)


cdef void igb_alloc_large(igb_rx_ring *ring) noexcept nogil:
    """Post large buffers for coalesced frames; the hardware does without when the pool has none left."""
    cdef igb_nic *nic = ring.nic
    cdef sk_buff *element
    if nic.mq or ring.remote != NULL:
        return                     # the hardware goes through its own memory: igb_free_posted() has told it
    nic.large_dry = 0
    while nic.nr_large < IGB_RSC_BUFFERS:
        element = skb_alloc_raw(ring.pool, SKB_HUGE)
        if unlikely(element == NULL):
            nic.large_dry = 1
            break
        nic.large[nic.nr_large] = igb_rx_data(element)
        nic.nr_large += 1


cdef void igb_free_posted(igb_nic *nic) noexcept nogil:
    """Take back the large buffers that are posted, and let the hardware do without. As every CPU.

    So it is with several queues, where only a frame that has been read shows whose buffer it needs, and with one that
    is polled by another CPU than the hardware's, as they share no lock.
    """
    while nic.nr_large:
        nic.nr_large -= 1
        skb_free_raw(igb_rx_element(nic.large[nic.nr_large]))
    nic.large_dry = 1


cdef void igb_free_large(igb_rx_ring *ring) noexcept nogil:
    """Take back what is posted, and what finished descriptors hold. The hardware is off the bus."""
    cdef u32 i
    igb_free_posted(ring.nic)
    for i in range(ring.count):
        if ring.info[i].large != NULL:
            skb_free_raw(igb_rx_element(ring.info[i].large))
            ring.info[i].large = NULL


cdef inline sk_buff *igb_large_skb(igb_rx_ring *ring, u32 i) noexcept nogil:
    """Make a packet of the large buffer that descriptor ``i`` names; the descriptor's own stays in the ring."""
    cdef sk_buff *skb = igb_rx_element(ring.info[i].large)
    ring.info[i].large = NULL
    skb_init(skb)
    skb.slot = <u8>ring.slot
    skb.len = ring.info[i].len
    return skb


cdef inline sk_buff *igb_build_skb(igb_rx_ring *ring, u32 i, u32 size) noexcept nogil:
    """Make a packet of the buffer itself, which leaves the ring. [igb_build_skb()]"""
    cdef sk_buff *skb = ring.buffer[i].skb
    ring.buffer[i].skb = NULL
    skb_init(skb)
    skb.slot = <u8>ring.slot
    skb.len = size
    return skb


cdef inline void igb_reuse_rx_buffer(igb_rx_ring *ring, u32 i) noexcept nogil:
    """Hand a buffer on to the descriptor that is filled next. [igb_reuse_rx_page()]"""
    cdef sk_buff *element = ring.buffer[i].skb
    ring.buffer[i].skb = NULL
    ring.buffer[ring.next_to_alloc].skb = element
    ring.next_to_alloc = ring.next_to_alloc + 1 if ring.next_to_alloc + 1 < ring.count else 0


cdef inline void igb_adapt_window(igb_rx_ring *ring) noexcept nogil:
    """Choose how many descriptors the hardware is to have, before a poll.

    Few, because buffers that come round soon are still in the cache. Twice as many as soon as it has used up all it
    had, up to the whole ring; fewer again, slowly, while more than a third of them stay free.
    """
    cdef u32 given = ring.count - 1 - igb_rx_unused(ring)
    cdef u32 finished = igb_rx_finished(ring)
    if unlikely(finished >= given and given >= ring.window):
        ring.window = min(ring.window * 2, ring.count - 1)
    elif finished and not ring.nic.mq and ring.window > <u32>IGB_RX_WINDOW_MIN and (given - finished) * 3 > ring.window:
        ring.window -= max((ring.window - <u32>IGB_RX_WINDOW_MIN) >> 6, <u32>1)


cdef inline sk_buff *igb_construct_skb(igb_rx_ring *ring, u32 i, u32 size) noexcept nogil:
    """Make a packet of a frame in one buffer: copied if short, else the buffer.

    With no small element left the buffer is given away too. [igb_construct_skb(), copybreak]
    """
    cdef u32 cls = skb_class_for(size)
    cdef sk_buff *skb
    cdef const u8 *data
    cdef u32 at = 0
    if cls == SKB_LARGE:
        return igb_build_skb(ring, i, size)
    skb = skb_alloc_raw(ring.pool, cls)
    if unlikely(skb == NULL):
        return igb_build_skb(ring, i, size)
    prefetchw(ring.pool.slab[cls].free)     # the next packet's
    skb_init(skb)
    skb.slot = <u8>ring.slot
    skb.len = size
    data = igb_rx_data(ring.buffer[i].skb)
    while at < size:
        # Whole cache lines: both buffers have room behind the frame.
        memcpy(skb.data + at, data + at, 64)
        at += 64
    igb_reuse_rx_buffer(ring, i)
    return skb


# ---- frames over several descriptors

cdef inline u32 igb_rx_frames(const igb_rx_ring *ring, u32 i) noexcept nogil:
    """Frames off the wire that stand in a finished descriptor, or begin there."""
    return ring.info[i].frames if ring.info != NULL else 1


cdef sk_buff *igb_add_rx_frag(igb_rx_ring *ring, u32 i, u32 size, bint eop) noexcept nogil:
    """Hang one more buffer on the frame; the frame, once it is whole. [igb_is_non_eop()]

    Until then it is kept on the ring, over polls if need be.
    """
    cdef sk_buff *part = igb_build_skb(ring, i, size)
    cdef sk_buff *skb = ring.skb
    if skb == NULL:
        part.frames = igb_rx_frames(ring, i)
        part.id = ring.frame_id[i]
        ring.skb = skb = part
    else:
        if skb.frag_list == NULL:
            skb.frag_list = part
        else:
            skb.frag_tail.next = part
        skb.frag_tail = part
        skb.truesize += part.truesize
        skb.len += size
        skb.data_len += size
    if not eop:
        return NULL
    ring.skb = NULL
    return skb


# ---- what the descriptor says

cdef inline void eth_type_trans(igb_rx_ring *ring, sk_buff *skb) noexcept nogil:
    """Say whom the frame is for and what it carries, and step past its header. [eth_type_trans()]"""
    cdef const u8 *frame = skb.data
    cdef u64 dst = ether_addr_to_u64(frame)
    cdef u32 protocol
    if likely(dst == ring.mac):
        skb.pkt_type = PACKET_HOST
    elif not frame[0] & 1:
        skb.pkt_type = PACKET_OTHERHOST
    elif <u32>dst == 0xFFFFFFFFu and dst >> 32 == 0xFFFF:
        skb.pkt_type = PACKET_BROADCAST
    else:
        skb.pkt_type = PACKET_MULTICAST
    protocol = get_be16(frame + 12)
    if unlikely(protocol < ETH_P_802_3_MIN):
        # A length: Novell's raw 802.3 if the payload starts with FFFF, else 802.2.
        protocol = ETH_P_802_2
        if skb.len >= ETH_HLEN + 2 and get_be16(frame + 14) == 0xFFFF:
            protocol = ETH_P_802_3
    skb.protocol = <u16>protocol
    skb_pull(skb, ETH_HLEN)
    skb.network_header = NET_SKB_PAD + ETH_HLEN


cdef void igb_rx_partial(sk_buff *skb, const vnet_info *info, u64 features) noexcept nogil:
    """Note that the checksum is still to be made, and that this is several frames if it is.

    With rx-checksumming off a single frame gets its checksum here and now, to be verified above.
    """
    skb.ip_summed = CHECKSUM_PARTIAL
    skb.csum = (skb.mac_header + <u32>info.csum_start) << 16 | info.csum_offset
    if info.gso_size:
        skb.gso_type = info.gso_type
        skb.gso_size = info.gso_size
        skb.gso_segs = <u16>info.frames
    elif not features & NETIF_F_RXCSUM:
        skb_checksum_help(skb)


cdef inline void igb_process_skb_fields(igb_q_vector *q, sk_buff *skb, const e1000_adv_rx_desc *desc,
                                        const vnet_info *info, u64 features) noexcept nogil:
    """Carry over what the hardware found: checksum, hash, VLAN tag. [igb_process_skb_fields()]"""
    cdef u32 status = desc.wb.status_error
    cdef u32 rss_type = desc.wb.pkt_info & E1000_RXDADV_RSSTYPE_MASK
    if features & NETIF_F_RXHASH and rss_type:
        skb.hash = desc.wb.rss
        skb.l4_hash = rss_type != E1000_RXDADV_RSSTYPE_IPV4
    if features & NETIF_F_RXCSUM and not status & E1000_RXD_STAT_IXSM:
        if unlikely(status & (E1000_RXDEXT_STATERR_TCPE | E1000_RXDEXT_STATERR_IPE)):
            # The layers above find out what is wrong, and count it.
            add_owned64(&q.rx.csum_err, 1)
        elif likely(status & (E1000_RXD_STAT_TCPCS | E1000_RXD_STAT_UDPCS)):
            skb.ip_summed = CHECKSUM_UNNECESSARY
    if unlikely(info != NULL) and info.partial:
        igb_rx_partial(skb, info, features)
    if unlikely(status & E1000_RXD_STAT_VP):
        skb.vlan_tci = desc.wb.vlan
        skb.vlan_present = 1
    skb.dev = q.rx.dev
    skb.queue_mapping = <u16>q.rx.queue_index
    eth_type_trans(&q.rx, skb)


cdef u32 igb_rx_odd(const igb_rx_ring *ring) noexcept nogil:
    """The status bits that send a frame through igb_cleanup_headers: of damage, and all while somebody captures."""
    if unlikely(load_relaxed32(&ring.pool.n.tap_stages) >> <u32>STAGE_NIC & 1):
        return <u32>FRAME_ERR_MASK | E1000_RXD_STAT_DD
    return <u32>FRAME_ERR_MASK


cdef bint igb_cleanup_headers(igb_rx_ring *ring, sk_buff *skb, const e1000_adv_rx_desc *desc,
                              u64 features) noexcept nogil:
    """Drop a frame that the hardware marked as damaged, unless rx-all is on; show it before. True: dropped.

    Frames under 60 bytes pass: a TAP does not pad them, and nothing above needs it.
    """
    cdef u32 status = desc.wb.status_error
    skb.dev = ring.dev
    if status & E1000_RXD_STAT_VP:
        skb.vlan_tci = desc.wb.vlan
        skb.vlan_present = 1
    if load_relaxed32(&ring.pool.n.tap_stages) >> <u32>STAGE_NIC & 1:
        ring.pool.n.tap_stage(ring.pool.n, skb, STAGE_NIC, 0)
    if status & <u32>FRAME_ERR_MASK and not features & NETIF_F_RXALL:
        kfree_skb_reason(skb, NIC_DROP_RXERR)
        return True
    return False


cdef inline sk_buff *igb_take_skb(igb_rx_ring *ring, u32 i, const vnet_info *info, u32 size,
                                  u32 status) noexcept nogil:
    """Take the frame in descriptor ``i``, or NULL while more is to come. ``info``: of a virtual wire, else NULL."""
    cdef sk_buff *skb
    if unlikely(info != NULL) and info.large != NULL:
        skb = igb_large_skb(ring, i)
        igb_reuse_rx_buffer(ring, i)
        skb.frames = info.frames
        skb.id = ring.frame_id[i]
        return skb
    if unlikely(ring.skb != NULL or not status & E1000_RXD_STAT_EOP):
        return igb_add_rx_frag(ring, i, size, status & E1000_RXD_STAT_EOP)
    skb = igb_construct_skb(ring, i, size)
    skb.frames = 1 if likely(info == NULL) else info.frames
    skb.id = ring.frame_id[i]
    return skb


cdef int igb_clean_rx_irq(igb_q_vector *q, int budget) noexcept nogil:
    """Pass finished frames to GRO until ``budget`` is used; gives how much of it was. [igb_clean_rx_irq()]

    A coalesced frame uses as much as the frames that it was: what it costs above is theirs.
    """
    cdef igb_rx_ring *ring = &q.rx
    cdef u32 cleaned_count
    cdef u32 odd = igb_rx_odd(ring)
    cdef u64 features = ring.dev.features
    cdef u64 total_bytes = 0
    cdef u64 multicast = 0
    cdef int weight = budget
    cdef int total_packets = 0
    cdef e1000_adv_rx_desc *desc
    cdef const vnet_info *info = NULL
    cdef sk_buff *skb
    cdef u32 i, size, status
    igb_adapt_window(ring)
    cleaned_count = igb_rx_wanted(ring)
    while total_packets < budget:
        if cleaned_count >= IGB_RX_BUFFER_WRITE:
            igb_alloc_rx_buffers(ring, igb_rx_wanted(ring))
            cleaned_count = 0
        i = ring.next_to_clean
        desc = &ring.desc[i]
        size = load_acquire16(&desc.wb.length)
        if size == 0:
            break
        status = desc.wb.status_error
        if unlikely(ring.info != NULL):
            info = &ring.info[i]
            budget -= <int>info.frames - 1 if status & E1000_RXD_STAT_EOP else 0
        ring.next_to_clean = i + 1 if i + 1 < ring.count else 0
        if ring.buffer[ring.next_to_clean].skb != NULL:
            prefetch(igb_rx_data(ring.buffer[ring.next_to_clean].skb))
        cleaned_count += 1
        skb = igb_take_skb(ring, i, info, size, status)
        if skb == NULL or unlikely(status & odd) and igb_cleanup_headers(ring, skb, desc, features):
            continue
        total_bytes += skb.len
        total_packets += 1
        igb_process_skb_fields(q, skb, desc, info, features)
        multicast += skb.pkt_type == PACKET_MULTICAST
        napi_gro_receive(&q.napi, skb)
    if total_packets:
        add_owned64(&ring.packets, total_packets)
        add_owned64(&ring.bytes, total_bytes)
        add_owned64(&ring.multicast, multicast)
        ring.total_packets += total_packets
        ring.total_bytes += total_bytes
    if cleaned_count:
        igb_alloc_rx_buffers(ring, igb_rx_wanted(ring))
    q.napi.ready = igb_rx_finished(ring)
    return weight - max(budget - total_packets, 0)


cdef void igb_clean_rx_ring(igb_rx_ring *ring) noexcept nogil:
    """Give every buffer back, and end the frames that were finished but not cleaned. As the CPU.

    The hardware must be off the bus. [igb_clean_rx_ring()]
    """
    cdef u32 i = ring.next_to_clean
    cdef u32 lost = 0
    cdef bint inside = ring.skb != NULL
    cdef u32 k
    if ring.buffer == NULL:
        return
    if ring.skb != NULL:
        kfree_skb_reason(ring.skb, NIC_DROP_RESET)
        ring.skb = NULL
    while i != ring.next_to_use and ring.desc[i].wb.length:
        lost += 0 if inside else igb_rx_frames(ring, i)
        inside = not ring.desc[i].wb.status_error & E1000_RXD_STAT_EOP
        i = i + 1 if i + 1 < ring.count else 0
    fate_add(ring.pool.n, ring.slot, NIC_DROP_RESET, lost)
    if ring.info != NULL:
        igb_free_large(ring)
    for k in range(ring.count):
        if ring.buffer[k].skb != NULL:
            skb_free_raw(ring.buffer[k].skb)
            ring.buffer[k].skb = NULL
    ring.next_to_clean = ring.next_to_use = ring.next_to_alloc = 0
