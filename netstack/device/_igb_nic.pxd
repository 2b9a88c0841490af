"""The NIC's state: registers unpacked into plain fields, so that no frame costs a lookup by offset.

Who touches what: the receive half and the throttles belong to whoever is the CPU on whose bus the NIC sits (set-up
code takes that role first). A receive queue's driver may run on another: it reads ``length`` of a descriptor and then
the rest, and writes ``tail``; the hardware does it the other way round, so each sees whole what the other has left.
Causes (``eicr``) and masks (``eims``) are atomic. A transmit queue belongs to the holder of its ``lock``, in any
thread. Statistics have one writer each and only grow: "cleared by reading" is the reader's own ``stat_base``.
"""

from libc.string cimport memcpy

from netstack._abi cimport fetch_or32, u8, u16, u32, u64
from netstack._net cimport net
from netstack.device._device cimport hw_device
from netstack.device._igb_regs cimport (
    E1000_ICR_LSC, E1000_RCTL_EN, E1000_STATUS_LU,
    IGB_MAX_QUEUES, IGB_MAX_VECTORS, IGB_MTA_WORDS, IGB_RAR_ENTRIES, IGB_RETA_WORDS,
    IGB_RSSRK_WORDS, IGB_VFTA_WORDS, e1000_adv_rx_desc, e1000_adv_rx_wb,
    e1000_adv_tx_context_desc, e1000_adv_tx_desc,
)
from netstack.device._vnet cimport vnet_info
from netstack.device._wire cimport wire


cdef enum:
    IGB_MAX_FRAME = 0x2600         # 9728: the longest that RLPML may allow
    IGB_RSC_BUFFERS = 8            # large buffers the driver may post
    IGB_TX_RETRY_NS = 100_000      # pause before a frame that the wire had no room for is tried again

cdef enum:                         # monotonic totals behind the statistics registers
    IGB_STAT_MPC
    IGB_STAT_GPRC
    IGB_STAT_BPRC
    IGB_STAT_MPRC
    IGB_STAT_GORC
    IGB_STAT_TPR
    IGB_STAT_RNBC
    IGB_STAT_RUC
    IGB_STAT_ROC
    IGB_STAT_GPTC
    IGB_STAT_BPTC
    IGB_STAT_MPTC
    IGB_STAT_GOTC
    IGB_STAT_TPT
    IGB_STAT_TNCRS
    IGB_STAT_RQDPC                 # [IGB_MAX_QUEUES]
    IGB_STAT_NR = IGB_STAT_RQDPC + 8
    IGB_TX_STATS = IGB_STAT_RQDPC - IGB_STAT_GPTC

cdef struct igb_rx_unit:           # a receive queue
    e1000_adv_rx_desc *ring        # RDBAH:RDBAL
    # Beside the ring: the ledger's number of each frame, which has no place in a descriptor. The
    # driver reads it as it reads the descriptor.
    u64 *frame_id
    # The same for what receive-side coalescing and a virtual wire say of a frame; NULL on other wires.
    vnet_info *info
    u32 count                      # RDLEN / 16
    u32 head                       # RDH: next to fill
    u32 tail                       # RDT: the first that is not the hardware's
    u32 size                       # bytes of a buffer (SRRCTL.BSIZEPKT)
    u32 eicr                       # bit of its vector (IVAR)
    u32 starved                    # out of descriptors with the wire ready
    u32 enabled
    u32 srrctl
    u32 rxdctl
    u64 base

cdef struct igb_tx_unit:           # a transmit queue
    u32 lock
    e1000_adv_tx_desc *ring
    u32 count
    u32 head                       # TDH: next to fetch
    u32 tail                       # TDT
    u32 eicr                       # bit of its vector (IVAR)
    u32 vector
    u32 enabled
    u32 wthresh                    # descriptors between two causes
    u32 done                       # reported since the last cause
    u32 stuck                      # the wire had no room for the frame at head; under `lock`
    u32 txdctl
    u64 base
    e1000_adv_tx_context_desc context
    u8 *fifo                       # [fifo_size] for what must be put together, with room for a virtio header in front
    u64 stat[IGB_TX_STATS]         # this queue's share of IGB_STAT_GPTC and what follows

