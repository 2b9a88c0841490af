"""calls: make, bind, connect, shut down a socket, and list those of a host.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       arguments of Python              sock/_socket.pyx
Out      the protocol's operations        proto/_udp.pyx
Context  process context, with the GIL
Kernel   inet_create(), inet_bind(), inet_dgram_connect(), inet_shutdown(), net/ipv4/af_inet.c
"""

from cpython.number cimport PyNumber_Index
from libc.errno cimport (
    EADDRNOTAVAIL, EAFNOSUPPORT, EINVAL, ENETDOWN, ENOTCONN, EOPNOTSUPP, EPROTONOSUPPORT,
    ESOCKTNOSUPPORT,
)
from libc.math cimport ceil
from libc.string cimport strerror

from netstack._abi cimport fetch_or32, load_acquire32, spin_lock, spin_unlock, u16, u32, u64
from netstack._net cimport Net
from netstack.sock._address cimport format_ipv4, parse_sockaddr
from netstack.sock._packet cimport AF_PACKET
from netstack.sock._packet_addr cimport packet_bind_to
from netstack.sock._sock cimport (
    SOCK_RAW, SOCKF_CONNECTED, SOCKF_FREEBIND, SOCKO_BIND_NO_PORT, SOCKO_TRANSPARENT, proto, rmem_alloc, sk_alloc,
    sk_close, sk_free, sock, sock_queued,
)
from netstack.sock._table cimport addr_is_for_many, addr_is_ours, table_add, udp_table
from netstack.sock._wake cimport sock_wake

cdef enum:
    IPPROTO_MAX = 263              # <linux/in.h>
    SOCK_MAX = 11                  # <linux/net.h>
    SOCK_TYPE_MASK = 0xF
    SOCK_CLOEXEC = 0x80000


cdef int fail(int errno) except -1:
    """Raise the OSError of an errno, as the standard library does."""
    raise OSError(errno, strerror(errno).decode())


cdef tuple items_of(object given, str what):
    """Take the items out of any iterable; ``what`` is the argument that has to be one."""
    try:
        items = iter(given)
    except TypeError:
        raise TypeError(f"{what} must be an iterable") from None
    return tuple(items)


cdef bint wants_protocol(const proto *prot, int protocol) noexcept:
    """Is the number the protocol's own, its default (0), or one of the many that raw sockets take?"""
    if prot.protocol:
        return protocol == 0 or protocol == <int>prot.protocol
    return prot.any_protocol or 0 < protocol < IPPROTO_MAX


cdef sock *inet_create(Net net, int family, int type, int protocol, void *owner) except NULL:
    """Make a socket of a type, which may have SOCK_NONBLOCK and SOCK_CLOEXEC in it, and an IP protocol, 0 for the
    type's own. ``owner`` is the Socket object."""
    cdef proto *prot = <proto *>net.ptr.protos
    cdef bint known_family = False
    cdef bint known_type = False
    cdef int rc
    cdef sock *sk
    if prot == NULL:
        raise OSError(ENETDOWN, "the host is closed, or has no protocols yet")
    if type & ~SOCK_TYPE_MASK & ~(SOCK_NONBLOCK | SOCK_CLOEXEC) or type & SOCK_TYPE_MASK >= SOCK_MAX:
        fail(EINVAL)
    type &= SOCK_TYPE_MASK
    while prot != NULL and not (prot.family == <u32>family and prot.type == <u32>type
                                and wants_protocol(prot, protocol)):
        known_family = known_family or prot.family == <u32>family
        known_type = known_type or (prot.family == <u32>family and prot.type == <u32>type)
        prot = prot.next
    if prot == NULL:
        fail(EAFNOSUPPORT if not known_family else EINVAL if not 0 <= protocol < IPPROTO_MAX
             else EPROTONOSUPPORT if known_type else ESOCKTNOSUPPORT)
    sk = sk_alloc(net.ptr, prot)
    if sk == NULL:
        raise MemoryError
    sk.owner = owner
    sk.protocol = <u32>protocol if protocol else prot.protocol
    table_add(sk)
    rc = prot.init(sk) if prot.init != NULL else 0
    if rc:
        with nogil:
            sk_close(sk)
        sk_free(sk)
        fail(-rc)
    return sk


