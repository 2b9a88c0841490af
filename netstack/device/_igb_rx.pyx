"""igb: put frames from the wire into posted descriptors.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       frames of a wire                 device/_wire.pxd
Out      descriptors with DD set          driver/_igb_rx.pyx
Context  hardware, run by whoever is the CPU; no GIL; never allocates, never raises
Kernel   none; Intel 82576EB datasheet 7.1 (receive functionality)

A frame is read straight into the buffer that the driver posted. With no descriptor free it is not
read at all: the wire's own queue is the NIC's packet buffer. Only with jumbo frames on, when a
frame may need several buffers, does it pass through the NIC's memory (``fifo``).
"""

from libc.string cimport memcpy, memmove

from netstack._abi cimport (
    add_owned64, get_be16, get_be32, htons, likely, load_acquire32, store_relaxed32, store_release16, u8,
    u16, u32, u64, unlikely,
)
from netstack._checksum cimport csum_fold, csum_fold64, csum_partial, csum_tcpudp_magic, ip_fast_csum
from netstack._counters cimport (
    NIC_DROP_FILTER, NIC_DROP_ROC, NIC_DROP_RUC,
)
from netstack._net cimport ETH_HLEN, fate_add
from netstack.device._igb_nic cimport (
    IGB_STAT_BPRC, IGB_STAT_GORC, IGB_STAT_GPRC, IGB_STAT_MPRC, IGB_STAT_ROC, IGB_STAT_RUC, IGB_STAT_TPR,
    ether_addr_to_u64, igb_cause, igb_nic,
)
from netstack.device._igb_regs cimport (
    E1000_MRQC_RSS_FIELD_IPV4, E1000_MRQC_RSS_FIELD_IPV4_TCP, E1000_MRQC_RSS_FIELD_IPV4_UDP,
    E1000_RAH_AV, E1000_RCTL_BAM, E1000_RCTL_MO_SHIFT, E1000_RCTL_MPE, E1000_RCTL_UPE,
    E1000_RCTL_VFE, E1000_RXCSUM_IPOFL, E1000_RXCSUM_TUOFL, E1000_RXD_STAT_DD,
    E1000_RXD_STAT_EOP, E1000_RXD_STAT_IPCS, E1000_RXD_STAT_TCPCS, E1000_RXD_STAT_UDPCS,
    E1000_RXD_STAT_VP, E1000_RXDADV_PKTTYPE_IPV4, E1000_RXDADV_PKTTYPE_IPV4_EX,
    E1000_RXDADV_PKTTYPE_IPV6, E1000_RXDADV_PKTTYPE_TCP, E1000_RXDADV_PKTTYPE_UDP,
    E1000_RXDADV_RSSTYPE_IPV4, E1000_RXDADV_RSSTYPE_IPV4_TCP, E1000_RXDADV_RSSTYPE_IPV4_UDP,
    E1000_RXDEXT_STATERR_IPE, E1000_RXDEXT_STATERR_TCPE, IGB_MTA_WORDS,
    e1000_adv_rx_desc, e1000_adv_rx_wb,
)
from netstack.device._vnet cimport vnet_info
from netstack.device._igb_rss cimport igb_rss_ipv4, igb_rss_ports, igb_rss_rebuild

cdef enum:
    ETH_P_IP = 0x0800
    ETH_P_IPV6 = 0x86DD
    IPPROTO_TCP = 6
    IPPROTO_UDP = 17
    RXCSUM_BOTH = E1000_RXCSUM_IPOFL | E1000_RXCSUM_TUOFL


# ---- which frames

cdef bint igb_rx_filter(igb_nic *nic, const u8 *frame) noexcept nogil:
    """Pass a frame that is not for RAL[0] through the address filters. 7.1.2."""
    cdef u32 low, high, i, word
    memcpy(&low, frame, 4)
    high = 0
    memcpy(&high, frame + 4, 2)
    if low == 0xFFFFFFFFu and high == 0xFFFF:
        return nic.rctl & E1000_RCTL_BAM != 0
    if nic.rctl & (E1000_RCTL_MPE if frame[0] & 1 else E1000_RCTL_UPE):
        return True
    for i in range(nic.nr_rar):
        if nic.rah[i] & <u32>E1000_RAH_AV and nic.ral[i] == low and nic.rah[i] & 0xFFFF == high:
            return True
    if not frame[0] & 1:
        return False
    # 12 bits of the last two bytes index the table; RCTL.MO says which. 8.10.15.
    i = (<u32>frame[4] | <u32>frame[5] << 8) >> (4 - (nic.rctl >> E1000_RCTL_MO_SHIFT & 3)) & 0xFFF
    word = nic.mta[i >> 5 & (IGB_MTA_WORDS - 1)]
    return word >> (i & 31) & 1


