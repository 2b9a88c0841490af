"""sock: the queue between a protocol and an application, and how the one wakes the other.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       datagrams for one socket         proto/_udp.pyx
Out      the application's calls          sock/_socket.pyx
Context  producer: softirq or process context; consumer: any thread; no GIL
Kernel   __udp_enqueue_schedule_skb(), __skb_recv_udp(), net/ipv4/udp.c; sock_def_readable(), net/core/sock.c

The queue is two: the producer appends to ``receive_queue`` under ``lock``, the consumer takes from
``reader_queue`` under ``reader_lock``, and splices the whole of the first into the second when the
second is empty. So the two meet once a burst, not once a datagram.

What was read is collected and given back by the batch (sock_flush): one addition to the ledger,
one operation on the pool, one release of charged memory. Whenever the queue runs empty nothing is
left over.

Waking
------
A thread that blocks sleeps on the futex ``sleeping``; a program that polls looks at an eventfd that
fileno() makes. Neither costs the producer anything until somebody sleeps or has asked for the fd.

A sleeper stores 1, then looks at the queue once more, then sleeps while the word is 1. The producer
queues, then (after a full fence) looks at the word, and if it is 1 puts 0 and wakes. Both orders are
store, fence, load: at least one of the two sees the other, so no wake-up is lost.

The eventfd is a level: readable just while sock_readable(). Its semaphore counts one for ``signalled``,
and only who changes ``signalled`` from 0 to 1 writes, only who changes it from 1 to 0 reads, one each.
Writes and reads are therefore paired, and once both are through, the fd is readable just when
``signalled`` is 1. (A read may come before its write; it repeats until the write is there, which is
between two instructions of another thread.) It remains to show that ``signalled`` ends up right.
Everybody who changes something, be it the queue, the error or ``signalled`` itself, runs
sock_sync_fd afterwards, and that ends only after it has seen the two agree. Take the last change of
all: the look that follows it sees the final state of both, and finds that they agree. Before that,
fd and queue may differ for the moment between a change and the look that follows; poll then reports
early or late by that moment, as the kernel's does. Every change is separated by a full fence from
the look that follows it, so a look can't miss the changes of others that came before its own.

The fd number is read and used either by a CPU, or under the table's lock, or under ``reader_lock``;
sk_close() passes all three before it closes the fd, so no thread writes to a number that has
become another file's.
"""

from libc.errno cimport EAGAIN, EINTR, ETIMEDOUT, errno as c_errno
from libc.stdlib cimport free
from libc.string cimport memset
from posix.unistd cimport close, read, write

from netstack._abi cimport (
    add_relaxed32, cas_ptr, exchange32, fence, fetch_or32, load_acquire32, load_relaxed64, load_seq32,
    monotonic_ns, spin_lock, spin_unlock, store_relaxed64, store_release32, store_release_ptr,
    store_seq32, u32, u64, fetch_add64,
)
from netstack._counters cimport SKB_DELIVERED, SKB_DROP_REASON_SOCKET_CLOSE, SKB_DROP_REASON_UDP_CSUM
from netstack._net cimport (
    SLOT_PROCESS, busy_read, fate_add, net, net_now, poll_spin_usecs, rmem_default, sysctl_get,
    udp_mem_max, udp_mem_min, udp_rmem_min, wmem_default,
)
from netstack._skb cimport (
    SKB_CB, kfree_skb_reason, queue_init, sk_buff, skb_end, skb_give_back, skb_set_slot,
)
from netstack.napi._napi cimport softnet_data

cdef extern from *:
    """
    #include <errno.h>
    #include <limits.h>
    #include <linux/futex.h>
    #include <sys/eventfd.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    /* 0, or the errno: EAGAIN when the word had changed, ETIMEDOUT, EINTR. ns < 0: no limit. */
    static int ns_sock_sleep(uint32_t *word, int64_t ns) {
        struct timespec t;
        t.tv_sec = ns / 1000000000; t.tv_nsec = ns % 1000000000;
        return syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 1, ns < 0 ? NULL : &t, NULL, 0) < 0 ? errno : 0;
    }
    static void ns_sock_rouse(uint32_t *word) {
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
    """
    int futex_sleep "ns_sock_sleep"(u32 *word, long long ns) noexcept nogil
    void futex_rouse "ns_sock_rouse"(u32 *word) noexcept nogil
    int EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE
    int eventfd(unsigned initial, int flags) noexcept nogil
    int sched_yield() noexcept nogil
    int posix_memalign(void **p, size_t alignment, size_t size) noexcept nogil

