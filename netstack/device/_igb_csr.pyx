"""igb: the register file, with what reading and writing it does.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       offsets of the datasheet         driver/_igb_main.pyx
Out      plain fields of igb_nic          device/_igb_rx.pyx
Context  set-up, and ethtool's reading of the statistics; as the CPU; no GIL
Kernel   none; Intel 82576EB datasheet 8 (programming interface)

The data path uses the fields behind the registers. An offset that is no register here reads as 0,
and writing to it does nothing, as on the chip.
"""

from libc.string cimport memset

from netstack._abi cimport (
    exchange32, fetch_and32, fetch_or32, load_relaxed64, spin_lock, spin_unlock, store_relaxed32,
    store_release_ptr, u32, u64,
)
from netstack.device._igb_nic cimport (
    IGB_MAX_FRAME, IGB_STAT_GORC, IGB_STAT_GOTC, IGB_STAT_GPTC, IGB_STAT_RQDPC, IGB_TX_STATS, igb_cause,
    igb_cause_other, igb_nic, igb_rx_gate,
    igb_rx_unit, igb_set_link, igb_tx_unit,
)
from netstack.device._igb_regs cimport (
    E1000_CTRL, E1000_CTRL_EXT, E1000_CTRL_EXT_IAME, E1000_CTRL_RST, E1000_CTRL_SLU,
    E1000_CTRL_VME, E1000_BPRC, E1000_BPTC, E1000_EIAC, E1000_EIAM, E1000_EICR, E1000_EICS,
    E1000_EIMC, E1000_EIMS, E1000_EITR, E1000_EITR_CNT_IGNR, E1000_GORCH, E1000_GORCL,
    E1000_GOTCH, E1000_GOTCL, E1000_GPIE, E1000_GPRC, E1000_GPTC, E1000_IAM, E1000_ICR,
    E1000_ICR_INT_ASSERTED, E1000_ICS, E1000_IMC, E1000_IMS, E1000_IVAR0, E1000_IVAR_MISC,
    E1000_IVAR_VALID, E1000_MPC, E1000_MPRC, E1000_MPTC, E1000_MRQC, E1000_MRQC_ENABLE_RSS,
    E1000_MTA, E1000_RAH_AV, E1000_RAL, E1000_RAL16, E1000_RCTL, E1000_RCTL_LBM_MAC, E1000_RCTL_LPE,
    E1000_RDBAH, E1000_RDBAL, E1000_RDH, E1000_RDLEN, E1000_RDT, E1000_RETA, E1000_RLPML,
    E1000_RNBC, E1000_ROC, E1000_RQDPC, E1000_RSSRK, E1000_RUC, E1000_RXCSUM, E1000_RXDCTL,
    E1000_SRRCTL, E1000_SRRCTL_BSIZEPKT_MASK, E1000_SRRCTL_BSIZEPKT_SHIFT, E1000_STATUS,
    E1000_STATUS_FD, E1000_STATUS_SPEED_1000, E1000_TCTL, E1000_TDBAH, E1000_TDBAL, E1000_TDH,
    E1000_TDLEN, E1000_TDT, E1000_TNCRS, E1000_TPR, E1000_TPT, E1000_TXDCTL, E1000_VET,
    E1000_VFTA, E1000_XDCTL_ENABLE, E1000_XDCTL_WTHRESH_SHIFT, IGB_MAX_QUEUES,
    IGB_MAX_VECTORS, IGB_MTA_WORDS, IGB_RAR_ENTRIES, IGB_RETA_WORDS, IGB_RSSRK_WORDS,
    IGB_VFTA_WORDS, e1000_adv_rx_desc, e1000_adv_tx_desc,
)
from netstack.device._igb_rx cimport igb_rx_tail
from netstack.device._igb_tx cimport igb_tx_tail
from netstack.device._wire cimport wire

cdef enum:
    QUEUE_STRIDE = 0x40
    STANDARD_FRAME = 1522          # the longest without RCTL.LPE
    NO_MAC = -1                    # as u64 it is no 48-bit address


# ---- what the data path knows of a register

