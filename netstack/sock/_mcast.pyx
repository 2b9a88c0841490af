"""mcast: the groups that a socket has joined, and the options about groups.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       (name, value) of level IPPROTO_IP  sock/_options.pyx
         a datagram for a group           proto/_udp.pyx, proto/_raw.pyx
Out      memberships                      proto/igmp_groups.py, by net.multicast
         whether the socket wants it
Context  options: process context, with the GIL; filters: under the table's lock, no GIL
Kernel   do_ip_setsockopt(), net/ipv4/ip_sockglue.c; ip_mc_sf_allow(), net/ipv4/igmp.c

Who is a member of what is kept in Python. Here is a copy of what the data path asks: a flat list for each socket.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EADDRNOTAVAIL, EINVAL
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netstack._abi cimport fetch_and32, fetch_or32, htonl, load_acquire32, ntohl, spin_lock, spin_unlock, u8
from netstack._net cimport MAX_ADDRS, net_device
from netstack.sock._calls cimport fail
from netstack.sock._sock cimport SOCKF_MC_ALL, SOCKF_MC_LOOP
from netstack.sock._table cimport table_of, udp_table

cdef enum names:                   # <linux/in.h>
    IP_MULTICAST_IF = 32
    IP_MULTICAST_LOOP = 34
    IP_ADD_MEMBERSHIP = 35
    MCAST_MSFILTER = 48
    IP_MULTICAST_ALL = 49

cdef enum modes:
    MCAST_EXCLUDE = 0
    MCAST_INCLUDE = 1


# ---- what the data path asks

cdef bint mc_sf_allow(const sock *sk, u32 loc_addr, u32 rmt_addr, u32 dif) noexcept nogil:
    cdef const ip_mc_memberships *all = <ip_mc_memberships *>sk.mc_list
    cdef const ip_mc_socklist *one
    cdef const char *at
    cdef u32 _i, k
    if all != NULL:
        at = <const char *>all + sizeof(ip_mc_memberships)
        for _i in range(all.count):
            one = <const ip_mc_socklist *>at
            if one.group == loc_addr and one.ifindex == dif:
                for k in range(one.sl_count):
                    if one.sl_addr[k] == rmt_addr:
                        return one.mode == MCAST_INCLUDE
                return one.mode == MCAST_EXCLUDE
            at += sizeof(ip_mc_socklist) + one.sl_count * sizeof(u32)
    return sk.flags & SOCKF_MC_ALL != 0


cdef int mc_publish(sock *sk, object rows) except -1:
    """Tell the data path what a socket has joined: (group, ifindex, mode, sources) each, none for none."""
    cdef udp_table *table = table_of(sk)
    cdef ip_mc_memberships *new = NULL
    cdef void *old
    cdef ip_mc_socklist *one
    cdef list memberships = list(rows)
    cdef size_t size = sizeof(ip_mc_memberships)
    cdef char *at
    cdef u32 k
    for _group, _ifindex, _mode, sources in memberships:
        size += sizeof(ip_mc_socklist) + len(sources) * sizeof(u32)
    if memberships:
        new = <ip_mc_memberships *>calloc(1, size)
        if new == NULL:
            raise MemoryError
        new.count = <u32>len(memberships)
        at = <char *>new + sizeof(ip_mc_memberships)
        for group, ifindex, mode, sources in memberships:
            one = <ip_mc_socklist *>at
            one.group, one.ifindex, one.mode, one.sl_count = group, ifindex, mode, <u32>len(sources)
            k = 0
            for source in sources:
                one.sl_addr[k] = source
                k += 1
            at += sizeof(ip_mc_socklist) + one.sl_count * sizeof(u32)
    with nogil:
        spin_lock(&table.lock)
        old = sk.mc_list
        sk.mc_list = new
        spin_unlock(&table.lock)
    free(old)
    return 0


# ---- options

cdef bint is_mcast_option(int name) noexcept:
    """All of level IPPROTO_IP that are about groups, but for IP_MULTICAST_TTL, which is a number."""
    return (name == IP_MULTICAST_IF or name == IP_MULTICAST_LOOP or IP_ADD_MEMBERSHIP <= name <= MCAST_MSFILTER
            or name == IP_MULTICAST_ALL)


cdef int mcast_set(sock *sk, int name, const char *value, Py_ssize_t size) except -1:
    """Set an option about groups from bytes."""
    cdef int number = 0
    if name == IP_MULTICAST_IF:
        return set_interface(sk, value, size)
    if name == IP_MULTICAST_LOOP or name == IP_MULTICAST_ALL:
        if size >= <Py_ssize_t>sizeof(int):
            memcpy(&number, value, sizeof(int))
        elif size >= 1:
            number = (<const u8 *>value)[0]
        else:
            return fail(EINVAL)
        if name == IP_MULTICAST_ALL and not 0 <= number <= 1:
            return fail(EINVAL)
        set_flag(sk, SOCKF_MC_LOOP if name == IP_MULTICAST_LOOP else SOCKF_MC_ALL, number != 0)
        return 0
    data = PyBytes_FromStringAndSize(value, size)
    return fail_if((<object>sk.n.multicast).setsockopt(<object>sk.owner, name, data))


cdef int fail_if(int errno) except -1:
    return fail(errno) if errno else 0


cdef void set_flag(sock *sk, u32 flag, bint on) noexcept:
    if on:
        fetch_or32(&sk.flags, flag)
    else:
        fetch_and32(&sk.flags, ~flag)


cdef net_device *dev_find(sock *sk, u32 addr) noexcept:
    """The device with an address of ours. [ip_dev_find()]"""
    cdef net_device *dev
    cdef u32 i, j
    for i in range(sk.n.nr_devices):
        dev = sk.n.devices[i]
        for j in range(min(load_acquire32(&dev.nr_addrs), <u32>MAX_ADDRS) if dev != NULL else 0):
            if dev.addr[j].local == addr:
                return dev
    return NULL


cdef int set_interface(sock *sk, const char *value, Py_ssize_t size) except -1:
    """IP_MULTICAST_IF: a struct in_addr, ip_mreq or ip_mreqn; none of its fields set is any device."""
    cdef u32 mreqn[3]              # imr_multiaddr, imr_address, imr_ifindex
    cdef u32 addr, ifindex
    cdef net_device *dev = NULL
    memset(mreqn, 0, sizeof(mreqn))
    if size >= 8:
        memcpy(mreqn, value, min(size, <Py_ssize_t>sizeof(mreqn)) & ~<Py_ssize_t>3)
    elif size >= 4:
        memcpy(&mreqn[1], value, 4)
    else:
        return fail(EINVAL)
    addr, ifindex = ntohl(mreqn[1]), mreqn[2]
    if ifindex == 0 and addr == 0:
        sk.mc_index = sk.mc_addr = 0
        return 0
    if ifindex == 0:
        dev = dev_find(sk, addr)
    elif ifindex <= sk.n.nr_devices:
        dev = sk.n.devices[ifindex - 1]
    if dev == NULL:
        return fail(EADDRNOTAVAIL)
    if sk.bound_dev_if and dev.ifindex != sk.bound_dev_if:
        return fail(EINVAL)
    sk.mc_index, sk.mc_addr = dev.ifindex, addr
    return 0


cdef object mcast_get(sock *sk, int name, object buffer, int size):
    """Give an option about groups, as a number if ``size`` is 0; ``buffer`` is what a filter is asked with."""
    cdef u32 addr
    cdef int number
    if name == IP_MULTICAST_LOOP or name == IP_MULTICAST_ALL:
        number = sk.flags & (SOCKF_MC_LOOP if name == IP_MULTICAST_LOOP else SOCKF_MC_ALL) != 0
        if size == 0:
            return number
        if size < <int>sizeof(int):
            return bytes([number])
        return PyBytes_FromStringAndSize(<const char *>&number, sizeof(int))
    if name == IP_MULTICAST_IF:
        addr = htonl(sk.mc_addr)
        if size == 0:
            return <int>addr
        return PyBytes_FromStringAndSize(<const char *>&addr, min(size, 4))
    number, found = (<object>sk.n.multicast).getsockopt(<object>sk.owner, name, buffer)
    fail_if(number)
    return found


cdef int mcast_drop(sock *sk) except -1:
    """End the memberships of a socket that is closed. [ip_mc_drop_socket()]"""
    if sk.mc_list != NULL:
        (<object>sk.n.multicast).drop_socket(<object>sk.owner)
    return 0
