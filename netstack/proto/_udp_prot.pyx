"""udp: what UDP does with its sockets, and how a host gets UDP.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       connect, bind, options, close    sock/_calls.pyx, sock/_options.pyx
Out      the table of sockets             sock/_table.pyx
Context  set-up and process context
Kernel   udp_prot, udp_init(), udp_lib_setsockopt(), net/ipv4/udp.c; __ip4_datagram_connect(), net/ipv4/datagram.c
"""

cimport cython
from libc.errno cimport EBADF, EINVAL, ENOPROTOOPT, ENOTCONN

from netstack._abi cimport fetch_and32, fetch_or32, load_acquire32, u16, u32
from netstack._counters cimport UdpInDatagrams
from netstack._net cimport UDP_GRO_ENABLED, UDP_GRO_HAS_SOCKET, Net, net
from netstack.proto._inet cimport IP_MAX_MTU
from netstack.proto._route cimport rtable
from netstack.proto._route_mc cimport fib_compute_spec_dst
from netstack.proto._udp cimport IPPROTO_UDP, udp_complete, udp_peek, udp_rcv_fast, udp_table_of
from netstack.proto._udp_out cimport find_way, udp_autobind, udp_route, udp_sendmmsg, udp_sendmsg
from netstack.sock._sock cimport (
    AF_INET, SOCK_DGRAM, SOCKF_CLOSED, SOCKF_CONNECTED, SOCKF_GRO, SOCKO_CORK, SOCKO_NO_CHECK6_RX,
    SOCKO_NO_CHECK6_TX, proto, sock,
)
from netstack.sock._table cimport (
    table_changed, table_create, table_destroy, table_get_port, table_unhash, udp_lookup, udp_table,
)

cdef enum options:
    UDP_CORK = 1
    UDP_ENCAP = 100
    UDP_NO_CHECK6_TX = 101
    UDP_NO_CHECK6_RX = 102
    UDP_SEGMENT = 103
    UDP_GRO = 104


cdef int udp_connect(sock *sk, u32 addr, u16 port) noexcept nogil:
    """Fix the peer of a socket that needs a port. 0 or a negative errno. [inet_dgram_connect()]"""
    cdef int rc = -EBADF if load_acquire32(&sk.flags) & SOCKF_CLOSED else udp_autobind(sk)
    return ip4_datagram_connect(sk, addr, port) if rc == 0 else rc


cdef int ip4_datagram_connect(sock *sk, u32 addr, u16 port) noexcept nogil:
    """Fix the peer, and with it the local address. 0 or a negative errno."""
    cdef rtable rt
    cdef int rc
    if load_acquire32(&sk.flags) & SOCKF_CLOSED:
        return -EBADF
    rc = udp_route(sk, addr, sk.saddr, sk.bound_dev_if, &rt, False)
    if rc:
        return rc
    if sk.saddr == 0:
        sk.saddr = rt.saddr
    if sk.rcv_saddr == 0:
        sk.rcv_saddr = rt.saddr
    sk.daddr = rt.daddr
    sk.dport = port
    fetch_or32(&sk.flags, SOCKF_CONNECTED)
    table_changed(<udp_table *>sk.prot.table)
    return 0


cdef int udp_mtu(sock *sk) noexcept nogil:
    """Give the MTU of the way to the peer; -ENOTCONN without one. [IP_MTU]"""
    cdef rtable rt
    if not load_acquire32(&sk.flags) & SOCKF_CONNECTED or find_way(
            sk.n, sk.daddr, sk.saddr, sk.bound_dev_if if sk.bound_dev_if else sk.uc_index, &rt):
        return -ENOTCONN
    return <int>min(rt.mtu, <u32>IP_MAX_MTU)


cdef u32 flag_option(int name) noexcept nogil:
    """The bit in sk.opts of an option that is one; the two of IPv6 are kept and have nothing to do."""
    return (SOCKO_CORK if name == UDP_CORK else SOCKO_NO_CHECK6_TX if name == UDP_NO_CHECK6_TX
            else SOCKO_NO_CHECK6_RX if name == UDP_NO_CHECK6_RX else 0)


