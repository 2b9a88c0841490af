"""udp: from a message to packets on their way.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       a message and where it goes      sock/_send.pyx
Out      packets, data at the UDP header  proto/_ip_output.pyx
Context  process context; no GIL; never raises
Kernel   udp_sendmsg(), udp_send_skb(), net/ipv4/udp.c
"""

from libc.errno cimport (
    EACCES, EADDRINUSE, EAGAIN, EBADF, EDESTADDRREQ, EINVAL, EMSGSIZE, ENETUNREACH, ENOBUFS, EPIPE,
)
from libc.string cimport memcpy

from netstack._abi cimport load_acquire32, put_be16, u8, u16, u32, unlikely
from netstack._checksum cimport csum_tcpudp_magic
from netstack._counters cimport IpOutNoRoutes, UdpOutDatagrams, UdpSndbufErrors
from netstack._net cimport IFF_LOOPBACK, NETIF_F_GSO_UDP_L4, NETIF_F_HW_CSUM, SLOT_PROCESS, mib_inc, net
from netstack._skb cimport CHECKSUM_PARTIAL, SKB_GSO_DODGY, SKB_GSO_UDP_L4, sk_buff
from netstack.proto._icmp_err cimport ip_local_error
from netstack.proto._inet cimport (
    IP_DF, IP_HLEN, RTCF_BROADCAST, RTCF_LOCAL, RTCF_MULTICAST, RTCF_NOLOOP, RTN_MULTICAST, RTN_UNICAST, ipv4_is_lbcast,
    ipv4_is_multicast,
)
from netstack.proto._ip cimport ip_alloc_skb, ip_route_output, ip_send_skb, rtable, skb_checksum, skb_store_bits
from netstack.proto._route cimport ip_route_output_dev
from netstack.proto._route_mc cimport ip_route_output_oif
from netstack.proto._udp cimport IPPROTO_UDP, UDP_HLEN
from netstack.sock._sock cimport (
    IP_PMTUDISC_DO, IP_PMTUDISC_INTERFACE, IP_PMTUDISC_PROBE, IP_PMTUDISC_WANT, SEND_SHUTDOWN,
    SOCKF_BOUND, SOCKF_BROADCAST, SOCKF_CLOSED, SOCKF_CONNECTED,
    SOCKF_MC_LOOP, SOCKF_NO_CHECK, SOCKO_DONTROUTE, SOCKO_TRANSPARENT,
)
from netstack.sock._wake cimport sock_take_err

cdef enum:
    UDP_MAX_SEGMENTS = 128         # datagrams of one message with UDP_SEGMENT
    UDP_CSUM_OFFSET = 6
    UDP_NO_GSO = 0x10000           # more than any message: all in one datagram
    UDP_MAX_DATA = 65507           # what fits behind an IP and a UDP header


cdef int udp_autobind(sock *sk) noexcept nogil:
    """Take an ephemeral port if the socket has none. [inet_autobind()]"""
    cdef int rc
    if load_acquire32(&sk.flags) & SOCKF_BOUND:
        return 0
    rc = sk.prot.get_port(sk, sk.rcv_saddr, 0)
    if rc == -EINVAL:              # another thread was faster
        return 0
    return -EAGAIN if rc == -EADDRINUSE else rc


cdef int udp_route(sock *sk, u32 daddr, u32 saddr, u32 dev_if, rtable *rt, bint dontroute) noexcept nogil:
    """Find the way. ENETUNREACH and its kin, or EACCES for a broadcast without SO_BROADCAST."""
    cdef int rc
    if unlikely(daddr >> 29 == 7):     # from 224.0.0.0 on no address is one host's
        rc = mcast_route(sk, daddr, saddr, dev_if, rt)
    elif unlikely(dev_if or sk.uc_index or sk.opts & (SOCKO_TRANSPARENT | SOCKO_DONTROUTE) or dontroute):
        rc = route_oddly(sk, daddr, saddr, dev_if if dev_if else sk.uc_index, dontroute, rt)
    else:
        rc = ip_route_output(sk.n, daddr, saddr, rt)
    if rc == 0 and sk.pmtudisc >= IP_PMTUDISC_PROBE:
        rt.mtu = rt.dev.mtu        # what routers reported is not believed [ip_sk_use_pmtu()]
        rt.mtu_locked = False
    if rc == -ENETUNREACH:
        mib_inc(sk.n, SLOT_PROCESS, IpOutNoRoutes)
    elif rc == 0 and rt.flags & RTCF_BROADCAST and not load_acquire32(&sk.flags) & SOCKF_BROADCAST:
        rc = -EACCES
    return rc


