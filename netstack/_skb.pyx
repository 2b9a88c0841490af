"""The pools behind ``sk_buff``, the slow half of its end, and the handle that Python holds."""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netstack._abi cimport (
    cas_ptr, exchange_ptr, fetch_add32, load_acquire_ptr, load_acquire32, poison, spin_lock, spin_unlock, u8,
    u32, unpoison,
)
from netstack._counters cimport (
    SKB_CONSUMED, SKB_DELIVERED, SKB_DROP_REASON_NOT_SPECIFIED, SKB_FATE_NR, SKB_NOT_DROPPED_YET,
)
from netstack._net cimport SLOT_PROCESS, Net, fate_add, net
from netstack._pages cimport pages_map, pages_unmap

if sizeof(sk_buff) != SKB_STRUCT:
    raise ImportError(f"sk_buff is {sizeof(sk_buff)} bytes, not {SKB_STRUCT}")

# truesize less the sk_buff: kmalloc's 576 (the small-head cache), 1024 and 2048.
cdef u32 *CLASS_SIZE = [832, 1280, 2304]

cdef enum:
    HUGE_SIZE = 66048              # sk_buff, headroom, a frame of 65553 bytes, and 64 that copies may read beyond


cdef bint slab_reserve(skb_slab *slab, u32 size, u32 count) noexcept:
    """Reserve room for ``count`` elements of ``size`` bytes. False when there is no memory."""
    cdef void *base = pages_map(<size_t>count * size + 64)
    if base == NULL:
        return False
    slab.size = size
    slab.base = <u8 *>base
    slab.count = count
    poison(base, <size_t>count * size + 64)
    return True


cdef int skb_pool_add_huge(skb_pool *pool, u32 count) except -1:
    """Give a pool ``count`` elements of 64 KiB, unless it has some. Before its owner runs."""
    if pool.slab[<int>SKB_HUGE].base == NULL and not slab_reserve(&pool.slab[<int>SKB_HUGE], HUGE_SIZE, count):
        raise MemoryError
    return 0


cdef skb_pool *skb_pool_create(net *n, u32 slot, const u32 *counts) noexcept:
    """Reserve a pool of ``counts[class]`` elements. NULL when there is no memory. Pages come when first used.

    The pool lives as long as the host's struct net: a handle may hold a packet after its CPU has gone.
    """
    cdef skb_pool *pool = <skb_pool *>calloc(1, sizeof(skb_pool))
    cdef u32 cls
    if pool == NULL:
        return NULL
    pool.n = n
    pool.slot = slot
    for cls in range(SKB_CLASSES):
        if not slab_reserve(&pool.slab[cls], CLASS_SIZE[cls], counts[cls]):
            pool_destroy(pool)
            return NULL
    pool.next = <skb_pool *>n.pools
    n.pools = pool
    n.pools_destroy = pools_destroy
    return pool


cdef void pools_destroy(net *n) noexcept:
    """Unmap the pools of a host, at its very end."""
    cdef skb_pool *pool = <skb_pool *>n.pools
    cdef skb_pool *following
    while pool != NULL:
        following = pool.next
        pool_destroy(pool)
        pool = following


cdef void pool_destroy(skb_pool *pool) noexcept:
    """Unmap a pool. Every packet of it must have ended."""
    cdef u32 cls
    for cls in range(SKB_CLASSES + 1):
        if pool.slab[cls].base != NULL:
            unpoison(pool.slab[cls].base, <size_t>pool.slab[cls].count * pool.slab[cls].size + 64)
            pages_unmap(pool.slab[cls].base, <size_t>pool.slab[cls].count * pool.slab[cls].size + 64)
    free(pool)


cdef sk_buff *skb_alloc_slow(skb_pool *pool, u32 cls) noexcept nogil:
    """Refill the owner's list with what others gave back, else open a fresh element, else NULL."""
    cdef skb_slab *slab = &pool.slab[cls]
    cdef sk_buff *skb = <sk_buff *>exchange_ptr(&slab.returned, NULL)
    cdef sk_buff *walk
    if skb != NULL:
        walk = skb.next
        slab.free = walk
        while walk != NULL:
            slab.nr_free += 1
            walk = walk.next
        skb_mark_used(skb, slab.size)
        return skb
    if slab.fresh == slab.count:
        return NULL
    skb = <sk_buff *>(slab.base + <size_t>slab.fresh * slab.size)
    slab.fresh += 1
    skb_mark_used(skb, slab.size)
    skb.pool = pool
    skb.cls = <u8>cls
    skb.truesize = slab.size
    return skb


