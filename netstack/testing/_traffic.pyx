"""Senders and the bare reader, compiled: what benchmarks and load tests compare netstack with.

Everything here runs without the GIL and gives what it cost: packets, nanoseconds by the wall and of this thread.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.unistd cimport read

from netstack._abi cimport (
    load_acquire32, monotonic_ns, put_be16, store_release32, sys_read, u8, u16, u32, u64, uintptr_t,
)
from netstack._checksum cimport csum_fold, csum_partial
from netstack.device._vnet cimport VNET_HDR, VNET_MAX_FRAME, virtio_net_hdr
from netstack.device._wire cimport wire, wire_tx
from netstack.irq._cpu cimport cpu_release, cpu_run, cpu_take
from netstack.napi._napi cimport softnet_data
from netstack.sock._queue cimport sock_first, sock_flush, sock_flush_due, sock_next, sock_read_end, sock_taken
from netstack.sock._sock cimport sock
from netstack.sock._socket cimport Socket
from netstack.sock._wake cimport sock_wait
from netstack._skb cimport sk_buff


cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <stdint.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <sys/epoll.h>
    #include <time.h>
    #include <poll.h>
    static uint64_t ns_thread_cpu(void) {
        struct timespec t;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
    }
    static void ns_sleep(uint64_t ns) {
        struct timespec t = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
        nanosleep(&t, NULL);
    }
    static int ns_poll_in(int fd, int ms) {
        struct pollfd p = {fd, POLLIN, 0};
        return poll(&p, 1, ms);
    }
    """
    u64 thread_cpu_ns "ns_thread_cpu"() noexcept nogil
    void sleep_ns "ns_sleep"(u64 ns) noexcept nogil
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
    ssize_t send(int fd, const void *buf, size_t n, int flags) noexcept nogil

cdef enum:
    BURST = 64


cdef void tally_start(tally *t) noexcept nogil:
    t.packets = 0
    t.start = monotonic_ns()
    t.cpu_start = thread_cpu_ns()


cdef void tally_end(tally *t) noexcept nogil:
    t.cpu_ns = thread_cpu_ns() - t.cpu_start
    t.wall_ns = monotonic_ns() - t.start


cdef dict tally_dict(tally *t):
    return {"packets": t.packets, "wall_ns": t.wall_ns, "cpu_ns": t.cpu_ns}


cdef void pace(tally *t, double rate) noexcept nogil:
    """Wait until the next burst is due at ``rate`` packets a second; 0 for as fast as it goes.

    Sleeps, but for the last moments: a sender that spins takes the core from the receiver.
    """
    cdef u64 due, now
    if rate > 0:
        due = t.start + <u64>(t.packets / rate * 1e9)
        now = monotonic_ns()
        if due > now + 100_000:
            sleep_ns(due - now - 50_000)
        while monotonic_ns() < due:
            pass


def send_burst(int fd, frames, u64 count, double rate=0, double seconds=0):
    """Send ``count`` packets (0: for ``seconds``) through ``fd`` with sendmmsg, taking ``frames`` in turn.

    ``fd`` is a connected UDP socket (frames are payloads) or a bound packet socket (whole frames). Packets that the
    kernel had no buffer for are tried again. Gives packets, wall_ns, cpu_ns.
    """
    cdef mmsghdr msgs[BURST]
    cdef iovec iov[BURST]
    cdef u32 nr = <u32>len(frames)
    cdef iovec *all = <iovec *>calloc(nr, sizeof(iovec))
    cdef tally t
    cdef u32 i, at = 0, want
    cdef int sent
    cdef u64 until
    if all == NULL:
        raise MemoryError
    keep = [bytes(frame) for frame in frames]
    for i in range(nr):
        all[i].iov_base = <void *><char *>keep[i]
        all[i].iov_len = len(keep[i])
    memset(msgs, 0, sizeof(msgs))
    for i in range(BURST):
        msgs[i].msg_hdr.msg_iov = &iov[i]
        msgs[i].msg_hdr.msg_iovlen = 1
    with nogil:
        tally_start(&t)
        until = t.start + <u64>(seconds * 1e9)
        while (t.packets < count) if count else (monotonic_ns() < until):
            want = BURST if count == 0 or count - t.packets > BURST else <u32>(count - t.packets)
            for i in range(want):
                iov[i] = all[(at + i) % nr]
            sent = sendmmsg(fd, msgs, want, 0)
            if sent < 0:
                if errno == EAGAIN or errno == EINTR or errno == ENOBUFS:
                    continue
                break
            at = (at + <u32>sent) % nr
            t.packets += sent
            pace(&t, rate)
        tally_end(&t)
    free(all)
    return tally_dict(&t)


