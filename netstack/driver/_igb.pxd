"""igb's own structs: the adapter, a ring of each kind, and the vector that serves them.

Two arrays a ring, as in the kernel: descriptors, which the hardware reads and writes, and buffers,
which only the driver knows. Receive state belongs to the CPU that the queue's vector goes to, a transmit
ring to the holder of its lock, and everything to who is every CPU. [igb.h]
"""

from netstack._abi cimport load_relaxed32, u8, u32, u64
from netstack._net cimport net, net_device, net_device_ops
from netstack._skb cimport sk_buff, skb_pool
from netstack.device._igb_nic cimport igb_nic, igb_rx_unit, igb_tx_unit
from netstack.device._vnet cimport vnet_info
from netstack.device._igb_regs cimport e1000_adv_rx_desc, e1000_adv_tx_desc
from netstack.napi._napi cimport irq_desc, napi_struct, softnet_data


cdef enum:
    IGB_MAX_RXD = 4096
    IGB_RX_BUFFER_WRITE = 16       # descriptors given back to the hardware at once
    IGB_RX_WINDOW = 255            # of them, those that the hardware has at first, if the ring is that large,
    IGB_RX_WINDOW_MIN = 64         # and at least, once it is known to need few
    IGB_DEFAULT_TX_WORK = 128      # packets one poll cleans
    IGB_TX_WTHRESH = 16            # sent frames between two causes
    IGB_RXBUFFER = 1984            # data of an SKB_LARGE element behind its headroom
    IGB_MAX_FRAME_BUILD_SKB = 1534  # the longest frame when no jumbo frames are wanted
    IGB_START_ITR = 648            # about 6000 interrupts a second
    IGB_4K_ITR = 980
    IGB_20K_ITR = 196
    IGB_70K_ITR = 56
    IGB_HUGE_BUFFERS = 64          # 64 KiB each, of the CPU, for coalesced frames
    IGB_REFILL_NS = 1_000_000      # until an empty ring asks the packet pool again

cdef enum:                         # MSI-X vectors
    IGB_VECTOR_OTHER = 0
    IGB_VECTOR_RING = 1
    IGB_NR_VECTORS = 9             # one for other causes, one for each queue pair

cdef enum latency_range:
    lowest_latency = 0
    low_latency = 1
    bulk_latency = 2
    latency_invalid = 255

cdef struct igb_rx_buffer:
    sk_buff *skb                   # raw element that the descriptor points into; NULL: to be filled

cdef struct igb_rx_ring:
    e1000_adv_rx_desc *desc
    igb_rx_buffer *buffer
    u64 *frame_id                  # the hardware's numbers of the frames
    vnet_info *info                # what it says of coalesced frames; NULL where none can come
    igb_rx_unit *hw
    igb_nic *nic
    u32 count
    u32 next_to_use                # first descriptor to give to the hardware
    u32 next_to_clean              # first that the hardware may have finished
    u32 next_to_alloc              # first without a buffer
    u32 window                     # descriptors that the hardware is to have
    u32 queue_index
    u32 slot
    u32 itr
    softnet_data *remote           # the CPU of the NIC's bus, when the vector goes to another; else NULL
    skb_pool *pool
    sk_buff *skb                   # the frame so far, when it needs several descriptors
    net_device *dev
    u64 mac                        # dev_addr as the first bytes of a frame show it
    u64 total_packets              # since the throttle was last worked out
    u64 total_bytes
    # rx_queue_N_*
    u64 packets
    u64 bytes
    u64 multicast
    u64 drops                      # RQDPC, added up
    u64 csum_err
    u64 alloc_failed

cdef struct igb_tx_buffer:
    sk_buff *skb
    u32 next_to_watch              # the frame's last descriptor
    u32 frames

cdef struct igb_tx_ring:
    u32 lock
    u32 up                         # frames may be sent; under `lock`
    e1000_adv_tx_desc *desc
    igb_tx_buffer *buffer
    igb_tx_unit *hw
    igb_nic *nic
    u32 count
    u32 next_to_use
    u32 next_to_clean
    u32 stopped                    # no room: netif_stop_queue()
    u32 itr
    u64 itr_packets                # packets and bytes when the throttle was last worked out
    u64 itr_bytes
    # tx_queue_N_*
    u64 packets
    u64 bytes
    u64 restart

cdef struct igb_adapter

cdef struct igb_q_vector:
    napi_struct napi               # first: a napi_struct of ours is its vector
    igb_adapter *adapter
    igb_rx_ring rx
    igb_tx_ring tx
    u32 eims_value
    u32 itr_val
    u32 set_itr                    # itr_val is to be written at the next interrupt
    u32 vector
    irq_desc irq

cdef struct igb_adapter:
    net_device dev
    net_device_ops ops
    net *n
    softnet_data *sd               # the CPU on whose bus the NIC is
    igb_nic *nic
    igb_q_vector *q_vector         # [IGB_MAX_QUEUES], a pair of queues each
    u32 num_queues                 # in use, from the first on
    u32 away                       # of them, those whose vector goes to another CPU
    u8 rss_indir[128]              # queue of each hash value; the default is worked out anew when num_queues changes
    irq_desc other                 # vector 0
    u32 eims_enable_mask
    u32 eims_other
    u32 rx_itr_setting             # 3 dynamic (conservative), 1 dynamic, 0 off, else usecs << 2
    u32 max_frame_size
    u32 promisc
    u32 allmulti
    u64 hw_features                # NETIF_F_* that may be switched
    u32 mta_shadow[128]            # bits of the groups that the host has joined
    u32 nr_mc
    u8 mc[64][6]                   # addresses to hash into MTA
    u8 rss_key[40]
    u32 rss_udp                    # hash the ports of UDP too (rx-flow-hash udp4 sdfn)
    u64 link_changes


cdef inline u32 igb_rx_unused(const igb_rx_ring *ring) noexcept nogil:
    """Descriptors that can be given to the hardware: one stays free. [igb_desc_unused()]"""
    if ring.next_to_clean > ring.next_to_use:
        return ring.next_to_clean - ring.next_to_use - 1
    return ring.count + ring.next_to_clean - ring.next_to_use - 1

cdef inline u32 igb_rx_wanted(const igb_rx_ring *ring) noexcept nogil:
    """Descriptors that the hardware is to get now."""
    cdef u32 unused = igb_rx_unused(ring)
    cdef u32 given = ring.count - 1 - unused
    return min(unused, ring.window - given) if given < ring.window else 0

cdef inline u32 igb_rx_finished(const igb_rx_ring *ring) noexcept nogil:
    """Descriptors between what has been cleaned and RDH: the hardware is through with them."""
    cdef u32 head = load_relaxed32(&ring.hw.head)
    return head - ring.next_to_clean if head >= ring.next_to_clean else ring.count + head - ring.next_to_clean

cdef inline u32 igb_tx_unused(const igb_tx_ring *ring) noexcept nogil:
    """Descriptors that a frame can take. [igb_desc_unused()]"""
    if ring.next_to_clean > ring.next_to_use:
        return ring.next_to_clean - ring.next_to_use - 1
    return ring.count + ring.next_to_clean - ring.next_to_use - 1
