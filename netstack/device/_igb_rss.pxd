"""Receive side scaling: the Toeplitz hash by tables. 82576 datasheet 7.1.1.7.

The hash of an input is the exclusive or of what each of its bytes contributes, so 12 tables of 256
words replace 96 shifts. Packets of one flow come in runs, so the last addresses' hash is kept.
"""

from libc.string cimport memcpy

from netstack._abi cimport u8, u32, u64
from netstack.device._igb_nic cimport igb_nic


cdef inline u64 igb_rss_key(igb_nic *nic, u32 i) noexcept nogil:
    """Byte ``i`` of the key: the lowest of each RSSRK register comes first."""
    return nic.rssrk[i >> 2] >> 8 * (i & 3) & 0xFF


cdef inline void igb_rss_rebuild(igb_nic *nic) noexcept nogil:
    """Compute the tables from the key."""
    cdef u32 window[8]             # 32 bits of the key from each bit of the byte on
    cdef u32 i, k, bit, value, word
    cdef u64 bits
    for i in range(12):
        bits = 0
        for k in range(5):
            bits = bits << 8 | igb_rss_key(nic, i + k)
        for bit in range(8):
            window[bit] = <u32>(bits >> (8 - bit))
        for value in range(256):
            word = 0
            for bit in range(8):
                if value & 0x80 >> bit:
                    word ^= window[bit]
            nic.toeplitz[i][value] = word
    nic.rss_dirty = 0
    nic.rss_last_addresses = 0
    nic.rss_last_hash = 0


cdef inline u32 igb_rss_bytes(igb_nic *nic, const u8 *p, u32 first, u32 size) noexcept nogil:
    cdef u32 hash = 0
    cdef u32 i
    for i in range(size):
        hash ^= nic.toeplitz[first + i][p[i]]
    return hash


cdef inline u32 igb_rss_ipv4(igb_nic *nic, const u8 *addresses) noexcept nogil:
    """Hash source and destination address, 8 bytes of the IPv4 header. All zeros hash to 0."""
    cdef u64 both
    memcpy(&both, addresses, 8)
    if both != nic.rss_last_addresses:
        nic.rss_last_addresses = both
        nic.rss_last_hash = igb_rss_bytes(nic, addresses, 0, 8)
    return nic.rss_last_hash


cdef inline u32 igb_rss_ports(igb_nic *nic, const u8 *ports) noexcept nogil:
    """Add the two ports to a hash of the addresses."""
    return igb_rss_bytes(nic, ports, 8, 4)
