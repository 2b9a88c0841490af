"""sk_buff: one packet, its buffer, and the account of the frames it carries.

A packet and its buffer are one piece of memory (``build_skb`` without the second allocation), taken from pools that
are sized when the host is made. There are three sizes, and ``truesize`` is the memory that a packet really takes; they
are the sizes that Linux 6.18 charges for a frame off a TAP, so that SO_RCVBUF holds the same number of datagrams:

    frame bytes     up to 192    up to 640    more
    truesize        832          1280         2304     (256 for the sk_buff, the rest for data)

A pool may have a fourth, of 66048 bytes, for frames that a NIC has coalesced (device/_igb_rsc.pyx).

Ownership: whoever holds the pointer owns the packet and must pass it on or end it. A packet ends in exactly one way:
``kfree_skb_reason`` (dropped, with the reason), ``consume_skb`` (a protocol used it up), ``deliver_skb_done`` (an
application has it). That call is also what keeps the ledger: frames off the wire = sum of the ends + frames queued.
"""

cimport cython
from netstack._abi cimport (
    NS_DEBUG, add_owned64, bug_on, likely, load_acquire32, load_relaxed32, poison, spin_lock, spin_unlock, u8, u16, u32,
    u64, unlikely, unpoison,
)
from netstack._counters cimport SKB_CONSUMED, SKB_DELIVERED, SKB_NOT_DROPPED_YET
from netstack._net cimport Net, SLOT_CPU0, SLOT_PROCESS, STAGE_DROP, net, net_device


cdef enum:
    SKB_CLASSES = 3
    SKB_STRUCT = 256               # sizeof(sk_buff), checked at import
    NET_SKB_PAD = 64               # headroom in front of a received frame
    SKB_CB = 96

cdef enum skb_class:
    SKB_SMALL = 0                  # copy-break: the driver copies the frame out and keeps its buffer
    SKB_MID = 1
    SKB_LARGE = 2                  # a receive buffer: the NIC wrote the frame right here
    SKB_HUGE = 3                   # up to 64 KiB of coalesced frames; taken by name only, never instead of another

cdef enum pkt_types:               # <linux/if_packet.h>
    PACKET_HOST = 0
    PACKET_BROADCAST = 1
    PACKET_MULTICAST = 2
    PACKET_OTHERHOST = 3
    PACKET_OUTGOING = 4
    PACKET_LOOPBACK = 5

cdef enum ip_summed_values:        # <linux/skbuff.h>
    CHECKSUM_NONE = 0
    CHECKSUM_UNNECESSARY = 1
    CHECKSUM_COMPLETE = 2
    CHECKSUM_PARTIAL = 3

cdef enum skb_hash:
    SKB_HASH_NONE = 0              # nothing, or what a NIC made of the addresses alone
    SKB_HASH_L4 = 1                # a NIC's, of addresses and ports
    SKB_HASH_SW = 2                # our own: netif/_flow_dissector.pyx

cdef enum gso_types:
    SKB_GSO_NONE = 0
    SKB_GSO_TCPV4 = 1
    SKB_GSO_UDP_L4 = 2             # merged by UDP_GRO: equal datagrams of gso_size, the last may be shorter
    SKB_GSO_FRAGLIST = 4           # every element of frag_list is a whole packet with its own headers
    SKB_GSO_DODGY = 8              # one set of headers for all: coalesced by a NIC, or not cut yet on the way out
    SKB_GSO_TCPV6 = 16

cdef struct skb_pool