cdef void skb_give_back(sk_buff *head) noexcept nogil:
    """Give a list of dead elements back to their owners, from any thread: one atomic operation a run of a slab."""
    cdef sk_buff *last
    cdef sk_buff *rest
    cdef skb_slab *slab
    cdef void *old
    while head != NULL:
        slab = &head.pool.slab[head.cls]
        last = head
        while last.next != NULL and &last.next.pool.slab[last.next.cls] == slab:
            skb_mark_free(last)
            last = last.next
        skb_mark_free(last)
        rest = last.next
        while True:
            old = load_acquire_ptr(&slab.returned)
            last.next = <sk_buff *>old
            if cas_ptr(&slab.returned, old, head):
                break
        head = rest


cdef void merge_outcome(sk_buff *owner, u32 fate) noexcept nogil:
    """Of several ends of one frame the best counts: delivered, forwarded, consumed, and any of them over a drop."""
    cdef u32 old
    if fate == SKB_NOT_DROPPED_YET:
        return
    spin_lock(&owner.pool.lock)
    old = owner.outcome
    if old == SKB_NOT_DROPPED_YET or old > SKB_DELIVERED or (fate <= SKB_DELIVERED and fate > old):
        owner.outcome = <u8>fate
    spin_unlock(&owner.pool.lock)


cdef void free_element(sk_buff *skb, u32 slot) noexcept nogil:
    skb.truesize = skb.pool.slab[skb.cls].size      # a merged packet or a clone was charged for more
    if slot != SLOT_PROCESS and slot == skb.pool.slot:
        skb_free_raw(skb)
    else:
        skb.next = NULL
        skb_give_back(skb)


cdef void kfree_skb_slow(sk_buff *skb, u32 fate) noexcept nogil:
    """End a packet that is shared, has further buffers, or is in another context than its pool's."""
    cdef sk_buff *frag = skb.frag_list
    cdef sk_buff *following
    cdef sk_buff *owner = skb.owner if skb.owner != NULL else skb
    cdef net *n = skb.pool.n
    cdef u32 slot = skb.slot
    if owner == skb and load_acquire32(&skb.dataref) == 1 and skb.outcome == SKB_NOT_DROPPED_YET:
        fate_add(n, slot, fate, skb.frames)
    else:
        merge_outcome(owner, fate)
        if fetch_add32(&owner.dataref, <u32>-1) != 1:
            if skb != owner:
                free_element(skb, slot)
            return
        fate = owner.outcome
        fate_add(n, slot, fate, owner.frames)
        if skb != owner:
            frag = owner.frag_list
            free_element(owner, slot)
    while frag != NULL:
        following = frag.next
        frag.slot = <u8>slot
        frag.next = NULL
        kfree_skb_slow(frag, fate)
        frag = following
    free_element(skb, slot)


cdef sk_buff *skb_clone(sk_buff *skb, skb_pool *pool) noexcept nogil:
    """Give a second sk_buff on the same buffer, from ``pool``; NULL when that has none. [skb_clone()]

    The clone carries no frame: the frame's end is settled when the last of the buffer's users ends, and the best of
    their ends counts. Whoever shares a buffer must not write to it.
    """
    cdef sk_buff *clone = skb_alloc(pool, SKB_SMALL)
    cdef sk_buff *owner = skb.owner if skb.owner != NULL else skb
    cdef skb_pool *own_pool
    cdef u8 cls, slot
    if clone == NULL:
        return NULL
    own_pool, cls, slot = clone.pool, clone.cls, clone.slot
    memcpy(clone, skb, sizeof(sk_buff))
    clone.pool, clone.cls, clone.slot = own_pool, cls, slot
    clone.next = NULL
    clone.frames = 0
    clone.dataref = 1
    clone.owner = owner
    fetch_add32(&owner.dataref, 1)
    return clone


