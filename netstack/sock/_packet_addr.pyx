"""packet_addr: ("tap0", ETH_P_IP, ...) to a sockaddr_ll and back, and the options that are structs.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       tuples as the standard library takes them  sock/_socket.pyx
Out      a sockaddr_ll                    sock/_packet.pyx
Context  process context, with the GIL
Kernel   packet_bind(), packet_getname(), packet_setsockopt(), net/packet/af_packet.c; Modules/socketmodule.c
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.number cimport PyNumber_Index
from libc.errno cimport EINVAL, ENODEV
from libc.string cimport memcpy, memset

from netstack._abi cimport exchange32, spin_lock, spin_unlock, u8, u16, u32
from netstack._net cimport net_device
from netstack.sock._calls cimport fail
from netstack.sock._packet cimport MAX_ADDR_LEN, packet_membership, packet_sock, sockaddr_ll

cdef enum:
    PACKET_ADD_MEMBERSHIP = 1      # <linux/if_packet.h>
    PACKET_DROP_MEMBERSHIP = 2
    PACKET_STATISTICS = 6

cdef struct packet_mreq:
    int mr_ifindex
    u16 mr_type
    u16 mr_alen
    u8 mr_address[8]


cdef tuple name_of(sock *sk, const sockaddr_ll *ll):
    """Give an address as the standard library does: device, EtherType, packet type, hardware type, address."""
    cdef net_device *dev = sk.n.devices[ll.ifindex - 1] if 0 < ll.ifindex <= sk.n.nr_devices else NULL
    return ((<bytes>dev.name).decode() if dev != NULL else "", ll.protocol, ll.pkttype, ll.hatype,
            PyBytes_FromStringAndSize(<const char *>ll.addr, ll.halen))


cdef tuple packet_peer(sock *sk):
    """Say who sent what was read last."""
    cdef sockaddr_ll ll
    spin_lock(&sk.reader_lock)
    ll = (<packet_sock *>sk.priv).peer
    spin_unlock(&sk.reader_lock)
    return name_of(sk, &ll)


cdef tuple packet_name(sock *sk):
    """Say what the socket is bound to."""
    cdef packet_sock *po = <packet_sock *>sk.priv
    cdef net_device *dev = sk.n.devices[po.ifindex - 1] if po.ifindex else NULL
    cdef sockaddr_ll ll
    memset(&ll, 0, sizeof(ll))
    ll.ifindex, ll.protocol = po.ifindex, <u16>sk.protocol
    if dev != NULL:
        ll.hatype, ll.halen = dev.type, 6
        memcpy(ll.addr, dev.dev_addr, 6)
    return name_of(sk, &ll)


cdef int parse_ll(sock *sk, object address, str caller, sockaddr_ll *ll) except -1:
    """Take (device, EtherType[, packet type[, hardware type[, address]]]) apart; ENODEV for an unknown device."""
    cdef long protocol
    cdef u32 i
    if not isinstance(address, tuple):
        raise TypeError(f"{caller}(): AF_PACKET address must be tuple, not {type(address).__name__}")
    if not 2 <= len(<tuple>address) <= 5 or not isinstance((<tuple>address)[0], str):
        raise TypeError("AF_PACKET address must be a tuple of two to five elements")
    memset(ll, 0, sizeof(sockaddr_ll))
    name = (<str>(<tuple>address)[0]).encode()
    for i in range(sk.n.nr_devices):
        if sk.n.devices[i] != NULL and <bytes>sk.n.devices[i].name == name:
            ll.ifindex = sk.n.devices[i].ifindex
    if ll.ifindex == 0:
        fail(ENODEV)
    protocol = PyNumber_Index((<tuple>address)[1])
    if not 0 <= protocol <= 0xFFFF:
        raise OverflowError(f"{caller}(): proto must be 0-65535.")
    ll.protocol = <u16>protocol
    if len(<tuple>address) > 2:
        ll.pkttype = <u8><long>(<tuple>address)[2]
    if len(<tuple>address) > 3:
        ll.hatype = <u16><long>(<tuple>address)[3]
    if len(<tuple>address) > 4:
        data = bytes((<tuple>address)[4])
        if len(data) > MAX_ADDR_LEN:
            raise ValueError("Hardware address must be 8 bytes or less")
        ll.halen = <u8>len(data)
        memcpy(ll.addr, <const char *>data, len(data))
    return 0


cdef int packet_bind_to(sock *sk, object address) except -1:
    """Bind to a device and an EtherType."""
    cdef sockaddr_ll ll
    cdef int rc
    parse_ll(sk, address, "bind", &ll)
    rc = sk.prot.get_port(sk, ll.ifindex, ll.protocol)
    return fail(-rc) if rc else 0


cdef int packet_destination(sock *sk, object address, str caller) except -1:
    """Note where the next message goes."""
    return parse_ll(sk, address, caller, &(<packet_sock *>sk.priv).to)


cdef int packet_set(sock *sk, int name, const char *value, Py_ssize_t size) except -1:
    """Set an option of level SOL_PACKET."""
    cdef packet_mreq mreq
    cdef int number = 0
    cdef int rc
    if name == PACKET_ADD_MEMBERSHIP or name == PACKET_DROP_MEMBERSHIP:
        if size < <Py_ssize_t>sizeof(mreq):
            return fail(EINVAL)
        memset(&mreq, 0, sizeof(mreq))
        memcpy(&mreq, value, min(size, <Py_ssize_t>sizeof(mreq)))
        if mreq.mr_alen > MAX_ADDR_LEN:
            return fail(EINVAL)
        memset(mreq.mr_address + mreq.mr_alen, 0, MAX_ADDR_LEN - mreq.mr_alen)
        with nogil:
            rc = packet_membership(sk, <u32>mreq.mr_ifindex, mreq.mr_type, mreq.mr_address,
                                   mreq.mr_alen, name == PACKET_ADD_MEMBERSHIP)
        return fail(-rc) if rc else 0
    if size < <Py_ssize_t>sizeof(int):
        return fail(EINVAL)
    memcpy(&number, value, sizeof(int))
    rc = sk.prot.setsockopt(sk, name, number)
    return fail(-rc) if rc else 0


cdef object packet_get(sock *sk, int name, int size):
    """Give PACKET_STATISTICS (packets, of these dropped) and begin to count anew; None for another option."""
    cdef packet_sock *po = <packet_sock *>sk.priv
    cdef u32 counts[2]
    if name != PACKET_STATISTICS:
        return None
    counts[1] = exchange32(&po.tp_drops, 0)
    counts[0] = exchange32(&po.tp_packets, 0) + counts[1]
    if size == 0:
        return <int>counts[0]
    return PyBytes_FromStringAndSize(<const char *>counts, min(size, <int>sizeof(counts)))