cdef void igb_apply_control(igb_nic *nic) noexcept nogil:
    """Work the control registers into the fields that the receive unit uses."""
    cdef wire *w = &nic.loop if nic.rctl & E1000_RCTL_LBM_MAC else nic.line
    cdef u32 i
    nic.vme = nic.ctrl & E1000_CTRL_VME
    nic.longest = min(nic.rlpml, IGB_MAX_FRAME) if nic.rctl & E1000_RCTL_LPE else STANDARD_FRAME
    if nic.w != w:                 # the transmit unit reads it at any time
        store_release_ptr(<void **>&nic.w, w)
    nic.rss_fields = nic.mrqc if nic.mrqc & E1000_MRQC_ENABLE_RSS else 0
    nic.mac = <u64>nic.ral[0] | <u64>(nic.rah[0] & 0xFFFF) << 32
    if not nic.rah[0] & <u32>E1000_RAH_AV:
        nic.mac = <u64>NO_MAC
    nic.nr_rar = 0
    for i in range(IGB_RAR_ENTRIES):
        if nic.rah[i] & <u32>E1000_RAH_AV:
            nic.nr_rar = i + 1
    igb_rx_gate(nic)


cdef u32 igb_ivar_bit(u32 entry) noexcept nogil:
    """EICR bit of an 8-bit IVAR entry, 0 when it is not valid. 7.3.2."""
    return <u32>1 << (entry & 0x1F) if entry & E1000_IVAR_VALID else 0


cdef void igb_apply_ivar(igb_nic *nic) noexcept nogil:
    """IVAR[q]: byte 0 is receive queue q, byte 1 transmit queue q; IVAR_MISC byte 1 the others."""
    cdef u32 q
    for q in range(IGB_MAX_QUEUES):
        nic.rx[q].eicr = igb_ivar_bit(nic.ivar[q] & 0xFF)
        spin_lock(&nic.tx[q].lock)     # somebody may be sending from the queue
        nic.tx[q].eicr = igb_ivar_bit(nic.ivar[q] >> 8 & 0xFF)
        nic.tx[q].vector = nic.ivar[q] >> 8 & 0x1F
        spin_unlock(&nic.tx[q].lock)
    nic.eicr_other = igb_ivar_bit(nic.ivar_misc >> 8 & 0xFF)


cdef void igb_reset(igb_nic *nic) noexcept nogil:
    """CTRL.RST: every register to its initial value, the address from the EEPROM. 4.3."""
    cdef u32 q
    nic.fifo_len = nic.loop_len = nic.rx_last = 0        # the large buffers stay: the driver takes them back
    for q in range(IGB_MAX_QUEUES):
        memset(&nic.rx[q], 0, sizeof(igb_rx_unit))
        nic.tx[q].enabled = nic.tx[q].head = nic.tx[q].tail = nic.tx[q].count = 0
        nic.tx[q].wthresh = nic.tx[q].done = nic.tx[q].stuck = nic.tx[q].txdctl = 0
        nic.tx[q].ring = NULL
    nic.eicr = nic.eims = nic.eiac = nic.eiam = nic.gpie = nic.icr = nic.ims = nic.iam = 0
    memset(nic.eitr, 0, sizeof(nic.eitr))
    memset(nic.next_fire, 0, sizeof(nic.next_fire))
    nic.tx_retry = 0
    nic.ctrl = nic.ctrl_ext = nic.rctl = nic.tctl = nic.mrqc = nic.rxcsum = nic.ivar_misc = 0
    nic.status = E1000_STATUS_FD | E1000_STATUS_SPEED_1000
    nic.vet = 0x8100
    nic.rlpml = STANDARD_FRAME
    memset(nic.ivar, 0, sizeof(nic.ivar))
    memset(nic.ral, 0, sizeof(nic.ral))
    memset(nic.rah, 0, sizeof(nic.rah))
    memset(nic.mta, 0, sizeof(nic.mta))
    memset(nic.vfta, 0, sizeof(nic.vfta))
    memset(nic.reta, 0, sizeof(nic.reta))
    memset(nic.rssrk, 0, sizeof(nic.rssrk))
    nic.rss_dirty = 1
    nic.ral[0] = (<u32>nic.perm_addr[0] | <u32>nic.perm_addr[1] << 8
                  | <u32>nic.perm_addr[2] << 16 | <u32>nic.perm_addr[3] << 24)
    nic.rah[0] = <u32>nic.perm_addr[4] | <u32>nic.perm_addr[5] << 8 | <u32>E1000_RAH_AV
    igb_apply_control(nic)
    igb_apply_ivar(nic)


