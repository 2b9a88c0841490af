"""igb: put packets into transmit descriptors, and free them when they have left.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       sk_buffs to send                 proto/_ip.pyx, netif
Out      descriptors up to TDT            device/_igb_tx.pyx
Context  any thread, under the ring's lock; no GIL; never allocates, never raises
Kernel   igb_xmit_frame_ring(), igb_clean_tx_irq(), drivers/net/ethernet/intel/igb/igb_main.c

There is no queueing discipline above: a full ring drops, where Linux would stop the queue and keep
the packet there. What was sent is freed by the poll, and, so that a thread which only sends needs
no CPU to run beside it, by the sender when half of the ring waits to be freed.
"""

from libc.errno cimport EMSGSIZE, ENETDOWN, ENOBUFS
from libc.string cimport memcpy

from netstack._abi cimport (
    add_owned64, add_relaxed64, get_be16, likely, load_acquire32, load_relaxed32, spin_lock, spin_trylock, spin_unlock,
    store_relaxed32, u8, u32, u64, unlikely,
)
from netstack._counters cimport (
    SKB_CONSUMED, SKB_DROP_REASON_DEV_READY, SKB_DROP_REASON_PKT_TOO_BIG, SKB_FORWARDED,
)
from netstack._gso cimport skb_checksum_help, skb_is_whole_gso
from netstack._net cimport ETH_HLEN, SLOT_CPU0, SLOT_PROCESS, fate_add, net_device
from netstack._skb cimport (
    CHECKSUM_PARTIAL, kfree_skb_reason, sk_buff, skb_end, skb_headlen,
    skb_set_slot,
)
from netstack.device._igb_nic cimport IGB_MAX_FRAME
from netstack.device._igb_regs cimport (
    E1000_ADVTXD_DCMD_DEXT, E1000_ADVTXD_DCMD_EOP, E1000_ADVTXD_DCMD_IFCS,
    E1000_ADVTXD_DCMD_RS, E1000_ADVTXD_DCMD_TSE, E1000_ADVTXD_DCMD_VLE, E1000_ADVTXD_DTYP_CTXT, E1000_ADVTXD_DTYP_DATA,
    E1000_ADVTXD_L4LEN_SHIFT, E1000_ADVTXD_MACLEN_SHIFT, E1000_ADVTXD_MSS_SHIFT, E1000_ADVTXD_PAYLEN_SHIFT,
    E1000_ADVTXD_TUCMD_IPV4,
    E1000_ADVTXD_TUCMD_L4T_TCP, E1000_TXD_POPTS_TXSM, E1000_TXD_STAT_DD,
    E1000_TX_FLAGS_VLAN_SHIFT, e1000_adv_tx_context_desc, e1000_adv_tx_desc,
)
from netstack.device._igb_tx cimport igb_tx_tail
from netstack.device._vnet cimport VNET_MAX_FRAME
from netstack.driver._igb cimport (
    IGB_DEFAULT_TX_WORK, igb_adapter, igb_q_vector, igb_tx_buffer, igb_tx_ring, igb_tx_unused,
)

cdef enum:
    ETH_P_IP = 0x0800
    DATA_CMD = (E1000_ADVTXD_DTYP_DATA | E1000_ADVTXD_DCMD_DEXT | E1000_ADVTXD_DCMD_IFCS)
    UDP_HLEN = 8
    UDP_CSUM_OFFSET = 6
    TCP_CSUM_OFFSET = 16


# ---- completion

cdef u32 igb_clean_tx(igb_tx_ring *ring, u32 slot, u32 budget) noexcept nogil:
    """Free up to ``budget`` sent packets in the context of ``slot``; gives how many. Under the lock.

    A packet whose buffer others read too ends as ``outcome`` says, or as consumed.
    """
    cdef igb_tx_buffer *buffer
    cdef u32 done = 0
    cdef u32 i = ring.next_to_clean
    while done < budget and i != ring.next_to_use:
        buffer = &ring.buffer[i]
        if not load_acquire32(&ring.desc[buffer.next_to_watch].wb.status) & E1000_TXD_STAT_DD:
            break
        skb_set_slot(buffer.skb, slot)
        skb_end(buffer.skb, buffer.skb.outcome if buffer.skb.outcome else SKB_CONSUMED)
        buffer.skb = NULL
        done += 1
        i = buffer.next_to_watch + 1
        if i == ring.count:
            i = 0
    store_relaxed32(&ring.next_to_clean, i)
    if unlikely(ring.stopped) and igb_tx_unused(ring) >= ring.count // 2:
        ring.stopped = 0
        add_owned64(&ring.restart, 1)
    return done


