"""tapwire: a TAP's file descriptor as the NIC's wire.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       frames that the kernel put into the TAP's queue
Out      frames in posted descriptors     device/_igb_rx.pyx
Context  the hardware's step; no GIL; never blocks
Kernel   tun_do_read(), tun_get_user(), drivers/net/tun.c

The TAP's queue is the NIC's packet buffer: what the kernel drops there because it is full never reaches this file, and
is the NIC's missed-packets counter. A plain non-blocking read is the fastest way in that we found
(docs/benchmarks.md).
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memset
from posix.unistd cimport read, write

from netstack._abi cimport u8, u32, uintptr_t
from netstack.device._wire cimport wire


cdef int tap_rx(wire *w, u8 *buf, u32 size) noexcept nogil:
    """Read one frame. Its length, 0 when none waits, a negative errno when the TAP is gone or down."""
    cdef ssize_t got = read(w.fd, buf, size)
    if got > 0:
        return <int>got
    if got == 0 or errno == EAGAIN or errno == EINTR:
        return 0
    return -errno


cdef int tap_tx(wire *w, const u8 *buf, u32 size) noexcept nogil:
    """Write one frame: the kernel's receive path runs inside. 0 or a negative errno."""
    while write(w.fd, buf, size) < 0:
        if errno != EINTR:
            return -errno
    return 0


@cython.final
cdef class TapWire:
    """The wire of an open TAP. The file descriptor (non-blocking, IFF_TAP | IFF_NO_PI) stays the caller's."""
    cdef wire w

    def __cinit__(self, int fd):
        memset(&self.w, 0, sizeof(wire))
        self.w.rx = tap_rx
        self.w.tx = tap_tx
        self.w.fd = fd

    @property
    def address(self):
        """The struct wire, for set-up code of the NIC."""
        return <uintptr_t>&self.w