cdef bint igb_rx_multicast(igb_nic *nic, const u8 *frame, u32 frames) noexcept nogil:
    """Filter a frame that is not for our unicast address, and count what passes by its kind."""
    cdef u32 low
    if not igb_rx_filter(nic, frame):
        fate_add(nic.n, nic.slot, NIC_DROP_FILTER, frames)
        return False
    if frame[0] & 1:
        memcpy(&low, frame, 4)
        add_owned64(&nic.stat[IGB_STAT_BPRC if low == 0xFFFFFFFFu else IGB_STAT_MPRC], frames)
    return True


cdef void igb_rx_length_error(igb_nic *nic, u32 size, u32 frames) noexcept nogil:
    if size < ETH_HLEN:
        add_owned64(&nic.stat[IGB_STAT_RUC], frames)
        fate_add(nic.n, nic.slot, NIC_DROP_RUC, frames)
    else:
        add_owned64(&nic.stat[IGB_STAT_ROC], frames)
        fate_add(nic.n, nic.slot, NIC_DROP_ROC, frames)


# ---- what the NIC finds out about a frame

cdef u32 igb_rx_vlan(igb_nic *nic, u8 *frame, u32 size, e1000_adv_rx_wb *wb, u32 frames) noexcept nogil:
    """Filter a tagged frame by VFTA, and move the tag into the descriptor (CTRL.VME). 7.4. Its length, 0: filtered."""
    cdef u32 tci
    if size < ETH_HLEN + 6:                # a tag, and something that it tags
        return size
    tci = get_be16(frame + 14)
    if nic.rctl & E1000_RCTL_VFE and not nic.vfta[(tci & 0xFFF) >> 5] >> (tci & 31) & 1:
        fate_add(nic.n, nic.slot, NIC_DROP_FILTER, frames)
        return 0
    if nic.vme:
        wb.vlan = <u16>tci
        wb.status_error |= E1000_RXD_STAT_VP
        memmove(frame + 12, frame + 16, size - 16)
        size -= 4
    return size


cdef inline void igb_rx_l4(igb_nic *nic, const u8 *ip, const u8 *l4, u32 size,
                           e1000_adv_rx_wb *wb, bint partial) noexcept nogil:
    """Verify a TCP or UDP checksum of ``size`` bytes. 7.1.11. Zero in UDP means none was sent.

    One that the sender left to its device (``partial``) has not been on any cable: there is nothing to verify.
    """
    cdef u8 protocol = ip[9]
    cdef u32 done
    if protocol == IPPROTO_UDP:
        wb.pkt_info |= E1000_RXDADV_PKTTYPE_UDP
        if size < 8 or (l4[6] | l4[7]) == 0 or get_be16(l4 + 4) != size:
            return
        done = E1000_RXD_STAT_UDPCS
    else:
        wb.pkt_info |= E1000_RXDADV_PKTTYPE_TCP
        if size < 20:
            return
        done = E1000_RXD_STAT_TCPCS
    if nic.rxcsum & E1000_RXCSUM_TUOFL:
        wb.status_error |= done
        if not partial and csum_tcpudp_magic(get_be32(ip + 12), get_be32(ip + 16), size, protocol,
                                             csum_partial(l4, size, 0)):
            wb.status_error |= E1000_RXDEXT_STATERR_TCPE


