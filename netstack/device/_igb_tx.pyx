"""igb: fetch transmit descriptors and put their frames on the wire.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       descriptors up to TDT            driver/_igb_tx.pyx
Out      frames on a wire                 device/_wire.pxd
Context  whoever writes TDT, any thread; no GIL; never allocates, never raises
Kernel   none; Intel 82576EB datasheet 7.2 (transmit functionality)

Writing TDT fetches at once, in the writer's context: there is no other thread to do it, and the
wire takes the frame at once. So a descriptor is done when the doorbell returns, unless the wire had
no room; then it stays, and the step tries again.
"""

from libc.errno cimport EAGAIN
from libc.string cimport memcpy, memmove, memset

from netstack._abi cimport (
    add_owned64, fence, load_relaxed32, load_relaxed64, put_be16, spin_lock, spin_trylock, spin_unlock,
    store_relaxed32, store_relaxed64, store_release32, u8, u16, u32, u64, unlikely,
)
from netstack._checksum cimport csum_fold, csum_partial
from netstack._net cimport ETH_HLEN
from netstack.device._igb_nic cimport (
    IGB_STAT_BPTC, IGB_STAT_GOTC, IGB_STAT_GPTC, IGB_STAT_MPTC, IGB_STAT_TNCRS,
    IGB_STAT_TPT, IGB_TX_RETRY_NS, igb_cause, igb_nic, igb_tx_unit,
)
from netstack.device._igb_regs cimport (
    E1000_ADVTXD_DCMD_EOP, E1000_ADVTXD_DCMD_RS, E1000_ADVTXD_DCMD_TSE, E1000_ADVTXD_DCMD_VLE, E1000_ADVTXD_DTYP_CTXT,
    E1000_ADVTXD_DTYP_MASK, E1000_ADVTXD_L4LEN_SHIFT, E1000_ADVTXD_MACLEN_SHIFT, E1000_ADVTXD_MSS_SHIFT,
    E1000_ADVTXD_TUCMD_L4T_TCP,
    E1000_TXD_POPTS_IXSM, E1000_TXD_POPTS_TXSM, E1000_TXD_STAT_DD, E1000_TX_FLAGS_VLAN_SHIFT,
    IGB_MAX_QUEUES, e1000_adv_tx_desc,
)
from netstack.device._vnet cimport (
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP_L4, VNET_HDR, virtio_net_hdr,
)
from netstack.device._wire cimport wire_tx


cdef void igb_tx_checksums(igb_tx_unit *q, u8 *frame, u32 size, u32 popts) noexcept nogil:
    """Insert the checksums that the context describes. 7.2.5.

    The driver has put the sum of the pseudo header into the TCP or UDP checksum field.
    """
    cdef u32 ip = q.context.vlan_macip_lens >> E1000_ADVTXD_MACLEN_SHIFT & 0x7F
    cdef u32 l4 = ip + (q.context.vlan_macip_lens & 0x1FF)
    cdef bint tcp = q.context.type_tucmd_mlhl & E1000_ADVTXD_TUCMD_L4T_TCP != 0
    cdef u32 field = l4 + (16 if tcp else 6)
    cdef u16 sum
    if popts & E1000_TXD_POPTS_IXSM and ip + 12 <= l4 <= size:
        put_be16(frame + ip + 10, 0)
        sum = csum_fold(csum_partial(frame + ip, l4 - ip, 0))
        memcpy(frame + ip + 10, &sum, 2)
    if popts & E1000_TXD_POPTS_TXSM and field + 2 <= size:
        sum = csum_fold(csum_partial(frame + l4, size - l4, 0))
        if sum == 0 and not tcp:
            sum = 0xFFFF           # RFC 768: 0 would say that there is none
        memcpy(frame + field, &sum, 2)


cdef inline bint igb_tx_whole(const igb_nic *nic, const igb_tx_unit *q) noexcept nogil:
    """Does the packet at head cross the wire uncut, so that cutting it and its checksums are left to the other side?"""
    cdef const e1000_adv_tx_desc *first = &q.ring[q.head]
    return (nic.w.vnet_hdr and first.read.olinfo_status & E1000_TXD_POPTS_TXSM
            and first.read.cmd_type_len & <u32>E1000_ADVTXD_DCMD_TSE
            and q.context.mss_l4len_idx >> E1000_ADVTXD_MSS_SHIFT)


