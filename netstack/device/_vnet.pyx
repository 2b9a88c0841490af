"""vnet: read the header that a virtual wire puts in front of a frame, and believe none of it.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       a struct virtio_net_hdr and a frame   device/_wire.pxd
Out      what is checked                  device/_igb_rsc.pyx
Context  hardware, run by whoever is the CPU; no GIL; never allocates, never raises
Kernel   virtio_net_hdr_to_skb(), include/linux/virtio_net.h

A frame that says it is several must have headers that agree with it to the byte, since they are what each of the
several gets. Who puts frames on the wire may be anybody.
"""

from netstack._abi cimport get_be16, u8, u16, u32
from netstack._counters cimport SKB_DROP_REASON_DEV_HDR, SKB_NOT_DROPPED_YET
from netstack._net cimport ETH_HLEN
from netstack._skb cimport SKB_GSO_DODGY, SKB_GSO_TCPV4, SKB_GSO_TCPV6, SKB_GSO_UDP_L4

cdef enum:
    ETH_P_IP = 0x0800
    ETH_P_IPV6 = 0x86DD
    ETH_P_8021Q = 0x8100
    IPPROTO_TCP = 6
    IPPROTO_UDP = 17
    IP_FRAGMENT = 0x3FFF           # MF and the offset
    IPV6_HLEN = 40
    TCP_CSUM_OFFSET = 16
    UDP_CSUM_OFFSET = 6

if sizeof(virtio_net_hdr) != VNET_HDR:
    raise ImportError(f"virtio_net_hdr is {sizeof(virtio_net_hdr)} bytes, not {VNET_HDR}")


cdef u32 network_ok(const u8 *frame, u32 size, u32 l4, u32 protocol, bint v6) noexcept nogil:
    """Check that from the Ethernet header to ``l4`` all is an IP header of the packet as long as it is."""
    cdef u32 l3 = ETH_HLEN
    cdef u32 type = get_be16(frame + 12)
    if type == ETH_P_8021Q:
        type = get_be16(frame + 16)
        l3 += 4
    if v6:
        return (type == ETH_P_IPV6 and frame[l3] >> 4 == 6 and l4 >= l3 + IPV6_HLEN
                and (l4 != l3 + IPV6_HLEN or frame[l3 + 6] == protocol)
                and get_be16(frame + l3 + 4) == size - l3 - IPV6_HLEN)
    return (type == ETH_P_IP and frame[l3] >> 4 == 4 and frame[l3] & 15 >= 5
            and l3 + (<u32>(frame[l3] & 15) << 2) == l4 and frame[l3 + 9] == protocol
            and get_be16(frame + l3 + 6) & IP_FRAGMENT == 0 and get_be16(frame + l3 + 2) == size - l3)


cdef u32 l4_length(const u8 *frame, u32 size, u32 l4, bint tcp) noexcept nogil:
    """Bytes of the TCP or UDP header, 0 when it is none of this packet."""
    cdef u32 length
    if not tcp:
        return 8 if l4 + 8 < size and get_be16(frame + l4 + 4) == size - l4 else 0
    if l4 + 20 > size:
        return 0
    length = frame[l4 + 12] >> 4 << 2
    return length if length >= 20 and l4 + length < size else 0


cdef u32 vnet_parse_gso(const virtio_net_hdr *hdr, const u8 *frame, u32 size, vnet_info *info) noexcept nogil:
    """The rest of vnet_parse() for a frame that says it is several."""
    cdef u32 l4 = hdr.csum_start
    cdef bint v6 = hdr.gso_type == VIRTIO_NET_HDR_GSO_TCPV6
    cdef bint tcp = v6 or hdr.gso_type == VIRTIO_NET_HDR_GSO_TCPV4
    cdef u32 length
    if (not (tcp or hdr.gso_type == VIRTIO_NET_HDR_GSO_UDP_L4) or not info.partial or hdr.gso_size == 0
            or hdr.csum_offset != (TCP_CSUM_OFFSET if tcp else UDP_CSUM_OFFSET) or hdr.hdr_len > size
            or l4 < ETH_HLEN + 20):
        return SKB_DROP_REASON_DEV_HDR
    if not tcp:
        v6 = frame[ETH_HLEN + (4 if get_be16(frame + 12) == ETH_P_8021Q else 0)] >> 4 == 6
    if not network_ok(frame, size, l4, IPPROTO_TCP if tcp else IPPROTO_UDP, v6):
        return SKB_DROP_REASON_DEV_HDR
    length = l4_length(frame, size, l4, tcp)
    if length == 0 or l4 + length > VNET_MAX_HEADERS:
        return SKB_DROP_REASON_DEV_HDR
    length += l4
    if size - length > hdr.gso_size:       # else it is one frame, whatever its header says
        info.headers = <u16>length
        info.gso_size = hdr.gso_size
        info.frames = (size - length + hdr.gso_size - 1) // hdr.gso_size
        info.gso_type = <u8>(SKB_GSO_DODGY | (SKB_GSO_TCPV6 if v6 and tcp else SKB_GSO_TCPV4 if tcp else
                                              SKB_GSO_UDP_L4))
    return SKB_NOT_DROPPED_YET