cdef struct sk_buff:
    # What every stage touches.
    sk_buff *next                  # the list this packet stands in
    u8 *head                       # start of the buffer
    u8 *data                       # where the current layer begins
    u32 len                        # bytes from data on, those of frag_list (not FRAGLIST's) included
    u32 data_len                   # of these, the bytes that lie in frag_list
    net_device *dev
    u16 mac_header                 # offsets from head
    u16 network_header
    u16 transport_header
    u16 protocol                   # EtherType, host order
    u8 slot                        # counter slot of the context that holds the packet now
    u8 pkt_type
    u8 ip_summed
    u8 cls                         # size class
    u8 gso_type
    u8 outcome                     # the frame's end as far as it is known (shared buffers only)
    u8 vlan_present
    u8 l4_hash                     # what `hash` is: skb_hash
    u8 for_taps                    # a clone for Python's ETH_P_ALL handlers, and for nobody else
    # Second line.
    u64 id                         # of the frame, from the wire on
    u32 frames                     # frames off the wire that end with this sk_buff: 1, or 0 for copies and our own
    u32 dataref                    # this sk_buff and its clones; the buffer goes with the last
    u32 truesize
    u32 hash                       # of the flow: RSS's, or skb_get_hash()'s
    u16 vlan_tci
    u16 queue_mapping
    u32 napi_id
    u16 gso_size
    u16 gso_segs
    u32 csum                       # CHECKSUM_COMPLETE: sum over data; CHECKSUM_PARTIAL: csum_start << 16 | csum_offset
    sk_buff *frag_list             # further buffers of this packet
    sk_buff *frag_tail
    sk_buff *owner                 # a clone: the sk_buff whose buffer this is
    u64 tstamp                     # ns since 1970, when the device core took it; 0: nobody asked
    skb_pool *pool
    u32 mark                       # SO_MARK of the sender
    u32 priority                   # SO_PRIORITY of the sender
    u32 rt_flags                   # RTCF_*: what routing said (the kernel's skb_dst); 0 for not routed yet
    u32 rt_type                    # RTN_*
    u8 cb[SKB_CB]                  # the current layer's own

cdef struct skb_slab:
    u8 *base
    u32 size                       # bytes of an element
    u32 count
    u32 fresh                      # elements never used yet: memory is touched only when needed
    u32 nr_free                    # in the owner's list
    sk_buff *free                  # the owner's list, last in, first out
    void *returned                 # freed by others; taken over in one exchange

cdef struct skb_pool:
    net *n
    skb_pool *next                 # n.pools
    u32 slot                       # the owner: only what runs in this slot uses `free`
    u32 lock                       # process pools: any thread allocates, under this lock
    skb_slab slab[SKB_CLASSES + 1]

cdef struct sk_buff_head:
    sk_buff *first
    sk_buff *last
    u32 qlen


cdef skb_pool *skb_pool_create(net *n, u32 slot, const u32 *counts) noexcept
cdef int skb_pool_add_huge(skb_pool *pool, u32 count) except -1
cdef sk_buff *skb_alloc_slow(skb_pool *pool, u32 cls) noexcept nogil
cdef void kfree_skb_slow(sk_buff *skb, u32 fate) noexcept nogil
cdef void skb_give_back(sk_buff *head) noexcept nogil
cdef sk_buff *skb_clone(sk_buff *skb, skb_pool *pool) noexcept nogil
cdef u32 skb_copy_bits(const sk_buff *skb, u32 offset, u8 *to, u32 size) noexcept nogil
cdef void skb_set_slot(sk_buff *skb, u32 slot) noexcept nogil


# A free element: nobody may touch it, but for `next`. These two are empty in a normal build.

cdef inline void skb_mark_free(sk_buff *skb) noexcept nogil:
    """Debug builds: see that an element is not freed twice, and let the sanitizer watch it."""
    if NS_DEBUG:
        bug_on(skb.head == NULL)
        skb.head = NULL
        poison(&skb.head, skb.pool.slab[skb.cls].size - sizeof(skb.next))

cdef inline void skb_mark_used(sk_buff *skb, u32 size) noexcept nogil:
    """Debug builds: see that a free element of ``size`` bytes is one."""
    if NS_DEBUG:
        unpoison(skb, size)
        bug_on(skb.head != NULL)
        skb.head = <u8 *>skb + SKB_STRUCT

