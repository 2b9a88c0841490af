"""IPv4 on the wire and its constants: header fields, protocol numbers, kinds of address.

Addresses are host-order u32 everywhere but in the packet. Nothing here is a module at run time.
"""

from netstack._abi cimport get_be16, get_be32, u8, u16, u32
from netstack._skb cimport sk_buff, skb_headlen, skb_network_header


cdef enum:            # <linux/in.h>
    IPPROTO_ICMP = 1
    IPPROTO_UDP = 17

cdef enum:               # offsets in the header, RFC 791 section 3.1
    IP_HLEN = 20
    IP_VERIHL = 0
    IP_TOS = 1
    IP_TOTLEN = 2
    IP_ID = 4
    IP_FRAGOFF = 6
    IP_TTL = 8
    IP_PROTO = 9
    IP_CSUM = 10
    IP_SADDR = 12
    IP_DADDR = 16

cdef enum:                # <net/ip.h>
    IP_CE = 0x8000
    IP_DF = 0x4000
    IP_MF = 0x2000
    IP_OFFSET = 0x1FFF
    IP_MAX_MTU = 0xFFFF

cdef enum:
    ICMP_HLEN = 8
    ICMP_ECHOREPLY = 0
    ICMP_ECHO = 8
    ICMP_TIMESTAMP = 13
    NR_ICMP_TYPES = 18
    ICMP_EXT_ECHO = 42             # RFC 8335; handled apart, although above NR_ICMP_TYPES
    ICMP_EXT_ECHOREPLY = 43

cdef enum:
    ETH_P_IP = 0x0800
    ETH_P_ARP = 0x0806

cdef enum:             # <linux/rtnetlink.h>
    RTN_UNSPEC = 0
    RTN_UNICAST = 1
    RTN_LOCAL = 2
    RTN_BROADCAST = 3
    RTN_MULTICAST = 5
    RTN_BLACKHOLE = 6
    RTN_UNREACHABLE = 7
    RTN_PROHIBIT = 8

cdef extern from *:                # <linux/in_route.h>; beyond what a C enum holds
    """
    #define NS_RTCF_BROADCAST 0x10000000u
    #define NS_RTCF_MULTICAST 0x20000000u
    #define NS_RTCF_LOCAL     0x80000000u
    #define NS_RTCF_NOLOOP    0x00000001u
    """
    const u32 RTCF_BROADCAST "NS_RTCF_BROADCAST"
    const u32 RTCF_MULTICAST "NS_RTCF_MULTICAST"
    const u32 RTCF_LOCAL "NS_RTCF_LOCAL"
    const u32 RTCF_NOLOOP "NS_RTCF_NOLOOP"         # ours: a group of ours, but the sender wants no copy


cdef inline bint ipv4_is_multicast(u32 addr) noexcept nogil:
    return addr >> 28 == 0xE

cdef inline bint ipv4_is_lbcast(u32 addr) noexcept nogil:
    """Is it 255.255.255.255, the limited broadcast?"""
    return addr == <u32>0xFFFFFFFF

cdef inline bint ipv4_is_zeronet(u32 addr) noexcept nogil:
    """Is it 0.0.0.0? The rest of 0.0.0.0/8 is as good as any other since Linux 5.3."""
    return addr == 0

cdef inline bint ipv4_is_loopback(u32 addr) noexcept nogil:
    return addr >> 24 == 127

cdef inline u32 ip_ihl(const u8 *iph) noexcept nogil:
    """Give the header's length in bytes."""
    return <u32>(iph[IP_VERIHL] & 15) << 2

cdef inline bint ip_is_fragment(const u8 *iph) noexcept nogil:
    return get_be16(iph + IP_FRAGOFF) & (IP_MF | IP_OFFSET) != 0

cdef inline u32 ip_saddr(const u8 *iph) noexcept nogil:
    return get_be32(iph + IP_SADDR)

cdef inline u32 ip_daddr(const u8 *iph) noexcept nogil:
    return get_be32(iph + IP_DADDR)
