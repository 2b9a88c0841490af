"""raw: every packet of an IP protocol, for sockets that asked for it.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       packets for us, before their protocol gets them  proto/ip.py
         ICMP errors about what such a socket sent  proto/icmp.py
Out      a clone for each socket that it matches  sock/_queue.pyx
Context  process context; no GIL; never raises
Kernel   raw_v4_input(), raw_rcv(), raw_err(), raw_prot, net/ipv4/raw.c

While a protocol has a raw socket, its bit in net.raw_protocols keeps the short cut away from its packets.
"""

cimport cython
from libc.errno cimport EBADF, EINVAL, ENOPROTOOPT, EOPNOTSUPP
from libc.stdlib cimport calloc, free

from netstack._abi cimport (
    add_relaxed32, fetch_or32, get_be16, load_acquire32, load_acquire_ptr, load_relaxed32, spin_lock, spin_unlock,
    store_release_ptr, u8, u16, u32, unlikely,
)
from netstack._counters cimport (
    MIB_NR, SKB_DROP_REASON_SOCKET_FILTER, SKB_DROP_REASON_SOCKET_RCVBUFF, SKB_NOT_DROPPED_YET,
)
from netstack._net cimport STAGE_SOCKET, Net
from netstack._skb cimport (
    SkBuff, kfree_skb_reason, skb_clone, skb_headlen, skb_network_header, skb_pool, skb_transport_header,
)
from netstack.proto._icmp_err cimport icmp_convert, icmp_error, sk_update_pmtu, sock_icmp_error
from netstack.proto._inet cimport IP_PROTO, IP_TOS, IP_TTL, IPPROTO_ICMP, ip_daddr, ip_ihl, ip_saddr
from netstack.proto._route cimport inet_iif
from netstack.proto._route_mc cimport fib_compute_spec_dst
from netstack.proto._raw_out cimport raw_sendmsg
from netstack.proto._udp_prot cimport ip4_datagram_connect, udp_mtu
from netstack.sock._filter cimport sk_filter_trim
from netstack.sock._mcast cimport ip_mc_sf_allow
from netstack.sock._queue cimport sock_queue_rcv_skb
from netstack.sock._sock cimport (
    AF_INET, SOCK_CB, SOCK_DGRAM, SOCK_QUEUED, SOCK_RAW, SOCKF_BOUND, SOCKF_CLOSED, SOCKF_CONNECTED, SOCKF_HDRINCL,
    SOCKF_REUSEADDR, rmem_alloc, sock_skb_cb,
)
from netstack.sock._table cimport raw_protocol_used, table_of, table_remove, udp_table
from netstack.sock._wake cimport sock_data_ready

cdef enum:
    SOL_RAW = 255                  # <linux/socket.h>
    ICMP_FILTER = 1                # <linux/icmp.h>
    IPPROTO_RAW = 255


# ---- in

cdef inline bint raw_v4_match(const sock *sk, u32 raddr, u32 laddr, u32 dif) noexcept nogil:
    """Does the socket want what goes from ``raddr`` to ``laddr``?"""
    return ((sk.daddr == 0 or sk.daddr == raddr) and (sk.rcv_saddr == 0 or sk.rcv_saddr == laddr)
            and (sk.bound_dev_if == 0 or sk.bound_dev_if == dif))


cdef bint icmp_filter(const sock *sk, sk_buff *skb) noexcept nogil:
    """True for a type that the socket does not want (ICMP_FILTER)."""
    cdef u8 *message = skb_transport_header(skb)
    if <u32>(message - skb.data) + 8 > skb_headlen(skb):
        return True
    return message[0] < 32 and sk.icmp_filter >> message[0] & 1


