"""errqueue: errors with what they are about, for recvmsg(MSG_ERRQUEUE).

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       what an ICMP message quotes      proto/_icmp_err.pyx
Out      the oldest error                 sock/_recv.pyx
Context  process context; no GIL
Kernel   sock_queue_err_skb(), sock_dequeue_err_skb(), net/core/skbuff.c; skb_errqueue_purge()

An error stands here as a packet of ours, whose cb is a sock_err_cb. It is charged to SO_RCVBUF like a
datagram, and what does not fit is lost: an error says nothing that a sender must know.
"""

from netstack._abi cimport (
    load_acquire32, load_relaxed64, spin_lock, spin_unlock, store_release32, store_relaxed64, store_seq32, u32, u64,
)
from netstack._net cimport SLOT_PROCESS
from netstack._skb cimport consume_skb, sk_buff, skb_set_slot
from netstack.sock._queue cimport sock_append
from netstack.sock._sock cimport SO_EE_ORIGIN_ICMP, SOCK_ERR_CB
from netstack.sock._wake cimport sock_sync_fd, sock_wake


cdef bint sock_queue_err(sock *sk, sk_buff *skb) noexcept nogil:
    """Queue an error; False when there is no room. Consumes skb."""
    cdef u64 rmem
    cdef bint fits
    skb_set_slot(skb, SLOT_PROCESS)
    spin_lock(&sk.lock)
    rmem = sk.rmem_in - load_relaxed64(&sk.rmem_out)
    fits = rmem + skb.truesize < sk.rcvbuf
    if fits:
        SOCK_ERR_CB(skb).at.truesize = skb.truesize
        store_relaxed64(&sk.rmem_in, sk.rmem_in + skb.truesize)
        sock_append(&sk.error_queue, skb)
    spin_unlock(&sk.lock)
    if fits:
        sock_wake(sk)
    else:
        consume_skb(skb)
    return fits


cdef sk_buff *take(sock *sk) noexcept nogil:
    """Take the oldest error off the queue, and its memory off the socket's account."""
    cdef sk_buff *skb
    spin_lock(&sk.lock)
    skb = sk.error_queue.first
    if skb != NULL:
        sk.error_queue.first = skb.next
        skb.next = NULL
        store_release32(&sk.error_queue.qlen, sk.error_queue.qlen - 1)
        store_relaxed64(&sk.rmem_out, sk.rmem_out + SOCK_ERR_CB(skb).at.truesize)
    spin_unlock(&sk.lock)
    return skb


cdef sk_buff *sock_first_err(sock *sk) noexcept nogil:
    """Take the oldest error, with reader_lock held; NULL, without the lock, when there is none.

    The socket's errno becomes that of the next error: after the last one the next call succeeds.
    """
    cdef sk_buff *skb
    cdef sk_buff *following
    cdef u32 err = 0
    if load_acquire32(&sk.error_queue.qlen) == 0:
        return NULL
    spin_lock(&sk.reader_lock)
    skb = take(sk)
    if skb == NULL:
        spin_unlock(&sk.reader_lock)
        return NULL
    spin_lock(&sk.lock)
    following = sk.error_queue.first
    if following != NULL and SOCK_ERR_CB(following).ee_origin == SO_EE_ORIGIN_ICMP:
        err = SOCK_ERR_CB(following).ee_errno
    spin_unlock(&sk.lock)
    if err or SOCK_ERR_CB(skb).ee_origin == SO_EE_ORIGIN_ICMP:
        store_seq32(&sk.err, err)
    sock_sync_fd(sk)
    return skb


cdef void sock_end_err(sock *sk, sk_buff *skb) noexcept nogil:
    """End the error that sock_first_err() gave. Unlocks."""
    consume_skb(skb)
    spin_unlock(&sk.reader_lock)


cdef void sock_purge_err(sock *sk) noexcept nogil:
    """Forget all errors: IP_RECVERR was switched off, or the socket is closed. [skb_errqueue_purge()]"""
    cdef sk_buff *skb = take(sk)
    while skb != NULL:
        consume_skb(skb)
        skb = take(sk)