cdef struct igb_nic:
    hw_device hw
    net *n                         # whose ledger counts what comes off the wire
    u32 slot                       # of the CPU on whose bus the NIC sits
    wire *w                        # what is read and written: `line`, or `loop` (RCTL.LBM)
    wire *line                     # what it is plugged into
    wire loop
    # Receive.
    u32 rx_pending                 # the wire may have frames; only an empty read clears it
    u32 rx_on                      # RCTL.EN and a queue enabled and link up
    u32 mq                         # more than one receive queue enabled, and RSS on
    u32 rx_last                    # the queue of the last frame
    u64 mac                        # RAL[0]/RAH[0] as the first 8 bytes of a frame show them
    u32 nr_rar                     # address filters to look at: the rest have no RAH.AV
    u32 longest                    # longest frame to accept
    u32 rxcsum
    u32 vme
    u64 rss_last_addresses         # the flow of the last frame, and its hash
    u32 rss_last_hash
    u32 rss_dirty                  # key or fields changed: the tables are old
    u32 rss_fields                 # MRQC, 0 when RSS is off
    igb_rx_unit rx[IGB_MAX_QUEUES]
    igb_tx_unit tx[IGB_MAX_QUEUES]
    u64 stat[IGB_STAT_NR]
    # Interrupts.
    u32 eicr
    u32 eims
    u32 eiac
    u32 eiam
    u32 gpie
    u32 icr
    u32 ims
    u32 iam
    u32 eicr_other                 # bit of the other causes' vector
    u32 eitr[IGB_MAX_VECTORS]
    u64 next_fire[IGB_MAX_VECTORS]   # ns: when the throttle lets the vector fire again
    u64 now                        # of the last step
    u64 tx_retry                   # ns, 0 for nothing to retry
    # The rest of the register file, as it was written.
    u32 ctrl
    u32 status
    u32 ctrl_ext
    u32 vet
    u32 rctl
    u32 tctl
    u32 rlpml
    u32 mrqc
    u32 ivar[8]
    u32 ivar_misc
    u32 ral[IGB_RAR_ENTRIES]
    u32 rah[IGB_RAR_ENTRIES]
    u32 mta[IGB_MTA_WORDS]
    u32 vfta[IGB_VFTA_WORDS]
    u32 reta[IGB_RETA_WORDS]
    u32 rssrk[IGB_RSSRK_WORDS]
    u8 perm_addr[6]                # what the EEPROM holds; loaded into RAL[0] by a reset
    u64 stat_base[IGB_STAT_NR]     # what the reader has seen
    u64 octets_latch               # high half of GORC or GOTC, since its low half was read
    # On-chip memory.
    u32 toeplitz[12][256]          # RSS hash of every value of every input byte
    u32 fifo_size
    u32 fifo_len                   # a frame longer than one buffer, waiting for descriptors
    u32 fifo_done
    u64 fifo_id
    e1000_adv_rx_wb fifo_wb
    vnet_info fifo_info
    u8 *fifo_at                    # where it lies: in fifo, or in a large buffer
    u8 *fifo                       # [fifo_size], with room for a virtio header in front
    # Large buffers for receive-side coalescing, posted by the driver; the last is used first. Each has room for a
    # virtio header in front.
    u8 *large[IGB_RSC_BUFFERS]
    u32 nr_large
    u32 large_dry                  # the driver has no more: do without
    u32 loop_len                   # the frame on its way from transmit to receive unit (RCTL.LBM)
    u8 loop_fifo[IGB_MAX_FRAME + 64]


cdef igb_nic *igb_nic_create(net *n, u32 slot, wire *w, const u8 *mac) noexcept
cdef void igb_nic_destroy(igb_nic *nic) noexcept
cdef void igb_set_missed(igb_nic *nic, u64 total) noexcept nogil


cdef inline u64 ether_addr_to_u64(const u8 *addr) noexcept nogil:
    """An Ethernet address as a number to compare; two loads, as eight bytes may not be there."""
    cdef u32 low
    cdef u16 high
    memcpy(&low, addr, 4)
    memcpy(&high, addr + 4, 2)
    return <u64>high << 32 | low


cdef inline void igb_rx_gate(igb_nic *nic) noexcept nogil:
    """Work out whether frames may come in: receiver, queue and link on; and whether they are spread."""
    cdef u32 q
    nic.mq = 0
    if nic.rss_fields:
        for q in range(1, IGB_MAX_QUEUES):
            nic.mq |= nic.rx[q].enabled
    nic.rx_on = (nic.rctl & E1000_RCTL_EN != 0 and nic.rx[0].enabled
                 and nic.status & E1000_STATUS_LU != 0)


cdef inline void igb_cause(igb_nic *nic, u32 bits) noexcept nogil:
    """Latch causes in EICR, from any context."""
    fetch_or32(&nic.eicr, bits)


cdef inline void igb_cause_other(igb_nic *nic, u32 bits) noexcept nogil:
    """Latch causes in ICR, and the vector of them if one is unmasked. As the CPU."""
    nic.icr |= bits
    if nic.icr & nic.ims:
        igb_cause(nic, nic.eicr_other)


cdef inline void igb_set_link(igb_nic *nic, bint up) noexcept nogil:
    """Raise or lower the link. Down: the wire is gone, and says so by an error."""
    cdef u32 status = nic.status | E1000_STATUS_LU if up else nic.status & ~<u32>E1000_STATUS_LU
    if status != nic.status:
        nic.status = status
        igb_rx_gate(nic)
        igb_cause_other(nic, E1000_ICR_LSC)
