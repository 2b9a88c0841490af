"""napi_testing: GRO alone, between a test that feeds frames and a test that takes packets.

Stage 4 of 8:  device driver irq [napi] netif nf proto sock
In       frames as bytes                  tests/napi/
Out      packets, batch by batch          tests/napi/
Context  the test's thread, which plays CPU 0
Kernel   nothing: tests only
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netstack._abi cimport monotonic_ns, ntohs, u8, u16, u32, u64
from netstack._net cimport (
    ETH_HLEN, NETIF_F_GRO, SLOT_CPU0, Net, gro_normal_batch, net, net_device,
)
from netstack._skb cimport (
    CHECKSUM_UNNECESSARY, SKB_LARGE, SkBuff, consume_skb, new_frame_id, queue_init, queue_tail,
    sk_buff, sk_buff_head, skb_alloc, skb_class_for, skb_clone, skb_pool, skb_pool_create, skb_wrap,
)
from netstack.napi._gro cimport gro_normal_list, napi_gro_flush, napi_gro_receive
from netstack.napi._napi cimport napi_struct, softnet_data


cdef enum:
    DEVICES = 2
    LONGEST = 2304 - 256 - 64 - 2  # what the largest buffer holds

cdef struct bench:
    net_device dev[DEVICES]
    napi_struct napi
    softnet_data sd
    skb_pool *pool
    skb_pool *process_pool
    sk_buff_head up                # what went up; a batch ends where `id` of `ends` says
    u32 batches
    u32 batch_of[4096]             # by position in `up`
    u8 answer[65536]               # UDP_GRO_* by destination port


cdef void collect(net *n, void *head, void *sd) noexcept nogil:
    cdef bench *b = <bench *>n.seam
    cdef sk_buff *skb = <sk_buff *>head
    cdef sk_buff *following
    while skb != NULL:
        following = skb.next
        b.batch_of[b.up.qlen & 4095] = b.batches
        queue_tail(&b.up, skb)
        skb = following
    b.batches += 1


cdef int lookup(net *n, u32 saddr, u16 sport, u32 daddr, u16 dport) noexcept nogil:
    return (<bench *>n.seam).answer[dport]


cdef void release(net *n, void *head, void *sd) noexcept nogil:
    cdef sk_buff *skb = <sk_buff *>head
    cdef sk_buff *following
    while skb != NULL:
        following = skb.next
        consume_skb(skb)
        skb = following


cdef sk_buff *packet_from(bench *b, const u8 *frame, u32 size) noexcept nogil:
    """Do what a driver does with a frame: data at the IP header, which is aligned."""
    cdef sk_buff *skb = skb_alloc(b.pool, skb_class_for(size))
    if skb == NULL:
        return NULL
    skb.data += 2
    skb.mac_header += 2
    memcpy(skb.data, frame, size)
    skb.data += ETH_HLEN
    skb.len = size - ETH_HLEN
    skb.protocol = ntohs((<u16 *>(skb.data - 2))[0])
    skb.dev = &b.dev[0]
    skb.ip_summed = CHECKSUM_UNNECESSARY
    skb.id = new_frame_id(b.napi.n, SLOT_CPU0)
    skb.frames = 1
    return skb


cdef void one_poll(bench *b, const u8 *frames, u32 count, u32 size, bint gro) noexcept nogil:
    cdef sk_buff *skb
    cdef u32 i
    for i in range(count):
        skb = packet_from(b, frames + i * size, size)
        if gro:
            napi_gro_receive(&b.napi, skb)
        else:
            release(b.napi.n, skb, NULL)
    napi_gro_flush(&b.napi, False)
    gro_normal_list(&b.napi)


cdef class GroBench:
    """One NAPI with a pool of its own; what GRO passes up is kept until ``take``.

    ``frames`` elements a size class. ``hash`` of a frame chooses its bucket.
    """
    cdef bench *b
    cdef readonly Net net

    def __cinit__(self, Net host, u32 frames=4096):
        cdef u32[3] counts = [frames, frames, frames]
        cdef u32 i
        self.net = host
        self.b = <bench *>calloc(1, sizeof(bench))
        if self.b == NULL:
            raise MemoryError
        self.b.pool = skb_pool_create(host.ptr, SLOT_CPU0, counts)
        self.b.process_pool = skb_pool_create(host.ptr, 0, counts)
        if self.b.pool == NULL or self.b.process_pool == NULL:
            raise MemoryError
        for i in range(DEVICES):
            self.b.dev[i].net = host.ptr
            self.b.dev[i].ifindex = i + 1
            self.b.dev[i].features = NETIF_F_GRO
        self.b.sd.n = self.b.napi.n = host.ptr
        self.b.sd.pool = self.b.pool
        self.b.napi.sd = &self.b.sd
        self.b.napi.napi_id = 1
        queue_init(&self.b.up)
        queue_init(&self.b.napi.rx_list)
        host.ptr.seam = self.b
        host.ptr.pool = self.b.process_pool
        host.ptr.netif_receive_skb_list = collect
        host.ptr.sysctl[<int>gro_normal_batch] = 8

    def __dealloc__(self):
        # A failed test may still have handles on packets; then their memory stays.
        if self.b != NULL and self.packets_in_use == 0:
            free(self.b)

    def features(self, u64 bits, u32 dev=0):
        """Set NETIF_F_* of a device."""
        if dev >= DEVICES:
            raise ValueError(f"dev={dev}; the bench has devices 0 to {DEVICES - 1}")
        self.b.dev[dev].features = bits

    def udp_socket(self, u16 port, u8 answer):
        """Let the lookup give ``answer`` (UDP_GRO_*) for a port; from now on there is a lookup."""
        self.b.answer[port] = answer
        self.net.ptr.udp_gro_lookup = lookup

    def receive(self, bytes frame, u32 hash=0, u8 ip_summed=0, vlan=None, u32 dev=0,
                u32 csum=0):
        """Give a frame to GRO as a driver would; its id, or 0 when the pool is used up.

        ``csum`` is the sum from the IP header on, for CHECKSUM_COMPLETE.
        """
        cdef sk_buff *skb
        cdef u32 size = <u32>len(frame)
        if dev >= DEVICES:
            raise ValueError(f"dev={dev}; the bench has devices 0 to {DEVICES - 1}")
        if not ETH_HLEN <= size <= LONGEST:
            raise ValueError(f"a frame of {size} bytes; the bench takes {ETH_HLEN} to {LONGEST}")
        skb = packet_from(self.b, <const u8 *>frame, size)
        if skb == NULL:
            return 0
        skb.dev = &self.b.dev[dev]
        skb.hash = hash
        skb.ip_summed = ip_summed
        skb.csum = csum
        if vlan is not None:
            skb.vlan_present = 1
            skb.vlan_tci = vlan
        napi_gro_receive(&self.b.napi, skb)
        return self.net.ptr.slots[SLOT_CPU0].rx_frames

    def poll(self, u64 jiffy):
        """Begin a poll in this jiffy."""
        self.b.napi.gro_age = jiffy

    def flush(self, bint old=False):
        """End the poll: flush what is held (with ``old`` only what is old), pass all up."""
        napi_gro_flush(&self.b.napi, old)
        gro_normal_list(&self.b.napi)

    def cost(self, list frames, u32 rounds):
        """Run polls with frames of equal size, and then without GRO; ns a frame of both."""
        cdef bytes flat = b"".join(frames)
        cdef const u8 *start = flat
        cdef u32 count = <u32>len(frames)
        cdef u32 size = <u32>(len(flat) // count)
        cdef u64[2] best = [<u64>-1, <u64>-1]
        cdef u64 before
        cdef u32 i
        self.net.ptr.netif_receive_skb_list = release
        with nogil:
            for i in range(rounds):
                before = monotonic_ns()
                one_poll(self.b, start, count, size, i & 1)
                best[i & 1] = min(best[i & 1], monotonic_ns() - before)
        self.net.ptr.netif_receive_skb_list = collect
        return best[1] / count, best[0] / count

    def take(self):
        """Give what went up, a list of packets a batch."""
        cdef sk_buff *skb = self.b.up.first
        cdef sk_buff *following
        cdef list batches = [[] for _ in range(self.b.batches)]
        cdef u32 i = 0
        queue_init(&self.b.up)
        self.b.batches = 0
        while skb != NULL:
            following = skb.next
            skb.next = NULL
            batches[self.b.batch_of[i & 4095]].append(skb_wrap(skb, self.net))
            i += 1
            skb = following
        return batches

    @property
    def held(self):
        """How many packets each bucket holds."""
        return [self.b.napi.gro_hash[i].count for i in range(8)]

    @property
    def bitmask(self):
        """``gro_bitmask`` of the NAPI."""
        return self.b.napi.gro_bitmask

    @property
    def counters(self):
        """What the NAPI counted: frames merged, held, normal, and merged packets passed up."""
        cdef napi_struct *napi = &self.b.napi
        return {"merged": napi.gro_merged, "held": napi.gro_held, "normal": napi.gro_normal,
                "packets_out": napi.gro_packets_out}

    @property
    def packets_in_use(self):
        """Elements of the pools that are neither free nor never used."""
        return in_use(self.b.pool) + in_use(self.b.process_pool)


cdef u32 in_use(skb_pool *pool):
    cdef u32 total = 0
    cdef u32 cls
    cdef sk_buff *skb
    for cls in range(SKB_LARGE + 1):
        total += pool.slab[cls].fresh - pool.slab[cls].nr_free
        skb = <sk_buff *>pool.slab[cls].returned
        while skb != NULL:
            total -= 1
            skb = skb.next
    return total


def gso(SkBuff skb):
    """Give gso_type, gso_size, gso_segs, ip_summed, csum, truesize, and frames of all buffers."""
    cdef sk_buff *part = skb.peek().frag_list
    cdef u32 frames = skb.ptr.frames
    while part != NULL:
        frames += part.frames
        part = part.next
    return {"type": skb.ptr.gso_type, "size": skb.ptr.gso_size, "segs": skb.ptr.gso_segs,
            "ip_summed": skb.ptr.ip_summed, "csum": skb.ptr.csum,
            "truesize": skb.ptr.truesize, "frames": frames}


def route(SkBuff skb, rt_flags=None):
    """Note a routing result (RTCF_*) in the packet, as IP does, or give what is noted."""
    if rt_flags is not None:
        skb.peek().rt_flags = rt_flags
    return skb.peek().rt_flags


def clone(SkBuff skb, GroBench bench):
    """Give a second handle on the packet's buffers, as a packet socket would take."""
    cdef sk_buff *copy = skb_clone(skb.peek(), bench.b.process_pool)
    if copy == NULL:
        raise MemoryError
    return skb_wrap(copy, bench.net)