cdef int mcast_route(sock *sk, u32 daddr, u32 saddr, u32 dev_if, rtable *rt) noexcept nogil:
    """Find the way to a group, or to all: the device that the socket names needs no route."""
    cdef int rc
    if ipv4_is_multicast(daddr):
        dev_if = dev_if if dev_if else sk.mc_index
        saddr = saddr if saddr else sk.mc_addr
    elif dev_if == 0:
        dev_if = sk.uc_index
    if dev_if and (ipv4_is_multicast(daddr) or ipv4_is_lbcast(daddr)):
        rc = ip_route_output_oif(sk.n, daddr, saddr, dev_if, rt)
    else:
        rc = find_way(sk.n, daddr, saddr, dev_if, rt)
    if (rc == 0 and rt.flags & RTCF_MULTICAST and not load_acquire32(&sk.flags) & SOCKF_MC_LOOP
            and not rt.dev.flags & IFF_LOOPBACK):      # which brings back whatever it is given
        rt.flags = rt.flags & ~RTCF_LOCAL | RTCF_NOLOOP
    return rc


cdef int find_way(net *n, u32 daddr, u32 saddr, u32 dev_if, rtable *rt) noexcept nogil:
    return ip_route_output_dev(n, daddr, saddr, dev_if, rt) if dev_if else ip_route_output(n, daddr, saddr, rt)


cdef int route_oddly(sock *sk, u32 daddr, u32 saddr, u32 dev_if, bint dontroute, rtable *rt) noexcept nogil:
    """Find the way through a device (0: any), with IP_TRANSPARENT, which takes any source address, or without routers
    (SO_DONTROUTE).
    """
    cdef bint any_source = sk.opts & SOCKO_TRANSPARENT != 0
    cdef int rc = find_way(sk.n, daddr, 0 if any_source else saddr, dev_if, rt)
    if rc == 0 and any_source and saddr:
        rt.saddr = saddr
    if rc == 0 and (dontroute or sk.opts & SOCKO_DONTROUTE) and rt.type == RTN_UNICAST and rt.gateway != rt.daddr:
        rc = -ENETUNREACH
    return rc


cdef void sk_mark_skb(const sock *sk, const sock_msg *msg, sk_buff *skb) noexcept nogil:
    """Give a packet the mark and the priority of its sender, or those that a control message names."""
    skb.mark = msg.mark if msg.has_mark else sk.mark
    skb.priority = msg.priority if msg.has_priority else sk.priority


cdef int udp_destination(sock *sk, const sock_msg *msg, u32 *daddr, u16 *dport) noexcept nogil:
    """Say where a message goes: to the address it names, or to the peer."""
    if msg.has_addr:
        daddr[0], dport[0] = msg.daddr, msg.dport
        return 0 if msg.dport else -EINVAL
    daddr[0], dport[0] = sk.daddr, sk.dport
    return 0 if load_acquire32(&sk.flags) & SOCKF_CONNECTED else -EDESTADDRREQ


cdef void ip_generic_getfrag(sk_buff *skb, u32 done, const sock_msg *msg, size_t offset, u32 size) noexcept nogil:
    """Copy ``size`` bytes of the message, from ``offset`` on, to the packet, behind ``done`` bytes of header."""
    cdef size_t part
    cdef u32 i
    for i in range(msg.nr_iov):
        if size == 0:
            break
        if offset >= msg.iov[i].len:
            offset -= msg.iov[i].len
            continue
        part = min(msg.iov[i].len - offset, <size_t>size)
        skb_store_bits(skb, done, msg.iov[i].base + offset, <u32>part)
        done += <u32>part
        size -= <u32>part
        offset = 0