cdef enum:
    PAGE = 4096                    # what memory is taken from the protocol by [SK_MEM_QUANTUM]

if sizeof(sock_skb_cb) > SKB_CB:
    raise ImportError(f"sock_skb_cb is {sizeof(sock_skb_cb)} bytes, skb.cb has {SKB_CB}")


# ---- life

cdef sock *sk_alloc(net *n, proto *prot) noexcept:
    """Make a socket; NULL when there is no memory. [sk_alloc(), sock_init_data()]"""
    cdef void *memory = NULL
    cdef sock *sk
    if posix_memalign(&memory, 64, sizeof(sock)) != 0:
        return NULL
    sk = <sock *>memory
    memset(sk, 0, sizeof(sock))
    sk.n = n
    sk.prot = prot
    sk.efd = -1
    sk.mc_ttl = 1
    sk.pmtudisc = IP_PMTUDISC_WANT
    sk.rcvbuf = <u32>sysctl_get(n, rmem_default)
    sk.sndbuf = <u32>sysctl_get(n, wmem_default)
    queue_init(&sk.receive_queue)
    queue_init(&sk.reader_queue)
    return sk


cdef void sk_close(sock *sk) noexcept nogil:
    """Take a socket out of its table, wake who waits for it, and drop what nobody has read.

    Without the GIL. The memory stays valid for threads that are still inside a call: sk_free() ends it.
    """
    cdef sk_buff *skb
    cdef int fd
    if fetch_or32(&sk.flags, SOCKF_CLOSED) & SOCKF_CLOSED:
        return
    sk.prot.unhash(sk)
    if sk.n.synchronize != NULL:
        sk.n.synchronize(sk.n)
    reuse_free(sk)
    sock_wake(sk)
    spin_lock(&sk.reader_lock)
    while True:
        skb = sk.reader_queue.first
        if skb == NULL:
            skb = sock_splice(sk)
            if skb == NULL:
                break
        sock_pop(sk, skb)
        sk.deficit += SOCK_CB(skb).truesize
        skb_set_slot(skb, SLOT_PROCESS)
        skb_end(skb, SKB_DROP_REASON_SOCKET_CLOSE)
    sock_flush(sk)
    mem_reclaim(sk, 0)
    fd = sk.efd
    sk.efd = -1
    spin_unlock(&sk.reader_lock)
    if fd >= 0:
        close(fd)


cdef void reuse_free(sock *sk) noexcept nogil:
    """Free the SO_REUSEPORT group that the last member kept."""
    cdef sock_reuseport *group = sk.reuse
    cdef sock_reuseport *older
    sk.reuse = NULL
    while group != NULL:
        older = group.retired
        free(group)
        group = older


cdef void sk_free(sock *sk) noexcept nogil:
    """Free a closed socket that no thread is inside of any more."""
    free(sk)


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

cdef int sock_queue_rcv(sock *sk, sk_buff *skb) noexcept nogil:
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
        cb.dropcount = sk.drops
        skb.next = NULL
        if sk.receive_queue.first == NULL:
            sk.receive_queue.first = skb
        else:
            sk.receive_queue.last.next = skb
        sk.receive_queue.last = skb
        store_release32(&sk.receive_queue.qlen, sk.receive_queue.qlen + 1)
    spin_unlock(&sk.lock)
    if result != SOCK_QUEUED:
        add_relaxed32(&sk.drops, 1)
    return result


cdef void sock_data_ready(sock *sk, softnet_data *sd) noexcept nogil:
    """Say that a socket has something new: at the end of the CPU's batch, or at once in process context.

    [sk_data_ready, sock_def_readable()]
    """
    if sd == NULL:
        sock_wake(sk)
    elif sk.wake_sd != sd:
        # wake_sd == sd was stored by this CPU, whose sock_wake() is still to come. Another CPU's may
        # be over already, hence the direct wake.
        if cas_ptr(<void **>&sk.wake_sd, NULL, sd):
            sk.wake_next = <sock *>sd.wake_list
            sd.wake_list = sk
        else:
            sock_wake(sk)


