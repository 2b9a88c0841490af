"""cmsg: ancillary data of recvmsg and sendmsg.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       what the queue kept of a datagram's headers  sock/_sock.pyx
Out      (level, type, data) tuples       sock/_socket.pyx
Context  process context, with the GIL
Kernel   put_cmsg(), net/core/scm.c; ip_cmsg_recv_offset(), ip_cmsg_send(), net/ipv4/ip_sockglue.c
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.number cimport PyNumber_Index
from libc.errno cimport EINVAL, ENOBUFS
from libc.string cimport memcpy, memset

from netstack._abi cimport htonl, htons, ntohl, u8, u16, u32, u64, unlikely
from netstack._net cimport net_realtime
from netstack._skb cimport sk_buff, skb_network_header
from netstack.sock._calls cimport fail, items_of
from netstack.sock._sock cimport (
    AF_INET, SO_EE_ORIGIN_ICMP, SOCKF_GRO, SOCKF_PKTINFO, SOCKF_RECVORIGDSTADDR, SOCKF_RECVTOS,
    SOCKF_RECVTTL, SOCKF_RXQ_OVFL, SOCKO_RCVMARK, SOCKO_RCVPRIORITY, SOCKO_RCVTSTAMP, SOCKO_RCVTSTAMPNS, SOCKO_RECVOPTS,
    SOCKO_TSTAMP_NEW,
)

cdef enum:
    SOL_IP = 0
    SOL_SOCKET = 1
    SOL_UDP = 17
    IP_TOS = 1
    IP_TTL = 2
    IP_PKTINFO = 8
    IP_RECVOPTS = 6
    IP_RECVERR = 11
    IP_ORIGDSTADDR = 20
    SO_PRIORITY = 12
    SO_TIMESTAMP_OLD = 29
    SO_TIMESTAMPNS_OLD = 35
    SO_MARK = 36
    SO_TIMESTAMPING_OLD = 37
    SO_RXQ_OVFL = 40
    SO_TIMESTAMP_NEW = 63
    SO_TIMESTAMPNS_NEW = 64
    SO_TIMESTAMPING_NEW = 65
    UDP_SEGMENT = 103
    UDP_GRO = 104
    MSG_CTRUNC = 8
    CMSGHDR = 16                   # sizeof(struct cmsghdr)
    SCM_RIGHTS = 1
    SCM_CREDENTIALS = 2
    SOF_TIMESTAMPING_TX_RECORD_MASK = 0x303   # TX_HARDWARE, TX_SOFTWARE, TX_SCHED, TX_ACK
    OPTMEM_MAX = 131072            # net.core.optmem_max

cdef struct in_pktinfo:            # <linux/in.h>
    int ipi_ifindex
    u32 ipi_spec_dst
    u32 ipi_addr

cdef struct sockaddr_in:
    u16 sin_family
    u16 sin_port
    u32 sin_addr
    u8 sin_zero[8]


cdef struct ip_error:              # struct sock_extended_err, and who sent the message
    u32 ee_errno
    u8 ee_origin
    u8 ee_type
    u8 ee_code
    u8 ee_pad
    u32 ee_info
    u32 ee_data
    sockaddr_in offender


cdef int put(list out, Py_ssize_t *room, int *msg_flags, int level, int kind, const void *data,
             Py_ssize_t size) except -1:
    """Append one message as far as there is room for it, header included. [put_cmsg()]"""
    if room[0] < CMSGHDR:
        msg_flags[0] |= MSG_CTRUNC
        return 0
    if room[0] < CMSGHDR + size:
        msg_flags[0] |= MSG_CTRUNC
        size = room[0] - CMSGHDR
    out.append((level, kind, PyBytes_FromStringAndSize(<const char *>data, size)))
    room[0] -= min(room[0], (CMSGHDR + size + 7) & ~<Py_ssize_t>7)
    return 0


cdef u32 spec_dst(const sock *sk, const sock_skb_cb *cb) noexcept:
    """The address of ours that a reply should come from; ping sockets are not told."""
    if sk.prot.spec_dst == NULL:
        return 0
    return sk.prot.spec_dst(sk.n, cb.daddr, cb.saddr, cb.ifindex)


cdef list put_cmsgs(sock *sk, const sock_skb_cb *cb, const skb_meta *meta, u32 gso_size, Py_ssize_t room,
                    int *msg_flags):
    """Make the list of recvmsg(): what the socket asked for, in the kernel's order."""
    cdef list out = []
    cdef u32 flags = sk.flags
    cdef sockaddr_in dst
    cdef int number
    put_timestamps(sk, meta.tstamp, False, out, &room, msg_flags)
    if flags & SOCKF_RXQ_OVFL and cb.dropcount:
        put(out, &room, msg_flags, SOL_SOCKET, SO_RXQ_OVFL, &cb.dropcount, sizeof(u32))
    if sk.opts & SOCKO_RCVMARK:
        put(out, &room, msg_flags, SOL_SOCKET, SO_MARK, &meta.mark, sizeof(u32))
    if sk.opts & SOCKO_RCVPRIORITY:
        put(out, &room, msg_flags, SOL_SOCKET, SO_PRIORITY, &meta.priority, sizeof(u32))
    if flags & SOCKF_GRO and gso_size:
        number = <int>gso_size
        put(out, &room, msg_flags, SOL_UDP, UDP_GRO, &number, sizeof(int))
    put_ip_cmsgs(sk, cb, spec_dst(sk, cb) if flags & SOCKF_PKTINFO else 0, out, &room, msg_flags)
    if sk.opts & SOCKO_RECVOPTS and meta.optlen:
        put(out, &room, msg_flags, SOL_IP, IP_RECVOPTS, meta.opt, meta.optlen)
    if flags & SOCKF_RECVORIGDSTADDR:
        memset(&dst, 0, sizeof(dst))
        dst.sin_family = 2         # AF_INET
        dst.sin_port = htons(cb.dport)
        dst.sin_addr = htonl(cb.daddr)
        put(out, &room, msg_flags, SOL_IP, IP_ORIGDSTADDR, &dst, sizeof(sockaddr_in))
    return out