cdef inline bint igb_rx_plain(igb_nic *nic, const u8 *ip, u32 room, e1000_adv_rx_wb *wb, bint partial) noexcept nogil:
    """Classify a whole UDP datagram without IP options, in one pass; False leaves any other packet to igb_rx_ipv4.

    ``partial``: as in igb_rx_l4().
    """
    cdef u32 total, size
    cdef u32 low
    cdef u32 high
    cdef u64 sum
    cdef u16 check
    if room < 28 or ip[0] != 0x45 or ip[9] != IPPROTO_UDP:
        return False
    total = get_be16(ip + 2)
    size = total - 20
    memcpy(&check, ip + 26, 2)
    if (total > room or total < 28 or get_be16(ip + 24) != size or get_be16(ip + 6) & 0x3FFF
            or check == 0 or nic.rxcsum & RXCSUM_BOTH != RXCSUM_BOTH
            or nic.rss_fields & E1000_MRQC_RSS_FIELD_IPV4_UDP):
        return False
    memcpy(&low, ip + 12, 4)
    memcpy(&high, ip + 16, 4)
    wb.pkt_info = E1000_RXDADV_PKTTYPE_IPV4 | E1000_RXDADV_PKTTYPE_UDP
    wb.status_error |= E1000_RXD_STAT_IPCS | E1000_RXD_STAT_UDPCS
    if unlikely(ip_fast_csum(ip, 5)):
        wb.status_error |= E1000_RXDEXT_STATERR_IPE
    if not partial:
        # The pseudo header as it lies in memory: addresses, protocol, and the length that UDP repeats.
        sum = <u64>csum_partial(ip + 20, size, 0) + low + high + htons(IPPROTO_UDP) + htons(<u16>size)
        if unlikely(csum_fold(csum_fold64(sum))):
            wb.status_error |= E1000_RXDEXT_STATERR_TCPE
    if nic.rss_fields & E1000_MRQC_RSS_FIELD_IPV4:
        wb.rss = igb_rss_ipv4(nic, ip + 12)
        wb.pkt_info |= E1000_RXDADV_RSSTYPE_IPV4
    return True


cdef void igb_rx_ipv4(igb_nic *nic, const u8 *ip, u32 room, e1000_adv_rx_wb *wb, bint partial) noexcept nogil:
    """Classify an IPv4 packet, verify its checksums and hash its flow."""
    cdef u32 ihl = ip[0] & 15
    cdef u32 total
    cdef u32 fields = nic.rss_fields
    cdef u32 hash
    cdef u8 protocol
    if room < 20 or ip[0] >> 4 != 4 or ihl < 5 or ihl << 2 > room:
        return
    wb.pkt_info = E1000_RXDADV_PKTTYPE_IPV4 if ihl == 5 else E1000_RXDADV_PKTTYPE_IPV4_EX
    if nic.rxcsum & E1000_RXCSUM_IPOFL:
        wb.status_error |= E1000_RXD_STAT_IPCS
        if unlikely(ip_fast_csum(ip, ihl)):
            wb.status_error |= E1000_RXDEXT_STATERR_IPE
    hash = igb_rss_ipv4(nic, ip + 12) if fields else 0
    if fields & E1000_MRQC_RSS_FIELD_IPV4:
        wb.rss = hash
        wb.pkt_info |= E1000_RXDADV_RSSTYPE_IPV4
    # A transport header, unless this is a fragment or cut short.
    protocol = ip[9]
    total = get_be16(ip + 2)
    if get_be16(ip + 6) & 0x3FFF or total > room or total < (ihl << 2) + 4:
        return
    if protocol != IPPROTO_UDP and protocol != IPPROTO_TCP:
        return
    igb_rx_l4(nic, ip, ip + (ihl << 2), total - (ihl << 2), wb, partial)
    if protocol == IPPROTO_UDP and fields & E1000_MRQC_RSS_FIELD_IPV4_UDP:
        wb.rss = hash ^ igb_rss_ports(nic, ip + (ihl << 2))
        wb.pkt_info = wb.pkt_info & 0xFFF0 | E1000_RXDADV_RSSTYPE_IPV4_UDP
    elif protocol == IPPROTO_TCP and fields & E1000_MRQC_RSS_FIELD_IPV4_TCP:
        wb.rss = hash ^ igb_rss_ports(nic, ip + (ihl << 2))
        wb.pkt_info = wb.pkt_info & 0xFFF0 | E1000_RXDADV_RSSTYPE_IPV4_TCP