def send_gso(int fd, u32 size, u32 segments, u64 count, double rate=0, double seconds=0):
    """Send datagrams of ``size`` bytes through a connected UDP socket with UDP_SEGMENT set, ``segments`` a call."""
    cdef u32 whole = size * segments
    cdef u8 *buf
    cdef tally t
    cdef u64 until
    if not 0 < segments <= 64 or not 0 < whole <= 65507:
        raise ValueError(f"size={size}, segments={segments}: at most 64 segments and 65507 bytes together")
    buf = <u8 *>calloc(1, whole)
    if buf == NULL:
        raise MemoryError
    with nogil:
        tally_start(&t)
        until = t.start + <u64>(seconds * 1e9)
        while (t.packets < count) if count else (monotonic_ns() < until):
            if send(fd, buf, whole, 0) < 0:
                if errno == EAGAIN or errno == EINTR or errno == ENOBUFS:
                    continue
                break
            t.packets += segments
            pace(&t, rate)
        tally_end(&t)
    free(buf)
    return tally_dict(&t)


def udp_frames(const u8[::1] template not None, u32 flows):
    """Give ``flows`` copies of an Ethernet/IPv4/UDP frame that differ in the source port, checksums mended."""
    cdef bytes frame
    cdef u8 *p
    cdef u32 i
    cdef u16 port, old
    cdef u32 total = <u32>template.shape[0]
    out = []
    for i in range(flows):
        frame = bytes(template)
        p = <u8 *><char *>frame
        old = (<u16>p[34] << 8) | p[35]
        port = <u16>(1024 + (old - 1024 + i) % 60000)
        put_be16(p + 34, port)
        if total >= 42 and (p[40] or p[41]):
            mend_udp(p, total)
        out.append(frame)
    return out


cdef void mend_udp(u8 *p, u32 total) noexcept nogil:
    """Compute the UDP checksum of a frame anew."""
    cdef u32 length = (<u32>p[38] << 8) | p[39]
    cdef u8 pseudo[12]
    cdef u16 sum
    memcpy(pseudo, p + 26, 8)
    pseudo[8] = 0
    pseudo[9] = 17
    put_be16(pseudo + 10, <u16>length)
    p[40] = p[41] = 0
    sum = csum_fold(csum_partial(p + 34, min(length, total - 34), csum_partial(pseudo, 12, 0)))
    if sum == 0:
        sum = 0xFFFF
    memcpy(p + 40, &sum, 2)


@cython.final
cdef class Stop:
    """A flag that ends a loop that runs without the GIL."""

    def set(self):
        """End the loop at its next look."""
        store_release32(&self.flag, 1)

    def clear(self):
        """Let the next loop run."""
        store_release32(&self.flag, 0)


