"""Control messages; see ``_cmsg.pyx``."""

from netstack._abi cimport u32
from netstack.sock._sock cimport sock, sock_err_cb, sock_msg, sock_skb_cb

cdef list put_cmsgs(sock *sk, const sock_skb_cb *cb, u32 gso_size, Py_ssize_t room, int *msg_flags)
cdef list put_err_cmsgs(sock *sk, sock_err_cb *error, Py_ssize_t room, int *msg_flags)
cdef int get_cmsgs(object ancdata, sock_msg *msg) except -1