cdef u32 igb_tx_gather(igb_nic *nic, igb_tx_unit *q, u32 count) noexcept nogil:
    """Put the frame of ``count`` descriptors together in the NIC's memory. Its length; 0: too long."""
    cdef e1000_adv_tx_desc *first = &q.ring[q.head]
    cdef e1000_adv_tx_desc *desc
    cdef u8 *frame = q.fifo
    cdef u32 size = 0
    cdef u32 at = q.head
    cdef u32 part, _i
    for _i in range(count):
        desc = &q.ring[at]
        part = desc.read.cmd_type_len & 0xFFFF
        if size + part > nic.fifo_size - 64:
            return 0
        memcpy(frame + size, <u8 *>desc.read.buffer_addr, part)
        size += part
        at = at + 1 if at + 1 < q.count else 0
    igb_tx_checksums(q, frame, size, first.read.olinfo_status
                     & ~<u32>(E1000_TXD_POPTS_TXSM if igb_tx_whole(nic, q) else 0))
    if first.read.cmd_type_len & E1000_ADVTXD_DCMD_VLE and size >= ETH_HLEN:
        memmove(frame + 16, frame + 12, size - 12)
        put_be16(frame + 12, <u16>nic.vet)
        put_be16(frame + 14, <u16>(q.context.vlan_macip_lens >> E1000_TX_FLAGS_VLAN_SHIFT))
        size += 4
    return size


cdef u32 igb_tx_vnet(igb_nic *nic, igb_tx_unit *q, u32 size) noexcept nogil:
    """Say in a virtio header, in front of the gathered frame, what is left to the other side; frames that it is.

    A message is not cut: it is memory that it crosses. A single frame is finished, as on a cable, so that a capture at
    the other end shows a checksum that is right.
    """
    cdef e1000_adv_tx_desc *first = &q.ring[q.head]
    cdef u32 tag = 4 if first.read.cmd_type_len & E1000_ADVTXD_DCMD_VLE else 0
    cdef virtio_net_hdr hdr
    cdef u32 frames = 1
    memset(&hdr, 0, sizeof(hdr))
    if igb_tx_whole(nic, q):
        hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM
        hdr.csum_start = <u16>((q.context.vlan_macip_lens >> E1000_ADVTXD_MACLEN_SHIFT & 0x7F)
                               + (q.context.vlan_macip_lens & 0x1FF) + tag)
        hdr.csum_offset = 16 if q.context.type_tucmd_mlhl & E1000_ADVTXD_TUCMD_L4T_TCP else 6
        hdr.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4
        hdr.gso_size = <u16>(q.context.mss_l4len_idx >> E1000_ADVTXD_MSS_SHIFT)
        hdr.hdr_len = <u16>(hdr.csum_start + (q.context.mss_l4len_idx >> E1000_ADVTXD_L4LEN_SHIFT & 0xFF))
        frames = (size - hdr.hdr_len + hdr.gso_size - 1) // hdr.gso_size
    memcpy(q.fifo - VNET_HDR, &hdr, VNET_HDR)
    return frames


cdef u32 igb_tx_frame_descs(igb_tx_unit *q) noexcept nogil:
    """Count the descriptors of the frame at head, up to its EOP; 0 when TDT comes first."""
    cdef u32 at = q.head
    cdef u32 count = 0
    while at != q.tail:
        count += 1
        if q.ring[at].read.cmd_type_len & E1000_ADVTXD_DCMD_EOP:
            return count
        at = at + 1 if at + 1 < q.count else 0
    return 0


cdef u32 igb_tx_headers(const igb_tx_unit *q) noexcept nogil:
    """Bytes of headers that each frame of a cut packet has."""
    return ((q.context.vlan_macip_lens >> E1000_ADVTXD_MACLEN_SHIFT & 0x7F) + (q.context.vlan_macip_lens & 0x1FF)
            + (q.context.mss_l4len_idx >> E1000_ADVTXD_L4LEN_SHIFT & 0xFF))


