"""options: setsockopt and getsockopt.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       (level, name, value)             sock/_socket.pyx
Out      fields of struct sock            sock/_sock.pxd
Context  process context, with the GIL
Kernel   sk_setsockopt(), net/core/sock.c; do_ip_setsockopt(), net/ipv4/ip_sockglue.c; sk_prot->setsockopt

An option that is one flag or one number of ``struct sock`` is a line of a table below. The others
have a function each way. What is in neither is ENOPROTOOPT, as in Linux for what it doesn't know.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EDOM, EINVAL, ENODEV, ENOPROTOOPT
from libc.string cimport memcpy

from netstack._abi cimport fetch_and32, fetch_or32, i64, load_acquire32, u8, u32, u64
from netstack._net cimport ip_default_ttl, net_device, rmem_max, sysctl_get, wmem_max
from netstack.sock._calls cimport fail
from netstack.sock._errqueue cimport sock_purge_err
from netstack.sock._filter cimport sk_attach_filter, sk_detach_filter
from netstack.sock._mcast cimport is_mcast_option, mcast_get, mcast_set
from netstack.sock._packet cimport AF_PACKET
from netstack.sock._packet_addr cimport packet_get, packet_set
from netstack.sock._sock cimport (
    IP_PMTUDISC_DONT, IP_PMTUDISC_OMIT,
    SOCK_MIN_RCVBUF, SOCK_MIN_SNDBUF, SOCKF_BROADCAST, SOCKF_FREEBIND, SOCKF_NO_CHECK,
    SOCK_RAW, SOCKF_HDRINCL, SOCKF_PKTINFO, SOCKF_RECVERR, SOCKF_RECVORIGDSTADDR, SOCKF_RECVTOS, SOCKF_RECVTTL,
    SOCKF_REUSEADDR,
    SOCKF_REUSEPORT, SOCKF_RXQ_OVFL, rmem_alloc,
)
from netstack.sock._table cimport table_changed, udp_table
from netstack.sock._wake cimport sock_take_err, sock_wake

cdef enum:
    SOL_IP = 0
    SOL_SOCKET = 1
    INT_MAX = 0x7FFFFFFF

cdef enum names:
    SO_REUSEADDR = 2
    SO_TYPE = 3
    SO_ERROR = 4
    SO_BROADCAST = 6
    SO_SNDBUF = 7
    SO_RCVBUF = 8
    SO_NO_CHECK = 11
    SO_REUSEPORT = 15
    SO_RCVTIMEO = 20
    SO_SNDTIMEO = 21
    SO_BINDTODEVICE = 25
    SO_ATTACH_FILTER = 26
    SO_DETACH_FILTER = 27
    SO_ACCEPTCONN = 30
    SO_SNDBUFFORCE = 32
    SO_RCVBUFFORCE = 33
    SO_PROTOCOL = 38
    SO_DOMAIN = 39
    SO_RXQ_OVFL = 40
    SO_BUSY_POLL = 46
    SO_MEMINFO = 55
    SO_COOKIE = 57
    SO_BINDTOIFINDEX = 62
    IP_TOS = 1
    IP_TTL = 2
    IP_HDRINCL = 3
    IP_PKTINFO = 8
    IP_MTU_DISCOVER = 10
    IP_RECVERR = 11
    IP_RECVTTL = 12
    IP_RECVTOS = 13
    IP_MTU = 14
    IP_FREEBIND = 15
    IP_ORIGDSTADDR = 20
    IP_MULTICAST_TTL = 33


# Options that are one flag of sk.flags.
cdef dict FLAGS = {
    (SOL_SOCKET, SO_REUSEADDR): SOCKF_REUSEADDR,
    (SOL_SOCKET, SO_BROADCAST): SOCKF_BROADCAST,
    (SOL_SOCKET, SO_NO_CHECK): SOCKF_NO_CHECK,
    (SOL_SOCKET, SO_REUSEPORT): SOCKF_REUSEPORT,
    (SOL_SOCKET, SO_RXQ_OVFL): SOCKF_RXQ_OVFL,
    (SOL_IP, IP_PKTINFO): SOCKF_PKTINFO,
    (SOL_IP, IP_HDRINCL): SOCKF_HDRINCL,
    (SOL_IP, IP_RECVERR): SOCKF_RECVERR,
    (SOL_IP, IP_RECVTTL): SOCKF_RECVTTL,
    (SOL_IP, IP_RECVTOS): SOCKF_RECVTOS,
    (SOL_IP, IP_FREEBIND): SOCKF_FREEBIND,
    (SOL_IP, IP_ORIGDSTADDR): SOCKF_RECVORIGDSTADDR,
}

# Options that are one number, with the values allowed; the field is in number_of().
cdef dict NUMBERS = {
    (SOL_IP, IP_TOS): (0, 255),
    (SOL_IP, IP_TTL): (1, 255),
    (SOL_IP, IP_MULTICAST_TTL): (0, 255),
    (SOL_IP, IP_MTU_DISCOVER): (IP_PMTUDISC_DONT, IP_PMTUDISC_OMIT),
    (SOL_SOCKET, SO_BUSY_POLL): (0, INT_MAX),
    (SOL_SOCKET, SO_BINDTOIFINDEX): (0, INT_MAX),
}


cdef u32 *number_of(sock *sk, int level, int name) noexcept:
    if level == SOL_IP:
        return (&sk.tos if name == IP_TOS else &sk.ttl if name == IP_TTL
                else &sk.mc_ttl if name == IP_MULTICAST_TTL else &sk.pmtudisc)
    return &sk.busy_poll_us if name == SO_BUSY_POLL else &sk.bound_dev_if


# ---- set

cdef int set_option_value(sock *sk, int level, int name, object value, object length) except -1:
    """Set an option to an int, a buffer, or None with a length, which is an empty value."""
    cdef Py_buffer view
    cdef int number
    if length is not None:
        if value is not None:
            raise TypeError("setsockopt(): a length goes with None only")
        return set_option(sk, level, name, NULL, 0)
    if isinstance(value, int):
        number = value
        return set_option(sk, level, name, <const char *>&number, sizeof(int))
    PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
    try:
        return set_option(sk, level, name, <const char *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef int set_option(sock *sk, int level, int name, const char *value, Py_ssize_t size) except -1:
    """Set an option from bytes; EINVAL for a wrong length or value, ENOPROTOOPT for an unknown name."""
    cdef object key = (level, name)
    cdef int number
    if sk.prot.family == AF_PACKET and level == sk.prot.level:
        return packet_set(sk, name, value, size)
    if sk.prot.family == AF_PACKET and level == SOL_IP:
        return fail(ENOPROTOOPT)
    if level == SOL_IP and is_mcast_option(name):
        return mcast_set(sk, name, value, size)
    if level == SOL_SOCKET and name in (SO_RCVTIMEO, SO_SNDTIMEO):
        return set_timeout(sk, name, value, size)
    if level == SOL_SOCKET and name == SO_BINDTODEVICE:
        return set_device(sk, value, size)
    if level == SOL_SOCKET and name == SO_ATTACH_FILTER:
        return sk_attach_filter(sk, value, size)
    if level == SOL_SOCKET and name == SO_DETACH_FILTER and size >= <Py_ssize_t>sizeof(int):
        return sk_detach_filter(sk)
    if size >= <Py_ssize_t>sizeof(int):
        memcpy(&number, value, sizeof(int))
    elif level == SOL_IP and size >= 1:
        number = (<const u8 *>value)[0]    # as Linux allows for options of this level
    else:
        return fail(EINVAL)
    if key == (SOL_IP, IP_HDRINCL) and sk.prot.type != SOCK_RAW:
        return fail(ENOPROTOOPT)
    if key in FLAGS:
        if number:
            fetch_or32(&sk.flags, <u32>FLAGS[key])
        else:
            fetch_and32(&sk.flags, ~<u32>FLAGS[key])
            if key == (SOL_IP, IP_RECVERR):
                sock_purge_err(sk)
                sock_wake(sk)
        return 0
    if key in NUMBERS:
        if name == IP_TTL and level == SOL_IP and number == -1:
            number = 0                     # back to ip_default_ttl
        elif name == IP_MULTICAST_TTL and level == SOL_IP and number == -1:
            number = 1
        else:
            low, high = NUMBERS[key]
            if not low <= number <= high:
                return fail(EINVAL)
        if level == SOL_SOCKET and name == SO_BINDTOIFINDEX and number and device_of(sk, number) == NULL:
            return fail(ENODEV)
        number_of(sk, level, name)[0] = <u32>number
        return 0
    if level == SOL_SOCKET:
        return set_buffer(sk, name, number)
    if level == sk.prot.level:
        return check(sk.prot.setsockopt(sk, name, number))
    return fail(ENOPROTOOPT)


cdef int check(int rc) except -1:
    """Raise what a protocol's operation gave, unless that is 0."""
    return fail(-rc) if rc < 0 else 0