cdef int udp_setsockopt(sock *sk, int name, int value) noexcept nogil:
    """Set an option of level SOL_UDP."""
    if name == UDP_SEGMENT:
        if not 0 <= value <= 65535:
            return -EINVAL
        sk.gso_size = <u32>value
    elif name == UDP_GRO:
        if value:
            fetch_or32(&sk.flags, SOCKF_GRO)
            sk.n.udp_gro_lookup = udp_gro_lookup
        else:
            fetch_and32(&sk.flags, ~<u32>SOCKF_GRO)
    elif flag_option(name):
        sk.opts = sk.opts | flag_option(name) if value else sk.opts & ~flag_option(name)
    elif name == UDP_ENCAP and value == 0:
        pass
    else:
        return -ENOPROTOOPT
    return 0


cdef int udp_getsockopt(sock *sk, int name, int *value) noexcept nogil:
    """Give an option of level SOL_UDP."""
    if name == UDP_SEGMENT:
        value[0] = <int>sk.gso_size
    elif name == UDP_GRO:
        value[0] = 1 if load_acquire32(&sk.flags) & SOCKF_GRO else 0
    elif flag_option(name):
        value[0] = 1 if sk.opts & flag_option(name) else 0
    elif name == UDP_ENCAP:
        value[0] = 0
    else:
        return -ENOPROTOOPT
    return 0


cdef int udp_gro_lookup(net *n, u32 saddr, u16 sport, u32 daddr, u16 dport) noexcept nogil:
    """Tell GRO whether a socket waits for a datagram, and whether it takes merged ones. As a CPU."""
    cdef sock *sk = udp_lookup(udp_table_of(n), saddr, sport, daddr, dport, 0)
    if sk == NULL:
        return 0
    return UDP_GRO_HAS_SOCKET | UDP_GRO_ENABLED if load_acquire32(&sk.flags) & SOCKF_GRO else UDP_GRO_HAS_SOCKET


# ---- wiring

@cython.final
@cython.no_gc_clear
cdef class Udp:
    """Owns a host's table of sockets, which a call that is on its way may use after ``exit``."""
    cdef udp_table *table

    def __dealloc__(self):
        table_destroy(self.table)


def init(Net n not None):
    """Give a host UDP, before its CPUs start. [udp_init(), inet_init()]"""
    cdef Udp owner = Udp()
    cdef udp_table *table = table_create(n.ptr)
    cdef proto *prot
    if table == NULL:
        raise MemoryError
    owner.table = table
    n.keep(owner)
    prot = &table.prot
    prot.name = b"udp"
    prot.type = SOCK_DGRAM
    prot.family = AF_INET
    prot.protocol = IPPROTO_UDP
    prot.level = IPPROTO_UDP
    prot.accounts = True
    prot.in_datagrams = UdpInDatagrams
    prot.get_port = table_get_port
    prot.connect = udp_connect
    prot.sendmsg = udp_sendmsg
    prot.sendmmsg = udp_sendmmsg
    prot.unhash = table_unhash
    prot.complete = udp_complete
    prot.mtu = udp_mtu
    prot.spec_dst = fib_compute_spec_dst
    prot.setsockopt = udp_setsockopt
    prot.getsockopt = udp_getsockopt
    prot.next = <proto *>n.ptr.protos
    n.ptr.udp = table
    n.ptr.protos = prot
    n.ptr.inet_fast[IPPROTO_UDP].peek = udp_peek
    n.ptr.inet_fast[IPPROTO_UDP].rcv = udp_rcv_fast


def exit(Net n not None):
    """Take UDP from a host whose CPUs have stopped: no datagram comes in, no socket is made any more."""
    n.ptr.inet_fast[IPPROTO_UDP].peek = NULL
    n.ptr.inet_fast[IPPROTO_UDP].rcv = NULL
    n.ptr.udp_gro_lookup = NULL
    n.ptr.protos = NULL
