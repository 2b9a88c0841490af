"""struct virtio_net_hdr: what is unfinished about a frame, in front of it; see ``_vnet.pyx``.

A TAP with IFF_VNET_HDR puts one in front of each frame, both ways; so does a memory wire that was made for it.
"""

from netstack._abi cimport u8, u16, u32, unlikely
from netstack._counters cimport SKB_DROP_REASON_DEV_HDR, SKB_NOT_DROPPED_YET
from netstack._net cimport ETH_HLEN
from netstack._skb cimport SKB_GSO_NONE


cdef enum:
    VNET_HDR = 10                  # bytes, the legacy layout
    VNET_MAX_FRAME = 65535 + 18    # the longest IP packet behind an Ethernet header with a VLAN tag
    VNET_MAX_HEADERS = 512         # all headers of a frame, and the checksum field, lie within

cdef enum vnet_flags:              # <linux/virtio_net.h>
    VIRTIO_NET_HDR_F_NEEDS_CSUM = 1

cdef enum vnet_gso_types:
    VIRTIO_NET_HDR_GSO_NONE = 0
    VIRTIO_NET_HDR_GSO_TCPV4 = 1
    VIRTIO_NET_HDR_GSO_TCPV6 = 4
    VIRTIO_NET_HDR_GSO_UDP_L4 = 5

cdef struct virtio_net_hdr:        # numbers in the byte order of the machine
    u8 flags
    u8 gso_type
    u16 hdr_len
    u16 gso_size
    u16 csum_start
    u16 csum_offset

cdef struct vnet_info:
    # What a header says about its frame, once every number in it has been checked.
    u8 *large                      # the large buffer that holds the frame; NULL: the descriptors' buffers do
    u32 len                        # bytes of the frame
    u32 frames                     # frames off the wire that it is
    u16 headers                    # bytes of headers that each of them has
    u16 gso_size                   # 0: one frame
    u16 csum_start                 # from the Ethernet header on
    u16 csum_offset
    u8 gso_type                    # SKB_GSO_*
    u8 partial                     # the checksum field holds the sum of the pseudo header only

cdef u32 vnet_parse_gso(const virtio_net_hdr *hdr, const u8 *frame, u32 size, vnet_info *info) noexcept nogil


cdef inline u32 vnet_parse(const virtio_net_hdr *hdr, const u8 *frame, u32 size, vnet_info *info) noexcept nogil:
    """Fill ``info`` for a frame of ``size`` bytes. 0, or the reason to drop it."""
    info.large = NULL
    info.len = size
    info.frames = 1
    info.headers = 0
    info.gso_size = 0
    info.csum_start = hdr.csum_start
    info.csum_offset = hdr.csum_offset
    info.gso_type = SKB_GSO_NONE
    info.partial = hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM
    if info.partial and unlikely(hdr.csum_start < ETH_HLEN or <u32>hdr.csum_start + hdr.csum_offset + 2
                                 > min(size, <u32>VNET_MAX_HEADERS)):
        return SKB_DROP_REASON_DEV_HDR
    if unlikely(hdr.gso_type != VIRTIO_NET_HDR_GSO_NONE):
        return vnet_parse_gso(hdr, frame, size, info)
    return SKB_NOT_DROPPED_YET