cdef void skb_meta_of(const sock *sk, const sk_buff *skb, skb_meta *meta) noexcept:
    """Note what control messages tell of a packet that is about to be given back."""
    cdef const u8 *iph
    meta.tstamp, meta.mark, meta.priority, meta.optlen = skb.tstamp, skb.mark, skb.priority, 0
    if unlikely(sk.opts & SOCKO_RECVOPTS):
        iph = skb_network_header(skb)
        meta.optlen = (<u32>(iph[0] & 15) << 2) - 20
        memcpy(meta.opt, iph + 20, meta.optlen)


cdef int put_timestamps(sock *sk, u64 tstamp, bint error, list out, Py_ssize_t *room, int *msg_flags) except -1:
    """Append when the packet came, as SO_TIMESTAMP, SO_TIMESTAMPNS and SO_TIMESTAMPING want it.

    A packet that came before anybody asked has no time: the first two then say when it is read.
    [__sock_recv_timestamp()]
    """
    cdef bint is_new = sk.opts & SOCKO_TSTAMP_NEW != 0
    cdef u64 came = tstamp
    cdef u64 times[6]
    if sk.opts & SOCKO_RCVTSTAMP:
        if came == 0:
            tstamp = came = net_realtime(sk.n)
        times[0], times[1] = came // 1_000_000_000, came % 1_000_000_000
        if sk.opts & SOCKO_RCVTSTAMPNS:
            put(out, room, msg_flags, SOL_SOCKET, SO_TIMESTAMPNS_NEW if is_new else SO_TIMESTAMPNS_OLD, times, 16)
        else:
            times[1] //= 1000
            put(out, room, msg_flags, SOL_SOCKET, SO_TIMESTAMP_NEW if is_new else SO_TIMESTAMP_OLD, times, 16)
    if tstamp and sk.tsflags & SOF_TIMESTAMPING_SOFTWARE and (
            error or sk.tsflags & SOF_TIMESTAMPING_RX_SOFTWARE or not sk.tsflags & SOF_TIMESTAMPING_OPT_RX_FILTER):
        memset(times, 0, sizeof(times))
        times[0], times[1] = tstamp // 1_000_000_000, tstamp % 1_000_000_000
        put(out, room, msg_flags, SOL_SOCKET, SO_TIMESTAMPING_NEW if is_new else SO_TIMESTAMPING_OLD, times, 48)
    return 0


cdef int put_ip_cmsgs(sock *sk, const sock_skb_cb *cb, u32 spec, list out, Py_ssize_t *room,
                      int *msg_flags) except -1:
    """Append what of an IP header the socket asked for. [ip_cmsg_recv_offset()]"""
    cdef u32 flags = sk.flags
    cdef in_pktinfo info
    cdef int number
    if flags & SOCKF_PKTINFO:
        info.ipi_ifindex = <int>cb.ifindex
        info.ipi_spec_dst = htonl(spec)
        info.ipi_addr = htonl(cb.daddr)
        put(out, room, msg_flags, SOL_IP, IP_PKTINFO, &info, sizeof(in_pktinfo))
    if flags & SOCKF_RECVTTL:
        number = cb.ttl
        put(out, room, msg_flags, SOL_IP, IP_TTL, &number, sizeof(int))
    if flags & SOCKF_RECVTOS:
        put(out, room, msg_flags, SOL_IP, IP_TOS, &cb.tos, 1)
    return 0


