"""driver: what tests need around a device: the layer above it, and a sender.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       packets that GRO passes up       napi/_gro.pyx
Out      tuples of what they were
Context  tests only
Kernel   none
"""

cimport cython

from libc.string cimport memcpy

from netstack._abi cimport u8, u32, uintptr_t
from netstack._counters cimport SKB_DELIVERED
from netstack._net cimport SLOT_PROCESS, Net, net, net_device
from netstack._skb cimport (
    CHECKSUM_PARTIAL, SKB_LARGE, sk_buff, skb_alloc_process, skb_copy_bits, skb_end, skb_mac_header,
    skb_pool, skb_pool_create,
)


cdef struct kept:
    sk_buff *first
    sk_buff *last


cdef void keep(net *n, void *head, void *sd) noexcept nogil:
    """Hang a list of packets behind those kept so far."""
    cdef kept *all = <kept *>n.ptypes
    cdef sk_buff *skb = <sk_buff *>head
    if all.first == NULL:
        all.first = skb
    else:
        all.last.next = skb
    while skb.next != NULL:
        skb = skb.next
    all.last = skb


cdef void swallow(net *n, void *head, void *sd) noexcept nogil:
    """End a list of packets."""
    cdef sk_buff *skb = <sk_buff *>head
    cdef sk_buff *following
    while skb != NULL:
        following = skb.next
        skb.next = NULL
        skb_end(skb, SKB_DELIVERED)
        skb = following


@cython.final
@cython.no_gc_clear
cdef class Sink:
    """Stands where ``netif`` would: keeps every packet until it is taken, or ends it. Used for tests only."""
    cdef Net net
    cdef object cpu                # whose pool the packets are of
    cdef void *ptypes              # the table that the core has there
    cdef kept packets

    def __cinit__(self, Net n, cpu, bint keeping=True):
        self.net, self.cpu = n, cpu
        self.ptypes = n.ptr.ptypes
        n.ptr.ptypes = &self.packets
        n.ptr.netif_receive_skb_list = keep if keeping else swallow

    def __dealloc__(self):
        self.net.ptr.netif_receive_skb_list = swallow
        self.net.ptr.ptypes = self.ptypes
        self.take()

    def take(self):
        """End the packets as delivered; give (frame, fields) of each, in order."""
        cdef sk_buff *skb = self.packets.first
        cdef sk_buff *following
        cdef bytes data
        out = []
        while skb != NULL:
            following = skb.next
            skb.next = NULL
            data = bytes(skb.len)
            skb_copy_bits(skb, 0, <u8 *><char *>data, skb.len)
            out.append((skb_mac_header(skb)[:14] + data, {
                "id": skb.id, "protocol": skb.protocol, "pkt_type": skb.pkt_type,
                "ip_summed": skb.ip_summed, "hash": skb.hash, "l4_hash": skb.l4_hash,
                "vlan": skb.vlan_tci if skb.vlan_present else None, "truesize": skb.truesize,
                "data_len": skb.data_len, "napi_id": skb.napi_id, "frames": skb.frames,
                "slot": skb.slot, "network": skb.network_header,
            }))
            skb_end(skb, SKB_DELIVERED)
            skb = following
        self.packets.first = NULL
        return out


@cython.final
cdef class Sender:
    """Sends frames through a device, in process context. Used for tests only."""
    cdef Net net
    cdef skb_pool *pool
    cdef net_device *dev

    def __cinit__(self, Net n, uintptr_t dev, u32 elements=4096):
        cdef u32 counts[3]
        counts[0] = counts[1] = counts[2] = elements
        self.net = n
        self.dev = <net_device *>dev
        self.pool = skb_pool_create(n.ptr, SLOT_PROCESS, counts)
        if self.pool == NULL:
            raise MemoryError

    def send(self, *parts, vlan=None, csum=None):
        """Send one frame of one or more buffers; give what ``ndo_start_xmit`` said.

        ``csum``: (start, offset) of a checksum that the NIC is to insert; start counts from the frame's first byte.
        """
        cdef sk_buff *skb = NULL
        cdef sk_buff *part
        cdef bytes data
        cdef int err
        for data in parts:
            part = skb_alloc_process(self.pool, SKB_LARGE)
            if part == NULL:
                raise MemoryError
            memcpy(part.data, <const u8 *>data, len(data))
            part.len = <u32>len(data)
            if skb == NULL:
                skb = part
                continue
            if skb.frag_list == NULL:
                skb.frag_list = part
            else:
                skb.frag_tail.next = part
            skb.frag_tail = part
            skb.len += part.len
            skb.data_len += part.len
        skb.dev = self.dev
        skb.network_header = <u32>(skb.data - skb.head) + 14
        if vlan is not None:
            skb.vlan_present = 1
            skb.vlan_tci = vlan
        if csum is not None:
            skb.ip_summed = CHECKSUM_PARTIAL
            skb.csum = (<u32>(skb.data - skb.head) + <u32>csum[0]) << 16 | <u32>csum[1]
        with nogil:
            err = self.dev.ops.ndo_start_xmit(skb, self.dev)
        return err

    def pool_in_use(self):
        """Elements that have not come back."""
        cdef sk_buff *skb
        cdef u32 count = self.pool.slab[<int>SKB_LARGE].fresh - self.pool.slab[<int>SKB_LARGE].nr_free
        skb = <sk_buff *>self.pool.slab[<int>SKB_LARGE].returned
        while skb != NULL:
            count -= 1
            skb = skb.next
        return count
