"""raw: packets whose content, or whose IP header too (IP_HDRINCL), the application makes.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       a message and where it goes      sock/_send.pyx
Out      packets                          proto/_ip_output.pyx
Context  process context; no GIL; never raises
Kernel   raw_sendmsg(), raw_send_hdrinc(), net/ipv4/raw.c
"""

from libc.errno cimport EBADF, EDESTADDRREQ, EFAULT, EINVAL, EMSGSIZE, ENOBUFS, EPIPE
from libc.string cimport memcpy

from netstack._abi cimport get_be16, load_acquire32, put_be16, put_be32, u8, u16, u32
from netstack._checksum cimport ip_fast_csum
from netstack._counters cimport IpOutDiscards
from netstack._net cimport SLOT_PROCESS, mib_inc, net
from netstack._skb cimport consume_skb, sk_buff
from netstack.proto._icmp cimport icmp_out_count
from netstack.proto._icmp_err cimport ip_local_error
from netstack.proto._inet cimport (
    IP_CSUM, IP_DF, IP_HLEN, IP_ID, IP_PROTO, IP_SADDR, IP_TOTLEN, IPPROTO_ICMP, RTN_MULTICAST, ip_daddr, ip_ihl,
    ip_saddr,
)
from netstack.proto._ip_output cimport (
    ip_alloc_skb, ip_local_out, ip_out_cb, ip_select_ident, ip_send_skb, use_route,
)
from netstack.proto._route cimport rtable
from netstack.proto._udp_out cimport ip_dont_fragment, ip_generic_getfrag, sk_mark_skb, udp_route
from netstack.sock._sock cimport (
    IP_PMTUDISC_DO, IP_PMTUDISC_INTERFACE, SEND_SHUTDOWN, SOCKF_CLOSED, SOCKF_CONNECTED, SOCKF_HDRINCL,
)
from netstack.sock._wake cimport sock_take_err


cdef int may_send(sock *sk) noexcept nogil:
    cdef u32 err = sock_take_err(sk)
    if err:
        return -<int>err
    return -EPIPE if load_acquire32(&sk.shutdown) & SEND_SHUTDOWN else 0


cdef void complete_header(net *n, sk_buff *skb, const rtable *rt, u32 ihl) noexcept nogil:
    """Put into an IP header, ``ihl`` bytes, what the application left out."""
    cdef u8 *iph = skb.data
    cdef u16 check
    skb.network_header = <u16>(iph - skb.head)
    skb.transport_header = <u16>(skb.network_header + ihl)
    use_route(skb, rt)
    (<ip_out_cb *>skb.cb).mtu = rt.dev.mtu
    if ip_saddr(iph) == 0:
        put_be32(iph + IP_SADDR, rt.saddr)
    put_be16(iph + IP_TOTLEN, <u16>skb.len)
    if get_be16(iph + IP_ID) == 0:
        put_be16(iph + IP_ID, ip_select_ident(n, ip_daddr(iph), ip_saddr(iph), iph[IP_PROTO]))
    put_be16(iph + IP_CSUM, 0)
    check = ip_fast_csum(iph, ihl >> 2)
    memcpy(iph + IP_CSUM, &check, 2)


cdef int raw_send_hdrinc(sock *sk, const sock_msg *msg, const rtable *rt) noexcept nogil:
    """Send what begins with an IP header: address, length, id and checksum are put in where they are missing."""
    cdef sk_buff *skb
    cdef u32 ihl
    cdef int rc
    if msg.len > rt.dev.mtu:
        ip_local_error(sk, EMSGSIZE, rt.daddr, sk.dport, rt.dev.mtu)
        return -EMSGSIZE
    if msg.len < IP_HLEN:
        return -EINVAL
    rc = may_send(sk)
    if rc:
        return rc
    skb = ip_alloc_skb(sk.n, <u32>msg.len)
    if skb == NULL:
        return -ENOBUFS
    sk_mark_skb(sk, msg, skb)
    ip_generic_getfrag(skb, 0, msg, 0, <u32>msg.len)
    ihl = ip_ihl(skb.data)
    if ihl < IP_HLEN or ihl > msg.len:
        mib_inc(sk.n, SLOT_PROCESS, IpOutDiscards)
        consume_skb(skb)
        return -EINVAL
    if skb.data[IP_PROTO] == IPPROTO_ICMP and msg.len >= ihl + 8:
        icmp_out_count(sk.n, SLOT_PROCESS, skb.data[ihl])
    complete_header(sk.n, skb, rt, ihl)
    return ip_local_out(sk.n, skb)


cdef int raw_send(sock *sk, const sock_msg *msg, const rtable *rt) noexcept nogil:
    """Send a message behind an IP header of ours."""
    cdef u32 ttl = sk.mc_ttl if rt.type == RTN_MULTICAST else sk.ttl
    cdef u32 size = <u32>msg.len
    cdef sk_buff *skb
    cdef u16 frag_off = 0
    cdef int rc
    if size + IP_HLEN > 0xFFFF or (size + IP_HLEN > rt.mtu
                                   and IP_PMTUDISC_DO <= sk.pmtudisc <= IP_PMTUDISC_INTERFACE):
        ip_local_error(sk, EMSGSIZE, rt.daddr, sk.dport, rt.mtu)
        return -EMSGSIZE
    skb = ip_alloc_skb(sk.n, size)     # neither a pending error nor the end of sending is looked at, as in Linux
    if skb == NULL:
        return -ENOBUFS
    sk_mark_skb(sk, msg, skb)
    ip_generic_getfrag(skb, 0, msg, 0, size)
    if ip_dont_fragment(sk, rt) and size + IP_HLEN <= rt.mtu:
        frag_off = IP_DF
    if sk.protocol == IPPROTO_ICMP:
        icmp_out_count(sk.n, SLOT_PROCESS, skb.data[0])
    rc = ip_send_skb(sk.n, skb, rt, <u8>sk.protocol, <u8>(msg.tos if msg.tos >= 0 else <int>sk.tos),
                     <u8>(msg.ttl if msg.ttl >= 0 else <int>ttl), frag_off)
    return 0 if rc == -ENOBUFS else rc


cdef int raw_sendmsg(sock *sk, sock_msg *msg) noexcept nogil:
    """Send a message as one packet. 0 or a negative errno."""
    cdef rtable rt
    cdef u32 daddr = msg.daddr if msg.has_addr else sk.daddr
    cdef int rc
    if load_acquire32(&sk.flags) & SOCKF_CLOSED:
        return -EBADF
    if msg.len > 0xFFFF:
        return -EMSGSIZE
    if not msg.has_addr and not load_acquire32(&sk.flags) & SOCKF_CONNECTED:
        return -EDESTADDRREQ
    if sk.protocol == IPPROTO_ICMP and msg.len < 2 and not load_acquire32(&sk.flags) & SOCKF_HDRINCL:
        return -EFAULT             # type and code are looked at for the way [raw_probe_proto_opt()]
    rc = udp_route(sk, daddr, msg.saddr if msg.saddr else sk.saddr,
                   msg.ifindex if msg.ifindex else sk.bound_dev_if, &rt, msg.dontroute)
    if rc:
        return rc
    if load_acquire32(&sk.flags) & SOCKF_HDRINCL:
        return raw_send_hdrinc(sk, msg, &rt)
    return raw_send(sk, msg, &rt)
