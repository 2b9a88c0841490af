"""ICMP's entry points; see ``_icmp.pyx``."""

from netstack._abi cimport u8, u16, u32, u64
from netstack._net cimport net
from netstack._skb cimport sk_buff


cdef enum:
    ICMP_PEERS = 1024              # destinations whose rate is remembered; a new one may take another's place

cdef struct icmp_bucket:
    u32 addr
    u32 n_redirects                # sent without being heeded
    u64 tokens                     # ns of credit
    u64 last                       # ns

cdef struct icmp_state:            # net.icmp
    u32 lock
    int credit                     # messages that may leave at once; may fall a little below 0
    u64 stamp                      # ns: when credit was last added
    u64 seed
    icmp_bucket peers[ICMP_PEERS]

# May a message leave? False is counted. [icmpv4_global_allow(), icmpv4_xrlim_allow()]
cdef bint icmp_allow(net *n, u8 type, u8 code, u32 daddr, bint loopback) noexcept nogil

cdef void icmp_out_count(net *n, u32 slot, u8 type) noexcept nogil
