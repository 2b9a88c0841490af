"""options_ip: setsockopt and getsockopt of level SOL_IP.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       (name, value)                    sock/_options.pyx
Out      fields of struct sock            sock/_sock.pxd
Context  process context, with the GIL
Kernel   do_ip_setsockopt(), do_ip_getsockopt(), net/ipv4/ip_sockglue.c

An option that is one flag is a line of a table. Linux takes a number of this level in one byte too, and none at all
for 0, but for options that say otherwise.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EADDRNOTAVAIL, EFAULT, EINVAL, ENOPROTOOPT
from libc.string cimport memcpy

from netstack._abi cimport fetch_and32, fetch_or32, htonl, load_acquire32, ntohl, u8, u32
from netstack._net cimport ip_default_ttl, sysctl_get
from netstack.sock._calls cimport fail
from netstack.sock._errqueue cimport sock_purge_err
from netstack.sock._mcast cimport is_mcast_option, mcast_get, mcast_set
from netstack.sock._sock cimport (
    IP_PMTUDISC_OMIT, SOCK_RAW, SOCKF_FREEBIND, SOCKF_HDRINCL, SOCKF_PKTINFO, SOCKF_RECVERR,
    SOCKF_RECVORIGDSTADDR, SOCKF_RECVTOS, SOCKF_RECVTTL, SOCKO_BIND_NO_PORT, SOCKO_NODEFRAG, SOCKO_PASSSEC,
    SOCKO_RECVOPTS, SOCKO_TRANSPARENT,
)
from netstack.sock._wake cimport sock_wake

cdef enum names:
    IP_TOS = 1
    IP_TTL = 2
    IP_HDRINCL = 3
    IP_RECVOPTS = 6
    IP_PKTINFO = 8
    IP_MTU_DISCOVER = 10
    IP_RECVERR = 11
    IP_RECVTTL = 12
    IP_RECVTOS = 13
    IP_MTU = 14
    IP_FREEBIND = 15
    IP_PASSSEC = 18
    IP_TRANSPARENT = 19
    IP_ORIGDSTADDR = 20
    IP_MINTTL = 21
    IP_NODEFRAG = 22
    IP_BIND_ADDRESS_NO_PORT = 24
    IP_MULTICAST_TTL = 33
    IP_UNICAST_IF = 50
    IP_LOCAL_PORT_RANGE = 51
    IP_PROTOCOL = 52

# Options that are one flag of sk.flags, which the data path reads, and those of sk.opts.
cdef dict FLAGS = {
    IP_HDRINCL: SOCKF_HDRINCL,
    IP_PKTINFO: SOCKF_PKTINFO,
    IP_RECVERR: SOCKF_RECVERR,
    IP_RECVTTL: SOCKF_RECVTTL,
    IP_RECVTOS: SOCKF_RECVTOS,
    IP_FREEBIND: SOCKF_FREEBIND,
    IP_ORIGDSTADDR: SOCKF_RECVORIGDSTADDR,
}
cdef dict OPTS = {
    IP_RECVOPTS: SOCKO_RECVOPTS,
    IP_PASSSEC: SOCKO_PASSSEC,         # no security module gives packets labels, so there is nothing to tell
    IP_TRANSPARENT: SOCKO_TRANSPARENT,
    IP_NODEFRAG: SOCKO_NODEFRAG,       # nothing but connection tracking puts fragments together early
    IP_BIND_ADDRESS_NO_PORT: SOCKO_BIND_NO_PORT,
}
cdef set NUMBERS = {IP_TOS, IP_TTL, IP_MTU_DISCOVER, IP_MINTTL, IP_MULTICAST_TTL, IP_UNICAST_IF, IP_LOCAL_PORT_RANGE}
cdef set OF_RAW_SOCKETS = {IP_HDRINCL, IP_NODEFRAG}
cdef set NEED_A_BYTE = {IP_TTL, IP_FREEBIND, IP_TRANSPARENT, IP_MINTTL, IP_MULTICAST_TTL}

# What bits 4 to 1 of a TOS say of priority: BESTEFFORT, BULK, INTERACTIVE, INTERACTIVE_BULK. [ip_tos2prio]
cdef u8 TOS_TO_PRIORITY[16]
TOS_TO_PRIORITY[:] = [0, 0, 0, 0, 2, 2, 2, 2, 6, 6, 6, 6, 4, 4, 4, 4]


cdef int set_ip_option(sock *sk, int name, const char *value, Py_ssize_t size) except -1:
    """Set an option from bytes; EINVAL for a wrong length or value, ENOPROTOOPT for an unknown name."""
    cdef int number = 0
    if not is_mcast_option(name) and name not in FLAGS and name not in OPTS and name not in NUMBERS:
        return fail(ENOPROTOOPT)
    if value == NULL and size:
        return fail(EFAULT)
    if is_mcast_option(name):
        return mcast_set(sk, name, value, size)
    if size >= <Py_ssize_t>sizeof(int):
        memcpy(&number, value, sizeof(int))
    elif size >= 1:
        number = (<const u8 *>value)[0]
    elif name in NEED_A_BYTE:
        return fail(EINVAL)
    if name in OF_RAW_SOCKETS and sk.prot.type != SOCK_RAW:
        return fail(ENOPROTOOPT)
    if name in OPTS:
        sk.opts = sk.opts | <u32>OPTS[name] if number else sk.opts & ~<u32>OPTS[name]
    elif name in NUMBERS:
        set_number(sk, name, number, size)
    elif number:
        fetch_or32(&sk.flags, <u32>FLAGS[name])
    else:
        fetch_and32(&sk.flags, ~<u32>FLAGS[name])
        if name == IP_RECVERR:
            sock_purge_err(sk)
            sock_wake(sk)
    return 0


cdef int set_number(sock *sk, int name, int number, Py_ssize_t size) except -1:
    cdef u32 first, last
    if name == IP_TOS:                 # and with it the priority
        sk.tos = <u8>number
        sk.priority = TOS_TO_PRIORITY[sk.tos >> 1 & 15]
    elif name == IP_TTL or name == IP_MULTICAST_TTL:
        if number != -1 and not (1 if name == IP_TTL else 0) <= number <= 255:
            return fail(EINVAL)
        if name == IP_TTL:
            sk.ttl = 0 if number == -1 else <u32>number        # 0: ip_default_ttl
        else:
            sk.mc_ttl = 1 if number == -1 else <u32>number
    elif name == IP_MTU_DISCOVER:
        if not 0 <= number <= <int>IP_PMTUDISC_OMIT:
            return fail(EINVAL)
        sk.pmtudisc = <u32>number
    elif name == IP_MINTTL:            # kept; Linux looks at it for streams only
        if not 0 <= number <= 255:
            return fail(EINVAL)
        sk.min_ttl = <u32>number
    elif size != <Py_ssize_t>sizeof(int):
        return fail(EINVAL)
    elif name == IP_UNICAST_IF:
        first = ntohl(<u32>number)
        if first and not (first <= sk.n.nr_devices and sk.n.devices[first - 1] != NULL):
            return fail(EADDRNOTAVAIL)
        if first and sk.bound_dev_if and sk.bound_dev_if != first:
            return fail(EINVAL)
        sk.uc_index = first
    else:                              # IP_LOCAL_PORT_RANGE
        first, last = <u32>number & 0xFFFF, <u32>number >> 16
        if first and last and first > last:
            return fail(EINVAL)
        sk.port_range = <u32>number
    return 0


cdef int get_number(sock *sk, int name) except? -1:
    if name in FLAGS:
        return 1 if load_acquire32(&sk.flags) & <u32>FLAGS[name] else 0
    if name in OPTS:
        return 1 if sk.opts & <u32>OPTS[name] else 0
    if name == IP_TOS:
        return <int>sk.tos
    if name == IP_TTL:
        return <int>sk.ttl if sk.ttl else <int>sysctl_get(sk.n, ip_default_ttl)
    if name == IP_MULTICAST_TTL:
        return <int>sk.mc_ttl
    if name == IP_MTU_DISCOVER:
        return <int>sk.pmtudisc
    if name == IP_MINTTL:
        return <int>sk.min_ttl
    if name == IP_UNICAST_IF:
        return <int>htonl(sk.uc_index)
    if name == IP_LOCAL_PORT_RANGE:
        return <int>sk.port_range
    if name == IP_PROTOCOL:            # of other sockets than raw ones Linux gives the port by this name
        return sk.num
    return fail(ENOPROTOOPT)


cdef object get_ip_option(sock *sk, int name, int size, bytes buffer):
    """Give an option as an int, or as at most ``size`` bytes; a small number in one byte if there is no more room."""
    cdef int number
    if is_mcast_option(name):
        return mcast_get(sk, name, buffer, size)
    number = sk.prot.mtu(sk) if name == IP_MTU else get_number(sk, name)
    if name == IP_MTU and number < 0:
        return fail(-number)
    if size == 0:
        return number
    if size < <int>sizeof(int) and 0 <= number <= 255:
        return bytes([number])
    return PyBytes_FromStringAndSize(<const char *>&number, min(size, <int>sizeof(int)))
