"""address: ("10.0.0.2", 53) to two numbers and back.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       tuples as the standard library takes them  sock/_socket.pyx
Out      host-order numbers               sock/_sock.pyx
Context  process context, with the GIL
Kernel   none; getsockaddrarg(), setipaddr(), Modules/socketmodule.c

There is no resolver: a name other than "localhost" is unknown, with the error the standard
library gives for unknown names.
"""

from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_FromStringAndSize

from netstack._abi cimport ntohl, u16, u32, u64

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    int PyTuple_CheckExact(object o)

cdef extern from "<arpa/inet.h>":
    struct in_addr:
        u32 s_addr
    int inet_aton(const char *text, in_addr *addr)

cdef enum:
    EAI_NONAME = -2


cdef bint parse_quad(const char *text, Py_ssize_t size, u32 *addr) noexcept:
    """Parse four decimal numbers, as inet_pton(3) does: no leading zeros."""
    cdef u32 value = 0
    cdef u32 part = 0
    cdef u32 digits = 0
    cdef u32 dots = 0
    cdef Py_ssize_t i
    cdef char c
    if not 7 <= size <= 15:
        return False
    for i in range(size):
        c = text[i]
        if c'0' <= c <= c'9':
            if digits and part == 0:
                return False
            part = part * 10 + <u32>(c - c'0')
            digits += 1
            if part > 255:
                return False
        elif c == c'.' and digits and dots < 3:
            value = value << 8 | part
            part = digits = 0
            dots += 1
        else:
            return False
    if dots != 3 or digits == 0:
        return False
    addr[0] = value << 8 | part
    return True


cdef int parse_host(object host, u32 *addr) except -1:
    """Give the address that a host name or address stands for."""
    cdef Py_ssize_t size
    cdef const char *text
    cdef in_addr old_form
    if isinstance(host, (bytes, bytearray)):
        host = bytes(host).decode("ascii", "replace")
    elif not isinstance(host, str):
        raise TypeError(f"str, bytes or bytearray expected, not {type(host).__name__}")
    try:
        text = PyUnicode_AsUTF8AndSize(host, &size)
    except UnicodeEncodeError:
        raise TypeError("encoding of hostname failed") from None
    if parse_quad(text, size, addr):
        return 0
    if "\0" in host:
        raise TypeError("host name must not contain null character")
    if size == 0:
        addr[0] = 0
    elif host == "<broadcast>":
        addr[0] = <u32>0xFFFFFFFF
    elif host.lower() == "localhost":
        addr[0] = 0x7F000001
    elif set(host) <= set("0123456789abcdefABCDEFxX.") and inet_aton(text, &old_form):
        addr[0] = ntohl(old_form.s_addr)
    else:
        from socket import gaierror
        raise gaierror(EAI_NONAME, "Name or service not known")
    return 0


cdef int parse_sockaddr(object address, str caller, u32 *addr, u16 *port) except -1:
    """Take a (host, port) pair apart; ``caller`` is the method that complains."""
    cdef long number
    if not isinstance(address, tuple):
        raise TypeError(f"{caller}(): AF_INET address must be tuple, not {type(address).__name__}")
    if len(<tuple>address) != 2:
        raise TypeError("AF_INET address must be a pair (host, port)")
    parse_host((<tuple>address)[0], addr)
    try:
        number = PyNumber_Index((<tuple>address)[1])
    except OverflowError:
        number = -1
    if not 0 <= number <= 65535:
        raise OverflowError(f"{caller}(): port must be 0-65535.")
    port[0] = <u16>number
    return 0


cdef str format_ipv4(u32 addr):
    """Write an address as four decimal numbers."""
    cdef char text[16]
    cdef int at = 0
    cdef int shift
    cdef u32 part
    for shift in range(24, -8, -8):
        part = addr >> shift & 255
        if part >= 100:
            text[at] = <char>(c'0' + part // 100)
            at += 1
        if part >= 10:
            text[at] = <char>(c'0' + part // 10 % 10)
            at += 1
        text[at] = <char>(c'0' + part % 10)
        text[at + 1] = c'.'
        at += 2
    return PyUnicode_FromStringAndSize(text, at - 1)


cdef tuple make_sockaddr(u32 addr, u16 port):
    return format_ipv4(addr), port


# ---- peers whose tuples are kept

cdef object peer_miss(peer_cache *peers, u32 at, u64 key):
    """Make the tuple of a peer and keep it in the place of another."""
    cdef PyObject *old
    peer = make_sockaddr(<u32>(key >> 16), <u16>key)
    Py_INCREF(peer)
    old = peers.peer[at]           # only now: making a tuple may run a collection, and that anything
    peers.peer[at] = <PyObject *>peer
    peers.key[at] = key
    Py_XDECREF(old)
    return peer


cdef void peers_clear(peer_cache *peers) noexcept:
    cdef PyObject *old
    cdef int i
    for i in range(PEERS):
        old = peers.peer[i]
        peers.peer[i] = NULL
        Py_XDECREF(old)
