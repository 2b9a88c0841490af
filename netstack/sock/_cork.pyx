"""cork: one datagram of several sends, with MSG_MORE or UDP_CORK.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       messages, all but the last with MSG_MORE  sock/_send.pyx
Out      one message                      proto/_udp_out.pyx
Context  process context, with the GIL, which keeps two senders apart; released for the protocol
Kernel   udp_sendmsg(), udp_push_pending_frames(), net/ipv4/udp.c; __ip_append_data(), net/ipv4/ip_output.c

The first message says where to, as in Linux; what later ones name is not looked at.
"""

from libc.errno cimport EDESTADDRREQ, EMSGSIZE, ENOMEM
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from netstack._abi cimport load_acquire32, u8
from netstack.sock._calls cimport fail
from netstack.sock._packet cimport AF_PACKET
from netstack.sock._sock cimport (
    SOCK_RAW, SOCKF_CONNECTED, SOCKF_HDRINCL, sock_iov,
)

cdef enum:
    CORK_MOST = 65515              # bytes behind an IP header
    UDP_HLEN = 8
    IPPROTO_UDP = 17

cdef struct sock_cork:             # sk.cork
    sock_msg msg                   # the first one's
    size_t len
    u8 data[1]


cdef bint sock_corks(const sock *sk) noexcept:
    """Tell whether the socket gathers: UDP and raw sockets that leave the IP header to us."""
    if sk.prot.family == AF_PACKET or load_acquire32(&sk.flags) & SOCKF_HDRINCL:
        return False
    return sk.prot.type == SOCK_RAW or sk.prot.protocol == IPPROTO_UDP


cdef Py_ssize_t sock_cork_send(sock *sk, const sock_msg *msg, bint more) except -1:
    """Add a message to what is gathered; without ``more`` send it all."""
    cdef sock_cork *cork = <sock_cork *>sk.cork
    cdef size_t have = cork.len if cork != NULL else 0
    cdef size_t header = 0 if sk.prot.type == SOCK_RAW else UDP_HLEN
    cdef int i, rc
    if cork == NULL and not msg.has_addr and not load_acquire32(&sk.flags) & SOCKF_CONNECTED:
        fail(EDESTADDRREQ)
    if msg.len > 0xFFFF or have + msg.len + header > CORK_MOST:
        sock_uncork(sk)                # nothing of it is sent [udp_flush_pending_frames()]
        fail(EMSGSIZE)
    cork = <sock_cork *>realloc(sk.cork, sizeof(sock_cork) + have + msg.len)
    if cork == NULL:
        fail(ENOMEM)
    if sk.cork == NULL:
        memset(cork, 0, sizeof(sock_cork))
        cork.msg = msg[0]
    sk.cork = cork
    for i in range(<int>msg.nr_iov):
        memcpy(cork.data + cork.len, msg.iov[i].base, msg.iov[i].len)
        cork.len += msg.iov[i].len
    if not more:
        rc = sock_push(sk)
        if rc < 0:
            fail(-rc)
    return <Py_ssize_t>msg.len


cdef void sock_uncork(sock *sk) noexcept:
    """Forget what was gathered."""
    free(sk.cork)
    sk.cork = NULL


cdef int sock_push(sock *sk) noexcept:
    """Send what was gathered; 0 or a negative errno. [udp_push_pending_frames()]"""
    cdef sock_cork *cork = <sock_cork *>sk.cork
    cdef sock_iov iov
    cdef int rc
    if cork == NULL:
        return 0
    sk.cork = NULL
    iov.base, iov.len = cork.data, cork.len
    cork.msg.iov, cork.msg.nr_iov, cork.msg.len = &iov, 1, cork.len
    with nogil:
        rc = sk.prot.sendmsg(sk, &cork.msg)
    free(cork)
    return rc
