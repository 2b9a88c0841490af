"""Control messages; see ``_cmsg.pyx``."""

from netstack._abi cimport u8, u32, u64
from netstack._skb cimport sk_buff
from netstack.sock._sock cimport sock, sock_err_cb, sock_msg, sock_skb_cb

cdef enum:
    SOF_TIMESTAMPING_RX_SOFTWARE = 8       # <linux/net_tstamp.h>
    SOF_TIMESTAMPING_SOFTWARE = 0x10
    SOF_TIMESTAMPING_OPT_RX_FILTER = 0x20000

cdef struct skb_meta:              # what control messages tell of a packet beside its cb
    u64 tstamp
    u32 mark
    u32 priority
    u32 optlen
    u8 opt[40]

cdef void skb_meta_of(const sock *sk, const sk_buff *skb, skb_meta *meta) noexcept
cdef list put_cmsgs(sock *sk, const sock_skb_cb *cb, const skb_meta *meta, u32 gso_size, Py_ssize_t room,
                    int *msg_flags)
cdef list put_err_cmsgs(sock *sk, sock_err_cb *error, const skb_meta *meta, Py_ssize_t room, int *msg_flags)
cdef int get_cmsgs(sock *sk, object ancdata, sock_msg *msg) except -1
