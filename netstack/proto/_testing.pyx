"""testing: a device whose frames come from and go to Python lists, and a CPU that receives when it is told to.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       frames as bytes
Out      frames as bytes, and packets for the Python layers
Context  tests only
Kernel   none

No thread, no wire, no clock of its own: what a test hands in with ``receive`` has passed all steps when it returns.
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netstack._abi cimport get_be16, u8, u16, u32
from netstack._counters cimport SKB_FORWARDED
from netstack._net cimport (
    ETH_ALEN, ETH_HLEN, IFF_BROADCAST, IFF_MULTICAST, IFF_RUNNING, IFF_UP, SLOT_CPU0, Net, net,
    net_device, net_device_ops,
)
from netstack._skb cimport (
    PACKET_BROADCAST, PACKET_HOST, PACKET_MULTICAST, PACKET_OTHERHOST, SKB_CLASSES, new_frame_id,
    queue_tail, dequeue, sk_buff, sk_buff_head, skb_alloc, skb_class_for, skb_copy_bits, skb_end, skb_pool,
    skb_pool_create, skb_pull, skb_set_slot, skb_wrap,
)
from netstack.proto._arp cimport arp_rcv_fast
from netstack.proto._inet cimport ETH_P_ARP, ETH_P_IP
from netstack.proto._ip cimport ip_rcv_fast

cdef struct bench:
    net_device dev
    net_device_ops ops
    sk_buff_head sent              # frames that left through dev
    sk_buff_head looped            # packets for ourselves, as netif_rx queues them
    sk_buff_head seam              # packets for Python
    u32 kicks
    bint refuse


cdef bench *bench_of(net *n) noexcept nogil:
    return <bench *>n.cpus[0]

cdef int bench_xmit(void *p, net_device *dev) noexcept nogil:
    queue_tail(&bench_of(dev.net).sent, <sk_buff *>p)
    return 0

cdef int bench_queue_xmit(void *p) noexcept nogil:
    cdef sk_buff *skb = <sk_buff *>p
    return skb.dev.ops.ndo_start_xmit(skb, skb.dev)

cdef int bench_netif_rx(void *p) noexcept nogil:
    cdef sk_buff *skb = <sk_buff *>p
    queue_tail(&bench_of(skb.pool.n).looped, skb)
    return 0

cdef void bench_to_python(net *n, void *p) noexcept nogil:
    queue_tail(&bench_of(n).seam, <sk_buff *>p)

cdef void bench_kick(net *n) noexcept nogil:
    bench_of(n).kicks += 1


@cython.final
cdef class Bench:
    """One Ethernet device (ifindex 2) and CPU 0 of a host, driven by hand."""
    cdef bench *b
    cdef net *n
    cdef Net net_object
    cdef skb_pool *pool

    def __cinit__(self, Net n not None, bytes mac not None, u32 mtu=1500):
        cdef u32 counts[SKB_CLASSES]
        counts[0], counts[1], counts[2] = 512, 512, 512
        self.net_object = n
        self.n = n.ptr
        self.b = <bench *>calloc(1, sizeof(bench))
        self.pool = skb_pool_create(self.n, SLOT_CPU0, counts)
        if self.b == NULL or self.pool == NULL:
            raise MemoryError
        self.b.ops.ndo_start_xmit = bench_xmit
        self.b.dev.net = self.n
        self.b.dev.ops = &self.b.ops
        self.b.dev.ifindex = 2
        self.b.dev.mtu = mtu
        self.b.dev.type = 1
        self.b.dev.flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST
        self.b.dev.name[0:5] = b"eth0\0"
        memcpy(self.b.dev.dev_addr, <const u8 *>mac, ETH_ALEN)
        self.n.devices[1] = &self.b.dev
        self.n.nr_devices = 2
        self.n.cpus[0] = self.b
        self.n.dev_queue_xmit = bench_queue_xmit
        self.n.netif_rx = bench_netif_rx
        self.n.to_python = bench_to_python
        self.n.kick_python = bench_kick

    def __dealloc__(self):
        free(self.b)

    @property
    def kicks(self):
        """How often the data path asked for a look at the timers."""
        return self.b.kicks

    @property
    def mtu(self):
        """Of the device."""
        return self.b.dev.mtu

    @mtu.setter
    def mtu(self, u32 value):
        self.b.dev.mtu = value

    def receive(self, bytes frame not None, bint fast):
        """Take a frame as a driver would; the SkBuff for Python if the short cut left it, else None."""
        cdef sk_buff *skb = self.build(frame)
        return self.hand_up(skb, fast)

    cdef sk_buff *build(self, bytes frame) except NULL:
        cdef u32 size = <u32>len(frame)
        cdef u32 here, done = 0
        cdef const u8 *bits = frame
        cdef sk_buff *skb = skb_alloc(self.pool, skb_class_for(size))
        cdef sk_buff *frag
        if skb == NULL:
            raise MemoryError
        new_frame_id(self.n, SLOT_CPU0)
        skb.frames = 1
        skb.dev = &self.b.dev
        while True:
            here = min(size - done, <u32>1792)
            frag = skb
            if done:
                frag = skb_alloc(self.pool, skb_class_for(here))
                if frag == NULL:
                    raise MemoryError
                if skb.frag_list == NULL:
                    skb.frag_list = frag
                else:
                    skb.frag_tail.next = frag
                skb.frag_tail = frag
                skb.data_len += here
                skb.truesize += frag.truesize
            memcpy(frag.data, bits + done, here)
            if frag != skb:
                frag.len = here
            skb.len += here
            done += here
            if done >= size:
                break
        skb.mac_header = <u16>(skb.data - skb.head)
        skb.protocol = get_be16(skb.data + 12)
        skb.pkt_type = kind(skb.data, self.b.dev.dev_addr)
        skb_pull(skb, ETH_HLEN)
        return skb

    cdef object hand_up(self, sk_buff *skb, bint fast):
        cdef bint done = False
        skb.network_header = <u16>(skb.data - skb.head)
        if fast:
            with nogil:
                if skb.protocol == ETH_P_IP:
                    done = ip_rcv_fast(self.n, skb, NULL)
                elif skb.protocol == ETH_P_ARP:
                    done = arp_rcv_fast(self.n, skb, NULL)
        return None if done else skb_wrap(skb, self.net_object)

    def next_looped(self, bint fast):
        """Receive the oldest packet to ourselves: (False, None) when there is none, else (True, as ``receive``)."""
        cdef sk_buff *skb = dequeue(&self.b.looped)
        if skb == NULL:
            return False, None
        skb_set_slot(skb, SLOT_CPU0)
        return True, self.hand_up(skb, fast)

    def next_seam(self):
        """Give the oldest packet that the way out left to Python, or None."""
        cdef sk_buff *skb = dequeue(&self.b.seam)
        return None if skb == NULL else skb_wrap(skb, self.net_object)

    def sent(self):
        """Take the frames that left since the last call."""
        cdef sk_buff *skb
        cdef bytes frame
        frames = []
        while True:
            skb = dequeue(&self.b.sent)
            if skb == NULL:
                return frames
            frame = bytes(skb.len)
            skb_copy_bits(skb, 0, <u8 *><char *>frame, skb.len)
            frames.append(frame)
            skb_end(skb, SKB_FORWARDED)

    def pool_in_use(self):
        """Packets of CPU 0's pool that somebody holds."""
        cdef u32 cls
        cdef u32 used = 0
        cdef sk_buff *skb
        for cls in range(SKB_CLASSES):
            used += self.pool.slab[cls].fresh - self.pool.slab[cls].nr_free
            skb = <sk_buff *>self.pool.slab[cls].returned
            while skb != NULL:
                used -= 1
                skb = skb.next
        return used


cdef u8 kind(const u8 *frame, const u8 *own) noexcept:
    """Tell whom a frame is for. [eth_type_trans()]"""
    if frame[:ETH_ALEN] == own[:ETH_ALEN]:
        return PACKET_HOST
    if frame[:ETH_ALEN] == b"\xff" * ETH_ALEN:
        return PACKET_BROADCAST
    return PACKET_MULTICAST if frame[0] & 1 else PACKET_OTHERHOST
