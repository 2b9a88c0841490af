"""queue: datagrams between a protocol and an application, charged to the socket.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       datagrams for one socket         proto/_udp.pyx
Out      the oldest one                   sock/_recv.pyx
Context  producer: softirq or process context; consumer: any thread; no GIL
Kernel   __udp_enqueue_schedule_skb(), __skb_recv_udp(), udp_rmem_release(), net/ipv4/udp.c

The queue is two: the producer appends to ``receive_queue`` under ``lock``, the consumer takes from
``reader_queue`` under ``reader_lock``, and splices the whole of the first into the second when the
second is empty. So the two meet once a burst, not once a datagram.

What was read is collected and given back by the batch (sock_flush): one addition to the ledger,
one operation on the pool, one release of charged memory. Whenever the queue runs empty nothing is
left over.
"""

from netstack._abi cimport (
    add_relaxed32, fetch_add64, load_acquire32, load_relaxed32, load_relaxed64, spin_lock, spin_unlock, store_relaxed32,
    store_relaxed64, store_release32, u32, u64,
)
from netstack._counters cimport SKB_DELIVERED, SKB_DROP_REASON_SOCKET_CLOSE, SKB_DROP_REASON_UDP_CSUM
from netstack._net cimport (
    SLOT_PROCESS, fate_add, sysctl_get, udp_mem_max, udp_mem_min, udp_rmem_min,
)
from netstack._skb cimport SKB_CB, kfree_skb_reason, sk_buff, skb_end, skb_give_back, skb_set_slot
from netstack.sock._sock cimport (
    SOCK_QUEUED, SOCK_RCVBUFF, sock_rps_record_flow, sock_skb_cb,
)

cdef enum:
    PAGE = 4096                    # what memory is taken from the protocol by [SK_MEM_QUANTUM]

if sizeof(sock_skb_cb) > SKB_CB:
    raise ImportError(f"sock_skb_cb is {sizeof(sock_skb_cb)} bytes, skb.cb has {SKB_CB}")


# ---- the protocol's memory (net.ipv4.udp_mem)

cdef bint mem_schedule(sock *sk, u64 size, u64 rmem) noexcept nogil:
    """Take pages for ``size`` more bytes; False when the host's limit says no. [__sk_mem_raise_allocated()]

    Up to udp_mem's first number every socket may; above it only those that hold less than udp_rmem_min;
    above the third nobody.
    """
    cdef u64 amount = (size - sk.forward_alloc + PAGE - 1) & ~<u64>(PAGE - 1)
    cdef u64 total = fetch_add64(&sk.n.udp_memory, amount) + amount
    if total > sysctl_get(sk.n, udp_mem_min) and (
            total > sysctl_get(sk.n, udp_mem_max) or rmem >= sysctl_get(sk.n, udp_rmem_min)):
        fetch_add64(&sk.n.udp_memory, -amount)
        return False
    sk.forward_alloc += amount
    return True


cdef void mem_reclaim(sock *sk, u64 keep) noexcept nogil:
    """Give whole pages back to the protocol, ``keep`` bytes excepted. The producer's lock is held."""
    cdef u64 amount
    if sk.forward_alloc > keep:
        amount = (sk.forward_alloc - keep) & ~<u64>(PAGE - 1)
        if amount:
            sk.forward_alloc -= amount
            fetch_add64(&sk.n.udp_memory, -amount)


# ---- the producer

cdef int sock_queue_rcv_skb(sock *sk, sk_buff *skb) noexcept nogil:
    """Queue a packet of a protocol without a limit of its own; as sock_queue_rcv().

    It fits while less than SO_RCVBUF is charged, so the last may exceed it. [__sock_queue_rcv_skb()]
    """
    cdef sock_skb_cb *cb = SOCK_CB(skb)
    cdef bint fits
    cb.taken = 0
    cb.peeked = 0
    spin_lock(&sk.lock)
    fits = sk.rmem_in - load_relaxed64(&sk.rmem_out) < sk.rcvbuf
    if fits:
        store_relaxed64(&sk.rmem_in, sk.rmem_in + skb.truesize)
        cb.truesize = skb.truesize
        cb.dropcount = load_relaxed32(&sk.drops)
        sock_append(&sk.receive_queue, skb)
    spin_unlock(&sk.lock)
    if not fits:
        add_relaxed32(&sk.drops, 1)
    return SOCK_QUEUED if fits else SOCK_RCVBUFF


# ---- the consumer; reader_lock is held

cdef sk_buff *sock_splice(sock *sk) noexcept nogil:
    """Move all of receive_queue to the empty reader_queue; give the first."""
    if load_acquire32(&sk.receive_queue.qlen) == 0:
        return NULL
    spin_lock(&sk.lock)
    sk.reader_queue.first = sk.receive_queue.first
    sk.reader_queue.last = sk.receive_queue.last
    store_release32(&sk.reader_queue.qlen, sk.receive_queue.qlen)
    sk.receive_queue.first = NULL
    store_release32(&sk.receive_queue.qlen, 0)
    spin_unlock(&sk.lock)
    if sk.daddr:
        store_relaxed32(&sk.rxhash, sk.reader_queue.first.hash)    # [sock_rps_save_rxhash()]
        sock_rps_record_flow(sk)
    return sk.reader_queue.first


cdef sk_buff *sock_splice_more(sock *sk, sk_buff *last) noexcept nogil:
    """Move receive_queue behind ``last`` of reader_queue; give the first that is new, NULL for none."""
    cdef sk_buff *more
    spin_lock(&sk.lock)
    more = sk.receive_queue.first
    if more != NULL:
        last.next = more
        sk.reader_queue.last = sk.receive_queue.last
        store_release32(&sk.reader_queue.qlen, sk.reader_queue.qlen + sk.receive_queue.qlen)
        sk.receive_queue.first = NULL
        store_release32(&sk.receive_queue.qlen, 0)
    spin_unlock(&sk.lock)
    return more