cdef void udp_set_csum(sk_buff *skb, const rtable *rt, u32 gso_size) noexcept nogil:
    """Make the checksum, or leave it to a device that makes checksums, with the pseudo header's sum in its place.

    A device can do nothing for a datagram that will be cut into IP fragments. [udp4_hwcsum(), udp_set_csum()]
    """
    cdef u16 check
    if gso_size or (rt.dev.features & NETIF_F_HW_CSUM and skb.len + IP_HLEN <= rt.mtu):
        check = ~csum_tcpudp_magic(rt.saddr, rt.daddr, skb.len, IPPROTO_UDP, 0)
        skb.ip_summed = CHECKSUM_PARTIAL
        skb.csum = <u32>(skb.data - skb.head) << 16 | UDP_CSUM_OFFSET
    else:
        check = csum_tcpudp_magic(rt.saddr, rt.daddr, skb.len, IPPROTO_UDP, skb_checksum(skb, 0, skb.len, 0))
        if check == 0:
            check = 0xFFFF         # 0 would say that there is none (RFC 768)
    memcpy(skb.data + UDP_CSUM_OFFSET, &check, 2)


cdef bint ip_dont_fragment(const sock *sk, const rtable *rt) noexcept nogil:
    """Say whether DF is set. [ip_dont_fragment()]"""
    if sk.pmtudisc == IP_PMTUDISC_WANT:
        return not rt.mtu_locked
    return sk.pmtudisc == IP_PMTUDISC_DO or sk.pmtudisc == IP_PMTUDISC_PROBE


