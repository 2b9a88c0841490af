"""icmp_err: what an ICMP error means to the socket whose packet it quotes.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       an ICMP error and a socket       proto/_udp.pyx, proto/_raw.pyx, proto/_ping.pyx
Out      so_error and the queue of errors sock/_errqueue.pyx
         the path's MTU                   proto/_fib_exception.pyx
Context  process context; no GIL; never raises
Kernel   icmp_err_convert[], net/ipv4/icmp.c; ip_icmp_error(), ip_local_error(), net/ipv4/ip_sockglue.c;
         ipv4_sk_update_pmtu(), net/ipv4/route.c
"""

from libc.errno cimport (
    ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, EMSGSIZE, ENETUNREACH, ENONET, ENOPROTOOPT, EOPNOTSUPP, EPROTO,
)
from libc.string cimport memset

from netstack._abi cimport get_be32, load_acquire32
from netstack._skb cimport skb_network_header
from netstack.proto._fib_exception cimport ip_rt_update_pmtu
from netstack.proto._inet cimport IP_DADDR, IP_SADDR, IP_TOS, IP_TTL
from netstack.proto._ip_output cimport ip_alloc_skb, skb_store_bits
from netstack.sock._errqueue cimport sock_queue_err
from netstack.sock._sock cimport (
    IP_PMTUDISC_DONT, IP_PMTUDISC_INTERFACE, SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_LOCAL, SOCK_ERR_CB, SOCKF_CONNECTED,
    SOCKF_RECVERR, sock_err_cb,
)
from netstack.sock._wake cimport sock_set_err

cdef enum:
    ICMP_DEST_UNREACH = 3
    ICMP_SOURCE_QUENCH = 4
    ICMP_REDIRECT = 5
    ICMP_PARAMETERPROB = 12
    ICMP_FRAG_NEEDED = 4
    NR_ICMP_UNREACH = 15

# The errno of each code of destination unreachable, and whether it will not pass (RFC 1122 section 4.1.3.3).
cdef u32 *UNREACH_ERRNO = [
    ENETUNREACH, EHOSTUNREACH, ENOPROTOOPT, ECONNREFUSED, EMSGSIZE, EOPNOTSUPP, ENETUNREACH, EHOSTDOWN, ENONET,
    ENETUNREACH, EHOSTUNREACH, ENETUNREACH, EHOSTUNREACH, EHOSTUNREACH, EHOSTUNREACH, EHOSTUNREACH,
]
cdef u8 *UNREACH_FATAL = [0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1]


cdef bint icmp_convert(const icmp_error *error, const sock *sk, u32 *err) noexcept nogil:
    """Give the errno of an error, 0 for one that is none to a socket. True: it will not pass. [icmp_err_convert]"""
    err[0] = EHOSTUNREACH
    if error.type == ICMP_SOURCE_QUENCH or error.type == ICMP_REDIRECT:
        err[0] = 0
        return False
    if error.type == ICMP_PARAMETERPROB:
        err[0] = EPROTO
        return True
    if error.type != ICMP_DEST_UNREACH or error.code > NR_ICMP_UNREACH:
        return False
    err[0] = UNREACH_ERRNO[error.code]
    if error.code == ICMP_FRAG_NEEDED:
        return sk.pmtudisc != IP_PMTUDISC_DONT
    return UNREACH_FATAL[error.code] != 0


cdef void sk_update_pmtu(sock *sk, const icmp_error *error) noexcept nogil:
    """Learn the MTU that a router reports. [ipv4_sk_update_pmtu()]"""
    if error.type == ICMP_DEST_UNREACH and error.code == ICMP_FRAG_NEEDED and sk.pmtudisc < IP_PMTUDISC_INTERFACE:
        ip_rt_update_pmtu(sk.n, get_be32(error.quoted + IP_DADDR), get_be32(error.quoted + IP_SADDR), error.info)


cdef void sock_icmp_error(sock *sk, const icmp_error *error, u32 err, bint hard, u16 port, u32 payload) noexcept nogil:
    """Tell a socket: always one with IP_RECVERR, else only a connected one, of what will not pass.

    ``port`` is where the quoted packet was going; its data begins ``payload`` bytes behind its IP header's start.
    """
    if load_acquire32(&sk.flags) & SOCKF_RECVERR:
        ip_icmp_error(sk, error, err, port, payload)
    elif not hard or not load_acquire32(&sk.flags) & SOCKF_CONNECTED:
        return
    sock_set_err(sk, err)


cdef void ip_icmp_error(sock *sk, const icmp_error *error, u32 err, u16 port, u32 payload) noexcept nogil:
    """Queue an ICMP error with what it quotes behind the protocol's header. [ip_icmp_error()]"""
    cdef u32 size = error.size - min(error.size, payload)
    cdef sk_buff *skb = ip_alloc_skb(sk.n, size)
    cdef const u8 *iph = skb_network_header(error.skb)
    cdef sock_err_cb *cb
    if skb == NULL:
        return
    skb_store_bits(skb, 0, error.quoted + payload, size)
    skb.truesize = error.skb.truesize
    skb.tstamp = error.skb.tstamp
    cb = SOCK_ERR_CB(skb)
    memset(cb, 0, sizeof(sock_err_cb))
    cb.at.saddr = get_be32(error.quoted + IP_DADDR)
    cb.at.sport = port
    cb.at.daddr = get_be32(iph + IP_DADDR)
    cb.at.ttl = iph[IP_TTL]
    cb.at.tos = iph[IP_TOS]
    cb.at.ifindex = error.skb.dev.ifindex if error.skb.dev != NULL else 0
    cb.ee_errno = err
    cb.ee_origin = SO_EE_ORIGIN_ICMP
    cb.ee_type = <u8>error.type
    cb.ee_code = <u8>error.code
    cb.ee_info = error.info
    cb.offender = get_be32(iph + IP_SADDR)
    sock_queue_err(sk, skb)


cdef void ip_local_error(sock *sk, u32 err, u32 daddr, u16 port, u32 info) noexcept nogil:
    """Queue an error that we found ourselves: the datagram is larger than the MTU ``info``. [ip_local_error()]"""
    cdef sk_buff *skb
    cdef sock_err_cb *cb
    if not load_acquire32(&sk.flags) & SOCKF_RECVERR:
        return
    skb = ip_alloc_skb(sk.n, 0)
    if skb == NULL:
        return
    cb = SOCK_ERR_CB(skb)
    memset(cb, 0, sizeof(sock_err_cb))
    cb.at.saddr = daddr
    cb.at.sport = port
    cb.ee_errno = err
    cb.ee_origin = SO_EE_ORIGIN_LOCAL
    cb.ee_info = info
    sock_queue_err(sk, skb)