cdef u32 skb_copy_bits(const sk_buff *skb, u32 offset, u8 *to, u32 size) noexcept nogil:
    """Copy up to ``size`` bytes from ``offset`` on, over all buffers of the packet; give how many. [skb_copy_bits()]"""
    cdef u32 done = 0
    cdef u32 part
    cdef u32 have = skb.len - skb.data_len
    cdef const sk_buff *frag
    if offset < have:
        done = min(size, have - offset)
        memcpy(to, skb.data + offset, done)
        offset = 0
    else:
        offset -= have
    if skb.data_len == 0:
        return done
    frag = skb.frag_list
    while frag != NULL and done < size:
        if offset < frag.len:
            part = min(size - done, frag.len - offset)
            memcpy(to + done, frag.data + offset, part)
            done += part
            offset = 0
        else:
            offset -= frag.len
        frag = frag.next
    return done


cdef void skb_set_slot(sk_buff *skb, u32 slot) noexcept nogil:
    """Hand a packet, with all of its buffers, to another context."""
    cdef sk_buff *frag = skb.frag_list
    skb.slot = <u8>slot
    while frag != NULL:
        frag.slot = <u8>slot
        frag = frag.next


cdef u32 slab_free(skb_slab *slab) noexcept:
    """Count the elements that could be had. Only while the owner is quiet: it takes over what was returned."""
    cdef sk_buff *skb = <sk_buff *>slab.returned
    cdef u32 count = slab.nr_free + slab.count - slab.fresh
    while skb != NULL:
        count += 1
        skb = skb.next
    return count


cdef list pool_state(skb_pool *pool):
    """The pool by size class: a list of (bytes of an element, free, total)."""
    return [(pool.slab[<int>cls].size, slab_free(&pool.slab[<int>cls]), pool.slab[<int>cls].count)
            for cls in range(SKB_CLASSES + 1) if pool.slab[<int>cls].count]


@cython.final
@cython.no_gc_clear
cdef class ProcessPool:
    """The packets that are made in process context: what a host sends."""
    cdef skb_pool *pool
    cdef Net net_object

    def __cinit__(self, Net n, counts):
        """``counts``: elements of each size class (small, mid, large)."""
        cdef u32 classes[SKB_CLASSES]
        classes[0], classes[1], classes[2] = counts
        self.net_object = n
        self.pool = skb_pool_create(n.ptr, SLOT_PROCESS, classes)
        if self.pool == NULL:
            raise MemoryError
        n.ptr.pool = self.pool

    def state(self):
        """Give a list of (bytes of an element, free, total), one a size class."""
        return pool_state(self.pool)