cdef int inet_bind(sock *sk, object address) except -1:
    """Take a local address. EADDRNOTAVAIL, EINVAL when bound already, EADDRINUSE."""
    cdef u32 addr = 0
    cdef u16 port = 0
    cdef int rc
    if sk.prot.family == AF_PACKET:
        return packet_bind_to(sk, address)
    parse_sockaddr(address, "bind", &addr, &port)
    if sk.prot.type == SOCK_RAW and load_acquire32(&sk.flags) & SOCKF_CONNECTED:
        fail(EINVAL)               # before it looks at the address, unlike the others
    if not (load_acquire32(&sk.flags) & SOCKF_FREEBIND or sk.opts & SOCKO_TRANSPARENT
            or addr_is_ours(sk.n, addr)):
        fail(EADDRNOTAVAIL)
    if sk.num and sk.prot.type != SOCK_RAW:
        fail(EINVAL)
    if port == 0 and sk.opts & SOCKO_BIND_NO_PORT and sk.prot.type != SOCK_RAW:
        sk.saddr = sk.rcv_saddr = addr         # the port is taken when one is needed
        return 0
    rc = sk.prot.get_port(sk, addr, port)
    if rc < 0:
        fail(-rc)
    sk.saddr = 0 if addr_is_for_many(sk.n, addr) else addr
    return 0


cdef int inet_connect(sock *sk, object address, str caller) except 1:
    """Choose the peer: 0 or a negative errno. ``caller`` is the method that complains."""
    cdef u32 addr = 0
    cdef u16 port = 0
    if sk.prot.family == AF_PACKET:
        return sk.prot.connect(sk, 0, 0)
    parse_sockaddr(address, caller, &addr, &port)
    return sk.prot.connect(sk, addr, port)


cdef int inet_shutdown(sock *sk, int how) except -1:
    """Stop receiving (0), sending (1) or both (2), with ENOTCONN without a peer: done all the same.

    Packet sockets have nothing to stop. [sock_no_shutdown()]
    """
    if sk.prot.family == AF_PACKET:
        fail(EOPNOTSUPP)
    if not 0 <= how <= 2:
        fail(EINVAL)
    fetch_or32(&sk.shutdown, <u32>how + 1)
    sock_wake(sk)
    if not load_acquire32(&sk.flags) & SOCKF_CONNECTED:
        fail(ENOTCONN)
    return 0


cdef long long parse_timeout(object value) except? -2:
    """Nanoseconds of a timeout in seconds; -1 for None."""
    cdef double seconds
    if value is None:
        return -1
    seconds = value if isinstance(value, float) else PyNumber_Index(value)
    if seconds != seconds:
        raise ValueError("Invalid value NaN (not a number)")
    if not -9.2e9 <= seconds <= 9.2e9:
        raise OverflowError("timestamp out of range for platform time_t" if isinstance(value, float)
                            else "timestamp too large to convert to C _PyTime_t")
    if seconds < 0:
        raise ValueError("Timeout value out of range")
    return <long long>ceil(seconds * 1e9)      # never shorter than was asked for


cdef dict sock_info(sock *sk):
    """What ``ss`` shows of a socket."""
    cdef u64 forward_alloc
    spin_lock(&sk.lock)
    forward_alloc = sk.forward_alloc
    spin_unlock(&sk.lock)
    return {
        "proto": (<bytes>sk.prot.name).decode(),
        "local": (format_ipv4(sk.rcv_saddr), sk.num),
        "peer": (format_ipv4(sk.daddr), sk.dport) if load_acquire32(&sk.flags) & SOCKF_CONNECTED else None,
        "queued": sock_queued(sk),
        "rmem": rmem_alloc(sk),
        "rcvbuf": sk.rcvbuf,
        "sndbuf": sk.sndbuf,
        "forward_alloc": forward_alloc,
        "drops": load_acquire32(&sk.drops),
        "inode": sk.ino,
        "ifindex": sk.bound_dev_if,
        "sleeping": load_acquire32(&sk.sleeping) != 0 or load_acquire32(&sk.idle) != 0,
    }


def sockets(Net net not None):
    """List the sockets of a host that are open, newest first."""
    cdef udp_table *table = <udp_table *>net.ptr.udp
    cdef list found = []
    cdef sock *sk
    if table == NULL:
        return found
    # An object may be about to be freed while its socket is still in the list: the reference taken
    # here keeps it alive.
    spin_lock(&table.lock)
    sk = table.all
    while sk != NULL:
        found.append(<object>sk.owner)
        sk = sk.all_next
    spin_unlock(&table.lock)
    return found
