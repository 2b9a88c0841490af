"""igb: write the NIC's registers: rings, filters, RSS, vectors.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       what the adapter is to be        driver/_igb_main.pyx
Out      registers                        device/_igb_csr.pyx
Context  set-up, as the CPU; igb_ring_irq_enable() at the end of a poll; no GIL
Kernel   igb_configure(), igb_set_rx_mode(), drivers/net/ethernet/intel/igb/igb_main.c
"""

from libc.string cimport memcpy, memset

from netstack._abi cimport (
    fetch_and32, fetch_or32, load_acquire16, load_acquire32, load_relaxed32, u8, u32, u64, unlikely,
)
from netstack._net cimport NETIF_F_HW_VLAN_CTAG_RX
from netstack.device._igb_csr cimport igb_reset, rd32, wr32
from netstack.device._igb_nic cimport IGB_MAX_FRAME, igb_nic
from netstack.device._igb_regs cimport (
    E1000_CTRL, E1000_CTRL_SLU, E1000_CTRL_VME, E1000_EIAC, E1000_EIAM, E1000_EICR, E1000_EIMC, E1000_EIMS,
    E1000_GPIE, E1000_GPIE_EIAME, E1000_GPIE_MSIX_MODE, E1000_GPIE_NSICR, E1000_GPIE_PBA, E1000_IAM, E1000_ICR,
    E1000_ICR_LSC, E1000_IMC, E1000_IMS, E1000_IVAR0, E1000_IVAR_MISC, E1000_IVAR_VALID, E1000_MRQC,
    E1000_MRQC_ENABLE_RSS, E1000_MRQC_RSS_FIELD_IPV4, E1000_MRQC_RSS_FIELD_IPV4_TCP, E1000_MRQC_RSS_FIELD_IPV4_UDP,
    E1000_MTA, E1000_RAH_AV, E1000_RAL, E1000_RCTL, E1000_RCTL_BAM, E1000_RCTL_EN, E1000_RCTL_LPE, E1000_RCTL_MPE,
    E1000_RCTL_UPE, E1000_RDBAH, E1000_RDBAL, E1000_RDH, E1000_RDLEN, E1000_RETA, E1000_RLPML, E1000_RSSRK,
    E1000_RXCSUM, E1000_RXCSUM_IPOFL, E1000_RXCSUM_PCSD, E1000_RXCSUM_TUOFL, E1000_RXDCTL, E1000_SRRCTL,
    E1000_RDT, E1000_SRRCTL_BSIZEPKT_SHIFT, E1000_SRRCTL_DESCTYPE_ADV_ONEBUF, E1000_SRRCTL_DROP_EN, E1000_TCTL,
    E1000_TCTL_EN, E1000_TCTL_PSP,
    E1000_TDBAH, E1000_TDBAL, E1000_TDH, E1000_TDLEN, E1000_TDT, E1000_TXDCTL, E1000_XDCTL_ENABLE,
    E1000_XDCTL_WTHRESH_SHIFT, IGB_MTA_WORDS, IGB_RETA_WORDS, IGB_RSSRK_WORDS,
)
from netstack.driver._igb cimport (
    IGB_MAX_FRAME_BUILD_SKB, IGB_RXBUFFER, IGB_TX_WTHRESH, IGB_VECTOR_OTHER, igb_adapter, igb_q_vector,
)
from netstack.driver._igb_itr cimport igb_set_itr, igb_write_itr
from netstack.irq._cpu cimport cpu_wake

cdef enum:
    QUEUE_STRIDE = 0x40


cdef void igb_configure_msix(igb_adapter *adapter) noexcept nogil:
    """Give queue pair and other causes their vectors; causes clear and mask themselves. [igb_configure_msix()]"""
    cdef igb_nic *nic = adapter.nic
    cdef igb_q_vector *q
    cdef u32 i, ring
    adapter.eims_other = 1 << IGB_VECTOR_OTHER
    adapter.eims_enable_mask = adapter.eims_other
    wr32(nic, E1000_GPIE, E1000_GPIE_MSIX_MODE | <u32>E1000_GPIE_PBA | E1000_GPIE_EIAME | E1000_GPIE_NSICR)
    wr32(nic, E1000_IVAR_MISC, (IGB_VECTOR_OTHER | E1000_IVAR_VALID) << 8)
    for i in range(adapter.num_queues):
        q = &adapter.q_vector[i]
        ring = q.vector | E1000_IVAR_VALID
        q.eims_value = <u32>1 << q.vector
        adapter.eims_enable_mask |= q.eims_value
        wr32(nic, E1000_IVAR0 + 4 * i, ring | ring << 8)
        q.set_itr = 1
        igb_write_itr(q)