cdef bint igb_clean_tx_irq(igb_q_vector *q) noexcept nogil:
    """Free what was sent, in the poll. False when there is more than one poll's share.

    When another thread has the ring's lock it is sending, and frees what it must. [igb_clean_tx_irq()]
    """
    cdef igb_tx_ring *ring = &q.tx
    cdef u32 done
    if load_relaxed32(&ring.next_to_clean) == load_relaxed32(&ring.next_to_use):
        return True
    if not spin_trylock(&ring.lock):
        return True
    done = igb_clean_tx(ring, q.rx.slot, IGB_DEFAULT_TX_WORK)
    spin_unlock(&ring.lock)
    return done < IGB_DEFAULT_TX_WORK


cdef void igb_clean_tx_ring(igb_tx_ring *ring, u32 slot) noexcept nogil:
    """Take the ring out of service and drop what has not left. [igb_clean_tx_ring()]"""
    cdef igb_tx_buffer *buffer
    cdef u32 i
    spin_lock(&ring.lock)
    ring.up = 0
    if ring.buffer != NULL:
        igb_clean_tx(ring, slot, ring.count)
        for i in range(ring.count):
            buffer = &ring.buffer[i]
            if buffer.skb != NULL:
                skb_set_slot(buffer.skb, slot)
                kfree_skb_reason(buffer.skb, SKB_DROP_REASON_DEV_READY)
                buffer.skb = NULL
    ring.next_to_clean = ring.next_to_use = 0
    spin_unlock(&ring.lock)


# ---- sending

cdef inline void igb_tx_advance(igb_tx_ring *ring) noexcept nogil:
    """Go on to the next descriptor. The poll looks at next_to_use without the lock."""
    store_relaxed32(&ring.next_to_use, ring.next_to_use + 1 if ring.next_to_use + 1 < ring.count else 0)


cdef bint igb_tx_csum(igb_tx_ring *ring, sk_buff *skb) noexcept nogil:
    """Write a context descriptor for VLAN tag, checksum and cutting if the packet wants one. [igb_tx_csum(), igb_tso()]

    True when one was written.
    """
    cdef e1000_adv_tx_context_desc *context
    cdef u32 tucmd = E1000_ADVTXD_DTYP_CTXT | E1000_ADVTXD_DCMD_DEXT
    cdef u32 lens = 0
    cdef u32 mss = 0
    if skb.ip_summed == CHECKSUM_PARTIAL:
        if skb.csum & 0xFFFF == TCP_CSUM_OFFSET:
            tucmd |= E1000_ADVTXD_TUCMD_L4T_TCP
        elif skb.csum & 0xFFFF != UDP_CSUM_OFFSET:
            skb_checksum_help(skb)
    if skb.ip_summed == CHECKSUM_PARTIAL:
        tucmd |= E1000_ADVTXD_TUCMD_IPV4
        lens = (skb.csum >> 16) - skb.network_header
        lens |= (skb.network_header - <u32>(skb.data - skb.head)) << E1000_ADVTXD_MACLEN_SHIFT
        if skb_is_whole_gso(skb):
            mss = <u32>skb.gso_size << E1000_ADVTXD_MSS_SHIFT | UDP_HLEN << E1000_ADVTXD_L4LEN_SHIFT
    elif not skb.vlan_present:
        return False
    if skb.vlan_present:
        lens |= <u32>skb.vlan_tci << E1000_TX_FLAGS_VLAN_SHIFT
    context = <e1000_adv_tx_context_desc *>&ring.desc[ring.next_to_use]
    context.vlan_macip_lens = lens
    context.seqnum_seed = 0
    context.type_tucmd_mlhl = tucmd
    context.mss_l4len_idx = mss
    igb_tx_advance(ring)
    return True


cdef inline void igb_tx_desc(igb_tx_ring *ring, const u8 *data, u32 size, u32 cmd,
                             u32 olinfo) noexcept nogil:
    cdef e1000_adv_tx_desc *desc = &ring.desc[ring.next_to_use]
    desc.read.buffer_addr = <u64>data
    desc.read.cmd_type_len = DATA_CMD | cmd | size
    desc.read.olinfo_status = olinfo


cdef void igb_tx_map(igb_tx_ring *ring, sk_buff *skb) noexcept nogil:
    """Write the packet's descriptors and hand them to the hardware. Takes skb. [igb_tx_map()]"""
    cdef igb_tx_buffer *first = &ring.buffer[ring.next_to_use]
    cdef const sk_buff *part = skb.frag_list
    cdef u32 olinfo = skb.len << E1000_ADVTXD_PAYLEN_SHIFT
    cdef u32 cmd = 0
    cdef u32 last = E1000_ADVTXD_DCMD_EOP | E1000_ADVTXD_DCMD_RS
    if igb_tx_csum(ring, skb):
        cmd = E1000_ADVTXD_DCMD_VLE if skb.vlan_present else 0
        olinfo |= E1000_TXD_POPTS_TXSM if skb.ip_summed == CHECKSUM_PARTIAL else 0
        cmd |= <u32>E1000_ADVTXD_DCMD_TSE if skb_is_whole_gso(skb) else 0
    igb_tx_desc(ring, skb.data, skb_headlen(skb), cmd if part != NULL else cmd | last, olinfo)
    while part != NULL:
        igb_tx_advance(ring)
        igb_tx_desc(ring, part.data, part.len, last if part.next == NULL else 0, olinfo)
        part = part.next
    first.skb = skb
    first.next_to_watch = ring.next_to_use
    igb_tx_advance(ring)
    igb_tx_tail(ring.nic, ring.hw, ring.next_to_use)


