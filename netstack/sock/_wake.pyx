"""wake: tell the application that something has come.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       sockets with something new       proto/_udp.pyx
Out      sleeping threads and a pollable fd  sock/_recv.pyx, the application
Context  softirq, process context; no GIL
Kernel   sock_def_readable(), net/core/sock.c; __skb_wait_for_more_packets(), net/core/datagram.c

A thread that blocks polls the hardware itself for a while, then sleeps as the idle CPU, with ``idle``
set (irq/_busy.pyx). While another thread does that, it sleeps on the futex ``sleeping``. A program that
polls looks at an eventfd that fileno() makes. None of them costs the producer anything until somebody
sleeps or has asked for the fd.

A sleeper stores 1, then looks at the queue once more, then sleeps while the word is 1; that goes for
``idle`` too, only that its word is the CPU's number + 1, and that an eventfd of that CPU ends the sleep,
written once by who takes the number. The producer queues, then (after a full fence) looks at the word,
and if it is not 0 puts 0 and wakes. Both orders are
store, fence, load: at least one of the two sees the other, so no wake-up is lost.

The eventfd is a level: readable just while sock_pollable(). Its semaphore counts one for ``signalled``,
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

from libc.errno cimport EAGAIN, EBUSY, EINTR, ETIMEDOUT, errno as c_errno
from posix.unistd cimport close, read, write

from netstack._abi cimport (
    cas_ptr, exchange32, fence, load_acquire_ptr, load_relaxed32, load_relaxed64, load_seq32, monotonic_ns, spin_lock,
    spin_unlock, store_relaxed32, store_release32, store_release_ptr, store_seq32, u32, u64,
)
from netstack._eventfd cimport EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, eventfd
from netstack._net cimport poll_spin_usecs, sysctl_get
from netstack.napi._napi cimport softnet_data
from netstack.sock._crowd cimport sock_crowd_look
from netstack.sock._sock cimport NO_FD, sock_efd, sock_pollable, sock_readable

cdef extern from *:
    """
    #include <errno.h>
    #include <limits.h>
    #include <linux/futex.h>
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
    int sched_yield() noexcept nogil

cdef enum:
    WAKE_UP_NS = 40_000


cdef void sock_data_ready(sock *sk, softnet_data *sd) noexcept nogil:
    """Say that a socket has something new: at the end of the CPU's batch, or at once in process context.

    [sk_data_ready, sock_def_readable()]
    """
    if sd == NULL:
        sock_wake(sk)
    elif load_acquire_ptr(<void **>&sk.wake_sd) != sd:
        # wake_sd == sd was stored by this CPU, whose sock_wake() is still to come. Another CPU's may
        # be over already, hence the direct wake.
        store_relaxed32(&sk.napi_cpu, sd.cpu)
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
        if load_relaxed64(&sk.crowd_last):
            sock_crowd_look(sk, sd)
        sk = following


cdef void sock_wake(sock *sk) noexcept nogil:
    """Wake sleeping readers and set the pollable fd, after a change that they wait for."""
    cdef u32 idle
    fence()
    if load_seq32(&sk.sleeping) and exchange32(&sk.sleeping, 0):
        futex_rouse(&sk.sleeping)
    if load_seq32(&sk.idle):
        idle = exchange32(&sk.idle, 0)
        if idle:
            sk.n.busy_wake(sk.n, idle - 1)
    if sock_efd(sk) != NO_FD:
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
        sock_sync_fd(sk)
        spin_unlock(&sk.reader_lock)
    return err


# ---- waiting

cdef bint ready(void *sk) noexcept nogil:
    return sock_readable(<sock *>sk)


cdef u64 spin_time(sock *sk) noexcept nogil:
    """How long to poll before sleeping, ns: SO_BUSY_POLL, or poll_spin_usecs where that tends to do.

    A wait that ended with a wake-up would have been shorter by that, 40 microseconds here.
    """
    cdef u64 most = <u64>load_relaxed32(&sk.busy_poll_us) * 1000
    if most == 0:
        most = sysctl_get(sk.n, poll_spin_usecs) * 1000
        if load_relaxed32(&sk.spin_ns) >= most + WAKE_UP_NS:
            most = 0
    return most


cdef void sock_poll_once(sock *sk) noexcept nogil:
    """Poll the hardware once before a call that may not wait says that nothing is there. [sk_busy_loop()]"""
    if load_relaxed32(&sk.busy_poll_us) and sk.n.busy_poll_once != NULL:
        sk.n.busy_poll_once(sk.n, load_relaxed32(&sk.napi_cpu))


cdef int sock_wait(sock *sk, u64 until) noexcept nogil:
    """Wait until the socket is readable: 0, ETIMEDOUT past ``until`` (monotonic ns, 0 for never), or EINTR.

    Without the GIL.
    """
    cdef u64 start = monotonic_ns()
    cdef u64 now = start
    cdef int why = 0
    if not sock_readable(sk):
        why = EBUSY if sk.n.busy_loop == NULL else sk.n.busy_loop(
            sk.n, load_relaxed32(&sk.napi_cpu), sk, ready, &sk.idle, start + spin_time(sk), until)
    while why == EBUSY:
        store_seq32(&sk.sleeping, 1)
        fence()
        if sock_readable(sk):
            break
        now = monotonic_ns()
        if until and now >= until:
            return ETIMEDOUT
        if futex_sleep(&sk.sleeping, <long long>(until - now) if until else -1) == EINTR:
            return EINTR
    if why == EINTR or why == ETIMEDOUT:
        return why
    store_relaxed32(&sk.spin_ns, <u32>((<u64>load_relaxed32(&sk.spin_ns) * 3
                                        + min(monotonic_ns() - start, 1_000_000)) >> 2))
    return 0


# ---- the pollable fd

cdef int sock_poll_fd(sock *sk) except -1:
    """Give the socket's eventfd, made when first asked for."""
    cdef int fd
    if sock_efd(sk) == NO_FD:
        fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)
        if fd < 0:
            raise OSError(c_errno, "no file descriptor for the socket; see ulimit -n")
        spin_lock(&sk.reader_lock)
        if sock_efd(sk) == NO_FD:
            store_release32(&sk.efd, <u32>fd)
            fd = -1
            fence()
            sock_sync_fd(sk)
        spin_unlock(&sk.reader_lock)
        if fd >= 0:
            close(fd)
    return sock_efd(sk)


cdef void sock_sync_fd(sock *sk) noexcept nogil:
    """Make the eventfd say what sock_pollable() says. The argument is at the head of this file."""
    cdef u64 word = 1
    cdef int fd = sock_efd(sk)
    cdef bint want
    while fd != NO_FD:
        fence()
        want = sock_pollable(sk)
        if want == (load_seq32(&sk.signalled) != 0):
            return
        if want:
            if exchange32(&sk.signalled, 1) == 0:
                write(fd, &word, 8)
        elif exchange32(&sk.signalled, 0) == 1:
            while read(fd, &word, 8) < 0 and c_errno == EAGAIN:
                sched_yield()
