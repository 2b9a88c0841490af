"""flow_dissector: which flow a packet belongs to, as a number.

Stage 5 of 8:  device driver irq napi [netif] nf proto sock
In       a packet, data at its network header  netif/_rps.pyx
Out      skb.hash                         netif/_rps.pyx, netif/_flow_limit.pyx
Context  softirq and process; no GIL; never raises
Kernel   __skb_flow_dissect(), __skb_get_hash(), net/core/flow_dissector.c

Addresses, protocol, ports and VLAN go through SipHash-2-4 with a key of the host, so that nobody outside can choose
packets that meet in one place. Both directions of a flow have the same hash. Fragments have no ports, the first as
little as the others: all of a datagram go one way. Of what is not IPv4 only the EtherType counts.
"""

from netstack._abi cimport get_be16, get_be32, u8, u16, u32, u64
from netstack._skb cimport SKB_HASH_SW, SkBuff, skb_headlen

cdef enum:
    ETH_P_IP = 0x0800
    ETH_P_8021Q = 0x8100
    ETH_P_8021AD = 0x88A8
    VLAN_HLEN = 4
    VLAN_VID_MASK = 0x0FFF
    MAX_TAGS = 2
    IP_HLEN = 20
    IP_FRAGMENT = 0x3FFF           # more fragments, or an offset
    IPPROTO_AH = 51

cdef struct flow_keys:
    u64 addrs
    u64 rest                       # ports, VLAN, protocol


cdef inline u64 rotl(u64 x, u32 by) noexcept nogil:
    return x << by | x >> 64 - by


cdef inline void sip_round(u64 *v) noexcept nogil:
    v[0] += v[1]
    v[1] = rotl(v[1], 13) ^ v[0]
    v[0] = rotl(v[0], 32)
    v[2] += v[3]
    v[3] = rotl(v[3], 16) ^ v[2]
    v[0] += v[3]
    v[3] = rotl(v[3], 21) ^ v[0]
    v[2] += v[1]
    v[1] = rotl(v[1], 17) ^ v[2]
    v[2] = rotl(v[2], 32)


cdef u64 siphash_2u64(u64 first, u64 second, const u64 *key) noexcept nogil:
    """SipHash-2-4 of 16 bytes: Aumasson and Bernstein, 2012. [siphash_2u64()]"""
    cdef u64 v[4]
    cdef u64 words[3]
    cdef u32 i, _round
    v[0] = key[0] ^ <u64>0x736F6D6570736575
    v[1] = key[1] ^ <u64>0x646F72616E646F6D
    v[2] = key[0] ^ <u64>0x6C7967656E657261
    v[3] = key[1] ^ <u64>0x7465646279746573
    words[0], words[1], words[2] = first, second, <u64>16 << 56
    for i in range(3):
        v[3] ^= words[i]
        sip_round(v)
        sip_round(v)
        v[0] ^= words[i]
    v[2] ^= 0xFF
    for _round in range(4):
        sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef inline bint has_ports(u8 protocol) noexcept nogil:
    """TCP, UDP, DCCP, ESP (its SPI), SCTP, UDP-Lite. [proto_ports_offset()]"""
    return protocol == 6 or protocol == 17 or protocol == 33 or protocol == 50 or protocol == 132 or protocol == 136


cdef void dissect_ipv4(const u8 *iph, u32 size, flow_keys *keys) noexcept nogil:
    """Read addresses and ports, in an order that is the same for both directions."""
    cdef u32 saddr = get_be32(iph + 12)
    cdef u32 daddr = get_be32(iph + 16)
    cdef u32 hlen = (iph[0] & 0xF) << 2
    cdef u8 protocol = iph[9]
    cdef u16 sport, dport
    keys.addrs = <u64>min(saddr, daddr) << 32 | max(saddr, daddr)
    keys.rest |= <u64>protocol << 16
    if get_be16(iph + 6) & IP_FRAGMENT or hlen < IP_HLEN:
        return
    if protocol == IPPROTO_AH:
        hlen += 4                  # its SPI
    elif not has_ports(protocol):
        return
    if size >= hlen + 4:
        sport, dport = get_be16(iph + hlen), get_be16(iph + hlen + 2)
        keys.rest |= <u64>min(sport, dport) << 48 | <u64>max(sport, dport) << 32


cdef void __skb_get_hash(sk_buff *skb) noexcept nogil:
    """Find the packet's flow and hash it. [__skb_get_hash()]"""
    cdef flow_keys keys
    cdef const u8 *p = skb.data
    cdef u32 size = skb_headlen(skb)
    cdef u16 protocol = skb.protocol
    cdef u16 vid = skb.vlan_tci & VLAN_VID_MASK if skb.vlan_present else 0
    cdef u32 _tag
    for _tag in range(MAX_TAGS):
        if (protocol == ETH_P_8021Q or protocol == ETH_P_8021AD) and size >= VLAN_HLEN:
            vid = get_be16(p) & VLAN_VID_MASK
            protocol = get_be16(p + 2)
            p += VLAN_HLEN
            size -= VLAN_HLEN
    keys.addrs = 0
    keys.rest = vid
    if protocol == ETH_P_IP and size >= IP_HLEN:
        dissect_ipv4(p, size, &keys)
    else:
        keys.addrs = protocol
    skb.hash = <u32>siphash_2u64(keys.addrs, keys.rest, skb.pool.n.hash_key)
    if skb.hash == 0:
        skb.hash = 1               # 0 is: no hash
    skb.l4_hash = SKB_HASH_SW


def flow_hash(SkBuff skb not None):
    """Give the hash of a packet whose data stands at the network header: what RPS goes by. [skb_get_hash()]"""
    return skb_get_hash(skb.peek())


def siphash(u64 first, u64 second, u64 key0, u64 key1):
    """Hash 16 bytes, for the test that compares with the authors' values."""
    cdef u64 key[2]
    key[0], key[1] = key0, key1
    return siphash_2u64(first, second, key)