cdef void igb_configure_tx(igb_q_vector *q) noexcept nogil:
    """Show the hardware a transmit ring. [igb_configure_tx_ring()]"""
    cdef igb_nic *nic = q.adapter.nic
    cdef u64 base = <u64>q.tx.desc
    cdef u32 at = q.rx.queue_index * QUEUE_STRIDE
    wr32(nic, E1000_TDLEN + at, q.tx.count * 16)
    wr32(nic, E1000_TDBAL + at, <u32>base)
    wr32(nic, E1000_TDBAH + at, <u32>(base >> 32))
    wr32(nic, E1000_TDH + at, 0)
    wr32(nic, E1000_TDT + at, 0)
    wr32(nic, E1000_TXDCTL + at, E1000_XDCTL_ENABLE | IGB_TX_WTHRESH << E1000_XDCTL_WTHRESH_SHIFT)
    wr32(nic, E1000_TCTL, E1000_TCTL_EN | E1000_TCTL_PSP)


cdef void igb_setup_srrctl(igb_q_vector *q) noexcept nogil:
    """Say how long a buffer is, and to drop what finds none, once there are several queues. [igb_setup_srrctl()]

    Then the hardware gets the whole ring: what waited on the wire for a descriptor would now be lost.
    """
    if q.adapter.num_queues > 1:
        q.rx.window = q.rx.count - 1
    wr32(q.adapter.nic, E1000_SRRCTL + q.rx.queue_index * QUEUE_STRIDE,
         IGB_RXBUFFER >> E1000_SRRCTL_BSIZEPKT_SHIFT | E1000_SRRCTL_DESCTYPE_ADV_ONEBUF
         | (<u32>E1000_SRRCTL_DROP_EN if q.adapter.num_queues > 1 else 0))


cdef void igb_configure_rx(igb_q_vector *q) noexcept nogil:
    """Show the hardware a receive ring, and what to find out about frames. [igb_configure_rx_ring()]"""
    cdef igb_nic *nic = q.adapter.nic
    cdef u64 base = <u64>q.rx.desc
    cdef u32 at = q.rx.queue_index * QUEUE_STRIDE
    q.rx.hw.frame_id = q.rx.frame_id
    q.rx.hw.info = q.rx.info
    wr32(nic, E1000_RDBAL + at, <u32>base)
    wr32(nic, E1000_RDBAH + at, <u32>(base >> 32))
    wr32(nic, E1000_RDLEN + at, q.rx.count * 16)
    wr32(nic, E1000_RDH + at, 0)
    wr32(nic, E1000_RDT + at, 0)
    igb_setup_srrctl(q)
    wr32(nic, E1000_RXDCTL + at, E1000_XDCTL_ENABLE)
    wr32(nic, E1000_RXCSUM, E1000_RXCSUM_IPOFL | E1000_RXCSUM_TUOFL | E1000_RXCSUM_PCSD)


cdef void igb_setup_mrqc(igb_adapter *adapter) noexcept nogil:
    """Write key, table and fields of RSS: the ports of UDP only on request. [igb_setup_mrqc()]"""
    cdef igb_nic *nic = adapter.nic
    cdef const u8 *key = adapter.rss_key
    cdef const u8 *table
    cdef u32 fields = (E1000_MRQC_ENABLE_RSS | E1000_MRQC_RSS_FIELD_IPV4 | E1000_MRQC_RSS_FIELD_IPV4_TCP)
    cdef u32 i
    for i in range(<u32>IGB_RSSRK_WORDS):
        wr32(nic, E1000_RSSRK + 4 * i, <u32>key[4 * i] | <u32>key[4 * i + 1] << 8
             | <u32>key[4 * i + 2] << 16 | <u32>key[4 * i + 3] << 24)
    for i in range(<u32>IGB_RETA_WORDS):
        table = &adapter.rss_indir[4 * i]
        wr32(nic, E1000_RETA + 4 * i, <u32>table[0] | <u32>table[1] << 8 | <u32>table[2] << 16 | <u32>table[3] << 24)
    if adapter.rss_udp:
        fields |= E1000_MRQC_RSS_FIELD_IPV4_UDP
    wr32(nic, E1000_MRQC, fields)


cdef void igb_hash_mc_addr(u32 *mta, const u8 *addr) noexcept nogil:
    """Set the bit of a group's address in a table like MTA. [igb_hash_mc_addr()]"""
    cdef u32 hash = (<u32>addr[4] >> 4 | <u32>addr[5] << 4) & 0xFFF
    mta[hash >> 5] |= <u32>1 << (hash & 31)


cdef void igb_write_mc_addr_list(igb_adapter *adapter, const u8 *addresses, size_t count) noexcept nogil:
    """Remember ``count`` groups' addresses, 6 bytes each, for igb_set_rx_mode(). [igb_write_mc_addr_list()]"""
    cdef size_t i
    memset(adapter.mta_shadow, 0, sizeof(adapter.mta_shadow))
    for i in range(count):
        igb_hash_mc_addr(adapter.mta_shadow, addresses + 6 * i)