cdef list put_err_cmsgs(sock *sk, sock_err_cb *error, const skb_meta *meta, Py_ssize_t room, int *msg_flags):
    """Make the list of recvmsg(MSG_ERRQUEUE): the ICMP message's own header, then IP_RECVERR. [ip_recv_error()]"""
    cdef list out = []
    cdef ip_error data
    memset(&data, 0, sizeof(data))
    put_timestamps(sk, meta.tstamp, True, out, &room, msg_flags)
    data.ee_errno, data.ee_info = error.ee_errno, error.ee_info
    data.ee_origin, data.ee_type, data.ee_code = error.ee_origin, error.ee_type, error.ee_code
    if error.ee_origin == SO_EE_ORIGIN_ICMP:
        data.offender.sin_family = 2       # AF_INET
        data.offender.sin_addr = htonl(error.offender)
        put_ip_cmsgs(sk, &error.at, 0, out, &room, msg_flags)
    put(out, &room, msg_flags, SOL_IP, IP_RECVERR, &data, sizeof(ip_error))
    return out


cdef int small_int(bytes data, int *value) except -1:
    """Read an int, or, as Linux allows for TOS, one byte."""
    if len(data) == sizeof(int):
        memcpy(value, <const char *>data, sizeof(int))
    elif len(data) == 1:
        value[0] = (<const u8 *><const char *>data)[0]
    else:
        fail(EINVAL)
    return 0


cdef bytes cmsg_of(object item, int *level, int *kind):
    """Take one control message of sendmsg() apart, with the standard library's complaints."""
    if not isinstance(item, (tuple, list)):
        raise TypeError(f"[sendmsg() ancillary data items]() argument must be 3-item sequence, "
                        f"not {type(item).__name__}")
    if len(item) != 3:
        raise TypeError(f"[sendmsg() ancillary data items]() argument must be sequence of length 3, not {len(item)}")
    level[0], kind[0] = PyNumber_Index(item[0]), PyNumber_Index(item[1])
    return bytes(memoryview_of(item[2]))


cdef object memoryview_of(object data):
    try:
        return memoryview(data)
    except TypeError:
        raise TypeError(f"a bytes-like object is required, not '{type(data).__name__}'") from None


cdef int get_cmsgs(sock *sk, object ancdata, sock_msg *msg) except -1:
    """Read the control messages of sendmsg(); what is of a level that the socket has not is passed over.

    [udp_cmsg_send(), ip_cmsg_send(), __sock_cmsg_send()]
    """
    cdef int level = 0
    cdef int kind = 0
    cdef Py_ssize_t room = 0
    cdef bytes data
    cdef list read = []
    for item in items_of(ancdata, "sendmsg() argument 2"):
        data = cmsg_of(item, &level, &kind)
        read.append((level, kind, data))
        room += CMSGHDR + (len(data) + 7) // 8 * 8
    if room > OPTMEM_MAX:
        fail(ENOBUFS)
    for level, kind, data in read:
        if level == SOL_SOCKET:
            get_socket_cmsg(kind, data, msg)
        elif level == SOL_IP and sk.prot.family == AF_INET:
            get_ip_cmsg(kind, data, msg)
        elif level == SOL_UDP and sk.prot.level == SOL_UDP:
            get_udp_cmsg(kind, data, msg)
    return 0


cdef int get_socket_cmsg(int kind, bytes data, sock_msg *msg) except -1:
    cdef u32 number = 0
    if kind == SCM_RIGHTS or kind == SCM_CREDENTIALS:
        return 0                   # of sockets of AF_UNIX
    if kind not in (SO_MARK, SO_PRIORITY, SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW) or len(data) != sizeof(u32):
        return fail(EINVAL)
    memcpy(&number, <const char *>data, sizeof(u32))
    if kind == SO_MARK:
        msg.mark, msg.has_mark = number, True
    elif kind == SO_PRIORITY:
        msg.priority, msg.has_priority = number, True
    elif number & ~<u32>SOF_TIMESTAMPING_TX_RECORD_MASK:
        return fail(EINVAL)        # and what is sent gets no time stamp, see docs/kernel-map.md
    return 0


cdef int get_ip_cmsg(int kind, bytes data, sock_msg *msg) except -1:
    cdef in_pktinfo info
    if kind == IP_TTL and len(data) == sizeof(int):
        small_int(data, &msg.ttl)
        if not 1 <= msg.ttl <= 255:
            return fail(EINVAL)
    elif kind == IP_TOS:
        small_int(data, &msg.tos)
        if not 0 <= msg.tos <= 255:
            return fail(EINVAL)
    elif kind == IP_PKTINFO and len(data) == sizeof(in_pktinfo):
        memcpy(&info, <const char *>data, sizeof(in_pktinfo))
        msg.saddr = ntohl(info.ipi_spec_dst)
        msg.ifindex = <u32>info.ipi_ifindex
    else:
        return fail(EINVAL)
    return 0


cdef int get_udp_cmsg(int kind, bytes data, sock_msg *msg) except -1:
    cdef u16 size
    if kind != UDP_SEGMENT or len(data) != sizeof(u16):
        return fail(EINVAL)
    memcpy(&size, <const char *>data, sizeof(u16))
    msg.gso_size = size
    return 0
