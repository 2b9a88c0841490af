"""82576: register offsets, their bits, and the descriptors. Names and numbers as in the datasheet.

Offsets are chapter 8 of the Intel 82576EB datasheet, descriptors 7.1.5 (receive) and 7.2.2
(transmit), interrupts 7.3. The kernel writes the same names with E1000_ in front, and so do we.
Registers and descriptors are in the machine's byte order: this bus never leaves the process.

Where this NIC differs: SRRCTL.BSIZEPKT counts in 64 bytes, not 1024, because a receive buffer
here has 1984; and there is no frame check sequence on the wire, so no length includes one.
"""

from netstack._abi cimport u8, u16, u32, u64


cdef enum:
    IGB_MAX_QUEUES = 8
    IGB_MAX_VECTORS = 10
    IGB_RAR_ENTRIES = 24
    IGB_MTA_WORDS = 128
    IGB_VFTA_WORDS = 128
    IGB_RETA_WORDS = 32
    IGB_RSSRK_WORDS = 10

cpdef enum e1000_reg:
    E1000_CTRL = 0x00000           # device control
    E1000_STATUS = 0x00008         # device status, read only
    E1000_CTRL_EXT = 0x00018
    E1000_VET = 0x00038            # VLAN EtherType
    E1000_RCTL = 0x00100           # receive control
    E1000_TCTL = 0x00400           # transmit control
    E1000_ICR = 0x01500            # cause of the "other" vector: read or write 1 to clear
    E1000_ICS = 0x01504            # set
    E1000_IMS = 0x01508            # unmask
    E1000_IMC = 0x0150C            # mask
    E1000_IAM = 0x01510            # masked when ICR is read
    E1000_GPIE = 0x01514           # general purpose interrupt enable
    E1000_EICS = 0x01520           # extended (a bit a vector): set
    E1000_EIMS = 0x01524           # unmask
    E1000_EIMC = 0x01528           # mask
    E1000_EIAC = 0x0152C           # cause cleared when the vector fires
    E1000_EIAM = 0x01530           # masked when the vector fires (with GPIE.EIAME)
    E1000_EICR = 0x01580           # cause: read or write 1 to clear
    E1000_EITR = 0x01680           # [10] least time between two interrupts of a vector
    E1000_IVAR0 = 0x01700          # [8] vector of each queue
    E1000_IVAR_MISC = 0x01740      # vector of the other causes
    E1000_CRCERRS = 0x04000        # statistics: cleared by reading
    E1000_ALGNERRC = 0x04004
    E1000_RXERRC = 0x0400C
    E1000_MPC = 0x04010            # missed: lost in the packet buffer (our wire's queue)
    E1000_SCC = 0x04014
    E1000_ECOL = 0x04018
    E1000_MCC = 0x0401C
    E1000_LATECOL = 0x04020
    E1000_COLC = 0x04028
    E1000_DC = 0x04030
    E1000_TNCRS = 0x04034          # transmitted with no carrier
    E1000_RLEC = 0x04040
    E1000_XONRXC = 0x04048
    E1000_XONTXC = 0x0404C
    E1000_XOFFRXC = 0x04050
    E1000_XOFFTXC = 0x04054
    E1000_GPRC = 0x04074           # good packets received
    E1000_BPRC = 0x04078           # broadcast
    E1000_MPRC = 0x0407C           # multicast
    E1000_GPTC = 0x04080           # good packets transmitted
    E1000_GORCL = 0x04088          # good octets received; read low, then high
    E1000_GORCH = 0x0408C
    E1000_GOTCL = 0x04090
    E1000_GOTCH = 0x04094
    E1000_RNBC = 0x040A0           # a frame waited because no descriptor was free
    E1000_RUC = 0x040A4            # undersize
    E1000_ROC = 0x040AC            # oversize
    E1000_MGTPRC = 0x040B4
    E1000_MGTPDC = 0x040B8
    E1000_MGTPTC = 0x040BC
    E1000_TPR = 0x040D0            # all packets received, filtered ones too
    E1000_TPT = 0x040D4
    E1000_MPTC = 0x040F0
    E1000_BPTC = 0x040F4
    E1000_TSCTC = 0x040F8
    E1000_RXCSUM = 0x05000         # receive checksum control
    E1000_RLPML = 0x05004          # longest frame to receive
    E1000_MTA = 0x05200            # [128] multicast hash table
    E1000_RAL = 0x05400            # [16], stride 8: receive address, low and high
    E1000_RAH = 0x05404
    E1000_RAL16 = 0x054E0          # [8]: entries 16 to 23
    E1000_VFTA = 0x05600           # [128] VLAN filter
    E1000_MRQC = 0x05818           # what RSS hashes
    E1000_RETA = 0x05C00           # [32] queue of each hash
    E1000_RSSRK = 0x05C80          # [10] key
    E1000_RDBAL = 0x0C000          # receive queue n: + 0x40 * n
    E1000_RDBAH = 0x0C004
    E1000_RDLEN = 0x0C008
    E1000_SRRCTL = 0x0C00C
    E1000_RDH = 0x0C010
    E1000_RDT = 0x0C018
    E1000_RXDCTL = 0x0C028
    E1000_RQDPC = 0x0C030          # dropped by the queue (DROP_EN)
    E1000_TDBAL = 0x0E000          # transmit queue n: + 0x40 * n
    E1000_TDBAH = 0x0E004
    E1000_TDLEN = 0x0E008
    E1000_TDH = 0x0E010
    E1000_TDT = 0x0E018
    E1000_TXDCTL = 0x0E028