cdef void igb_set_rx_mode(igb_adapter *adapter) noexcept nogil:
    """Write filters and the longest frame to receive. [igb_set_rx_mode()]

    A tagged frame passes whatever its VLAN: this host has no VLAN devices to filter for.
    """
    cdef igb_nic *nic = adapter.nic
    cdef u32 rctl = E1000_RCTL_EN | E1000_RCTL_BAM | E1000_RCTL_LPE
    cdef u32 i
    cdef u32 words[IGB_MTA_WORDS]
    if adapter.promisc or load_acquire32(&adapter.dev.promiscuity):
        rctl |= E1000_RCTL_UPE | E1000_RCTL_MPE
    elif adapter.allmulti or load_acquire32(&adapter.dev.all_multicast):
        rctl |= E1000_RCTL_MPE
    memcpy(words, adapter.mta_shadow, sizeof(words))
    for i in range(adapter.nr_mc):
        igb_hash_mc_addr(words, adapter.mc[i])
    for i in range(<u32>IGB_MTA_WORDS):
        wr32(nic, E1000_MTA + 4 * i, words[i])
    wr32(nic, E1000_RLPML, IGB_MAX_FRAME_BUILD_SKB
         if adapter.max_frame_size <= IGB_MAX_FRAME_BUILD_SKB else IGB_MAX_FRAME)
    wr32(nic, E1000_RCTL, rctl)


cdef void igb_set_vlan_mode(igb_adapter *adapter) noexcept nogil:
    """Let the NIC take tags out of frames, or leave them in (rx-vlan-offload). [igb_vlan_mode()]"""
    wr32(adapter.nic, E1000_CTRL, E1000_CTRL_SLU
         | (E1000_CTRL_VME if adapter.dev.features & NETIF_F_HW_VLAN_CTAG_RX else 0))


cdef void igb_rar_set(igb_adapter *adapter) noexcept nogil:
    """Write our own address into the first place of the filter. [igb_rar_set()]"""
    cdef const u8 *mac = adapter.dev.dev_addr
    wr32(adapter.nic, E1000_RAL, <u32>mac[0] | <u32>mac[1] << 8 | <u32>mac[2] << 16 | <u32>mac[3] << 24)
    wr32(adapter.nic, E1000_RAL + 4, <u32>mac[4] | <u32>mac[5] << 8 | <u32>E1000_RAH_AV)


cdef void igb_configure(igb_adapter *adapter) noexcept nogil:
    """Reset the NIC and make it ready; it receives once it is on a bus. [igb_reset(), igb_configure()]"""
    cdef u32 i
    igb_reset(adapter.nic)
    igb_rar_set(adapter)
    igb_configure_msix(adapter)
    igb_setup_mrqc(adapter)
    for i in range(adapter.num_queues):
        igb_configure_tx(&adapter.q_vector[i])
        igb_configure_rx(&adapter.q_vector[i])
    igb_set_rx_mode(adapter)
    igb_set_vlan_mode(adapter)


cdef void igb_irq_enable(igb_adapter *adapter) noexcept nogil:
    """Let every vector fire. [igb_irq_enable()]"""
    cdef igb_nic *nic = adapter.nic
    rd32(nic, E1000_ICR)
    rd32(nic, E1000_EICR)
    wr32(nic, E1000_EIAC, adapter.eims_enable_mask)
    wr32(nic, E1000_EIAM, adapter.eims_enable_mask)
    wr32(nic, E1000_EIMS, adapter.eims_enable_mask)
    wr32(nic, E1000_IMS, E1000_ICR_LSC)


cdef void igb_irq_disable(igb_adapter *adapter) noexcept nogil:
    """Mask every vector. [igb_irq_disable()]"""
    cdef igb_nic *nic = adapter.nic
    wr32(nic, E1000_EIAM, 0)
    wr32(nic, E1000_EIMC, adapter.eims_enable_mask)
    wr32(nic, E1000_EIAC, 0)
    wr32(nic, E1000_IAM, 0)
    wr32(nic, E1000_IMC, 0xFFFFFFFFu)


cdef void igb_ring_irq_enable(igb_q_vector *q) noexcept nogil:
    """Let the vector fire again, after a poll that found the ring empty. [igb_ring_irq_enable()]

    The cause that frames latched while they were polled goes first: the NIC has not run since the
    poll looked, so nothing is lost, and an interrupt with nothing behind it is saved. Where another
    CPU runs the NIC it may have: the ring is looked at once more, and the cause set again. That CPU
    must hear of it, as it may sleep.
    """
    cdef igb_nic *nic = q.adapter.nic
    if q.adapter.rx_itr_setting & 3:
        igb_set_itr(q)
    fetch_and32(&nic.eicr, ~q.eims_value)
    fetch_or32(&nic.eims, q.eims_value)
    if unlikely(q.rx.remote != NULL):
        if load_acquire16(&q.rx.desc[q.rx.next_to_clean].wb.length):
            fetch_or32(&nic.eicr, q.eims_value)
        if load_relaxed32(&nic.eicr) & q.eims_value:
            cpu_wake(q.rx.remote)
