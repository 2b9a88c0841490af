"""Socket filters; see ``_filter.pyx``."""

from netstack._abi cimport u8, u16, u32
from netstack._skb cimport sk_buff
from netstack.sock._sock cimport sock

cdef struct sock_filter:           # <linux/filter.h>
    u16 code
    u8 jt
    u8 jf
    u32 k

cdef struct sk_filter:             # a program that was checked, and never changes
    u32 len
    sock_filter insns[1]           # [len]

cdef int sk_attach_filter(sock *sk, const char *fprog, Py_ssize_t size) except -1
cdef int sk_detach_filter(sock *sk) except -1
cdef bint sk_filter_trim(sock *sk, sk_buff *skb, u32 least) noexcept nogil
cdef u32 bpf_run(const sk_filter *prog, sk_buff *skb) noexcept nogil
