"""A receiver in compiled code: what a program that throws everything away could have at best."""

from netstack._abi cimport load_acquire32, monotonic_ns, u32, u64, uintptr_t
from netstack._net cimport SLOT_PROCESS, mib_add, net_now
from netstack._skb cimport sk_buff
from netstack.napi._napi cimport softnet_data
from netstack.sock._queue cimport sock_first, sock_flush, sock_flush_due, sock_next, sock_read_end, sock_taken
from netstack.sock._sock cimport sock, sock_readable
from netstack.sock._table cimport udp_table

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout_ms)
    short POLLIN

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *ts)
    int CLOCK_THREAD_CPUTIME_ID

cdef enum:
    LOOK_MS = 20                   # between two looks at the flag
    POLL_NS = 20_000
    BATCH = 1024


cdef u64 thread_ns() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts)
    return <u64>ts.tv_sec * 1_000_000_000 + <u64>ts.tv_nsec


cdef u64 take_batch(sock *sk, u64 *octets) noexcept nogil:
    """End up to BATCH packets of the queue; how many datagrams they were."""
    cdef sk_buff *skb = sock_first(sk)
    cdef u64 datagrams = 0
    cdef u32 packets = 0
    if skb == NULL:
        return 0
    while skb != NULL and packets < BATCH:
        datagrams += skb.gso_segs if skb.gso_segs else 1
        octets[0] += skb.len
        packets += 1
        sock_taken(sk, skb)
        if sock_flush_due(sk):
            sock_flush(sk)
        skb = sock_next(sk)
    mib_add(sk.n, SLOT_PROCESS, sk.prot.in_datagrams, packets)
    sock_read_end(sk)
    return datagrams


cdef bint ready(void *sk) noexcept nogil:
    return sock_readable(<sock *>sk)


def sink(uintptr_t cpu, u32 port, int fd, uintptr_t flag):
    """Read the UDP socket on ``port`` until ``flag``, the address of a u32, is set: run to completion in this thread.

    ``cpu`` is the address of the Cpu of a host without threads, ``fd`` that of its wire, to sleep on. Gives packets
    (datagrams), bytes, wall_ns and cpu_ns.
    """
    cdef softnet_data *sd = <softnet_data *>cpu
    cdef sock *sk = (<udp_table *>sd.n.udp).port[port & 0xFFFF]
    cdef u64 datagrams = 0
    cdef u64 octets = 0
    cdef u64 got, start, wall
    cdef pollfd p
    if sk == NULL:
        raise ValueError(f"port={port}: no socket is bound to it")
    p.fd = fd
    p.events = POLLIN
    with nogil:
        start, wall = thread_ns(), monotonic_ns()
        while not load_acquire32(<u32 *>flag):
            got = take_batch(sk, &octets)
            datagrams += got
            # Polled with nothing to show for it: the wire is empty.
            if got == 0 and sd.n.busy_loop(sd.n, sk, ready, net_now(sd.n) + POLL_NS) == 0:
                poll(&p, 1, LOOK_MS)
        start, wall = thread_ns() - start, monotonic_ns() - wall
    return {"packets": datagrams, "bytes": octets, "wall_ns": wall, "cpu_ns": start}