cdef int raw_local_deliver(net *n, sk_buff *skb) noexcept nogil:
    """Give a clone to each raw socket that wants the packet, data at the IP header; how many matched."""
    cdef raw_table *table = <raw_table *>n.raw
    cdef u8 *iph = skb_network_header(skb)
    cdef u32 saddr = ip_saddr(iph)
    cdef u32 daddr = ip_daddr(iph)
    cdef u32 dif = inet_iif(n, skb, daddr)
    cdef skb_pool *pool = <skb_pool *>n.pool
    cdef udp_table *sockets = <udp_table *>n.udp
    cdef int matched = 0
    cdef sk_buff *clone
    cdef sock *sk
    if load_acquire_ptr(<void **>&table.head[iph[IP_PROTO]]) == NULL:
        return 0
    spin_lock(&sockets.lock)
    sk = table.head[iph[IP_PROTO]]
    while sk != NULL:
        if sk.num == iph[IP_PROTO] and raw_v4_match(sk, saddr, daddr, dif):
            if rmem_alloc(sk) >= sk.rcvbuf:
                add_relaxed32(&sk.drops, 1)
            else:
                matched += 1
                if ((iph[IP_PROTO] != IPPROTO_ICMP or not icmp_filter(sk, skb))
                        and ip_mc_sf_allow(sk, daddr, saddr, dif)):
                    spin_lock(&pool.lock)
                    clone = skb_clone(skb, pool)
                    spin_unlock(&pool.lock)
                    if clone != NULL:
                        raw_rcv(n, sk, clone)
        sk = sk.next
    spin_unlock(&sockets.lock)
    return matched


cdef int raw_rcv(net *n, sock *sk, sk_buff *skb) noexcept nogil:
    """Queue one packet, data at what the socket is to read; a drop reason, or 0. Consumes skb. [raw_rcv()]"""
    cdef u8 *iph = skb_network_header(skb)
    cdef sock_skb_cb *cb = SOCK_CB(skb)
    if not sk_filter_trim(sk, skb, 0):
        kfree_skb_reason(skb, SKB_DROP_REASON_SOCKET_FILTER)
        return SKB_DROP_REASON_SOCKET_FILTER
    cb.saddr = ip_saddr(iph)
    cb.daddr = ip_daddr(iph)
    cb.sport = 0
    # The two bytes where UDP has its port, whatever the protocol: IP_ORIGDSTADDR gives them.
    cb.dport = get_be16(iph + ip_ihl(iph) + 2) if iph + ip_ihl(iph) + 4 <= skb.data + skb_headlen(skb) else 0
    cb.tos = iph[IP_TOS]
    cb.ttl = iph[IP_TTL]
    cb.csum_unchecked = 0
    # What went round by lo came through the address's device, but ping sockets are told of lo.
    cb.ifindex = skb.dev.ifindex if sk.prot.type == SOCK_DGRAM else inet_iif(n, skb, cb.daddr)
    if unlikely(load_relaxed32(&n.tap_stages) >> <u32>STAGE_SOCKET & 1):
        n.tap_stage(n, skb, STAGE_SOCKET, 0)
    if sock_queue_rcv_skb(sk, skb) != SOCK_QUEUED:
        kfree_skb_reason(skb, SKB_DROP_REASON_SOCKET_RCVBUFF)
        return SKB_DROP_REASON_SOCKET_RCVBUFF
    sock_data_ready(sk, NULL)
    return SKB_NOT_DROPPED_YET


cdef void raw_err(sock *sk, const icmp_error *error) noexcept nogil:
    """Tell one socket of an error about what it sent."""
    cdef u32 number
    cdef bint hard
    sk_update_pmtu(sk, error)
    hard = icmp_convert(error, sk, &number)
    if number:
        sock_icmp_error(sk, error, number, hard, 0,
                        0 if load_acquire32(&sk.flags) & SOCKF_HDRINCL else ip_ihl(error.quoted))


# ---- bind, connect, options

cdef int raw_hash(sock *sk) noexcept nogil:
    """Enter a new socket under its protocol. [raw_hash_sk()]"""
    cdef raw_table *table = <raw_table *>sk.n.raw
    cdef udp_table *sockets = table_of(sk)
    sk.num = <u16>sk.protocol
    fetch_or32(&sk.flags, SOCKF_REUSEADDR)         # INET_PROTOSW_REUSE
    if sk.protocol == IPPROTO_RAW:
        fetch_or32(&sk.flags, SOCKF_HDRINCL)
    spin_lock(&sockets.lock)
    sk.next = table.head[sk.num & 0xFF]
    store_release_ptr(<void **>&table.head[sk.num & 0xFF], sk)
    fetch_or32(&sk.flags, SOCKF_BOUND)
    raw_protocol_used(sk.n, sk.num & 0xFF, True)
    spin_unlock(&sockets.lock)
    return 0