cdef sk_buff *sock_peek_at(sock *sk, sk_buff *skb) noexcept nogil:
    """Find what stands behind the bytes that were looked at before, from ``skb`` on; NULL, unlocked, when nothing does.

    What was seen of the packet is taken off it until sock_peek_end(). [__skb_try_recv_from_queue()]
    """
    cdef u32 offset = <u32>sk.peek_off
    cdef sk_buff *following = NULL
    if sk.peek_off < 0:
        return skb
    while offset >= skb.len and (offset or SOCK_CB(skb).peeked):
        offset -= skb.len
        following = skb.next
        if following == NULL:
            following = sock_splice_more(sk, skb)
        if following == NULL:
            spin_unlock(&sk.reader_lock)
            return NULL
        skb = following
        if SOCK_CB(skb).csum_unchecked and sk.prot.complete(sk, skb):
            SOCK_CB(skb).csum_unchecked = 0
    sk.peek_at = offset
    SOCK_CB(skb).peeked = 1
    if skb.data_len:
        SOCK_CB(skb).taken += offset
    else:
        skb.data += offset
        skb.len -= offset
    return skb


cdef void sock_peek_end(sock *sk, sk_buff *skb, u32 copied) noexcept nogil:
    """Make a packet whole again, and go on behind the ``copied`` bytes. [sk_peek_offset_fwd()]"""
    if sk.peek_off < 0:
        return
    if skb.data_len:
        SOCK_CB(skb).taken -= sk.peek_at
    else:
        skb.data -= sk.peek_at
        skb.len += sk.peek_at
    sk.peek_at = 0
    sk.peek_off += <int>copied


cdef void sock_peek_bwd(sock *sk, u32 size) noexcept nogil:
    """``size`` bytes were read; the rest of a datagram that was cut off still counts. [sk_peek_offset_bwd()]"""
    if sk.peek_off >= 0:
        sk.peek_off = max(sk.peek_off - <int>size, 0)


cdef sk_buff *sock_drop_bad(sock *sk, sk_buff *skb) noexcept nogil:
    """Drop the first datagram, whose checksum is wrong; give the next."""
    sock_pop(sk, skb)
    sk.deficit += SOCK_CB(skb).truesize
    add_relaxed32(&sk.drops, 1)
    skb_set_slot(skb, SLOT_PROCESS)
    kfree_skb_reason(skb, SKB_DROP_REASON_UDP_CSUM)
    return sk.reader_queue.first if sk.reader_queue.first != NULL else sock_splice(sk)


cdef void sock_end_odd(sock *sk, sk_buff *skb) noexcept nogil:
    """End a datagram that was read and can't go back with the batch: shared, or of several buffers."""
    skb_set_slot(skb, SLOT_PROCESS)
    skb_end(skb, SKB_DELIVERED)


cdef void sock_flush(sock *sk) noexcept nogil:
    """Give back what was read: frames to the ledger, packets to their pools, memory to the socket.

    [udp_rmem_release(), consume_stateless_skb()]
    """
    cdef sk_buff *dead = sk.dead
    if dead != NULL:
        sk.dead = NULL
        store_release32(&sk.nr_dead, 0)
        fate_add(sk.n, SLOT_PROCESS, SKB_DELIVERED, sk.dead_frames)
        sk.dead_frames = 0
        skb_give_back(dead)
    if sk.deficit:
        spin_lock(&sk.lock)
        store_relaxed64(&sk.rmem_out, sk.rmem_out + sk.deficit)
        if sk.prot.accounts:
            sk.forward_alloc += sk.deficit
            mem_reclaim(sk, 1)
        spin_unlock(&sk.lock)
        sk.deficit = 0


cdef double frames_of(const sk_buff *skb) noexcept nogil:
    """Frames that end with a packet; of a shared one the part that falls on each of its users."""
    cdef const sk_buff *owner = skb.owner if skb.owner != NULL else skb
    cdef const sk_buff *frag = owner.frag_list
    cdef double frames = owner.frames
    while frag != NULL:
        frames += frag.frames
        frag = frag.next
    return frames / load_acquire32(&owner.dataref)


cdef double sock_frames(sock *sk) noexcept nogil:
    """Frames that stand here, for the ledger: of what is not read, and of what is read but not given back.

    A frame that several sockets were given is a part in each, and 1 over all of them.
    """
    cdef double frames = 0
    cdef const sk_buff *skb
    spin_lock(&sk.reader_lock)
    spin_lock(&sk.lock)
    frames += sk.dead_frames
    skb = sk.reader_queue.first
    while skb != NULL:
        frames += frames_of(skb)
        skb = skb.next
    skb = sk.receive_queue.first
    while skb != NULL:
        frames += frames_of(skb)
        skb = skb.next
    spin_unlock(&sk.lock)
    spin_unlock(&sk.reader_lock)
    return frames


cdef void sock_purge(sock *sk) noexcept nogil:
    """Drop what nobody has read, and give all memory back: the socket is closed. reader_lock is held."""
    cdef sk_buff *skb
    while True:
        skb = sk.reader_queue.first
        if skb == NULL:
            skb = sock_splice(sk)
            if skb == NULL:
                break
        sock_pop(sk, skb)
        sk.deficit += SOCK_CB(skb).truesize
        skb_set_slot(skb, SLOT_PROCESS)
        kfree_skb_reason(skb, SKB_DROP_REASON_SOCKET_CLOSE)
    sock_flush(sk)
    spin_lock(&sk.lock)            # no packet comes any more, but `ss` may look
    mem_reclaim(sk, 0)
    spin_unlock(&sk.lock)