cdef void sock_wake_all(softnet_data *sd) noexcept nogil:
    """Wake the readers of every socket that this batch brought something."""
    cdef sock *sk = <sock *>sd.wake_list
    cdef sock *following
    sd.wake_list = NULL
    while sk != NULL:
        following = sk.wake_next
        store_release_ptr(<void **>&sk.wake_sd, NULL)
        sock_wake(sk)
        sk = following


cdef void sock_wake(sock *sk) noexcept nogil:
    """Wake sleeping readers and set the pollable fd, after a change that they wait for."""
    fence()
    if load_seq32(&sk.sleeping) and exchange32(&sk.sleeping, 0):
        futex_rouse(&sk.sleeping)
    if sk.efd >= 0:
        sock_sync_fd(sk)


cdef void sock_set_err(sock *sk, u32 err) noexcept nogil:
    """Leave an errno for the next call, and wake who waits. [sk_error_report]"""
    store_seq32(&sk.err, err)
    sock_wake(sk)


cdef u32 sock_take_err(sock *sk) noexcept nogil:
    """Give the pending errno, and clear it. [sock_error()]"""
    cdef u32 err = exchange32(&sk.err, 0)
    if err:
        spin_lock(&sk.reader_lock)
        sock_read_end(sk)
    return err


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
    return sk.reader_queue.first


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


# ---- waiting

cdef bint ready(void *sk) noexcept nogil:
    return sock_readable(<sock *>sk)


cdef bint poll_as_cpu(sock *sk, u64 until) noexcept nogil:
    """Be the CPU for a moment instead of sleeping at once: no thread has to be switched to.

    Spins only where it has paid: while a wait tends to be shorter than twice the time that a
    sleep and a wake-up cost.
    """
    cdef u64 most = sysctl_get(sk.n, busy_read) * 1000
    if most == 0 and sk.spin_ns < 100_000:
        most = sysctl_get(sk.n, poll_spin_usecs) * 1000
    if most == 0 or sk.n.busy_loop == NULL:
        return False
    if until:
        most = min(most, until - monotonic_ns()) if monotonic_ns() < until else 0
    return sk.n.busy_loop(sk.n, sk, ready, net_now(sk.n) + most) == 1


cdef int sock_wait(sock *sk, u64 until) noexcept nogil:
    """Wait until the socket is readable: 0, ETIMEDOUT past ``until`` (monotonic ns, 0 for never), or EINTR.

    Without the GIL.
    """
    cdef u64 start = monotonic_ns()
    cdef u64 now = start
    cdef int why = 0
    if not sock_readable(sk) and not poll_as_cpu(sk, until):
        while True:
            store_seq32(&sk.sleeping, 1)
            fence()
            if sock_readable(sk):
                break
            now = monotonic_ns()
            if until and now >= until:
                return ETIMEDOUT
            why = futex_sleep(&sk.sleeping, <long long>(until - now) if until else -1)
            if why == EINTR:
                return EINTR
    sk.spin_ns = <u32>((<u64>sk.spin_ns * 3 + min(monotonic_ns() - start, 1_000_000)) >> 2)
    return 0


# ---- the pollable fd

cdef int sock_poll_fd(sock *sk) except -1:
    """Give the socket's eventfd, made when first asked for."""
    cdef int fd
    if sk.efd < 0:
        fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)
        if fd < 0:
            raise OSError(c_errno, "no file descriptor for the socket; see ulimit -n")
        spin_lock(&sk.reader_lock)
        if sk.efd < 0:
            sk.efd = fd
            fd = -1
            fence()
            sock_sync_fd(sk)
        spin_unlock(&sk.reader_lock)
        if fd >= 0:
            close(fd)
    return sk.efd


cdef void sock_sync_fd(sock *sk) noexcept nogil:
    """Make the eventfd say what sock_readable() says. The argument is at the head of this file."""
    cdef u64 word = 1
    cdef int fd = sk.efd
    cdef bint want
    while fd >= 0:
        fence()
        want = sock_readable(sk)
        if want == (load_seq32(&sk.signalled) != 0):
            return
        if want:
            if exchange32(&sk.signalled, 1) == 0:
                write(fd, &word, 8)
        elif exchange32(&sk.signalled, 0) == 1:
            while read(fd, &word, 8) < 0 and c_errno == EAGAIN:
                sched_yield()