cdef inline bint igb_rx_passes(igb_nic *nic, const u8 *frame, u32 size, u32 frames) noexcept nogil:
    """Has a frame a length that may be, and an address that is let in? If not, its end is in the ledger."""
    if unlikely(size < ETH_HLEN or size > nic.longest):
        igb_rx_length_error(nic, size, frames)
        return False
    return ether_addr_to_u64(frame) == nic.mac or igb_rx_multicast(nic, frame, frames)


cdef u32 igb_rx_describe_odd(igb_nic *nic, u8 *frame, u32 size, e1000_adv_rx_wb *wb, u32 frames,
                             bint partial) noexcept nogil:
    """Describe a frame that is not simply IPv4: its length without a tag that was taken out, 0 when filtered."""
    cdef u32 protocol = get_be16(frame + 12)
    if protocol == nic.vet:
        size = igb_rx_vlan(nic, frame, size, wb, frames)
        if size == 0:
            return 0
        protocol = get_be16(frame + 12)
    if protocol == ETH_P_IP:
        igb_rx_ipv4(nic, frame + ETH_HLEN, size - ETH_HLEN, wb, partial)
    elif protocol == ETH_P_IPV6:
        wb.pkt_info = E1000_RXDADV_PKTTYPE_IPV6
    return size


cdef inline u32 igb_rx_describe(igb_nic *nic, u8 *frame, u32 size, e1000_adv_rx_wb *wb, u32 frames,
                                bint partial) noexcept nogil:
    """Fill in what the descriptor says about a frame; its length, as igb_rx_describe_odd()."""
    cdef u16 protocol
    memcpy(&protocol, frame + 12, 2)
    wb.pkt_info = 0
    wb.hdr_info = 0
    wb.rss = 0
    wb.status_error = E1000_RXD_STAT_DD | E1000_RXD_STAT_EOP
    wb.vlan = 0
    if unlikely(protocol != htons(ETH_P_IP) or nic.vet == ETH_P_IP):
        return igb_rx_describe_odd(nic, frame, size, wb, frames, partial)
    if not igb_rx_plain(nic, frame + ETH_HLEN, size - ETH_HLEN, wb, partial):
        igb_rx_ipv4(nic, frame + ETH_HLEN, size - ETH_HLEN, wb, partial)
    return size


cdef u32 igb_rx_admit(igb_nic *nic, u8 *frame, u32 size, e1000_adv_rx_wb *wb, const vnet_info *info) noexcept nogil:
    """Decide whether a frame is for us, and describe it. Its length, 0 when it was not: its end is in the ledger then.

    ``info``: what a virtual wire says, NULL for another; of coalesced frames it is the single one that must not be
    too long.
    """
    cdef u32 frames = 1
    cdef u32 single = size
    cdef bint partial = False
    if info != NULL:
        frames = info.frames
        partial = info.partial
        if info.gso_size:
            single = <u32>info.headers + info.gso_size
    if not igb_rx_passes(nic, frame, single, frames):
        return 0
    return igb_rx_describe(nic, frame, size, wb, frames, partial)


# ---- the wire

cdef inline void igb_rx_prefetch(igb_rx_unit *q, u32 head, u32 size) noexcept nogil:
    """Fetch the next frame's buffer into the cache, as much as this frame had, while this one is being read."""
    head += 1
    if head == q.count:
        head = 0
    if head != load_acquire32(&q.tail):
        igb_rx_fetch(<const u8 *>q.ring[head].read.pkt_addr, size)