cdef int set_buffer(sock *sk, int name, int number) except -1:
    """Set SO_RCVBUF and its kin: twice the number, for what Linux counts beside the data."""
    cdef u32 size = <u32>number
    if name == SO_RCVBUF or name == SO_SNDBUF:
        size = min(size, <u32>sysctl_get(sk.n, rmem_max if name == SO_RCVBUF else wmem_max))
    elif name == SO_RCVBUFFORCE or name == SO_SNDBUFFORCE:
        size = <u32>max(number, 0)
    else:
        return fail(ENOPROTOOPT)
    size = min(size, <u32>(INT_MAX // 2)) * 2
    if name == SO_RCVBUF or name == SO_RCVBUFFORCE:
        sk.rcvbuf = max(size, <u32>SOCK_MIN_RCVBUF)
    else:
        sk.sndbuf = max(size, <u32>SOCK_MIN_SNDBUF)
    return 0


cdef int set_timeout(sock *sk, int name, const char *value, Py_ssize_t size) except -1:
    """Set SO_RCVTIMEO or SO_SNDTIMEO from a struct timeval; zero is for ever. [sock_set_timeout()]"""
    cdef i64 parts[2]
    cdef u64 ns = 0
    if size < <Py_ssize_t>sizeof(parts):
        return fail(EINVAL)
    memcpy(parts, value, sizeof(parts))
    if not 0 <= parts[1] < 1_000_000:
        return fail(EDOM)
    if parts[0] < 0:
        ns = 1
    elif parts[0] < 9_000_000_000:
        ns = <u64>parts[0] * 1_000_000_000 + <u64>parts[1] * 1000
    if name == SO_RCVTIMEO:
        sk.rcvtimeo = ns
    else:
        sk.sndtimeo = ns
    return 0


cdef net_device *device_of(sock *sk, int ifindex) noexcept:
    return sk.n.devices[ifindex - 1] if 1 <= ifindex <= <int>sk.n.nr_devices else NULL


cdef int set_device(sock *sk, const char *value, Py_ssize_t size) except -1:
    """Bind to a device by name, or to none by an empty one. [SO_BINDTODEVICE]"""
    cdef bytes name = PyBytes_FromStringAndSize(value, min(size, 15)).split(b"\0")[0]
    cdef u32 i
    if not name:
        sk.bound_dev_if = 0
        table_changed(<udp_table *>sk.prot.table)
        return 0
    for i in range(sk.n.nr_devices):
        if sk.n.devices[i] != NULL and <bytes>sk.n.devices[i].name == name:
            sk.bound_dev_if = sk.n.devices[i].ifindex
            table_changed(<udp_table *>sk.prot.table)
            return 0
    return fail(ENODEV)


# ---- get

cdef object get_option(sock *sk, int level, int name, int size, bytes buffer):
    """Give an option as an int, or as at most ``size`` bytes when that is not 0; ``buffer`` has that many."""
    cdef object key = (level, name)
    cdef int number
    if sk.prot.family == AF_PACKET and level == SOL_IP:
        return fail(ENOPROTOOPT)
    if sk.prot.family == AF_PACKET and level == sk.prot.level:
        found = packet_get(sk, name, size)
        if found is not None:
            return found
    if level == SOL_IP and is_mcast_option(name):
        return mcast_get(sk, name, buffer, size)
    if level == SOL_SOCKET and name in LONG:
        return get_long(sk, name, size)
    if key in FLAGS:
        number = 1 if load_acquire32(&sk.flags) & <u32>FLAGS[key] else 0
    elif key in NUMBERS:
        number = <int>number_of(sk, level, name)[0]
        if name == IP_TTL and level == SOL_IP and number == 0:
            number = <int>sysctl_get(sk.n, ip_default_ttl)
    elif level == SOL_SOCKET:
        number = get_number(sk, name)
    elif level == SOL_IP and name == IP_MTU:
        number = sk.prot.mtu(sk)
        check(number)
    elif level == sk.prot.level:
        check(sk.prot.getsockopt(sk, name, &number))
    else:
        return fail(ENOPROTOOPT)
    if size == 0:
        return number
    if level == SOL_IP and size < <int>sizeof(int) and 0 <= number <= 255:
        return bytes([number])
    return PyBytes_FromStringAndSize(<const char *>&number, min(size, <int>sizeof(int)))


cdef int get_number(sock *sk, int name) except? -1:
    if name == SO_RCVBUF:
        return <int>sk.rcvbuf
    if name == SO_SNDBUF:
        return <int>sk.sndbuf
    if name == SO_ERROR:
        return <int>sock_take_err(sk)
    if name == SO_TYPE:
        return <int>sk.prot.type
    if name == SO_PROTOCOL:
        return <int>sk.protocol
    if name == SO_DOMAIN:
        return <int>sk.prot.family
    if name == SO_ACCEPTCONN:
        return 0
    return fail(ENOPROTOOPT)


# Options that are longer than an int.
cdef set LONG = {SO_RCVTIMEO, SO_SNDTIMEO, SO_BINDTODEVICE, SO_MEMINFO, SO_COOKIE}


cdef object get_long(sock *sk, int name, int size):
    cdef u64 pair[2]
    cdef u32 memory[9]
    cdef net_device *dev
    if name == SO_RCVTIMEO or name == SO_SNDTIMEO:
        pair[0] = (sk.rcvtimeo if name == SO_RCVTIMEO else sk.sndtimeo) // 1000
        pair[1] = pair[0] % 1_000_000
        pair[0] //= 1_000_000
        value = PyBytes_FromStringAndSize(<const char *>pair, sizeof(pair))
    elif name == SO_BINDTODEVICE:
        dev = device_of(sk, <int>sk.bound_dev_if)
        value = <bytes>dev.name + b"\0" if dev != NULL else b""
    elif name == SO_COOKIE:
        value = PyBytes_FromStringAndSize(<const char *>&sk.ino, sizeof(u64))
    else:
        # SK_MEMINFO_*: rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog, drops
        memory = [<u32>rmem_alloc(sk), sk.rcvbuf, 0, sk.sndbuf, <u32>sk.forward_alloc, 0, 0, 0,
                  load_acquire32(&sk.drops)]
        value = PyBytes_FromStringAndSize(<const char *>memory, sizeof(memory))
    if size == 0 or (name == SO_COOKIE and size < 8):
        return fail(EINVAL)
    return value[:size]