cdef void raw_unhash(sock *sk) noexcept nogil:
    """Take a socket out. [raw_unhash_sk()]"""
    cdef raw_table *table = <raw_table *>sk.n.raw
    cdef udp_table *sockets = table_of(sk)
    cdef sock **link
    spin_lock(&sockets.lock)
    link = &table.head[sk.num & 0xFF]
    while link[0] != sk:
        link = &link[0].next
    store_release_ptr(<void **>link, sk.next)
    if table.head[sk.num & 0xFF] == NULL:
        raw_protocol_used(sk.n, sk.num & 0xFF, False)
    table_remove(sk)
    spin_unlock(&sockets.lock)


cdef int raw_bind(sock *sk, u32 addr, u16 port) noexcept nogil:
    """Take packets for one address of ours only. [raw_bind()]"""
    if load_acquire32(&sk.flags) & SOCKF_CLOSED:
        return -EBADF
    if load_acquire32(&sk.flags) & SOCKF_CONNECTED:
        return -EINVAL
    sk.rcv_saddr = addr
    sk.saddr = 0
    return 0


cdef int raw_setsockopt(sock *sk, int name, int value) noexcept nogil:
    """Set ICMP_FILTER: a bit for each type that is not wanted."""
    if name != ICMP_FILTER:
        return -ENOPROTOOPT
    if sk.protocol != IPPROTO_ICMP:
        return -EOPNOTSUPP
    sk.icmp_filter = <u32>value
    return 0


cdef int raw_getsockopt(sock *sk, int name, int *value) noexcept nogil:
    """Give ICMP_FILTER."""
    if name != ICMP_FILTER:
        return -ENOPROTOOPT
    if sk.protocol != IPPROTO_ICMP:
        return -EOPNOTSUPP
    value[0] = <int>sk.icmp_filter
    return 0


# ---- wiring, and the same steps for ip.py

@cython.final
@cython.no_gc_clear
cdef class Raw:
    """Owns a host's table of raw sockets, which a call that is on its way may use after the host has closed."""
    cdef raw_table *table

    def __dealloc__(self):
        free(self.table)


def init(Net n not None):
    """Give a host raw sockets, before its CPUs start; UDP goes first. [raw_init()]"""
    cdef Raw owner = Raw()
    cdef proto *prot
    owner.table = <raw_table *>calloc(1, sizeof(raw_table))
    if owner.table == NULL:
        raise MemoryError
    n.keep(owner)
    prot = &owner.table.prot
    prot.name = b"raw"
    prot.n = n.ptr
    prot.table = n.ptr.udp
    prot.family = AF_INET
    prot.type = SOCK_RAW
    prot.protocol = 0                      # whichever is asked for
    prot.level = SOL_RAW
    prot.in_datagrams = MIB_NR
    prot.init = raw_hash
    prot.get_port = raw_bind
    prot.connect = ip4_datagram_connect
    prot.sendmsg = raw_sendmsg
    prot.unhash = raw_unhash
    prot.mtu = udp_mtu
    prot.spec_dst = fib_compute_spec_dst
    prot.setsockopt = raw_setsockopt
    prot.getsockopt = raw_getsockopt
    prot.next = <proto *>n.ptr.protos
    n.ptr.raw = owner.table
    n.ptr.protos = prot


def local_deliver(Net n not None, SkBuff skb not None):
    """Give a packet, data at its IP header, to the raw sockets; True when one wanted it. [raw_local_deliver()]"""
    return raw_local_deliver(n.ptr, skb.peek()) != 0


def err(Net n not None, SkBuff skb not None, bytes quoted not None, u32 kind, u32 code, u32 info):
    """Tell the raw sockets of the quoted packet's protocol; False: there are none. [raw_icmp_error()]"""
    cdef raw_table *table = <raw_table *>n.ptr.raw
    cdef udp_table *sockets = <udp_table *>n.ptr.udp
    cdef icmp_error error
    cdef const u8 *iph = <const u8 *><const char *>quoted
    cdef sock *sk
    cdef u32 dif
    cdef bint found = False
    error.skb, error.type, error.code, error.info = skb.peek(), kind, code, info
    error.quoted, error.size = iph, <u32>len(quoted)
    if table.head[iph[IP_PROTO]] == NULL:
        return False
    dif = error.skb.dev.ifindex if error.skb.dev != NULL else 0
    spin_lock(&sockets.lock)
    sk = table.head[iph[IP_PROTO]]
    while sk != NULL:
        if sk.num == iph[IP_PROTO] and raw_v4_match(sk, ip_daddr(iph), ip_saddr(iph), dif):
            raw_err(sk, &error)
            found = True
        sk = sk.next
    spin_unlock(&sockets.lock)
    return found