cdef enum e1000_bits:
    E1000_CTRL_SLU = 0x00000040            # set link up
    E1000_CTRL_RST = 0x04000000
    E1000_CTRL_VME = 0x40000000            # strip VLAN tags
    E1000_STATUS_FD = 0x00000001
    E1000_STATUS_LU = 0x00000002
    E1000_STATUS_SPEED_1000 = 0x00000080
    E1000_CTRL_EXT_IAME = 0x08000000       # reading ICR masks what IAM says
    E1000_RCTL_EN = 0x00000002
    E1000_RCTL_UPE = 0x00000008            # every unicast address
    E1000_RCTL_MPE = 0x00000010            # every multicast address
    E1000_RCTL_LPE = 0x00000020            # frames up to RLPML, else up to 1522
    E1000_RCTL_LBM_MAC = 0x00000040       # what is sent is received, and the wire left alone
    E1000_RCTL_MO_SHIFT = 12               # which 12 bits of an address index MTA
    E1000_RCTL_BAM = 0x00008000            # accept broadcast
    E1000_RCTL_VFE = 0x00040000            # filter by VFTA
    E1000_TCTL_EN = 0x00000002
    E1000_TCTL_PSP = 0x00000008
    E1000_ICR_LSC = 0x00000004             # link status change
    E1000_ICR_INT_ASSERTED = 0x80000000
    E1000_GPIE_NSICR = 0x00000001
    E1000_GPIE_MSIX_MODE = 0x00000010
    E1000_GPIE_EIAME = 0x40000000
    E1000_GPIE_PBA = 0x80000000
    E1000_IVAR_VALID = 0x80
    E1000_EITR_INTERVAL = 0x7FFC           # bits 14:2, microseconds
    E1000_EITR_CNT_IGNR = 0x80000000  # leave the running interval alone
    E1000_RAH_AV = 0x80000000         # address valid
    E1000_RXCSUM_IPOFL = 0x00000100
    E1000_RXCSUM_TUOFL = 0x00000200
    E1000_RXCSUM_PCSD = 0x00002000         # the descriptor carries the RSS hash
    E1000_MRQC_ENABLE_RSS = 0x00000002
    E1000_MRQC_RSS_FIELD_IPV4_TCP = 0x00010000
    E1000_MRQC_RSS_FIELD_IPV4 = 0x00020000
    E1000_MRQC_RSS_FIELD_IPV6 = 0x00100000
    E1000_MRQC_RSS_FIELD_IPV6_TCP = 0x00200000
    E1000_MRQC_RSS_FIELD_IPV4_UDP = 0x00400000
    E1000_SRRCTL_BSIZEPKT_SHIFT = 6        # units of 64 bytes; see above
    E1000_SRRCTL_BSIZEPKT_MASK = 0x7F
    E1000_SRRCTL_DESCTYPE_ADV_ONEBUF = 0x02000000
    E1000_SRRCTL_DROP_EN = 0x80000000
    E1000_XDCTL_ENABLE = 0x02000000        # RXDCTL and TXDCTL
    E1000_XDCTL_WTHRESH_SHIFT = 16         # 5 bits: descriptors between two causes

# Receive descriptor, 16 bytes. 7.1.5.

cdef struct e1000_adv_rx_read:
    u64 pkt_addr                   # DMA address of the buffer
    u64 hdr_addr

