"""stamp: SO_TIMESTAMP, SO_TIMESTAMPNS and SO_TIMESTAMPING.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       (name, value)                    sock/_options.pyx
Out      net.netstamp_needed, which makes the device core stamp packets  netif/_core.pyx
Context  process context, with the GIL
Kernel   sock_set_timestamp(), sock_set_timestamping(), sock_enable_timestamp(), net/core/sock.c

The time is that of the device core, as Linux has it of a NIC without a clock. Such a NIC's sockets may ask for
hardware time stamps, and for those of what they send, and get none.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EINVAL, EOPNOTSUPP
from libc.string cimport memcpy

from netstack._abi cimport u32
from netstack.sock._calls cimport fail
from netstack.sock._cmsg cimport SOF_TIMESTAMPING_RX_SOFTWARE
from netstack.sock._sock cimport (
    SOCKO_RCVTSTAMP, SOCKO_RCVTSTAMPNS, SOCKO_TIMESTAMP, SOCKO_TSTAMP_NEW, sock_stamped,
)

cdef enum:                         # <linux/net_tstamp.h>
    SOF_TIMESTAMPING_OPT_ID = 0x80
    SOF_TIMESTAMPING_OPT_TSONLY = 0x800
    SOF_TIMESTAMPING_OPT_STATS = 0x1000
    SOF_TIMESTAMPING_BIND_PHC = 0x8000
    SOF_TIMESTAMPING_OPT_ID_TCP = 0x10000
    SOF_TIMESTAMPING_MASK = 0x7FFFF

cdef struct so_timestamping:
    u32 flags
    u32 bind_phc


cdef void set_new(sock *sk, bint is_new) noexcept:
    sk.opts = sk.opts | SOCKO_TSTAMP_NEW if is_new else sk.opts & ~<u32>SOCKO_TSTAMP_NEW


cdef void update(sock *sk) noexcept:
    sock_stamped(sk, sk.opts & SOCKO_TIMESTAMP != 0 or sk.tsflags & SOF_TIMESTAMPING_RX_SOFTWARE != 0)


cdef int set_timestamps(sock *sk, bint on, bint is_new, bint ns) except -1:
    """Switch the message with each packet on or off; once on, packets are stamped until the socket is closed."""
    sk.opts &= ~<u32>(SOCKO_RCVTSTAMP | SOCKO_RCVTSTAMPNS)
    if on:
        sk.opts |= SOCKO_RCVTSTAMP | SOCKO_TIMESTAMP | (SOCKO_RCVTSTAMPNS if ns else 0)
        set_new(sk, is_new)
    update(sk)
    return 0


cdef int get_timestamps(const sock *sk, bint is_new, bint ns) noexcept:
    """Tell whether the message has this form. [sk_getsockopt()]"""
    cdef bint asked_new = sk.opts & SOCKO_TSTAMP_NEW != 0
    if not sk.opts & SOCKO_RCVTSTAMP or asked_new != is_new:
        return 0
    if ns:
        return sk.opts & SOCKO_RCVTSTAMPNS != 0
    return is_new or not sk.opts & SOCKO_RCVTSTAMPNS


cdef int set_timestamping(sock *sk, const char *value, Py_ssize_t size, bint is_new) except -1:
    """Set SOF_TIMESTAMPING_* flags from an int or a struct so_timestamping; EINVAL for what can't go together."""
    cdef so_timestamping given
    given.bind_phc = 0
    memcpy(&given, value, sizeof(given) if size == sizeof(given) else sizeof(u32))
    if (given.flags & ~<u32>SOF_TIMESTAMPING_MASK
            or (given.flags & SOF_TIMESTAMPING_OPT_ID_TCP and not given.flags & SOF_TIMESTAMPING_OPT_ID)
            or (given.flags & SOF_TIMESTAMPING_OPT_STATS and not given.flags & SOF_TIMESTAMPING_OPT_TSONLY)):
        return fail(EINVAL)
    if given.flags & SOF_TIMESTAMPING_BIND_PHC:        # no device here has a clock [sock_timestamping_bind_phc()]
        return fail(EINVAL if sk.bound_dev_if else EOPNOTSUPP)
    sk.tsflags = given.flags
    set_new(sk, is_new)
    update(sk)
    return 0


cdef bytes get_timestamping(const sock *sk, bint is_new):
    """Give the struct so_timestamping; in the new form only of those who asked in it."""
    cdef so_timestamping now
    now.flags = now.bind_phc = 0
    if not is_new or sk.opts & SOCKO_TSTAMP_NEW:
        now.flags, now.bind_phc = sk.tsflags, sk.bind_phc
    return PyBytes_FromStringAndSize(<const char *>&now, sizeof(now))
