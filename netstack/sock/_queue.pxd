"""The receive queue; see ``_queue.pyx``.

Reading, a datagram at a time: sock_first() locks and gives the oldest, then sock_read() ends it or
sock_peeked() leaves it, and unlocks. Reading many: sock_taken() and sock_next() in turn after
sock_first(), sock_read_end() at the end.
"""

from netstack._abi cimport (
    add_relaxed32, load_acquire32, load_relaxed32, load_relaxed64, prefetch, spin_lock, spin_unlock, store_relaxed64,
    store_release32, u8, u32, u64,
)
from netstack._skb cimport sk_buff, sk_buff_head
from netstack.sock._sock cimport (
    NO_FD, SOCK_BATCH, SOCK_CB, SOCK_PROTO_MEM, SOCK_QUEUED, SOCK_RCVBUFF, sock, sock_efd, sock_skb_cb,
)
from netstack.sock._wake cimport sock_sync_fd

cdef bint mem_schedule(sock *sk, u64 size, u64 rmem) noexcept nogil
cdef int sock_queue_rcv_skb(sock *sk, sk_buff *skb) noexcept nogil
cdef sk_buff *sock_splice(sock *sk) noexcept nogil
cdef sk_buff *sock_peek_at(sock *sk, sk_buff *skb) noexcept nogil
cdef void sock_peek_end(sock *sk, sk_buff *skb, u32 copied) noexcept nogil
cdef void sock_peek_bwd(sock *sk, u32 size) noexcept nogil
cdef sk_buff *sock_drop_bad(sock *sk, sk_buff *skb) noexcept nogil
cdef void sock_end_odd(sock *sk, sk_buff *skb) noexcept nogil
cdef void sock_flush(sock *sk) noexcept nogil
cdef void sock_purge(sock *sk) noexcept nogil
cdef double sock_frames(sock *sk) noexcept nogil


cdef inline void sock_append(sk_buff_head *q, sk_buff *skb) noexcept nogil:
    """Put a packet at the end of a queue whose length others read without its lock, which is held."""
    skb.next = NULL
    if q.first == NULL:
        q.first = skb
    else:
        q.last.next = skb
    q.last = skb
    store_release32(&q.qlen, q.qlen + 1)

cdef inline int sock_queue_rcv(sock *sk, sk_buff *skb) noexcept nogil:
    """Queue a datagram if it fits: SOCK_QUEUED, or why not (counted in drops; skb is still the caller's).

    It fits when the charged memory stays within SO_RCVBUF, or when nothing is charged at all.
    [__udp_enqueue_schedule_skb() of 6.18]
    """
    cdef sock_skb_cb *cb = SOCK_CB(skb)
    cdef u32 size = skb.truesize
    cdef u64 rmem
    cdef int result
    spin_lock(&sk.lock)
    rmem = sk.rmem_in - load_relaxed64(&sk.rmem_out)
    if rmem + size > sk.rcvbuf and rmem != 0:
        result = SOCK_RCVBUFF
    elif size > sk.forward_alloc and not mem_schedule(sk, size, rmem):
        result = SOCK_PROTO_MEM
    else:
        result = SOCK_QUEUED
        sk.forward_alloc -= size
        store_relaxed64(&sk.rmem_in, sk.rmem_in + size)
        cb.truesize = size
        cb.dropcount = load_relaxed32(&sk.drops)
        cb.taken = 0
        cb.peeked = 0
        sock_append(&sk.receive_queue, skb)
    spin_unlock(&sk.lock)
    if result != SOCK_QUEUED:
        add_relaxed32(&sk.drops, 1)
    return result

cdef inline void sock_read_end(sock *sk) noexcept nogil:
    """The rarer half of sock_read(): give back what was read, unsignal an emptied queue, unlock."""
    sock_flush(sk)
    if sock_efd(sk) != NO_FD:
        sock_sync_fd(sk)
    spin_unlock(&sk.reader_lock)

cdef inline sk_buff *sock_next(sock *sk) noexcept nogil:
    """Give the oldest datagram whose checksum is good, NULL when there is none. reader_lock is held."""
    cdef sk_buff *skb = sk.reader_queue.first
    if skb == NULL:
        skb = sock_splice(sk)
    while skb != NULL and SOCK_CB(skb).csum_unchecked and not sk.prot.complete(sk, skb):
        skb = sock_drop_bad(sk, skb)
    return skb

cdef inline sk_buff *sock_first(sock *sk) noexcept nogil:
    """Give the oldest datagram, with reader_lock held; NULL, without the lock, when there is none."""
    cdef sk_buff *skb
    spin_lock(&sk.reader_lock)
    skb = sock_next(sk)
    if skb == NULL:
        sock_read_end(sk)
    return skb

cdef inline void sock_peeked(sock *sk) noexcept nogil:
    """Leave the datagram that sock_first() gave in the queue."""
    spin_unlock(&sk.reader_lock)

cdef inline void sock_pop(sock *sk, sk_buff *skb) noexcept nogil:
    """Take the first datagram off reader_queue, and load what the next call will read."""
    cdef sk_buff *following = skb.next
    sk.reader_queue.first = following
    store_release32(&sk.reader_queue.qlen, sk.reader_queue.qlen - 1)
    if following != NULL:
        prefetch(following.data)
        prefetch(<u8 *>following + 64)
        prefetch(<u8 *>following + 128)
        prefetch(following.next)

cdef inline void sock_taken(sock *sk, sk_buff *skb) noexcept nogil:
    """End the datagram that sock_next() gave: an application has it. Stays locked."""
    sock_pop(sk, skb)
    sk.deficit += SOCK_CB(skb).truesize
    if skb.frag_list == NULL and skb.owner == NULL and load_acquire32(&skb.dataref) == 1:
        sk.dead_frames += skb.frames
        skb.next = sk.dead
        sk.dead = skb
        sk.nr_dead += 1
    else:
        sock_end_odd(sk, skb)

cdef inline bint sock_flush_due(sock *sk) noexcept nogil:
    """True when what was read is so much that it has to be given back."""
    return sk.nr_dead >= SOCK_BATCH or sk.deficit >= sk.rcvbuf >> 2

cdef inline void sock_read(sock *sk, sk_buff *skb) noexcept nogil:
    """End the datagram that sock_first() gave: an application has it. Unlocks."""
    sock_taken(sk, skb)
    if sock_flush_due(sk) or sk.reader_queue.first == NULL:
        sock_read_end(sk)
    else:
        spin_unlock(&sk.reader_lock)