cdef struct e1000_adv_rx_wb:
    u16 pkt_info                   # 3:0 RSS type, 16:4 packet type
    u16 hdr_info
    u32 rss
    u32 status_error               # 19:0 status, 31:20 errors
    u16 length
    u16 vlan

cdef union e1000_adv_rx_desc:
    e1000_adv_rx_read read
    e1000_adv_rx_wb wb

cdef enum e1000_rx_bits:
    E1000_RXD_STAT_DD = 0x01
    E1000_RXD_STAT_EOP = 0x02
    E1000_RXD_STAT_IXSM = 0x04             # ignore the checksum bits
    E1000_RXD_STAT_VP = 0x08               # VLAN tag stripped into `vlan`
    E1000_RXD_STAT_UDPCS = 0x10
    E1000_RXD_STAT_TCPCS = 0x20
    E1000_RXD_STAT_IPCS = 0x40
    E1000_RXDEXT_STATERR_CE = 0x01000000
    E1000_RXDEXT_STATERR_SE = 0x02000000
    E1000_RXDEXT_STATERR_SEQ = 0x04000000
    E1000_RXDEXT_STATERR_CXE = 0x10000000
    E1000_RXDEXT_STATERR_TCPE = 0x20000000
    E1000_RXDEXT_STATERR_IPE = 0x40000000
    E1000_RXDEXT_STATERR_RXE = 0x80000000
    E1000_RXDADV_RSSTYPE_MASK = 0x000F
    E1000_RXDADV_PKTTYPE_IPV4 = 0x0010
    E1000_RXDADV_PKTTYPE_IPV4_EX = 0x0020
    E1000_RXDADV_PKTTYPE_IPV6 = 0x0040
    E1000_RXDADV_PKTTYPE_TCP = 0x0100
    E1000_RXDADV_PKTTYPE_UDP = 0x0200

cdef enum e1000_rss_type:
    E1000_RXDADV_RSSTYPE_NONE = 0
    E1000_RXDADV_RSSTYPE_IPV4_TCP = 1
    E1000_RXDADV_RSSTYPE_IPV4 = 2
    E1000_RXDADV_RSSTYPE_IPV4_UDP = 7

# Transmit descriptors, 16 bytes. 7.2.2: context (offload parameters) and data.

cdef struct e1000_adv_tx_read:
    u64 buffer_addr
    u32 cmd_type_len
    u32 olinfo_status

cdef struct e1000_adv_tx_wb:
    u64 rsvd
    u32 nxtseq_seed
    u32 status

cdef union e1000_adv_tx_desc:
    e1000_adv_tx_read read
    e1000_adv_tx_wb wb

cdef struct e1000_adv_tx_context_desc:
    u32 vlan_macip_lens            # 31:16 VLAN tag, 15:9 MACLEN, 8:0 IPLEN
    u32 seqnum_seed
    u32 type_tucmd_mlhl
    u32 mss_l4len_idx

cdef enum e1000_tx_bits:
    E1000_ADVTXD_DTYP_CTXT = 0x00200000
    E1000_ADVTXD_DTYP_DATA = 0x00300000
    E1000_ADVTXD_DTYP_MASK = 0x00F00000
    E1000_ADVTXD_DCMD_EOP = 0x01000000
    E1000_ADVTXD_DCMD_IFCS = 0x02000000
    E1000_ADVTXD_DCMD_RS = 0x08000000      # report status: write DD back
    E1000_ADVTXD_DCMD_DEXT = 0x20000000
    E1000_ADVTXD_DCMD_TSE = 0x80000000     # cut into frames of MSS
    E1000_ADVTXD_DCMD_VLE = 0x40000000     # insert the context's VLAN tag
    E1000_ADVTXD_PAYLEN_SHIFT = 14
    E1000_TXD_POPTS_IXSM = 0x0100          # insert the IP checksum
    E1000_TXD_POPTS_TXSM = 0x0200          # insert the TCP or UDP checksum
    E1000_TXD_STAT_DD = 0x01
    E1000_ADVTXD_TUCMD_IPV4 = 0x00000400
    E1000_ADVTXD_TUCMD_L4T_TCP = 0x00000800
    E1000_ADVTXD_MACLEN_SHIFT = 9
    E1000_ADVTXD_L4LEN_SHIFT = 8
    E1000_ADVTXD_MSS_SHIFT = 16
    E1000_TX_FLAGS_VLAN_SHIFT = 16