# ---- tables: address filters, RSS

cdef u32 *igb_table(igb_nic *nic, u32 offset) noexcept nogil:
    """Find the word of a table register; NULL when the offset is none."""
    cdef u32 i
    if E1000_RAL <= offset < E1000_RAL + 16 * 8 or E1000_RAL16 <= offset < E1000_RAL16 + 8 * 8:
        i = (offset - E1000_RAL) >> 3 if offset < E1000_RAL16 else 16 + ((offset - E1000_RAL16) >> 3)
        return &nic.rah[i] if offset & 4 else &nic.ral[i]
    if E1000_MTA <= offset < E1000_MTA + 4 * IGB_MTA_WORDS:
        return &nic.mta[(offset - E1000_MTA) >> 2]
    if E1000_VFTA <= offset < E1000_VFTA + 4 * IGB_VFTA_WORDS:
        return &nic.vfta[(offset - E1000_VFTA) >> 2]
    if E1000_RETA <= offset < E1000_RETA + 4 * IGB_RETA_WORDS:
        return &nic.reta[(offset - E1000_RETA) >> 2]
    if E1000_RSSRK <= offset < E1000_RSSRK + 4 * IGB_RSSRK_WORDS:
        return &nic.rssrk[(offset - E1000_RSSRK) >> 2]
    if E1000_IVAR0 <= offset < E1000_IVAR0 + 4 * 8:
        return &nic.ivar[(offset - E1000_IVAR0) >> 2]
    return NULL


# ---- statistics

cdef u32 *STAT_REGISTER = [         # of each IGB_STAT_*; octets by their low half
    E1000_MPC, E1000_GPRC, E1000_BPRC, E1000_MPRC, E1000_GORCL, E1000_TPR, E1000_RNBC, E1000_RUC, E1000_ROC,
    E1000_GPTC, E1000_BPTC, E1000_MPTC, E1000_GOTCL, E1000_TPT, E1000_TNCRS,
]


cdef u32 igb_stat_of(u32 offset) noexcept nogil:
    """Which total is behind a statistics register; IGB_STAT_RQDPC for one that never counts here."""
    cdef u32 which = 0
    while which < IGB_STAT_RQDPC and STAT_REGISTER[which] != offset:
        which += 1
    return which


cdef u64 igb_take_stat(igb_nic *nic, u32 which) noexcept nogil:
    """What was counted since the last reading."""
    cdef u64 total = load_relaxed64(&nic.stat[which])
    cdef u64 since
    cdef u32 q
    if IGB_STAT_GPTC <= which < IGB_STAT_GPTC + IGB_TX_STATS:
        for q in range(IGB_MAX_QUEUES):
            total += load_relaxed64(&nic.tx[q].stat[which - IGB_STAT_GPTC])
    since = total - nic.stat_base[which]
    nic.stat_base[which] = total
    return since


cdef u32 igb_read_stat(igb_nic *nic, u32 offset) noexcept nogil:
    """Read and clear a statistic; it sticks at its maximum. Octets: the low half, then the high."""
    cdef u32 which = igb_stat_of(offset)
    cdef u64 since
    if offset == E1000_GORCH or offset == E1000_GOTCH:
        return <u32>(nic.octets_latch >> 32)
    if which == IGB_STAT_RQDPC:
        return 0
    since = igb_take_stat(nic, which)
    if which == IGB_STAT_GORC or which == IGB_STAT_GOTC:
        nic.octets_latch = since
        return <u32>since
    return <u32>min(since, <u64>0xFFFFFFFFu)


# ---- interrupts

cdef u32 igb_read_icr(igb_nic *nic) noexcept nogil:
    """ICR: reading clears it, and masks what IAM says if CTRL_EXT.IAME is set."""
    cdef u32 value = nic.icr
    if value & nic.ims:
        value |= <u32>E1000_ICR_INT_ASSERTED
        if nic.ctrl_ext & E1000_CTRL_EXT_IAME:
            nic.ims &= ~nic.iam
    nic.icr = 0
    return value


