"""options: setsockopt and getsockopt.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       (level, name, value)             sock/_socket.pyx
Out      fields of struct sock            sock/_sock.pxd
Context  process context, with the GIL
Kernel   sk_setsockopt(), sk_getsockopt(), net/core/sock.c; sk_prot->setsockopt

Here are the options of SOL_SOCKET; those of SOL_IP are in ``_options_ip.pyx``. One that is a flag or a number of
``struct sock`` is a line of a table below, the others have a function each way; what is in neither is ENOPROTOOPT.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport (
    EFAULT, EINVAL, ENODATA, ENODEV, ENOPROTOOPT, ENOTCONN, EOPNOTSUPP, EPERM,
)
from libc.string cimport memcpy

from netstack._abi cimport fetch_and32, fetch_or32, htonl, htons, load_acquire32, u16, u32, u64
from netstack._net cimport net_device, rmem_max, sysctl_get, wmem_max
from netstack.sock._calls cimport fail
from netstack.sock._cork cimport sock_push
from netstack.sock._filter cimport sk_attach_filter, sk_detach_filter
from netstack.sock._options_ip cimport get_ip_option, set_ip_option
from netstack.sock._options_time cimport get_linger, get_timeout, set_linger, set_timeout
from netstack.sock._packet cimport AF_PACKET
from netstack.sock._packet_addr cimport packet_get, packet_set
from netstack.sock._sock cimport (
    AF_INET, SOCK_MIN_RCVBUF, SOCK_MIN_SNDBUF, SOCKF_BROADCAST, SOCKF_CONNECTED, SOCKF_NO_CHECK,
    SOCKF_PEEK_OFF, SOCKF_REUSEADDR, SOCKF_REUSEPORT, SOCKF_RXQ_OVFL, SOCKO_DEBUG, SOCKO_DONTROUTE,
    SOCKO_FILTER_LOCKED, SOCKO_KEEPALIVE, SOCKO_NOFCS, SOCKO_OOBINLINE, SOCKO_RCVMARK, SOCKO_RCVPRIORITY,
    SOCKO_WIFI_STATUS, rmem_alloc,
)
from netstack.sock._stamp cimport get_timestamping, get_timestamps, set_timestamping, set_timestamps
from netstack.sock._table cimport table_changed, udp_table
from netstack.sock._wake cimport sock_take_err

cdef enum:
    SOL_IP = 0
    SOL_SOCKET = 1
    SOL_UDP = 17
    UDP_CORK = 1
    SOL_RAW = 255
    INT_MAX = 0x7FFFFFFF
    IFNAMSIZ = 16
    SOCK_SNDBUF_LOCK = 1           # <linux/socket.h>
    SOCK_RCVBUF_LOCK = 2

cdef enum names:
    SO_DEBUG = 1
    SO_REUSEADDR = 2
    SO_TYPE = 3
    SO_ERROR = 4
    SO_DONTROUTE = 5
    SO_BROADCAST = 6
    SO_SNDBUF = 7
    SO_RCVBUF = 8
    SO_KEEPALIVE = 9
    SO_OOBINLINE = 10
    SO_NO_CHECK = 11
    SO_LINGER = 13
    SO_PRIORITY = 12
    SO_BSDCOMPAT = 14
    SO_REUSEPORT = 15
    SO_PASSCRED = 16
    SO_PEERCRED = 17
    SO_RCVLOWAT = 18
    SO_SNDLOWAT = 19
    SO_RCVTIMEO = 20
    SO_SNDTIMEO = 21
    SO_BINDTODEVICE = 25
    SO_ATTACH_FILTER = 26
    SO_DETACH_FILTER = 27
    SO_PEERNAME = 28
    SO_TIMESTAMP_OLD = 29
    SO_ACCEPTCONN = 30
    SO_SNDBUFFORCE = 32
    SO_RCVBUFFORCE = 33
    SO_PASSSEC = 34
    SO_TIMESTAMPNS_OLD = 35
    SO_MARK = 36
    SO_TIMESTAMPING_OLD = 37
    SO_PROTOCOL = 38
    SO_DOMAIN = 39
    SO_RXQ_OVFL = 40
    SO_WIFI_STATUS = 41
    SO_PEEK_OFF = 42
    SO_NOFCS = 43
    SO_LOCK_FILTER = 44
    SO_BUSY_POLL = 46
    SO_INCOMING_CPU = 49
    SO_CNX_ADVICE = 53
    SO_MEMINFO = 55
    SO_INCOMING_NAPI_ID = 56
    SO_COOKIE = 57
    SO_PEERGROUPS = 59
    SO_BINDTOIFINDEX = 62
    SO_TIMESTAMP_NEW = 63
    SO_TIMESTAMPNS_NEW = 64
    SO_TIMESTAMPING_NEW = 65
    SO_RCVTIMEO_NEW = 66
    SO_SNDTIMEO_NEW = 67
    SO_BUF_LOCK = 72
    SO_RESERVE_MEM = 73
    SO_TXREHASH = 74
    SO_RCVMARK = 75
    SO_PASSPIDFD = 76
    SO_PEERPIDFD = 77
    SO_RCVPRIORITY = 82
    SO_PASSRIGHTS = 83


# Options that are one flag of sk.flags, which the data path reads, and those of sk.opts.
cdef dict FLAGS = {
    SO_REUSEADDR: SOCKF_REUSEADDR,
    SO_BROADCAST: SOCKF_BROADCAST,
    SO_NO_CHECK: SOCKF_NO_CHECK,
    SO_REUSEPORT: SOCKF_REUSEPORT,
    SO_RXQ_OVFL: SOCKF_RXQ_OVFL,
}
cdef dict OPTS = {
    SO_DEBUG: SOCKO_DEBUG,
    SO_DONTROUTE: SOCKO_DONTROUTE,
    SO_KEEPALIVE: SOCKO_KEEPALIVE,
    SO_OOBINLINE: SOCKO_OOBINLINE,
    SO_WIFI_STATUS: SOCKO_WIFI_STATUS,
    SO_NOFCS: SOCKO_NOFCS,
    SO_RCVMARK: SOCKO_RCVMARK,
    SO_RCVPRIORITY: SOCKO_RCVPRIORITY,
}
# Options that are one number, with the smallest allowed; the field is in number_of().
cdef dict NUMBERS = {
    SO_PRIORITY: -INT_MAX - 1,
    SO_MARK: -INT_MAX - 1,
    SO_INCOMING_CPU: -INT_MAX - 1,
    SO_BUSY_POLL: 0,
    SO_BINDTOIFINDEX: 0,
}
# Of other families, and of streams.
cdef set NOT_HERE = {SO_PASSCRED, SO_PASSSEC, SO_TXREHASH, SO_PASSPIDFD, SO_PASSRIGHTS}


cdef u32 *number_of(sock *sk, int name) noexcept:
    return (&sk.priority if name == SO_PRIORITY else &sk.mark if name == SO_MARK
            else &sk.incoming_cpu if name == SO_INCOMING_CPU
            else &sk.busy_poll_us if name == SO_BUSY_POLL else &sk.bound_dev_if)


# ---- set

cdef int set_option_value(sock *sk, int level, int name, object value, object length) except -1:
    """Set an option to an int, a buffer, or None with a length, which is a null pointer."""
    cdef Py_buffer view
    cdef int number
    if length is not None:
        if value is not None:
            raise TypeError("setsockopt(): a length goes with None only")
        return set_option(sk, level, name, NULL, length)
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
    cdef int number = 0
    if level == SOL_SOCKET:
        return set_socket_option(sk, name, value, size)
    if sk.prot.family == AF_PACKET and level == sk.prot.level:
        return fail(EFAULT) if value == NULL and size else packet_set(sk, name, value, size)
    if level == SOL_IP and sk.prot.family == AF_INET:
        return set_ip_option(sk, name, value, size)
    if level != sk.prot.level:
        return fail(ENOPROTOOPT)
    if level == SOL_RAW:           # ICMP_FILTER: as many of its bytes as are given
        check(sk.prot.getsockopt(sk, name, &number))
        size = min(size, <Py_ssize_t>sizeof(int))
    elif level != SOL_UDP:
        return fail(ENOPROTOOPT)
    elif size < <Py_ssize_t>sizeof(int):
        return fail(EINVAL)
    else:
        size = sizeof(int)
    if value == NULL and size:
        return fail(EFAULT)
    memcpy(&number, value, size)
    check(sk.prot.setsockopt(sk, name, number))
    if level == SOL_UDP and name == UDP_CORK and number == 0:
        sock_push(sk)              # what becomes of it nobody is told, as in Linux
    return 0


cdef int check(int rc) except -1:
    return fail(-rc) if rc < 0 else 0


cdef int set_socket_option(sock *sk, int name, const char *value, Py_ssize_t size) except -1:
    cdef int number
    if name == SO_BINDTODEVICE:
        return fail(EFAULT) if value == NULL and size else set_device(sk, value, size)
    if size < <Py_ssize_t>sizeof(int):
        return fail(EINVAL)
    if value == NULL:
        return fail(EFAULT)
    memcpy(&number, value, sizeof(int))
    if name in FLAGS:
        if number:
            fetch_or32(&sk.flags, <u32>FLAGS[name])
        else:
            fetch_and32(&sk.flags, ~<u32>FLAGS[name])
        return 0
    if name in OPTS:
        sk.opts = sk.opts | <u32>OPTS[name] if number else sk.opts & ~<u32>OPTS[name]
        return 0
    if name in NUMBERS:
        if number < <int>NUMBERS[name]:
            return fail(EINVAL)
        number_of(sk, name)[0] = <u32>number
        if name == SO_BINDTOIFINDEX:
            table_changed(<udp_table *>sk.prot.table)
        return 0
    if name in (SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW):
        return set_timeout(sk, name in (SO_RCVTIMEO, SO_RCVTIMEO_NEW), value, size)
    if name == SO_LINGER:
        return set_linger(sk, value, size)
    if name == SO_ATTACH_FILTER:
        return sk_attach_filter(sk, value, size)
    if name == SO_DETACH_FILTER:
        return sk_detach_filter(sk)
    if name in (SO_TIMESTAMP_OLD, SO_TIMESTAMPNS_OLD, SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW):
        return set_timestamps(sk, number != 0, name in (SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW),
                              name in (SO_TIMESTAMPNS_OLD, SO_TIMESTAMPNS_NEW))
    if name == SO_TIMESTAMPING_OLD or name == SO_TIMESTAMPING_NEW:
        return set_timestamping(sk, value, size, name == SO_TIMESTAMPING_NEW)
    return set_rare(sk, name, number)


cdef int set_rare(sock *sk, int name, int number) except -1:
    """Set an option that is neither a flag nor a plain number."""
    if name == SO_LOCK_FILTER:
        if sk.opts & SOCKO_FILTER_LOCKED and number == 0:
            return fail(EPERM)
        if number:
            sk.opts |= SOCKO_FILTER_LOCKED
    elif name == SO_RCVLOWAT:      # kept; what is read is a datagram at a time, however small
        sk.rcvlowat = INT_MAX if number < 0 else max(<u32>number, <u32>1)
    elif name == SO_PEEK_OFF:
        if sk.prot.level != SOL_UDP:
            return fail(EOPNOTSUPP)
        sk.peek_off = number
        if number >= 0:
            fetch_or32(&sk.flags, SOCKF_PEEK_OFF)
        else:
            fetch_and32(&sk.flags, ~<u32>SOCKF_PEEK_OFF)
    elif name == SO_BUF_LOCK:
        if not 0 <= number <= (SOCK_SNDBUF_LOCK | SOCK_RCVBUF_LOCK):
            return fail(EINVAL)
        sk.userlocks = <u32>number
    elif name == SO_RESERVE_MEM:   # needs a memory cgroup
        return fail(EINVAL if number < 0 else EOPNOTSUPP)
    elif name == SO_BSDCOMPAT or name == SO_CNX_ADVICE:
        pass                       # nothing any more, or nothing for datagrams
    elif name in NOT_HERE:
        return fail(EOPNOTSUPP)
    else:
        return set_buffer(sk, name, number)
    return 0


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
        sk.userlocks |= SOCK_RCVBUF_LOCK
        sk.rcvbuf = max(size, <u32>SOCK_MIN_RCVBUF)
    else:
        sk.userlocks |= SOCK_SNDBUF_LOCK
        sk.sndbuf = max(size, <u32>SOCK_MIN_SNDBUF)
    return 0


cdef net_device *device_of(sock *sk, int ifindex) noexcept:
    return sk.n.devices[ifindex - 1] if 1 <= ifindex <= <int>sk.n.nr_devices else NULL


cdef int set_device(sock *sk, const char *value, Py_ssize_t size) except -1:
    cdef bytes name = PyBytes_FromStringAndSize(value, min(size, IFNAMSIZ - 1)).split(b"\0")[0]
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
    cdef int number = 0
    if level == SOL_SOCKET:
        if name in LONG:
            return get_long(sk, name, size)
        number = get_number(sk, name)
    elif sk.prot.family == AF_PACKET and level == sk.prot.level:
        found = packet_get(sk, name, size)
        if found is not None:
            return found
        check(sk.prot.getsockopt(sk, name, &number))
    elif level == SOL_IP and sk.prot.family == AF_INET:
        return get_ip_option(sk, name, size, buffer)
    elif level == sk.prot.level and (level == SOL_UDP or level == SOL_RAW):
        check(sk.prot.getsockopt(sk, name, &number))
    else:
        return fail(EOPNOTSUPP if sk.prot.family == AF_INET else ENOPROTOOPT)
    if size == 0:
        return number
    return PyBytes_FromStringAndSize(<const char *>&number, min(size, <int>sizeof(int)))


cdef int get_number(sock *sk, int name) except? -1:
    if name in FLAGS:
        return 1 if load_acquire32(&sk.flags) & <u32>FLAGS[name] else 0
    if name in OPTS:
        return 1 if sk.opts & <u32>OPTS[name] else 0
    if name in NUMBERS:
        return <int>number_of(sk, name)[0]
    if name in (SO_TIMESTAMP_OLD, SO_TIMESTAMPNS_OLD, SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW):
        return get_timestamps(sk, name in (SO_TIMESTAMP_NEW, SO_TIMESTAMPNS_NEW),
                              name in (SO_TIMESTAMPNS_OLD, SO_TIMESTAMPNS_NEW))
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
    if name == SO_RCVLOWAT:
        return <int>sk.rcvlowat
    if name == SO_SNDLOWAT:
        return 1
    if name == SO_LOCK_FILTER:
        return 1 if sk.opts & SOCKO_FILTER_LOCKED else 0
    if name == SO_INCOMING_NAPI_ID:
        return <int>sk.napi_id
    if name == SO_BUF_LOCK:
        return <int>sk.userlocks
    if name in (SO_ACCEPTCONN, SO_BSDCOMPAT, SO_RESERVE_MEM):
        return 0
    if name == SO_PEEK_OFF and sk.prot.level == SOL_UDP:
        return sk.peek_off
    return fail(EOPNOTSUPP if name == SO_PEEK_OFF or name in NOT_HERE
                else ENODATA if name in (SO_PEERGROUPS, SO_PEERPIDFD) else ENOPROTOOPT)


# Options that are longer than an int.
cdef set LONG = {
    SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW, SO_BINDTODEVICE, SO_MEMINFO, SO_COOKIE, SO_PEERCRED,
    SO_PEERNAME, SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW, SO_LINGER,
}


cdef object get_long(sock *sk, int name, int size):
    cdef u32 memory[9]
    cdef int credentials[3]
    cdef u16 address[8]
    cdef int number = 0
    if name == SO_BINDTODEVICE:
        return get_device(sk, size)
    if name in (SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW):
        value = get_timeout(sk, name in (SO_RCVTIMEO, SO_RCVTIMEO_NEW))
    elif name == SO_LINGER:
        value = get_linger(sk)
    elif name == SO_COOKIE:
        if size < 8:
            return fail(EINVAL)
        value = PyBytes_FromStringAndSize(<const char *>&sk.ino, sizeof(u64))
    elif name == SO_PEERCRED:          # of nobody
        credentials = [0, -1, -1]
        value = PyBytes_FromStringAndSize(<const char *>credentials, sizeof(credentials))
    elif name == SO_PEERNAME:
        if not load_acquire32(&sk.flags) & SOCKF_CONNECTED:
            return fail(ENOTCONN)
        if size > <int>sizeof(address):
            return fail(EINVAL)
        address = [AF_INET, htons(sk.dport), 0, 0, 0, 0, 0, 0]
        (<u32 *>address)[1] = htonl(sk.daddr)
        value = PyBytes_FromStringAndSize(<const char *>address, sizeof(address))
    elif name == SO_TIMESTAMPING_OLD or name == SO_TIMESTAMPING_NEW:
        value = get_timestamping(sk, name == SO_TIMESTAMPING_NEW)
    else:
        # SK_MEMINFO_*: rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog, drops
        memory = [<u32>rmem_alloc(sk), sk.rcvbuf, 0, sk.sndbuf, <u32>sk.forward_alloc, 0, 0, 0,
                  load_acquire32(&sk.drops)]
        value = PyBytes_FromStringAndSize(<const char *>memory, sizeof(memory))
    if size == 0:                      # the first bytes, as an int
        memcpy(&number, <const char *><bytes>value, sizeof(int))
        return number
    return value[:size]


cdef object get_device(sock *sk, int size):
    """Give the name of the device that the socket is bound to; it wants room for any."""
    cdef net_device *dev = device_of(sk, <int>sk.bound_dev_if)
    if dev == NULL:
        return b"" if size else 0
    if size < IFNAMSIZ:
        return fail(EINVAL)
    return <bytes>dev.name + b"\0"