cdef inline int udp_send_one(sock *sk, const sock_msg *msg, size_t offset, u32 size, const rtable *rt,
                             u16 dport, u32 gso_size) noexcept nogil:
    """Send ``size`` bytes of the message, from ``offset`` on, as one datagram. [udp_send_skb()]

    With ``gso_size`` they are datagrams of that size, which the device cuts.
    """
    cdef sk_buff *skb = ip_alloc_skb(sk.n, UDP_HLEN + size)
    cdef u16 frag_off = 0
    cdef u32 ttl = sk.mc_ttl if rt.type == RTN_MULTICAST else sk.ttl
    cdef int rc
    if skb == NULL:
        mib_inc(sk.n, SLOT_PROCESS, UdpSndbufErrors)
        return -ENOBUFS
    put_be16(skb.data, sk.num)
    put_be16(skb.data + 2, dport)
    put_be16(skb.data + 4, <u16>(UDP_HLEN + size))
    put_be16(skb.data + 6, 0)
    sk_mark_skb(sk, msg, skb)
    ip_generic_getfrag(skb, UDP_HLEN, msg, offset, size)
    if not load_acquire32(&sk.flags) & SOCKF_NO_CHECK:
        udp_set_csum(skb, rt, gso_size)
    if gso_size:
        skb.gso_type = SKB_GSO_UDP_L4 | SKB_GSO_DODGY
        skb.gso_size = <u16>gso_size
        skb.gso_segs = <u16>((size + gso_size - 1) // gso_size)
    if ip_dont_fragment(sk, rt) and (gso_size or skb.len + IP_HLEN <= rt.mtu):
        frag_off = IP_DF
    rc = ip_send_skb(sk.n, skb, rt, IPPROTO_UDP, <u8>(msg.tos if msg.tos >= 0 else <int>sk.tos),
                     <u8>(msg.ttl if msg.ttl >= 0 else <int>ttl), frag_off)
    if rc == -ENOBUFS:             # lost on the way out, which a datagram may be
        mib_inc(sk.n, SLOT_PROCESS, UdpSndbufErrors)
        return 0
    return rc


cdef int udp_may_send(sock *sk, const sock_msg *msg, u32 gso_size, const rtable *rt) noexcept nogil:
    """Check what depends on the route: sizes, a pending error, the end of sending."""
    cdef u32 err = sock_take_err(sk)
    cdef u32 size = min(<u32>msg.len, gso_size)
    if err:
        return -<int>err
    if load_acquire32(&sk.shutdown) & SEND_SHUTDOWN:
        return -EPIPE
    if msg.len > UDP_MAX_DATA:
        ip_local_error(sk, EMSGSIZE, rt.daddr, sk.dport, rt.mtu)
        return -EMSGSIZE
    if size + UDP_HLEN + IP_HLEN > rt.mtu and gso_size != UDP_NO_GSO:
        return -EMSGSIZE           # what UDP_SEGMENT cuts is never cut into IP fragments too
    if size + UDP_HLEN + IP_HLEN > rt.mtu and IP_PMTUDISC_DO <= sk.pmtudisc <= IP_PMTUDISC_INTERFACE:
        ip_local_error(sk, EMSGSIZE, rt.daddr, sk.dport, rt.mtu)
        return -EMSGSIZE
    if gso_size != UDP_NO_GSO and (msg.len > <size_t>gso_size * UDP_MAX_SEGMENTS
                                   or load_acquire32(&sk.flags) & SOCKF_NO_CHECK):
        return -EINVAL
    return 0


cdef int udp_way(sock *sk, const sock_msg *msg, rtable *rt, u16 *dport) noexcept nogil:
    """Find out where a message goes, and how. 0 or a negative errno."""
    cdef u32 daddr = 0
    cdef int rc
    if load_acquire32(&sk.flags) & SOCKF_CLOSED:
        return -EBADF
    rc = udp_autobind(sk)
    if rc == 0 and msg.len > 0xFFFF:
        rc = -EMSGSIZE
    if rc == 0:
        rc = udp_destination(sk, msg, &daddr, dport)
    if rc == 0:
        rc = udp_route(sk, daddr, msg.saddr if msg.saddr else sk.saddr,
                       msg.ifindex if msg.ifindex else sk.bound_dev_if, rt, msg.dontroute)
    return rc


cdef inline int udp_send_way(sock *sk, const sock_msg *msg, const rtable *rt, u16 dport) noexcept nogil:
    """Send a message whose way is known as one datagram, or with UDP_SEGMENT as several."""
    cdef u32 gso_size = msg.gso_size if msg.gso_size else sk.gso_size
    cdef size_t offset = 0
    cdef bint whole
    cdef u32 size
    cdef int rc
    if gso_size == 0:
        gso_size = UDP_NO_GSO
    rc = udp_may_send(sk, msg, gso_size, rt)
    if rc:
        return rc
    # A device that can't cut gets each datagram by itself, faster than cutting before it, unless all comes back.
    whole = gso_size < msg.len and (rt.dev.features & NETIF_F_GSO_UDP_L4 or rt.flags & RTCF_LOCAL)
    while rc == 0 and (offset == 0 or offset < msg.len):
        size = <u32>(msg.len if whole else min(msg.len - offset, <size_t>gso_size))
        rc = udp_send_one(sk, msg, offset, size, rt, dport, gso_size if whole else 0)
        offset += size
        if size == 0:
            break
    if rc == 0:
        mib_inc(sk.n, SLOT_PROCESS, UdpOutDatagrams)
    return rc


cdef int udp_sendmsg(sock *sk, sock_msg *msg) noexcept nogil:
    """Send a message as one datagram, or with UDP_SEGMENT as several. 0 or a negative errno."""
    cdef rtable rt
    cdef u16 dport = 0
    cdef int rc = udp_way(sk, msg, &rt, &dport)
    return rc if rc else udp_send_way(sk, msg, &rt, dport)


cdef u32 udp_sendmmsg(sock *sk, sock_msg *msgs, u32 count, int *err) noexcept nogil:
    """Send messages in turn until one fails; how many. Its negative errno is in ``err``, 0 if none failed.

    Those that go to the same place one after the other look up the way once.
    """
    cdef rtable rt
    cdef u16 dport = 0
    cdef u32 i
    err[0] = 0
    for i in range(count):
        if (i == 0 or msgs[i].daddr != msgs[i - 1].daddr or msgs[i].dport != msgs[i - 1].dport
                or msgs[i].has_addr != msgs[i - 1].has_addr or msgs[i].len > 0xFFFF
                or load_acquire32(&sk.flags) & SOCKF_CLOSED):
            err[0] = udp_way(sk, &msgs[i], &rt, &dport)
        if err[0] == 0:
            err[0] = udp_send_way(sk, &msgs[i], &rt, dport)
        if err[0]:
            return i
    return count
