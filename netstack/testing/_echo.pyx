"""Echoes, compiled: the yardstick on a TAP, and the client that measures every echo.

Everything here runs without the GIL.
"""

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.unistd cimport read, write

from netstack._abi cimport load_acquire32, monotonic_ns, u8, u32, u64
from netstack.testing._traffic cimport Stop, tally, tally_dict, tally_end, tally_start

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <poll.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    static int ns_poll_in(int fd, int ms) {
        struct pollfd p = {fd, POLLIN, 0};
        return poll(&p, 1, ms);
    }
    """
    int poll_in "ns_poll_in"(int fd, int ms) noexcept nogil
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    struct mmsghdr:
        msghdr msg_hdr
        unsigned msg_len
    int sendmmsg(int fd, mmsghdr *v, unsigned n, int flags) noexcept nogil
    int recvmmsg(int fd, mmsghdr *v, unsigned n, int flags, void *timeout) noexcept nogil
    int MSG_WAITFORONE

cdef enum:
    BURST = 64
    NR_STEPS = 100_000             # of 100 ns: up to 10 ms


cdef void swap_ends(u8 *frame) noexcept nogil:
    """Make the answer of a UDP datagram in a frame; its checksums stay right."""
    cdef u8 other[6]
    memcpy(other, frame, 6)
    memcpy(frame, frame + 6, 6)
    memcpy(frame + 6, other, 6)
    memcpy(other, frame + 26, 4)
    memcpy(frame + 26, frame + 30, 4)
    memcpy(frame + 30, other, 4)
    memcpy(other, frame + 34, 2)
    memcpy(frame + 34, frame + 36, 2)
    memcpy(frame + 36, other, 2)


def echo_bare(int fd, Stop stop not None, bint spin=False):
    """The yardstick of echoes: send every UDP datagram of a TAP back, until ``stop`` is set.

    Sleeps in poll when none is there, or spins. Gives packets, wall_ns, cpu_ns.
    """
    cdef u8 frame[65536]
    cdef tally t
    cdef ssize_t got
    with nogil:
        tally_start(&t)
        while not load_acquire32(&stop.flag):
            got = read(fd, frame, sizeof(frame))
            if got >= 42 and frame[12] == 8 and frame[13] == 0 and frame[14] == 0x45 and frame[23] == 17:
                swap_ends(frame)
                write(fd, frame, got)
                t.packets += 1
            elif got <= 0 and not spin:
                poll_in(fd, 20)
        tally_end(&t)
    return tally_dict(&t)


cdef struct pinger:
    int fd
    u32 size
    u64 sent
    u64 lost
    mmsghdr msgs[BURST]
    iovec iov[BURST]
    u8 data[BURST][2048]


cdef void ping_send(pinger *p, u32 count) noexcept nogil:
    """Send datagrams that carry the time."""
    cdef u64 now = monotonic_ns()
    cdef u32 i
    cdef int rc
    for i in range(count):
        memcpy(p.data[i], &now, 8)
        p.iov[i].iov_len = p.size
    i = 0
    while i < count:
        rc = sendmmsg(p.fd, p.msgs + i, count - i, 0)
        if rc > 0:
            i += <u32>rc
        elif errno != EAGAIN and errno != EINTR and errno != ENOBUFS:
            break
    p.sent += i


def ping(int fd, u32 size, u32 window, double seconds):
    """Keep ``window`` datagrams in flight on a connected UDP socket whose peer sends them back.

    The socket has SO_RCVTIMEO; what does not come back by then is lost and sent anew. Gives packets that
    came back, wall_ns, cpu_ns, lost, and ``ns``: how many took so long, by steps of 100 ns, as a dict.
    """
    cdef pinger *p
    cdef u32 *histogram
    cdef tally t
    cdef u64 now, sent_at, until
    cdef u64 step
    cdef int got, i
    if not 0 < window <= BURST or not 8 <= size <= 2048:
        raise ValueError(f"window={window}, size={size}: a window of 1 to {BURST}, 8 to 2048 bytes")
    p = <pinger *>calloc(1, sizeof(pinger))
    histogram = <u32 *>calloc(NR_STEPS, sizeof(u32))
    if p == NULL or histogram == NULL:
        free(p)
        free(histogram)
        raise MemoryError
    p.fd, p.size = fd, size
    for i in range(BURST):
        p.iov[i].iov_base = p.data[i]
        p.msgs[i].msg_hdr.msg_iov = &p.iov[i]
        p.msgs[i].msg_hdr.msg_iovlen = 1
    with nogil:
        tally_start(&t)
        until = t.start + <u64>(seconds * 1e9)
        ping_send(p, window)
        while monotonic_ns() < until:
            for i in range(BURST):
                p.iov[i].iov_len = sizeof(p.data[0])
            got = recvmmsg(fd, p.msgs, window, MSG_WAITFORONE, NULL)
            if got <= 0:
                p.lost = p.sent - t.packets
                ping_send(p, window)
                continue
            now = monotonic_ns()
            for i in range(got):
                memcpy(&sent_at, p.data[i], 8)
                step = (now - sent_at) // 100
                histogram[min(step, <u64>NR_STEPS - 1)] += 1
            t.packets += <u64>got
            ping_send(p, <u32>got)
        tally_end(&t)
    found = {100 * i: histogram[i] for i in range(NR_STEPS) if histogram[i]}
    out = tally_dict(&t) | {"lost": p.lost, "ns": found}
    free(p)
    free(histogram)
    return out
