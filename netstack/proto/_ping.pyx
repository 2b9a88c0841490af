"""ping: echo requests without privilege; the id of the messages is the socket's port.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       echo replies, and errors about requests  proto/icmp.py
         an echo request to send          sock/_send.pyx
Out      clones in receive queues         sock/_queue.pyx
         packets                          proto/_ip_output.pyx
Context  process context; no GIL; never raises
Kernel   ping_rcv(), ping_v4_sendmsg(), ping_err(), ping_get_port(), net/ipv4/ping.c
"""

cimport cython
from libc.errno cimport (
    EACCES, EADDRINUSE, EADDRNOTAVAIL, EBADF, EDESTADDRREQ, EINVAL, EMSGSIZE, ENOBUFS, ENOPROTOOPT, EPIPE, EREMOTEIO,
)
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netstack._abi cimport (
    fetch_or32, get_be16, load_acquire32, put_be16, spin_lock, spin_unlock, u8, u16, u32,
)
from netstack._checksum cimport csum_fold
from netstack._counters cimport MIB_NR, SKB_DROP_REASON_NO_SOCKET
from netstack._net cimport SLOT_PROCESS, Net, net, ping_group_range_max, ping_group_range_min, sysctl_get
from netstack._skb cimport SkBuff, sk_buff, skb_clone, skb_network_header, skb_pool
from netstack.proto._fib_exception cimport ip_rt_update_pmtu
from netstack.proto._icmp cimport icmp_out_count
from netstack.proto._icmp_err cimport (
    icmp_convert, icmp_error, ip_local_error, sk_update_pmtu, sock_icmp_error,
)
from netstack.proto._inet cimport (
    ICMP_ECHO, ICMP_ECHOREPLY, ICMP_HLEN, IP_DF, IP_HLEN, IPPROTO_ICMP, RTN_LOCAL, RTN_MULTICAST, ip_daddr, ip_ihl,
    ip_saddr,
)
from netstack.proto._ip_output cimport ip_alloc_skb, ip_send_skb, skb_checksum
from netstack.proto._raw cimport raw_rcv
from netstack.proto._route cimport inet_addr_type, inet_iif, rtable
from netstack.proto._udp_out cimport (
    ip_dont_fragment, ip_generic_getfrag, sk_mark_skb, udp_autobind, udp_route,
)
from netstack.proto._udp_prot cimport udp_connect, udp_mtu
from netstack.sock._sock cimport (
    AF_INET, IP_PMTUDISC_DO, IP_PMTUDISC_INTERFACE, SEND_SHUTDOWN, SOCK_DGRAM, SOCKF_BOUND, SOCKF_CLOSED,
    SOCKF_CONNECTED, SOCKF_FREEBIND, SOCKF_REUSEADDR, SOCKO_TRANSPARENT, proto, sock, sock_msg,
)
from netstack.sock._table cimport table_of, table_remove, udp_table
from netstack.sock._wake cimport sock_take_err

cdef extern from "<unistd.h>":
    unsigned getegid() nogil
    int getgroups(int size, unsigned *groups) nogil

cdef enum:
    NGROUPS = 1024
    BUCKETS = 256
    ICMP_DEST_UNREACH = 3
    ICMP_FRAG_NEEDED = 4
    ICMP_SOURCE_QUENCH = 4
    ICMP_REDIRECT = 5

cdef struct ping_table:            # n.ping; under the lock of the host's table of sockets
    proto prot
    u32 rover                      # the id given last
    sock *head[BUCKETS]            # by id


# ---- ids

cdef int ping_init_sock(sock *sk) noexcept nogil:
    """Let only groups of net.ipv4.ping_group_range have such sockets."""
    cdef unsigned groups[NGROUPS]
    cdef u32 low = <u32>sysctl_get(sk.n, ping_group_range_min)
    cdef u32 high = <u32>sysctl_get(sk.n, ping_group_range_max)
    cdef int i, count
    fetch_or32(&sk.flags, SOCKF_REUSEADDR)         # INET_PROTOSW_REUSE
    if low <= getegid() <= high:
        return 0
    count = getgroups(NGROUPS, groups)
    for i in range(count):
        if low <= groups[i] <= high:
            return 0
    return -EACCES


cdef bint ident_in_use(ping_table *table, const sock *sk, u16 ident) noexcept nogil:
    """True when another has the id, and not both said SO_REUSEADDR."""
    cdef sock *other = table.head[ident % BUCKETS]
    while other != NULL:
        if other.num == ident and other != sk and not load_acquire32(&other.flags) & sk.flags & SOCKF_REUSEADDR:
            return True
        other = other.next
    return False