@cython.final
@cython.no_gc_clear
cdef class SkBuff:
    """A packet in the hands of the Python layers, of a hook, or of a protocol handler.

    The handle owns the packet. Passing it to a compiled function of ``proto`` or ``sock`` that consumes it, or calling
    ``drop`` or ``consume``, ends that; a handle that is forgotten drops its packet with NOT_SPECIFIED.
    ``data`` is what the current layer sees; headers before it are reached by ``mac``, ``network`` and ``transport``.
    """

    def __dealloc__(self):
        if self.ptr != NULL:
            self.end(SKB_DROP_REASON_NOT_SPECIFIED)

    cdef sk_buff *take(self) except NULL:
        """Give the packet away: the handle is empty afterwards."""
        cdef sk_buff *skb = self.ptr
        if skb == NULL:
            raise ValueError("the packet has been passed on or ended already")
        self.ptr = NULL
        return skb

    cdef void end(self, u32 fate) noexcept:
        """End the packet."""
        cdef sk_buff *skb = self.ptr
        self.ptr = NULL
        skb_end_python(skb, fate)

    cdef sk_buff *peek(self) except NULL:
        if self.ptr == NULL:
            raise ValueError("the packet has been passed on or ended already")
        return self.ptr

    def drop(self, u32 reason):
        """Drop the packet for ``reason``, a member of ``skb_drop_reason``."""
        if not SKB_DELIVERED < reason < SKB_FATE_NR:
            raise ValueError(f"reason={reason} is no drop reason")
        self.peek()
        self.end(reason)

    def consume(self):
        """End a packet that has been used up."""
        self.peek()
        self.end(SKB_CONSUMED)

    def forget(self):
        """End a copy that says nothing about the frame: a tap has seen it."""
        skb_end(self.take(), SKB_NOT_DROPPED_YET)

    def clone(self):
        """Give a second handle on the same bytes; None when the packet pool is used up. [skb_clone()]"""
        cdef sk_buff *skb = self.peek()
        cdef Net n = self.net_object
        cdef skb_pool *pool = <skb_pool *>n.ptr.pool
        cdef sk_buff *copy
        spin_lock(&pool.lock)
        copy = skb_clone(skb, pool)
        spin_unlock(&pool.lock)
        return None if copy == NULL else skb_wrap(copy, n)

    @property
    def for_taps(self):
        """True for a copy that is meant for ETH_P_ALL handlers only."""
        return bool(self.peek().for_taps)

    def pull(self, u32 size):
        """Move past a header of ``size`` bytes."""
        cdef sk_buff *skb = self.peek()
        if size > skb_headlen(skb):
            raise ValueError(f"pull({size}): the packet's first buffer has {skb_headlen(skb)} bytes")
        skb_pull(skb, size)

    def __len__(self):
        return self.peek().len

    def __bool__(self):
        return self.ptr != NULL

    @property
    def data(self):
        """The bytes from the current layer's header on, a copy."""
        cdef sk_buff *skb = self.peek()
        return bytes_from(skb, 0, skb.len)

    @property
    def frame(self):
        """The whole frame from its Ethernet header on, a copy."""
        cdef sk_buff *skb = self.peek()
        cdef u8 *mac = skb_mac_header(skb)
        return mac[:skb.data - mac] + bytes_from(skb, 0, skb.len)

    @property
    def network(self):
        """The bytes from the network header on, a copy."""
        cdef sk_buff *skb = self.peek()
        cdef u8 *start = skb_network_header(skb)
        if start > skb.data:
            return bytes_from(skb, <u32>(start - skb.data), skb.len - <u32>(start - skb.data))
        return start[:skb.data - start] + bytes_from(skb, 0, skb.len)

    @property
    def id(self):
        """Number of the frame, from the wire on."""
        return self.peek().id

    @property
    def protocol(self):
        """EtherType."""
        return self.peek().protocol

    @property
    def pkt_type(self):
        """0 for us, 1 broadcast, 2 multicast, 3 for another host, 4 outgoing (PACKET_*)."""
        return self.peek().pkt_type

    @property
    def rt_type(self):
        """What routing said: an RTN_* type, 0 before that."""
        return self.peek().rt_type

    @property
    def rt_flags(self):
        """RTCF_* flags of the route."""
        return self.peek().rt_flags

    @property
    def ifindex(self):
        """Index of the device the packet came in through, 0 for none."""
        cdef sk_buff *skb = self.peek()
        return skb.dev.ifindex if skb.dev != NULL else 0

    def store(self, u32 offset, bytes data not None):
        """Write ``data`` over the packet's bytes from ``offset`` on; checksums are the writer's. [skb_store_bits()]"""
        cdef sk_buff *skb = self.peek()
        if offset + <u64>len(data) > skb_headlen(skb):
            raise ValueError(f"{len(data)} bytes at {offset}: the packet has {skb_headlen(skb)} that can be written")
        memcpy(skb.data + offset, <const u8 *>data, len(data))

    @property
    def src_mac(self):
        """Source of the Ethernet header, 6 bytes."""
        return skb_mac_header(self.peek())[6:12]

    @property
    def vlan(self):
        """The stripped VLAN tag (TCI), or None."""
        cdef sk_buff *skb = self.peek()
        return skb.vlan_tci if skb.vlan_present else None

    @property
    def gso_segs(self):
        """How many frames GRO merged into this packet; 0 for a packet as it came."""
        return self.peek().gso_segs


cdef bytes bytes_from(sk_buff *skb, u32 offset, u32 size):
    if skb.data_len == 0:
        return skb.data[offset:offset + size]
    cdef bytes out = bytes(size)
    skb_copy_bits(skb, offset, <u8 *><char *>out, size)
    return out


cdef SkBuff skb_wrap(sk_buff *skb, Net n):
    """Put a packet into the hands of Python, in process context. The handle owns it."""
    cdef SkBuff handle = SkBuff.__new__(SkBuff)
    skb_set_slot(skb, SLOT_PROCESS)
    handle.ptr = skb
    handle.net_object = n
    return handle