cdef inline u32 skb_class_for(u32 frame_len) noexcept nogil:
    """The size class in which Linux would have charged a frame of ``frame_len`` bytes."""
    return SKB_SMALL if frame_len <= 192 else SKB_MID if frame_len <= 640 else SKB_LARGE

cdef inline void skb_init(sk_buff *skb) noexcept nogil:
    """Make a fresh packet of an element; pool, class and truesize stay as they are."""
    skb.next = NULL
    skb.head = <u8 *>skb + SKB_STRUCT
    skb.data = skb.head + NET_SKB_PAD
    skb.len = 0
    skb.data_len = 0
    skb.dev = NULL
    skb.mac_header = NET_SKB_PAD
    skb.network_header = 0
    skb.transport_header = 0
    skb.protocol = 0
    skb.pkt_type = 0
    skb.ip_summed = CHECKSUM_NONE
    skb.gso_type = SKB_GSO_NONE
    skb.outcome = 0
    skb.vlan_present = 0
    skb.l4_hash = 0
    skb.for_taps = 0
    skb.id = 0
    skb.frames = 0
    skb.dataref = 1
    skb.hash = 0
    skb.vlan_tci = 0
    skb.queue_mapping = 0
    skb.napi_id = 0
    skb.gso_size = 0
    skb.gso_segs = 0
    skb.csum = 0
    skb.frag_list = NULL
    skb.frag_tail = NULL
    skb.owner = NULL
    skb.tstamp = 0
    skb.mark = 0
    skb.priority = 0
    skb.rt_flags = 0
    skb.rt_type = 0

cdef inline sk_buff *skb_alloc_raw(skb_pool *pool, u32 cls) noexcept nogil:
    """Take an element of the class, uninitialised: a receive buffer. NULL when the pool has none of it.

    Only for the owner of the pool (its CPU, or the holder of its lock).
    """
    cdef skb_slab *slab = &pool.slab[cls]
    cdef sk_buff *skb = slab.free
    if unlikely(skb == NULL):
        return skb_alloc_slow(pool, cls)
    slab.free = skb.next
    slab.nr_free -= 1
    skb_mark_used(skb, slab.size)
    return skb

cdef inline sk_buff *skb_alloc(skb_pool *pool, u32 cls) noexcept nogil:
    """Take a packet of at least the class, a larger one when the class is used up. NULL when all are."""
    cdef sk_buff *skb = NULL
    while skb == NULL and cls < SKB_CLASSES:
        skb = skb_alloc_raw(pool, cls)
        cls += 1
    if skb != NULL:
        skb_init(skb)
        skb.slot = <u8>pool.slot
    return skb

cdef inline sk_buff *skb_alloc_process(skb_pool *pool, u32 cls) noexcept nogil:
    """``skb_alloc`` for a pool of process context, from any thread."""
    cdef sk_buff *skb
    spin_lock(&pool.lock)
    skb = skb_alloc(pool, cls)
    spin_unlock(&pool.lock)
    return skb

cdef inline void skb_free_raw(sk_buff *skb) noexcept nogil:
    """Give an element back from within the owner's context."""
    cdef skb_slab *slab = &skb.pool.slab[skb.cls]
    skb_mark_free(skb)
    skb.next = slab.free
    slab.free = skb
    slab.nr_free += 1

cdef inline void skb_end(sk_buff *skb, u32 fate) noexcept nogil:
    """End a packet: account its frame and give the memory back. Consumes skb."""
    if likely(skb.frag_list == NULL and skb.owner == NULL and skb.slot != SLOT_PROCESS
              and skb.slot == skb.pool.slot and load_acquire32(&skb.dataref) == 1 and skb.outcome == 0):
        add_owned64(&skb.pool.n.slots[skb.slot].fate[fate], skb.frames)
        skb_free_raw(skb)
    else:
        kfree_skb_slow(skb, fate)