cdef int ping_get_port(sock *sk, u32 addr, u16 ident) noexcept nogil:
    """Take an id, 0 for any. [ping_bind(), ping_get_port()]"""
    cdef ping_table *table = <ping_table *>sk.n.ping
    cdef udp_table *sockets = table_of(sk)
    cdef u32 tries = 0
    cdef int result = 0
    if addr and inet_addr_type(sk.n, addr) != RTN_LOCAL and not (
            load_acquire32(&sk.flags) & SOCKF_FREEBIND or sk.opts & SOCKO_TRANSPARENT):
        return -EADDRNOTAVAIL
    spin_lock(&sockets.lock)
    if load_acquire32(&sk.flags) & SOCKF_CLOSED:
        result = -EBADF
    elif sk.num:
        result = -EINVAL
    elif ident == 0:
        while ident == 0 and tries < 65536:
            table.rover = (table.rover + 1) & 0xFFFF
            tries += 1
            if table.rover and not ident_in_use(table, sk, <u16>table.rover):
                ident = <u16>table.rover
        result = 0 if ident else -EADDRINUSE
    elif ident_in_use(table, sk, ident):
        result = -EADDRINUSE
    if result == 0:
        sk.num = ident
        sk.rcv_saddr = addr
        sk.next = table.head[ident % BUCKETS]
        table.head[ident % BUCKETS] = sk
        fetch_or32(&sk.flags, SOCKF_BOUND)
    spin_unlock(&sockets.lock)
    return result


cdef void ping_unhash(sock *sk) noexcept nogil:
    """Give the id back."""
    cdef ping_table *table = <ping_table *>sk.n.ping
    cdef udp_table *sockets = table_of(sk)
    cdef sock **link = &table.head[sk.num % BUCKETS]
    spin_lock(&sockets.lock)
    while link[0] != NULL and link[0] != sk:
        link = &link[0].next
    if link[0] != NULL:
        link[0] = sk.next
    table_remove(sk)
    spin_unlock(&sockets.lock)


cdef sock *ping_lookup(net *n, u32 laddr, u16 ident, u32 dif) noexcept nogil:
    """Find the socket with the id, bound to the address and the device or to none. The lock is held."""
    cdef sock *sk = (<ping_table *>n.ping).head[ident % BUCKETS]
    while sk != NULL:
        if (sk.num == ident and (sk.rcv_saddr == 0 or sk.rcv_saddr == laddr)
                and (sk.bound_dev_if == 0 or sk.bound_dev_if == dif)):
            return sk
        sk = sk.next
    return NULL


# ---- out

cdef int ping_send(sock *sk, const sock_msg *msg, const rtable *rt, u16 sequence) noexcept nogil:
    """Send an echo request with the message's data behind its header."""
    cdef u32 size = <u32>msg.len
    cdef u32 ttl = sk.mc_ttl if rt.type == RTN_MULTICAST else sk.ttl
    cdef u16 frag_off = IP_DF if ip_dont_fragment(sk, rt) and size + IP_HLEN <= rt.mtu else 0
    cdef sk_buff *skb = ip_alloc_skb(sk.n, size)
    cdef u16 check
    cdef int rc
    if skb == NULL:
        return -ENOBUFS
    sk_mark_skb(sk, msg, skb)
    ip_generic_getfrag(skb, 0, msg, 0, size)
    skb.data[0], skb.data[1] = ICMP_ECHO, 0
    put_be16(skb.data + 2, 0)
    put_be16(skb.data + 4, sk.num)
    put_be16(skb.data + 6, sequence)
    check = csum_fold(skb_checksum(skb, 0, size, 0))
    memcpy(skb.data + 2, &check, 2)
    icmp_out_count(sk.n, SLOT_PROCESS, ICMP_ECHO)
    rc = ip_send_skb(sk.n, skb, rt, IPPROTO_ICMP, <u8>(msg.tos if msg.tos >= 0 else <int>sk.tos),
                     <u8>(msg.ttl if msg.ttl >= 0 else <int>ttl), frag_off)
    return 0 if rc == -ENOBUFS else rc


cdef int ping_sendmsg(sock *sk, sock_msg *msg) noexcept nogil:
    """Send a message, which begins with an ICMP header, as an echo request. 0 or a negative errno."""
    cdef u8 header[ICMP_HLEN]
    cdef u32 daddr = msg.daddr if msg.has_addr else sk.daddr
    cdef u32 err
    cdef rtable rt
    cdef int rc
    if load_acquire32(&sk.flags) & SOCKF_CLOSED:
        return -EBADF
    rc = udp_autobind(sk)
    if rc:
        return rc
    if msg.len > 0xFFFF:
        return -EMSGSIZE
    if msg.len < ICMP_HLEN:
        return -EINVAL
    copy_header(msg, header)
    if header[0] != ICMP_ECHO or header[1] != 0:
        return -EINVAL
    if not msg.has_addr and not load_acquire32(&sk.flags) & SOCKF_CONNECTED:
        return -EDESTADDRREQ
    rc = udp_route(sk, daddr, msg.saddr if msg.saddr else sk.saddr,
                   msg.ifindex if msg.ifindex else sk.bound_dev_if, &rt, msg.dontroute)
    if rc:
        return rc
    if msg.len + IP_HLEN > 0xFFFF or (msg.len + IP_HLEN > rt.mtu
                                      and IP_PMTUDISC_DO <= sk.pmtudisc <= IP_PMTUDISC_INTERFACE):
        ip_local_error(sk, EMSGSIZE, rt.daddr, sk.dport, rt.mtu)
        return -EMSGSIZE
    err = sock_take_err(sk)
    if err:
        return -<int>err
    if load_acquire32(&sk.shutdown) & SEND_SHUTDOWN:
        return -EPIPE
    return ping_send(sk, msg, &rt, get_be16(&header[6]))