cdef int igb_tx_send(igb_nic *nic, igb_tx_unit *q, u32 count) noexcept nogil:
    """Put one frame on the wire and count it. 0 when it is done with, -EAGAIN when it must wait."""
    cdef e1000_adv_tx_desc *first = &q.ring[q.head]
    cdef u8 *frame = <u8 *>first.read.buffer_addr
    cdef u32 size = first.read.cmd_type_len & 0xFFFF
    cdef u32 frames = 1
    cdef u32 low
    cdef int err
    if (nic.w.vnet_hdr or count > 1 or first.read.cmd_type_len & E1000_ADVTXD_DCMD_VLE
            or first.read.olinfo_status & (E1000_TXD_POPTS_IXSM | E1000_TXD_POPTS_TXSM)):
        frame = q.fifo
        size = igb_tx_gather(nic, q, count)
        if nic.w.vnet_hdr and size:
            frames = igb_tx_vnet(nic, q, size)
    err = wire_tx(nic.w, frame - nic.w.vnet_hdr, size + nic.w.vnet_hdr) if size else -1
    if unlikely(err == -EAGAIN):
        return err
    if unlikely(err < 0):
        add_owned64(&q.stat[IGB_STAT_TNCRS - IGB_STAT_GPTC], 1)
        return 0
    add_owned64(&q.stat[IGB_STAT_TPT - IGB_STAT_GPTC], frames)
    add_owned64(&q.stat[0], frames)
    add_owned64(&q.stat[IGB_STAT_GOTC - IGB_STAT_GPTC], size + <u64>(frames - 1) * igb_tx_headers(q))
    if frame[0] & 1:
        memcpy(&low, frame, 4)
        add_owned64(&q.stat[(IGB_STAT_BPTC if low == 0xFFFFFFFFu else IGB_STAT_MPTC) - IGB_STAT_GPTC], 1)
    return 0


cdef void igb_tx_complete(igb_nic *nic, igb_tx_unit *q, u32 count) noexcept nogil:
    """Write DD back where it was asked for; every ``wthresh`` of them latch the cause. 7.2.4."""
    cdef e1000_adv_tx_desc *desc
    cdef u32 _i
    for _i in range(count):
        desc = &q.ring[q.head]
        if desc.read.cmd_type_len & E1000_ADVTXD_DCMD_RS:
            store_release32(&desc.wb.status, E1000_TXD_STAT_DD)
            q.done += 1
        q.head = q.head + 1 if q.head + 1 < q.count else 0
    if q.done >= q.wthresh:
        q.done = 0
        igb_cause(nic, q.eicr)


cdef void igb_tx_fetch(igb_nic *nic, igb_tx_unit *q) noexcept nogil:
    """Work off the descriptors between head and tail. The caller holds the queue's lock."""
    cdef u32 count
    while q.head != q.tail:
        if q.ring[q.head].read.cmd_type_len & E1000_ADVTXD_DTYP_MASK == E1000_ADVTXD_DTYP_CTXT:
            memcpy(&q.context, &q.ring[q.head], sizeof(q.context))
            q.head = q.head + 1 if q.head + 1 < q.count else 0
            continue
        count = igb_tx_frame_descs(q)
        if count == 0:
            return
        if igb_tx_send(nic, q, count) < 0:
            store_relaxed32(&q.stuck, 1)
            return
        igb_tx_complete(nic, q, count)
    store_relaxed32(&q.stuck, 0)


cdef void igb_tx_tail(igb_nic *nic, igb_tx_unit *q, u32 tail) noexcept nogil:
    """Write TDT: the descriptors before ``tail`` are the hardware's. The doorbell.

    A frame that the wire had no room for raises the queue's interrupt, so that the CPU looks: its
    steps try again.
    """
    cdef bint stuck, has_vector
    cdef u32 vector
    spin_lock(&q.lock)
    q.tail = tail
    if q.enabled:
        igb_tx_fetch(nic, q)
    stuck = q.stuck
    has_vector = q.eicr != 0
    vector = q.vector
    spin_unlock(&q.lock)
    if unlikely(stuck):
        fence()
    if unlikely(stuck) and load_relaxed64(&nic.tx_retry) == 0:
        store_relaxed64(&nic.tx_retry, 1)
        if nic.hw.fire != NULL and has_vector:
            nic.hw.fire(nic.hw.fire_arg, vector)


cdef void igb_tx_retry(igb_nic *nic, u64 now) noexcept nogil:
    """Try the frames again that the wire had no room for."""
    cdef igb_tx_unit *q
    cdef u32 i
    store_relaxed64(&nic.tx_retry, 0)
    fence()                        # who finds it 0 says that it must be tried; who finds it set is seen here
    for i in range(IGB_MAX_QUEUES):
        q = &nic.tx[i]
        if not load_relaxed32(&q.stuck):
            continue
        if not spin_trylock(&q.lock):      # whoever holds it is fetching
            store_relaxed64(&nic.tx_retry, now + IGB_TX_RETRY_NS)
            continue
        if q.enabled:
            igb_tx_fetch(nic, q)
        if q.stuck:
            store_relaxed64(&nic.tx_retry, now + IGB_TX_RETRY_NS)
        spin_unlock(&q.lock)
