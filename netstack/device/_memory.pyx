"""memory: two queues as a wire, for tests and for hosts that talk to each other.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       frames from Python or from another host's NIC
Out      frames in posted descriptors     device/_igb_rx.pyx
Context  the hardware's step, or any thread; no GIL; never blocks
Kernel   none; it stands where a cable would
"""

cimport cython
import errno
import os

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.unistd cimport close, read, write

from netstack._abi cimport spin_lock, spin_unlock, u8, u32, u64, uintptr_t
from netstack._eventfd cimport EFD_CLOEXEC, EFD_NONBLOCK, POLLIN, eventfd, poll, pollfd
from netstack.device._vnet cimport VNET_HDR, VNET_MAX_FRAME
from netstack.device._wire cimport wire


cdef enum:
    ENOBUFS_ = 105

# One direction: a ring of bytes, each frame behind its length, so many frames at the most (a TAP's txqueuelen).
cdef struct ring:
    u32 lock
    u32 frames
    u32 limit
    u32 size
    u32 head
    u32 used
    u64 dropped
    u8 *data
    int fd                         # readable since a frame came into the empty ring

cdef struct end:
    wire w                         # first: a NIC's `wire *` is an `end *`
    ring *rx
    ring *tx


cdef void put_bytes(ring *r, const void *src, u32 size) noexcept nogil:
    cdef u32 first = min(size, r.size - r.head)
    memcpy(r.data + r.head, src, first)
    memcpy(r.data, <const u8 *>src + first, size - first)
    r.head = (r.head + size) % r.size
    r.used += size


cdef void get_bytes(ring *r, void *dst, u32 size, u32 keep) noexcept nogil:
    """Take ``size`` bytes out and store the first ``keep`` of them."""
    cdef u32 start = (r.head + r.size - r.used) % r.size
    cdef u32 first = min(keep, r.size - start)
    memcpy(dst, r.data + start, first)
    memcpy(<u8 *>dst + first, r.data, keep - first)
    r.used -= size


cdef int ring_put(ring *r, const u8 *frame, u32 size) noexcept nogil:
    """Append a frame; 0, or -ENOBUFS when the ring is full: then it is lost, and counted."""
    cdef u64 one = 1
    cdef bint was_empty
    spin_lock(&r.lock)
    if r.frames >= r.limit or r.size - r.used < size + 4:
        r.dropped += 1
        spin_unlock(&r.lock)
        return -ENOBUFS_
    was_empty = r.frames == 0
    put_bytes(r, &size, 4)
    put_bytes(r, frame, size)
    r.frames += 1
    spin_unlock(&r.lock)
    if was_empty:
        write(r.fd, &one, 8)
    return 0


cdef int ring_get(ring *r, u8 *buf, u32 size) noexcept nogil:
    """Take the oldest frame; its length, of which ``size`` bytes were stored, or 0."""
    cdef u32 length
    spin_lock(&r.lock)
    if r.frames == 0:
        spin_unlock(&r.lock)
        return 0
    get_bytes(r, &length, 4, 4)
    get_bytes(r, buf, length, min(length, size))
    r.frames -= 1
    spin_unlock(&r.lock)
    return <int>length


cdef int memory_rx(wire *w, u8 *buf, u32 size) noexcept nogil:
    return ring_get((<end *>w).rx, buf, size)


cdef int memory_tx(wire *w, const u8 *buf, u32 size) noexcept nogil:
    ring_put((<end *>w).tx, buf, size)     # a full cable loses frames; the sender does not hear of it
    return 0


cdef ring *ring_new(u32 limit, u32 size) except NULL:
    cdef ring *r = <ring *>calloc(1, sizeof(ring))
    if r == NULL:
        raise MemoryError
    r.limit = limit
    r.size = size
    r.data = <u8 *>calloc(1, size)
    r.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if r.data == NULL or r.fd < 0:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE) + "; see ulimit -n")
    return r


cdef void ring_free(ring *r) noexcept:
    if r != NULL:
        close(r.fd)
        free(r.data)
        free(r)


