"""What a wire is to the NIC: take a frame, put a frame, and an fd that says when there is one.

The NIC asks nothing else, so a TAP, a pair of queues in memory and a bench's endless source are all the same to it.
"""

from netstack._abi cimport u8, u32, u64


cdef struct wire:
    # Put the next frame into buf. Its length (of which at most `size` bytes were stored), 0 when none waits,
    # a negative errno when the wire is gone. Never blocks.
    int (*rx)(wire *w, u8 *buf, u32 size) noexcept nogil
    # Send a frame. 0, or a negative errno (EAGAIN: no room; the NIC keeps the descriptor). Never blocks for long.
    int (*tx)(wire *w, const u8 *buf, u32 size) noexcept nogil
    # Say what may come unfinished: checksums, and coalesced frames. NULL where that is not ours to say.
    int (*set_offload)(wire *w, bint csum, bint coalesced) noexcept nogil
    # Bytes of the struct virtio_net_hdr in front of every frame, both ways (device/_vnet.pxd); 0 for none.
    u32 vnet_hdr
    int fd                         # readable when a frame waits; -1 where nobody can sleep on it
    void *priv