cdef inline void kfree_skb_reason(sk_buff *skb, u32 reason) noexcept nogil:
    """Drop a packet, for this reason. The only way to drop. Consumes skb. [kfree_skb_reason()]"""
    if unlikely(load_relaxed32(&skb.pool.n.tap_stages) >> <u32>STAGE_DROP & 1):
        skb.pool.n.tap_stage(skb.pool.n, skb, STAGE_DROP, reason)
    skb_end(skb, reason)

cdef inline void skb_end_python(sk_buff *skb, u32 fate) noexcept nogil:
    """End a packet that Python had; what a tap does with its copy says nothing about the frame. Consumes skb."""
    if skb.for_taps:
        skb_end(skb, SKB_NOT_DROPPED_YET)
    elif fate > SKB_DELIVERED:
        kfree_skb_reason(skb, fate)
    else:
        skb_end(skb, fate)

cdef inline void consume_skb(sk_buff *skb) noexcept nogil:
    """End a packet that a protocol has used up. Consumes skb. [consume_skb()]"""
    skb_end(skb, SKB_CONSUMED)

cdef inline u64 new_frame_id(net *n, u32 slot) noexcept nogil:
    """Count a frame off the wire and name it. The CPU's number is in the top byte: CPU 0 counts 1, 2, 3."""
    cdef u64 seq = n.slots[slot].rx_frames + 1
    add_owned64(&n.slots[slot].rx_frames, 1)
    return seq | <u64>(slot - SLOT_CPU0) << 56

cdef inline u8 *skb_mac_header(const sk_buff *skb) noexcept nogil:
    return skb.head + skb.mac_header

cdef inline u8 *skb_network_header(const sk_buff *skb) noexcept nogil:
    return skb.head + skb.network_header

cdef inline u8 *skb_transport_header(const sk_buff *skb) noexcept nogil:
    return skb.head + skb.transport_header

cdef inline u32 skb_headlen(const sk_buff *skb) noexcept nogil:
    """Bytes that lie in the packet's own buffer."""
    return skb.len - skb.data_len

cdef inline void skb_pull(sk_buff *skb, u32 size) noexcept nogil:
    """Move on past a header of this layer; it must be within ``skb_headlen``."""
    skb.data += size
    skb.len -= size

cdef inline void skb_push(sk_buff *skb, u32 size) noexcept nogil:
    """Go back in front of a header; it must be within the headroom."""
    skb.data -= size
    skb.len += size

cdef inline void queue_init(sk_buff_head *q) noexcept nogil:
    q.first = NULL
    q.last = NULL
    q.qlen = 0

cdef inline void queue_tail(sk_buff_head *q, sk_buff *skb) noexcept nogil:
    skb.next = NULL
    if q.first == NULL:
        q.first = skb
    else:
        q.last.next = skb
    q.last = skb
    q.qlen += 1

cdef inline sk_buff *dequeue(sk_buff_head *q) noexcept nogil:
    cdef sk_buff *skb = q.first
    if skb != NULL:
        q.first = skb.next
        skb.next = NULL
        q.qlen -= 1
    return skb


cdef inline int dev_queue_xmit(sk_buff *skb) noexcept nogil:
    """Send a frame (data at the Ethernet header) through skb.dev. Consumes skb. 0 or a negative errno."""
    return skb.dev.net.dev_queue_xmit(skb)

cdef inline sk_buff *process_skb(net *n, u32 cls) noexcept nogil:
    """Make a packet in process context, or for sending from any context; NULL when the pool is used up."""
    return skb_alloc_process(<skb_pool *>n.pool, cls)


@cython.final
cdef class SkBuff:
    """A packet in the hands of Python. Owns it until it is passed on or ended; what is forgotten is dropped."""
    cdef sk_buff *ptr
    cdef object net_object
    cdef sk_buff *take(self) except NULL
    cdef sk_buff *peek(self) except NULL
    cdef void end(self, u32 fate) noexcept

cdef list pool_state(skb_pool *pool)
cdef SkBuff skb_wrap(sk_buff *skb, Net n)