cdef void copy_header(const sock_msg *msg, u8 *header) noexcept nogil:
    """Gather the first bytes of a message."""
    cdef u32 done = 0
    cdef u32 i, part
    for i in range(msg.nr_iov):
        part = <u32>min(msg.iov[i].len, <size_t>(ICMP_HLEN - done))
        memcpy(header + done, msg.iov[i].base, part)
        done += part


cdef int no_option(sock *sk, int name, int value) noexcept nogil:
    return -ENOPROTOOPT


cdef int no_value(sock *sk, int name, int *value) noexcept nogil:
    return -ENOPROTOOPT


# ---- wiring, and the steps for icmp.py

@cython.final
@cython.no_gc_clear
cdef class Ping:
    """Owns a host's table of ping sockets, which a call that is on its way may use after the host has closed."""
    cdef ping_table *table

    def __dealloc__(self):
        free(self.table)


def init(Net n not None):
    """Give a host ping sockets, before its CPUs start; UDP goes first. [ping_init()]"""
    cdef Ping owner = Ping()
    cdef proto *prot
    owner.table = <ping_table *>calloc(1, sizeof(ping_table))
    if owner.table == NULL:
        raise MemoryError
    n.keep(owner)
    prot = &owner.table.prot
    prot.name = b"icmp"
    prot.n = n.ptr
    prot.table = n.ptr.udp
    prot.family = AF_INET
    prot.type = SOCK_DGRAM
    prot.protocol = IPPROTO_ICMP
    prot.level = IPPROTO_ICMP
    prot.in_datagrams = MIB_NR
    prot.init = ping_init_sock
    prot.get_port = ping_get_port
    prot.connect = udp_connect
    prot.sendmsg = ping_sendmsg
    prot.unhash = ping_unhash
    prot.mtu = udp_mtu
    prot.setsockopt = no_option
    prot.getsockopt = no_value
    # Behind UDP, which is what SOCK_DGRAM without a protocol means.
    prot.next = (<proto *>n.ptr.protos).next
    (<proto *>n.ptr.protos).next = prot
    n.ptr.ping = owner.table


def rcv(Net n not None, SkBuff skb not None):
    """Queue an echo reply, data at the ICMP header, to the socket with its id; a drop reason, or 0. [ping_rcv()]"""
    cdef sk_buff *packet = skb.peek()
    cdef u8 *iph = skb_network_header(packet)
    cdef skb_pool *pool = <skb_pool *>n.ptr.pool
    cdef udp_table *sockets = <udp_table *>n.ptr.udp
    cdef sk_buff *clone
    cdef int reason = SKB_DROP_REASON_NO_SOCKET
    cdef sock *sk
    spin_lock(&sockets.lock)
    sk = ping_lookup(n.ptr, ip_daddr(iph), get_be16(packet.data + 4),
                     inet_iif(n.ptr, packet, ip_daddr(iph)))
    if sk != NULL:
        spin_lock(&pool.lock)
        clone = skb_clone(packet, pool)
        spin_unlock(&pool.lock)
        if clone != NULL:
            reason = raw_rcv(n.ptr, sk, clone)
    spin_unlock(&sockets.lock)
    return reason


def err(Net n not None, SkBuff skb not None, bytes quoted not None, u32 kind, u32 code, u32 info):
    """Tell the socket whose echo request is quoted what became of it; False: there is none. [ping_err()]"""
    cdef udp_table *sockets = <udp_table *>n.ptr.udp
    cdef const u8 *iph = <const u8 *><const char *>quoted
    cdef u32 ihl = ip_ihl(iph)
    cdef icmp_error error
    cdef u32 number
    cdef bint hard
    cdef sock *sk
    if <u32>len(quoted) < ihl + ICMP_HLEN:
        return False
    if iph[ihl] == ICMP_ECHOREPLY and kind == ICMP_DEST_UNREACH and code == ICMP_FRAG_NEEDED:
        ip_rt_update_pmtu(n.ptr, ip_daddr(iph), ip_saddr(iph), info)
    if iph[ihl] != ICMP_ECHO or iph[ihl + 1] != 0:
        return False
    error.skb, error.type, error.code, error.info = skb.peek(), kind, code, info
    error.quoted, error.size = iph, <u32>len(quoted)
    spin_lock(&sockets.lock)
    sk = ping_lookup(n.ptr, ip_saddr(iph), get_be16(iph + ihl + 4),
                     error.skb.dev.ifindex if error.skb.dev != NULL else 0)
    if sk != NULL:
        sk_update_pmtu(sk, &error)
        hard = icmp_convert(&error, sk, &number)
        if kind == ICMP_SOURCE_QUENCH or kind == ICMP_REDIRECT:
            number = EREMOTEIO     # no real error, but ping wants to see it
        if number and not (number == EMSGSIZE and not hard):
            sock_icmp_error(sk, &error, number, hard, 0, ihl)
    spin_unlock(&sockets.lock)
    return sk != NULL