cdef int igb_tx_drop(igb_tx_ring *ring, net_device *dev, sk_buff *skb, u32 reason,
                     int err) noexcept nogil:
    """Drop a packet that can't be sent, and let go of the ring."""
    add_relaxed64(&dev.stats.tx_dropped, 1)
    spin_unlock(&ring.lock)
    kfree_skb_reason(skb, reason)
    return err


cdef u32 flow_of(const sk_buff *skb) noexcept nogil:
    """Mix addresses and ports of a frame; 0 for what is not IPv4. [skb_get_hash()]"""
    cdef const u8 *ip = skb.data + ETH_HLEN
    cdef u64 both
    cdef u32 ports = 0
    if skb_headlen(skb) < ETH_HLEN + 24 or get_be16(skb.data + 12) != ETH_P_IP:
        return 0
    memcpy(&both, ip + 12, 8)
    if ip[0] == 0x45 and not get_be16(ip + 6) & 0x3FFF:
        memcpy(&ports, ip + 20, 4)
    both = (both ^ ports) * <u64>0x9E3779B97F4A7C15
    return <u32>(both >> 32)


cdef inline u32 igb_tx_queue(igb_adapter *adapter, const sk_buff *skb) noexcept nogil:
    """Choose the queue: a CPU has its own, so that none waits for another; programs by flow. [netdev_pick_tx(), XPS]"""
    cdef u32 count = load_acquire32(&adapter.num_queues)
    if likely(count == 1):
        return 0
    if skb.slot != SLOT_PROCESS:
        return (skb.slot - SLOT_CPU0) % count
    return <u32>(<u64>flow_of(skb) * count >> 32)


cdef int igb_xmit_frame(void *arg, net_device *dev) noexcept nogil:
    """Send one frame, data at its Ethernet header. Consumes skb. [igb_xmit_frame_ring()]

    0; -ENETDOWN while the device is closed, -ENOBUFS when the ring is full, -EMSGSIZE for a frame
    that no NIC of this kind can send.
    """
    cdef sk_buff *skb = <sk_buff *>arg
    cdef igb_adapter *adapter = <igb_adapter *>dev.priv
    cdef igb_tx_ring *ring = &adapter.q_vector[igb_tx_queue(adapter, skb)].tx
    cdef const sk_buff *part = skb.frag_list
    cdef u32 count = 2             # a context and the first buffer
    cdef u32 size = skb.len
    cdef u32 frames = 1
    while part != NULL:
        count += 1
        part = part.next
    spin_lock(&ring.lock)
    if unlikely(not ring.up) and ring != &adapter.q_vector.tx:
        # There are fewer queues since a moment ago; the first is always there.
        spin_unlock(&ring.lock)
        ring = &adapter.q_vector.tx
        spin_lock(&ring.lock)
    if unlikely(not ring.up):
        return igb_tx_drop(ring, dev, skb, SKB_DROP_REASON_DEV_READY, -ENETDOWN)
    if unlikely(size > (VNET_MAX_FRAME if skb_is_whole_gso(skb) else IGB_MAX_FRAME) or size == 0):
        return igb_tx_drop(ring, dev, skb, SKB_DROP_REASON_PKT_TOO_BIG, -EMSGSIZE)
    if igb_tx_unused(ring) < ring.count // 2:
        igb_clean_tx(ring, skb.slot, IGB_DEFAULT_TX_WORK)
    if unlikely(igb_tx_unused(ring) < count):
        ring.stopped = 1
        return igb_tx_drop(ring, dev, skb, SKB_DROP_REASON_DEV_READY, -ENOBUFS)
    if skb_is_whole_gso(skb):
        frames = skb.gso_segs
        size += (frames - 1) * ((skb.csum >> 16) + UDP_HLEN - <u32>(skb.data - skb.head))
    if unlikely(skb.frames != 0):
        # It came off a wire and is on another now.
        fate_add(dev.net, skb.slot, SKB_FORWARDED, skb.frames)
        skb.frames = 0
    igb_tx_map(ring, skb)
    add_owned64(&ring.packets, frames)
    add_owned64(&ring.bytes, size)
    spin_unlock(&ring.lock)
    return 0