def read_bare(int fd, u64 count, Stop stop=None, u32 headers=0, bint inline=False):
    """The yardstick: read frames into one buffer until ``count`` came, ``stop`` is set, or (no stop) none waits.

    With ``stop`` it sleeps in poll when the TAP is empty, otherwise it ends there. Gives packets, bytes, wall_ns and
    cpu_ns. With ``headers``, bytes in front of the payload, a virtio header among them says how many frames a read
    gave, and those are counted. ``inline``: the system call is an instruction in the loop, as netstack has it, and no
    call of libc's read().
    """
    cdef u8 buf[VNET_HDR + VNET_MAX_FRAME]
    cdef virtio_net_hdr *hdr = <virtio_net_hdr *>buf
    cdef tally t
    cdef u64 total = 0
    cdef ssize_t got
    cdef bint sleep = stop is not None
    cdef u32 never = 0
    cdef u32 *flag = &stop.flag if sleep else &never
    with nogil:
        tally_start(&t)
        while t.packets < count or count == 0:
            got = sys_read(fd, buf, sizeof(buf)) if inline else read(fd, buf, sizeof(buf))
            if got > 0:
                t.packets += 1
                total += got
                if headers and hdr.gso_type and hdr.gso_size:
                    t.packets += (<u64>got - headers - 1) // hdr.gso_size
            elif not sleep:
                break
            elif load_acquire32(flag):
                break
            else:
                poll_in(fd, 20)
        tally_end(&t)
    return tally_dict(&t) | {"bytes": total}


cdef void run_once(softnet_data *sd) noexcept nogil:
    """Be the CPU until it is idle."""
    cdef u32 i
    cpu_take(sd)
    for i in range(sd.nr_hw):
        sd.hw[i].wire_ready(sd.hw[i])
    cpu_run(sd, False)
    cpu_release(sd)


def feed(uintptr_t cpu, uintptr_t far_end, frames, u64 count, u32 burst=256):
    """Send ``count`` frames, ``frames`` in turn, into a host on a wire in memory; after each burst be its CPU.

    ``cpu`` and ``far_end`` are the addresses of a Cpu and of the MemoryWire at the other end of its cable, whose queue
    takes a burst. Gives packets, wall_ns, cpu_ns.
    """
    cdef wire *w = <wire *>far_end
    cdef softnet_data *sd = <softnet_data *>cpu
    cdef u32 nr = <u32>len(frames)
    cdef iovec *all = <iovec *>calloc(nr, sizeof(iovec))
    cdef tally t
    cdef u32 i, _i, at = 0
    if all == NULL:
        raise MemoryError
    keep = [bytes(frame) for frame in frames]
    for i in range(nr):
        all[i].iov_base = <void *><char *>keep[i]
        all[i].iov_len = len(keep[i])
    with nogil:
        tally_start(&t)
        while t.packets < count:
            for _i in range(<u32>min(<u64>burst, count - t.packets)):
                wire_tx(w, <const u8 *>all[at].iov_base, <u32>all[at].iov_len)
                at = at + 1 if at + 1 < nr else 0
                t.packets += 1
            run_once(sd)
        tally_end(&t)
    free(all)
    return tally_dict(&t)


def run_cpu(uintptr_t cpu):
    """Be the CPU in this thread until it is idle; what that cost. The other half of fill-then-drain."""
    cdef softnet_data *sd = <softnet_data *>cpu
    cdef tally t
    cdef u64 before
    with nogil:
        before = sd.processed
        tally_start(&t)
        run_once(sd)
        tally_end(&t)
        t.packets = sd.processed - before
    return tally_dict(&t)


def read_socket(Socket source not None, Stop stop not None):
    """The compiled sink: take datagrams from a socket of ours, looking at none, until ``stop`` is set.

    Sleeps when there is none, 20 ms at most. Gives packets, wall_ns, cpu_ns.
    """
    cdef sock *sk = source.open()
    cdef sk_buff *skb
    cdef tally t
    with nogil:
        tally_start(&t)
        while not load_acquire32(&stop.flag):
            skb = sock_first(sk)
            if skb == NULL:
                sock_wait(sk, monotonic_ns() + 20_000_000)
                continue
            while skb != NULL:
                t.packets += skb.gso_segs if skb.gso_segs else 1
                sock_taken(sk, skb)
                if sock_flush_due(sk):
                    sock_flush(sk)
                skb = sock_next(sk)
            sock_read_end(sk)
        tally_end(&t)
    return tally_dict(&t)
