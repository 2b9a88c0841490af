"""sock: how a socket begins and ends.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       socket() and close()             sock/_calls.pyx, sock/_socket.pyx
Out      a struct sock                    sock/_queue.pyx, sock/_wake.pyx, sock/_table.pyx
Context  process context; no GIL
Kernel   sk_alloc(), sock_init_data(), udp_destroy_sock(), net/core/sock.c
"""

from libc.stdlib cimport free
from libc.string cimport memset
from posix.unistd cimport close

from netstack._abi cimport exchange32, fetch_add32, fetch_or32, spin_lock, spin_unlock, store_release32, u32
from netstack._net cimport busy_read, net, rmem_default, sysctl_get, wmem_default
from netstack._skb cimport queue_init
from netstack.sock._errqueue cimport sock_purge_err
from netstack.sock._queue cimport sock_purge
from netstack.sock._wake cimport sock_wake

cdef extern from "<stdlib.h>":
    int posix_memalign(void **p, size_t alignment, size_t size) noexcept nogil

cdef sock probe
if not (<char *>&probe.lock - <char *>&probe == CACHE_LINE
        and <char *>&probe.reader_lock - <char *>&probe == 2 * CACHE_LINE
        and <char *>&probe.sleeping - <char *>&probe == 3 * CACHE_LINE):
    raise ImportError("struct sock: lookup, producer and consumer don't have cache lines of their own")


cdef sock *sk_alloc(net *n, proto *prot) noexcept:
    """Make a socket; NULL when there is no memory. [sk_alloc(), sock_init_data()]"""
    cdef void *memory = NULL
    cdef sock *sk
    if posix_memalign(&memory, CACHE_LINE, sizeof(sock)) != 0:
        return NULL
    sk = <sock *>memory
    memset(sk, 0, sizeof(sock))
    sk.n = n
    sk.prot = prot
    sk.efd = <u32>NO_FD
    sk.mc_ttl = 1
    sk.flags = SOCKF_MC_LOOP | SOCKF_MC_ALL
    sk.pmtudisc = IP_PMTUDISC_WANT
    sk.peek_off = -1
    sk.incoming_cpu = <u32>-1
    sk.rcvlowat = 1
    sk.rcvbuf = <u32>sysctl_get(n, rmem_default)
    sk.sndbuf = <u32>sysctl_get(n, wmem_default)
    sk.busy_poll_us = <u32>sysctl_get(n, busy_read)
    queue_init(&sk.receive_queue)
    queue_init(&sk.reader_queue)
    queue_init(&sk.error_queue)
    return sk


cdef void sk_close(sock *sk) noexcept nogil:
    """Take a socket out of its table, wake who waits for it, and drop what nobody has read.

    Without the GIL. The memory stays valid for threads that are still inside a call: sk_free() ends it.
    """
    cdef int fd
    if fetch_or32(&sk.flags, SOCKF_CLOSED) & SOCKF_CLOSED:
        return
    sock_stamped(sk, False)
    sk.prot.unhash(sk)
    if sk.n.synchronize != NULL:
        sk.n.synchronize(sk.n)
    reuse_free(sk)
    sock_wake(sk)
    spin_lock(&sk.reader_lock)
    sock_purge(sk)
    sock_purge_err(sk)
    fd = sock_efd(sk)
    store_release32(&sk.efd, <u32>NO_FD)
    spin_unlock(&sk.reader_lock)
    if fd != NO_FD:
        close(fd)


cdef void sock_stamped(sock *sk, bint wanted) noexcept nogil:
    """Have packets stamped for this socket, or no longer. [sock_enable_timestamp(), net_enable_timestamp()]"""
    cdef u32 before = exchange32(&sk.stamped, <u32>wanted)
    if before != <u32>wanted:
        fetch_add32(&sk.n.netstamp_needed, 1 if wanted else <u32>-1)


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
    free(sk.filter)
    free(sk.mc_list)
    free(sk.cork)
    free(sk.priv)
    free(sk)
