"""The Internet checksum (RFC 1071): one sum for headers, payloads and pseudo headers.

A sum is a ``u32`` of 16-bit words as they lie in memory, so nothing is byte-swapped on the way
(RFC 1071, 2B), and sums of parts are added with ``csum_add``. ``csum_fold`` gives the field as
it is stored: copy it with memcpy, don't ``put_be16`` it.
"""

from libc.string cimport memcpy

from netstack._abi cimport htonl, htons, likely, u8, u16, u32, u64


cdef enum:
    CSUM_LONG = 128                # bytes from which the vectorised loop pays for its call

cdef u64 csum_blocks(const u8 *p, u32 blocks) noexcept nogil


cdef inline u32 csum_fold64(u64 sum) noexcept nogil:
    """Fold the carries of a wide sum back in: added to its halves in the other order, the upper one has all of them."""
    return <u32>((sum + (sum >> 32 | sum << 32)) >> 32)

cdef inline u32 csum_add(u32 a, u32 b) noexcept nogil:
    """Add two sums whose data both began at an even offset. [csum_add()]"""
    return csum_fold64(<u64>a + b)

cdef inline u32 csum_block_add(u32 sum, u32 part, u32 offset) noexcept nogil:
    """Add the sum of a part that begins at ``offset``: at an odd one its bytes swap places."""
    if offset & 1:
        part = part << 8 | part >> 24
    return csum_add(sum, part)

cdef inline u32 csum_partial(const u8 *p, u32 size, u32 sum) noexcept nogil:
    """Add ``size`` bytes to ``sum``; no alignment is needed. [csum_partial()]"""
    cdef u64 acc = sum
    cdef u64 v8
    cdef u32 v4
    cdef u16 v2
    if size >= CSUM_LONG:
        acc += csum_blocks(p, size >> 6)
        p += size & ~<u32>63
        size &= 63
    while size >= 8:
        memcpy(&v8, p, 8)
        acc += v8
        acc += acc < v8            # the carry; compilers make one instruction of it
        p += 8
        size -= 8
    if size & 7:
        v8 = 0
        if size & 4:
            memcpy(&v4, p, 4)
            v8 = v4
            p += 4
        if size & 2:
            memcpy(&v2, p, 2)
            v8 += v2
            p += 2
        if size & 1:
            v2 = 0
            memcpy(&v2, p, 1)
            v8 += v2
        acc += v8
        acc += acc < v8
    return csum_fold64(acc)

cdef inline u16 csum_fold(u32 sum) noexcept nogil:
    """Finish a sum: the field as it lies in memory; 0 over data that contains a right one."""
    return <u16>(~(sum + (sum >> 16 | sum << 16)) >> 16)

cdef inline u32 csum_tcpudp_nofold(u32 saddr, u32 daddr, u32 size, u8 protocol,
                                   u32 sum) noexcept nogil:
    """Add the IPv4 pseudo header: addresses in host order, size of header and data."""
    return csum_fold64(<u64>sum + htonl(saddr) + htonl(daddr) + htonl(size) + htons(protocol))

cdef inline u16 csum_tcpudp_magic(u32 saddr, u32 daddr, u32 size, u8 protocol,
                                  u32 sum) noexcept nogil:
    """Finish the sum of a TCP or UDP packet with its pseudo header. [csum_tcpudp_magic()]"""
    return csum_fold(csum_tcpudp_nofold(saddr, daddr, size, protocol, sum))

cdef inline u16 ip_fast_csum(const u8 *iph, u32 ihl) noexcept nogil:
    """Sum an IPv4 header of ``ihl`` words: 0 when its checksum is right. [ip_fast_csum()]"""
    cdef u64 a
    cdef u64 b
    cdef u32 c
    if likely(ihl == 5):
        memcpy(&a, iph, 8)
        memcpy(&b, iph + 8, 8)
        memcpy(&c, iph + 16, 4)
        a += b
        a += a < b
        a += c
        a += a < c
        return csum_fold(csum_fold64(a))
    return csum_fold(csum_partial(iph, ihl << 2, 0))
