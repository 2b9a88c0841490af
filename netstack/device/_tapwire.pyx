"""tapwire: a TAP's file descriptor as the NIC's wire.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       frames that the kernel put into the TAP's queue
Out      frames in posted descriptors     device/_igb_rx.pyx
Context  the hardware's step; no GIL; never blocks
Kernel   tun_do_read(), tun_get_user(), drivers/net/tun.c

The TAP's queue is the NIC's packet buffer: what the kernel drops there because it is full never reaches this file, and
is the NIC's missed-packets counter. A plain non-blocking read is the fastest way in that we found
(docs/benchmarks.md); it stands in the NIC's own loop (device/_wire.pxd), so here is only what is done once.
"""

cimport cython
from libc.errno cimport EINVAL, errno
from libc.string cimport memset

from netstack._abi cimport uintptr_t
from netstack.device._vnet cimport VNET_HDR
from netstack.device._wire cimport wire


cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, unsigned long value)


cdef enum tun:                     # <linux/if_tun.h>
    TUNSETOFFLOAD = 0x400454D0
    TUN_F_CSUM = 0x01
    TUN_F_TSO = 0x06               # for IPv4 and IPv6
    TUN_F_USO = 0x60               # the kernel takes both or none, since 6.2


cdef int tap_set_offload(wire *w, bint csum, bint coalesced) noexcept nogil:
    """Say what the kernel may hand us unfinished; of coalesced frames those kinds that it knows. 0 or an errno."""
    cdef unsigned long flags = 0
    if csum:
        flags = TUN_F_CSUM | TUN_F_TSO | TUN_F_USO if coalesced else TUN_F_CSUM
    if ioctl(w.fd, TUNSETOFFLOAD, flags) == 0:
        return 0
    if errno == EINVAL and flags > TUN_F_CSUM and ioctl(w.fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO) == 0:
        return 0
    return -errno


@cython.final
cdef class TapWire:
    """The wire of an open TAP. The file descriptor (non-blocking, IFF_TAP | IFF_NO_PI) stays the caller's.

    ``vnet_hdr``: the TAP was opened with IFF_VNET_HDR, so every frame has a struct virtio_net_hdr in front.
    """
    cdef wire w

    def __cinit__(self, int fd, bint vnet_hdr=False):
        memset(&self.w, 0, sizeof(wire))
        self.w.fd = fd
        if vnet_hdr:
            self.w.vnet_hdr = VNET_HDR
            self.w.set_offload = tap_set_offload

    def fileno(self):
        """The TAP's file descriptor."""
        return self.w.fd

    @property
    def address(self):
        """The struct wire, for set-up code of the NIC."""
        return <uintptr_t>&self.w
