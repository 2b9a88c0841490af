"""What a wire is to the NIC: take a frame, put a frame, and an fd that says when there is one.

The NIC asks nothing else, so a TAP, a pair of queues in memory and a bench's endless source are all the same to it.
"""

from libc.errno cimport EAGAIN, EINTR

from netstack._abi cimport sys_read, sys_write, u8, u32, u64


cdef struct wire:
    # Put the next frame into buf. Its length (of which at most `size` bytes were stored), 0 when none waits,
    # a negative errno when the wire is gone. Never blocks. NULL, and tx as well: what `fd` reads and writes, a frame
    # a call.
    int (*rx)(wire *w, u8 *buf, u32 size) noexcept nogil
    # Send a frame. 0, or a negative errno (EAGAIN: no room; the NIC keeps the descriptor). Never blocks for long.
    int (*tx)(wire *w, const u8 *buf, u32 size) noexcept nogil
    # Say what may come unfinished: checksums, and coalesced frames. NULL where that is not ours to say.
    int (*set_offload)(wire *w, bint csum, bint coalesced) noexcept nogil
    # Bytes of the struct virtio_net_hdr in front of every frame, both ways (device/_vnet.pxd); 0 for none.
    u32 vnet_hdr
    int fd                         # readable when a frame waits; -1 where nobody can sleep on it
    void *priv


cdef inline int wire_rx(wire *w, u8 *buf, u32 size) noexcept nogil:
    """Take a frame off the wire, as ``wire.rx``."""
    cdef long got
    if w.rx != NULL:
        return w.rx(w, buf, size)
    got = sys_read(w.fd, buf, size)
    return 0 if got == -EAGAIN or got == -EINTR else <int>got


cdef inline int wire_tx(wire *w, const u8 *buf, u32 size) noexcept nogil:
    """Put a frame on the wire, as ``wire.tx``; of a TAP the kernel's receive path runs inside."""
    cdef long put
    if w.tx != NULL:
        return w.tx(w, buf, size)
    put = sys_write(w.fd, buf, size)
    while put == -EINTR:
        put = sys_write(w.fd, buf, size)
    return <int>put if put < 0 else 0