@cython.final
@cython.no_gc_clear
cdef class Cable:
    """Two rings; the ends share it."""
    cdef ring *there
    cdef ring *back

    def __cinit__(self, u32 queue, u32 size):
        self.there = ring_new(queue, size)
        self.back = ring_new(queue, size)

    def __dealloc__(self):
        ring_free(self.there)
        ring_free(self.back)


@cython.final
cdef class MemoryWire:
    """One end of a cable in memory. ``MemoryWire.pair()`` gives both.

    An end goes into a NIC (``host.add_nic(wire)``), or a program uses it: ``send`` and ``recv`` take and give whole
    Ethernet frames, and ``fileno`` is readable when a frame came. ``queue`` frames fit into each direction; more are
    lost, as on a TAP, and counted in ``missed``.
    """
    cdef end e
    cdef Cable cable

    @staticmethod
    def pair(u32 queue=1000, u32 size=4 << 20, bint vnet_hdr=False):
        """Make a cable and give its two ends. ``size``: bytes each direction holds at most.

        ``vnet_hdr``: every frame has a struct virtio_net_hdr in front, as on a TAP with IFF_VNET_HDR, and may be
        several in one.
        """
        cdef MemoryWire a = MemoryWire.__new__(MemoryWire)
        cdef MemoryWire b = MemoryWire.__new__(MemoryWire)
        if queue < 1 or size < 1 << 17:
            raise ValueError(f"queue={queue}, size={size}: a cable holds at least 1 frame and {1 << 17} bytes")
        a.cable = b.cable = Cable(queue, size)
        a.connect(a.cable.back, a.cable.there)
        b.connect(b.cable.there, b.cable.back)
        a.e.w.vnet_hdr = b.e.w.vnet_hdr = VNET_HDR if vnet_hdr else 0
        return a, b

    cdef void connect(self, ring *rx, ring *tx) noexcept:
        self.e.rx = rx
        self.e.tx = tx
        self.e.w.rx = memory_rx
        self.e.w.tx = memory_tx
        self.e.w.fd = rx.fd

    @property
    def address(self):
        """The struct wire, for set-up code of the NIC."""
        return <uintptr_t>&self.e.w

    def fileno(self):
        """An eventfd: readable when a frame came since ``recv`` last found the wire empty."""
        return self.e.w.fd

    def send(self, const u8[::1] frame not None):
        """Send a frame. True, or False when the other direction is full and it is lost."""
        cdef u32 size = <u32>frame.shape[0]
        cdef u32 most = VNET_HDR + VNET_MAX_FRAME if self.e.w.vnet_hdr else 65535
        if not 0 < frame.shape[0] <= <Py_ssize_t>most:
            raise ValueError(f"a frame has 1 to {most} bytes, not {frame.shape[0]}")
        return ring_put(self.e.tx, &frame[0], size) == 0

    def recv(self, timeout=0):
        """Take the oldest frame, or None when none came within ``timeout`` seconds (None: wait for ever)."""
        cdef u8 buf[VNET_HDR + VNET_MAX_FRAME]
        cdef u64 word
        cdef int got = ring_get(self.e.rx, buf, sizeof(buf))
        cdef pollfd fd
        cdef int ms = -1 if timeout is None else int(timeout * 1000)
        if got == 0 and ms != 0:
            read(self.e.rx.fd, &word, 8)
            got = ring_get(self.e.rx, buf, sizeof(buf))
            if got == 0:
                fd.fd = self.e.rx.fd
                fd.events = POLLIN
                with nogil:
                    poll(&fd, 1, ms)
                got = ring_get(self.e.rx, buf, sizeof(buf))
        if got == 0:
            read(self.e.rx.fd, &word, 8)
            got = ring_get(self.e.rx, buf, sizeof(buf))
        return None if got == 0 else <bytes>buf[:got]

    @property
    def vnet_hdr(self):
        """True when every frame has a struct virtio_net_hdr in front."""
        return self.e.w.vnet_hdr != 0

    @property
    def waiting(self):
        """Frames that this end can receive at once."""
        return self.e.rx.frames

    @property
    def missed(self):
        """Frames for this end that found its queue full."""
        return self.e.rx.dropped