cdef u32 igb_rx_direct(igb_nic *nic, u32 budget, u32 *good, u64 *octets) noexcept nogil:
    """Every frame fits one buffer: read it right there."""
    cdef igb_rx_unit *q = &nic.rx[0]
    cdef e1000_adv_rx_desc *desc
    cdef u8 *buffer
    cdef u32 moved = 0
    cdef u32 head = q.head
    cdef u32 size = 0
    while moved < budget:
        if head == load_acquire32(&q.tail):
            store_relaxed32(&q.starved, 1)
            break
        desc = &q.ring[head]
        buffer = <u8 *>desc.read.pkt_addr
        if size > RX_PREFETCH_MIN:
            igb_rx_prefetch(q, head, size)
        size = <u32>igb_rx_read(nic, buffer, q.size, &q.frame_id[head])
        if size == 0:
            break
        moved += 1
        # igb_rx_admit() for a wire that knows single frames alone, taken over into this loop.
        size = igb_rx_describe(nic, buffer, size, &desc.wb, 1, False) if igb_rx_passes(nic, buffer, size, 1) else 0
        if size == 0:
            desc.read.pkt_addr = <u64>buffer       # still free: its length is 0
            continue
        good[0] += 1
        octets[0] += size
        head += 1
        if head == q.count:
            head = 0
        store_relaxed32(&q.head, head)
        store_release16(&desc.wb.length, <u16>size)
    return moved


cdef bint igb_rx_spread(igb_nic *nic, igb_rx_unit *q) noexcept nogil:
    """Copy the frame in the fifo into as many descriptors as it needs. False when they ran out.

    A frame is read only when a descriptor is free, so one that waits here has begun in the ring: whoever ends what the
    ring holds ends this frame too.
    """
    cdef e1000_adv_rx_desc *desc
    cdef u32 part
    while nic.fifo_done < nic.fifo_len:
        if q.head == load_acquire32(&q.tail):
            store_relaxed32(&q.starved, 1)
            return False
        desc = &q.ring[q.head]
        part = min(nic.fifo_len - nic.fifo_done, q.size)
        memcpy(<u8 *>desc.read.pkt_addr, nic.fifo_at + nic.fifo_done, part)
        q.frame_id[q.head] = nic.fifo_id
        if q.info != NULL:
            q.info[q.head] = nic.fifo_info
        nic.fifo_done += part
        igb_rx_writeback(desc, &nic.fifo_wb,
                         E1000_RXD_STAT_DD if nic.fifo_done < nic.fifo_len else nic.fifo_wb.status_error)
        store_relaxed32(&q.head, q.head + 1 if q.head + 1 < q.count else 0)
        store_release16(&desc.wb.length, <u16>part)
    nic.fifo_len = 0
    return True


cdef u32 igb_rx_long(igb_nic *nic, u32 budget, u32 *good, u64 *octets) noexcept nogil:
    """A frame may need several buffers: take it into the fifo first."""
    cdef igb_rx_unit *q = &nic.rx[0]
    cdef u32 moved = 0
    cdef u32 size
    if nic.fifo_len and not igb_rx_spread(nic, q):
        return 0
    while moved < budget:
        if q.head == load_acquire32(&q.tail):
            store_relaxed32(&q.starved, 1)
            break
        size = <u32>igb_rx_read(nic, nic.fifo, nic.fifo_size, &nic.fifo_id)
        if size == 0:
            break
        moved += 1
        size = igb_rx_admit(nic, nic.fifo, size, &nic.fifo_wb, NULL)
        if size == 0:
            continue
        good[0] += 1
        octets[0] += size
        nic.fifo_at = nic.fifo
        nic.fifo_len = size
        nic.fifo_done = 0
        if not igb_rx_spread(nic, q):
            break
    return moved


cdef u32 igb_rx_step(igb_nic *nic, u32 budget) noexcept nogil:
    """Move up to ``budget`` frames, and latch the queue's cause if a descriptor was finished. Gives how many."""
    cdef u32 head = nic.rx[0].head
    cdef u32 good = 0
    cdef u32 moved
    cdef u64 octets = 0
    if unlikely(nic.rss_dirty):
        igb_rss_rebuild(nic)
    if likely(nic.longest < nic.rx[0].size and nic.fifo_len == 0):
        moved = igb_rx_direct(nic, budget, &good, &octets)
    else:
        moved = igb_rx_long(nic, budget, &good, &octets)
    if moved:
        add_owned64(&nic.stat[IGB_STAT_TPR], moved)
    if good:
        add_owned64(&nic.stat[IGB_STAT_GPRC], good)
        add_owned64(&nic.stat[IGB_STAT_GORC], octets)
    if nic.rx[0].head != head:
        igb_cause(nic, nic.rx[0].eicr)
    return moved