cdef bint igb_write_interrupt(igb_nic *nic, u32 offset, u32 value) noexcept nogil:
    """Write an interrupt register that does more than keep the value. False: it is another."""
    cdef u32 vector
    if offset == E1000_ICR:
        nic.icr &= ~value
    elif offset == E1000_ICS:
        igb_cause_other(nic, value)
    elif offset == E1000_IMS:
        nic.ims |= value
        igb_cause_other(nic, 0)
    elif offset == E1000_IMC:
        nic.ims &= ~value
    elif offset == E1000_EICR:
        fetch_and32(&nic.eicr, ~value)
    elif offset == E1000_EICS:
        igb_cause(nic, value)
    elif offset == E1000_EIMS:
        fetch_or32(&nic.eims, value)
    elif offset == E1000_EIMC:
        fetch_and32(&nic.eims, ~value)
    elif E1000_EITR <= offset < E1000_EITR + 4 * IGB_MAX_VECTORS:
        vector = (offset - E1000_EITR) >> 2
        store_relaxed32(&nic.eitr[vector], value & ~<u32>E1000_EITR_CNT_IGNR)
        if not value & <u32>E1000_EITR_CNT_IGNR:
            nic.next_fire[vector] = 0
    else:
        return False
    return True


# ---- queues

cdef u32 igb_read_rx_queue(igb_nic *nic, u32 q, u32 reg) noexcept nogil:
    cdef igb_rx_unit *rx = &nic.rx[q]
    if reg == E1000_RDBAL:
        return <u32>rx.base
    if reg == E1000_RDBAH:
        return <u32>(rx.base >> 32)
    if reg == E1000_RDLEN:
        return rx.count * sizeof(e1000_adv_rx_desc)
    if reg == E1000_SRRCTL:
        return rx.srrctl
    if reg == E1000_RDH:
        return rx.head
    if reg == E1000_RDT:
        return rx.tail
    if reg == E1000_RXDCTL:
        return rx.rxdctl
    if reg == E1000_RQDPC:
        return <u32>igb_take_stat(nic, IGB_STAT_RQDPC + q)
    return 0


cdef u32 igb_read_tx_queue(igb_tx_unit *tx, u32 reg) noexcept nogil:
    if reg == E1000_TDBAL:
        return <u32>tx.base
    if reg == E1000_TDBAH:
        return <u32>(tx.base >> 32)
    if reg == E1000_TDLEN:
        return tx.count * sizeof(e1000_adv_tx_desc)
    if reg == E1000_TDH:
        return tx.head
    if reg == E1000_TDT:
        return tx.tail
    if reg == E1000_TXDCTL:
        return tx.txdctl
    return 0


cdef void igb_write_rx_queue(igb_nic *nic, igb_rx_unit *q, u32 reg, u32 value) noexcept nogil:
    if reg == E1000_RDBAL:
        q.base = q.base >> 32 << 32 | value
    elif reg == E1000_RDBAH:
        q.base = <u64>value << 32 | <u32>q.base
    elif reg == E1000_RDLEN:
        q.count = value // sizeof(e1000_adv_rx_desc)
    elif reg == E1000_SRRCTL:
        q.srrctl = value
        q.size = (value & E1000_SRRCTL_BSIZEPKT_MASK) << E1000_SRRCTL_BSIZEPKT_SHIFT
    elif reg == E1000_RDH:
        q.head = value
    elif reg == E1000_RDT:
        igb_rx_tail(q, value)
    elif reg == E1000_RXDCTL:
        q.rxdctl = value
        q.ring = <e1000_adv_rx_desc *>q.base
        q.enabled = value & E1000_XDCTL_ENABLE and q.ring != NULL and q.frame_id != NULL
        nic.rx_last = 0                    # its buffers may be gone
        igb_rx_gate(nic)


cdef void igb_write_tx_queue(igb_nic *nic, igb_tx_unit *q, u32 reg, u32 value) noexcept nogil:
    if reg == E1000_TDBAL:
        q.base = q.base >> 32 << 32 | value
    elif reg == E1000_TDBAH:
        q.base = <u64>value << 32 | <u32>q.base
    elif reg == E1000_TDLEN:
        q.count = value // sizeof(e1000_adv_tx_desc)
    elif reg == E1000_TDH:
        q.head = value
    elif reg == E1000_TDT:
        igb_tx_tail(nic, q, value)
    elif reg == E1000_TXDCTL:
        spin_lock(&q.lock)         # somebody may be sending from the queue
        q.txdctl = value
        q.wthresh = value >> E1000_XDCTL_WTHRESH_SHIFT & 0x1F
        q.ring = <e1000_adv_tx_desc *>q.base
        q.enabled = value & E1000_XDCTL_ENABLE and q.ring != NULL
        if not q.enabled:
            store_relaxed32(&q.stuck, 0)
        spin_unlock(&q.lock)


# ---- by offset

cdef u32 *igb_field(igb_nic *nic, u32 offset) noexcept nogil:
    """Find the field of a register that reads as it was written; NULL when the offset is none."""
    if offset == E1000_CTRL:
        return &nic.ctrl
    if offset == E1000_STATUS:
        return &nic.status
    if offset == E1000_CTRL_EXT:
        return &nic.ctrl_ext
    if offset == E1000_VET:
        return &nic.vet
    if offset == E1000_RCTL:
        return &nic.rctl
    if offset == E1000_TCTL:
        return &nic.tctl
    if offset == E1000_RXCSUM:
        return &nic.rxcsum
    if offset == E1000_RLPML:
        return &nic.rlpml
    if offset == E1000_MRQC:
        return &nic.mrqc
    if offset == E1000_IMS:
        return &nic.ims
    if offset == E1000_IAM:
        return &nic.iam
    if offset == E1000_EIMS:
        return &nic.eims
    if offset == E1000_EIAC:
        return &nic.eiac
    if offset == E1000_EIAM:
        return &nic.eiam
    if offset == E1000_GPIE:
        return &nic.gpie
    if offset == E1000_IVAR_MISC:
        return &nic.ivar_misc
    if E1000_EITR <= offset < E1000_EITR + 4 * IGB_MAX_VECTORS:
        return &nic.eitr[(offset - E1000_EITR) >> 2]
    return igb_table(nic, offset)


cdef u32 rd32(igb_nic *nic, u32 offset) noexcept nogil:
    """Read a register, with what reading does to it."""
    cdef u32 q = (offset & 0xFFF) // QUEUE_STRIDE
    cdef u32 *field
    if offset == E1000_ICR:
        return igb_read_icr(nic)
    if offset == E1000_EICR:
        return exchange32(&nic.eicr, 0)
    if 0x4000 <= offset < 0x4200:
        return igb_read_stat(nic, offset)
    if offset >= E1000_RDBAL:
        if q >= IGB_MAX_QUEUES:
            return 0
        if offset < E1000_TDBAL:
            return igb_read_rx_queue(nic, q, offset - q * QUEUE_STRIDE)
        return igb_read_tx_queue(&nic.tx[q], offset - q * QUEUE_STRIDE)
    field = igb_field(nic, offset)
    return field[0] if field != NULL else 0


cdef void igb_write_field(igb_nic *nic, u32 offset, u32 value) noexcept nogil:
    """Write a register, and work out anew what depends on it."""
    cdef u32 *field = igb_field(nic, offset)
    if field == NULL or offset == E1000_STATUS:
        return
    if offset == E1000_CTRL and value & E1000_CTRL_RST:
        igb_reset(nic)
        return
    field[0] = value
    if offset == E1000_CTRL and value & E1000_CTRL_SLU:
        igb_set_link(nic, True)
    if E1000_IVAR0 <= offset <= E1000_IVAR_MISC:
        igb_apply_ivar(nic)
    if E1000_RSSRK <= offset < E1000_RSSRK + 4 * IGB_RSSRK_WORDS:
        nic.rss_dirty = 1
    igb_apply_control(nic)


cdef void wr32(igb_nic *nic, u32 offset, u32 value) noexcept nogil:
    """Write a register, with what writing does."""
    cdef u32 q = (offset & 0xFFF) // QUEUE_STRIDE
    if igb_write_interrupt(nic, offset, value):
        return
    if offset < E1000_RDBAL:
        igb_write_field(nic, offset, value)
    elif q < IGB_MAX_QUEUES and offset < E1000_TDBAL:
        igb_write_rx_queue(nic, &nic.rx[q], offset - q * QUEUE_STRIDE, value)
    elif q < IGB_MAX_QUEUES:
        igb_write_tx_queue(nic, &nic.tx[q], offset - q * QUEUE_STRIDE, value)
