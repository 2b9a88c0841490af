"""The standard library's socket is the oracle: the same calls on a kernel socket and on ours.

Each case is a function of a `World`: how to make sockets at 127.0.0.1, and how to let what was
sent arrive. It returns anything comparable; an exception counts as its type, errno and text.
"""

import errno
import pickle
import select
import socket as kernel
import struct
import time
from copy import copy

import pytest

import netstack.socket as ours
from tests.sock.rig import Rig, rig

SOL_SOCKET, SOL_IP, SOL_UDP = kernel.SOL_SOCKET, kernel.SOL_IP, kernel.IPPROTO_UDP
HERE = "127.0.0.1"


class KernelWorld:
    """Sockets of the kernel."""

    module = kernel

    def __init__(self):
        self.made = []

    def socket(self, *args):
        sock = (
            kernel.socket(*args) if args else kernel.socket(kernel.AF_INET, kernel.SOCK_DGRAM)
        )
        self.made.append(sock)
        return sock

    def settle(self):
        """Loopback has delivered when sendto returns."""

    def close(self):
        for sock in self.made:
            sock.close()


class OurWorld(KernelWorld):
    """Sockets of a host."""

    module = ours

    def __init__(self, it: Rig):
        super().__init__()
        self.it = it

    def socket(self, *args):
        sock = ours.socket(self.it, *args)
        self.made.append(sock)
        return sock

    def settle(self):
        self.it.settle()


def result(case, world):
    """Run a case; an exception is a result too."""
    try:
        return case(world)
    except Exception as error:
        return outcome(error)


def outcome(error):
    text = error.strerror if isinstance(error, OSError) and error.errno else str(error)
    return type(error), getattr(error, "errno", None), text


def attempt(call, *args):
    try:
        return call(*args)
    except Exception as error:
        return outcome(error)


def pair(w):
    """Give a bound socket, and one connected to it."""
    server, client = w.socket(), w.socket()
    server.bind((HERE, 0))
    client.connect(server.getsockname())
    server.settimeout(5)
    client.settimeout(5)
    return server, client


def sent(w, payload=b"hello"):
    """Give a server with a datagram in its queue, and the sender."""
    server, client = pair(w)
    client.send(payload)
    w.settle()
    return server, client


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


# ---- addresses


@case
def bind_wrong_addresses(w):
    wrong = [
        "x",
        b"x",
        None,
        ["127.0.0.1", 0],
        (),
        (HERE,),
        (HERE, 0, 0),
        (1, 2),
        (None, 0),
        (HERE, "80"),
        (HERE, 1.5),
        (HERE, None),
        (HERE, -1),
        (HERE, 65536),
        (HERE, 1 << 70),
        ("127.0.0.1\0", 0),
        ("192.0.2.1", 0),
        ("no.such.name.invalid", 0),
        ("256.0.0.1", 0),
        ("1.2.3.4.5", 0),
    ]
    return [attempt(w.socket().bind, address) for address in wrong]


@case
def hosts_in_every_form(w):
    out = []
    for host in [
        "",
        HERE,
        "127.1",
        "0x7f000001",
        "2130706433",
        "localhost",
        b"127.0.0.1",
        bytearray(b"127.0.0.1"),
    ]:
        sock = w.socket()
        sock.bind((host, 0))
        out.append(sock.getsockname()[0])
    return out


@case
def names_before_and_after(w):
    sock = w.socket()
    out = [sock.getsockname(), attempt(sock.getpeername)]
    sock.connect((HERE, 9))
    out += [sock.getsockname()[0], sock.getpeername(), sock.getsockname()[1] > 0]
    return out


@case
def bind_twice(w):
    sock = w.socket()
    sock.bind((HERE, 0))
    return attempt(sock.bind, (HERE, 0))


@case
def connect_wrong(w):
    sock = w.socket()
    wrong = ["x", (HERE,), (HERE, 70000), ("no.such.name.invalid", 1)]
    return [attempt(sock.connect, address) for address in wrong] + [sock.connect_ex((HERE, 9))]


@case
def connect_to_any_is_connect_to_loopback(w):
    sock = w.socket()
    sock.connect(("", 9))
    return sock.getpeername(), sock.getsockname()[0]


@case
def connect_to_port_0(w):
    sock = w.socket()
    sock.connect((HERE, 0))
    return attempt(sock.getpeername), sock.getsockname()[0]


@case
def connect_again(w):
    _server, client = pair(w)
    other = w.socket()
    other.bind((HERE, 0))
    client.connect(other.getsockname())
    client.send(b"x")
    w.settle()
    return other.recv(10), client.getpeername() == other.getsockname()


# ---- sending


@case
def send_without_a_peer(w):
    return attempt(w.socket().send, b"x")


@case
def sendto_wrong(w):
    sock = w.socket()
    return [
        attempt(sock.sendto, b"x", (HERE, 0)),
        attempt(sock.sendto, "x", (HERE, 9)),
        attempt(sock.sendto, b"x"),
        attempt(sock.sendto, 5, (HERE, 9)),
        attempt(sock.sendto, b"x", "y"),
        attempt(sock.sendto, b"x", "y", (HERE, 9)),
        attempt(sock.sendto, bytes(65508), (HERE, 9)),
        attempt(sock.sendto, bytes(65536), (HERE, 9)),
        attempt(sock.send, b"x", kernel.MSG_OOB),
    ]


@case
def sendto_on_a_connected_socket(w):
    server, client = pair(w)
    other = w.socket()
    other.bind((HERE, 0))
    out = [client.sendto(b"other", other.getsockname()), client.send(b"peer")]
    w.settle()
    return [*out, other.recv(10), server.recv(10)]


@case
def sizes(w):
    server, client = pair(w)
    server.setsockopt(SOL_SOCKET, kernel.SO_RCVBUF, 1 << 18)
    out = []
    for size in (0, 1, 100, 1472, 1473, 9000, 65507):
        payload = bytes(i & 255 for i in range(size))
        out.append(client.send(payload))
        w.settle()
        out.append(server.recv(70000) == payload)
    return out


@case
def send_any_buffer(w):
    server, client = pair(w)
    import array

    out = []
    for data in (b"ab", bytearray(b"cd"), memoryview(b"efgh")[1:3], array.array("H", [1, 2])):
        out.append(client.send(data))
        w.settle()
        out.append(server.recv(100))
    return [*out, attempt(client.sendall, b"x")]


@case
def sendmsg_joins_buffers(w):
    server, client = pair(w)
    out = [client.sendmsg([b"one", bytearray(b"two"), b"", memoryview(b"three")])]
    out.append(client.sendmsg([]))
    out.append(w.socket().sendmsg([b"to"], [], 0, server.getsockname()))
    w.settle()
    return [
        *out,
        server.recv(100),
        server.recv(100),
        server.recv(100),
        attempt(client.sendmsg, [b"a", "b"]),
    ]


@case
def sendmsg_control_messages(w):
    server, client = pair(w)
    server.setsockopt(SOL_IP, kernel.IP_RECVTTL if hasattr(kernel, "IP_RECVTTL") else 12, 1)
    server.setsockopt(SOL_IP, kernel.IP_RECVTOS, 1)
    number = struct.Struct("i").pack
    out = []
    for level, kind, data in [
        (SOL_IP, kernel.IP_TTL, number(7)),
        (SOL_IP, kernel.IP_TOS, number(0x10)),
        (SOL_IP, kernel.IP_TOS, b"\x20"),
        (SOL_IP, kernel.IP_TTL, number(0)),
        (SOL_IP, kernel.IP_TTL, number(256)),
        (SOL_IP, kernel.IP_TTL, b"\1"),
        (SOL_IP, 99, number(1)),
        (SOL_SOCKET, 99, number(1)),
    ]:
        out.append(attempt(client.sendmsg, [b"x"], [(level, kind, data)]))
        w.settle()
        if out[-1] == 1:
            out.append(server.recvmsg(10, 100))
            out[-1] = out[-1][:3]
    return out


# ---- receiving


@case
def receive_in_every_way(w):
    server, client = sent(w)
    out = []
    peer = client.getsockname()
    for _ in range(8):
        client.send(b"hello")
    w.settle()
    buffer = bytearray(10)
    out.append(server.recv(100))
    out.append(server.recvfrom(100) == (b"hello", peer))
    out.append((server.recv_into(buffer), bytes(buffer)))
    out.append((server.recv_into(buffer, 3), bytes(buffer)))
    size, address = server.recvfrom_into(memoryview(buffer)[5:])
    out.append((size, address == peer, bytes(buffer)))
    data, anc, flags, address = server.recvmsg(100)
    out.append((data, anc, flags, address == peer))
    parts = [bytearray(2), bytearray(1), bytearray(9)]
    size, anc, flags, address = server.recvmsg_into(parts)
    out.append((size, anc, flags, address == peer, [bytes(p) for p in parts]))
    return out


@case
def receive_less_than_there_is(w):
    server, client = sent(w)
    client.send(b"world")
    client.send(b"again")
    client.send(b"fourth")
    w.settle()
    buffer = bytearray(3)
    return [
        server.recv(2),
        server.recvmsg(2)[::2],
        server.recv_into(buffer, 3, kernel.MSG_TRUNC),
        bytes(buffer),
        server.recvmsg_into([bytearray(1), bytearray(1)], 0, kernel.MSG_TRUNC)[::2],
    ]


@case
def receive_nothing_into_nothing(w):
    server, client = sent(w, b"")
    client.send(b"abc")
    client.send(b"abc")
    w.settle()
    return server.recv(0), server.recv(0), server.recv_into(bytearray())


@case
def receive_peek(w):
    server, _client = sent(w)
    peek = kernel.MSG_PEEK
    buffer = bytearray(2)
    return [
        server.recv(100, peek),
        server.recvfrom(2, peek)[0],
        server.recv_into(buffer, 0, peek),
        server.recvmsg(3, 0, peek)[::2],
        server.recvmsg(3, 0, peek | kernel.MSG_TRUNC)[2],
        server.recv(100, kernel.MSG_WAITALL),
        attempt(server.recv, 1, kernel.MSG_DONTWAIT) if server.settimeout(0) is None else None,
    ]


@case
def receive_wrong(w):
    server, _client = sent(w)
    server.setblocking(False)
    return [
        attempt(server.recv, -1),
        attempt(server.recvfrom, -1),
        attempt(server.recvmsg, -1),
        attempt(server.recvmsg, 10, -1),
        attempt(server.recv, "1"),
        attempt(server.recv, None),
        attempt(server.recv_into, b"const"),
        attempt(server.recv_into, bytearray(3), 4),
        attempt(server.recv_into, bytearray(3), -1),
        attempt(server.recvfrom_into, bytearray(3), -1),
        attempt(server.recvfrom_into, "text"),
        server.recv(10),
        attempt(server.recv, 10),
        attempt(server.recvfrom, 10),
        attempt(server.recvmsg, 10),
        attempt(server.recv_into, bytearray(3)),
        attempt(server.recv, 10, kernel.MSG_ERRQUEUE),
    ]


@case
def ancillary_data(w):
    server, client = pair(w)
    for option in (8, kernel.IP_RECVTOS, 12):
        server.setsockopt(SOL_IP, option, 1)
    out = []
    for room in (200, 100, 60, 48, 40, 30, 20, 16, 15, 0):
        client.send(b"x")
        w.settle()
        data, anc, flags, _ = server.recvmsg(10, room)
        out.append((data, anc, flags))
    return out


@case
def original_destination(w):
    server, client = pair(w)
    server.setsockopt(SOL_IP, 20, 1)
    client.send(b"x")
    w.settle()
    ((level, kind, data),) = server.recvmsg(10, 100)[1]
    (family,), (port,) = struct.unpack("=H", data[:2]), struct.unpack("!H", data[2:4])
    return level, kind, len(data), family, port == server.getsockname()[1], data[4:8]


# ---- waiting


@case
def timeouts(w):
    sock = w.socket()
    sock.bind((HERE, 0))
    out = [sock.gettimeout(), sock.getblocking(), sock.timeout]
    for value in (0, 0.0, 1, 2.5, None, 0.01):
        sock.settimeout(value)
        out += [sock.gettimeout(), sock.getblocking()]
    out += [attempt(sock.recv, 10), attempt(sock.recvfrom, 10, kernel.MSG_DONTWAIT)]
    sock.setblocking(False)
    out += [sock.gettimeout(), attempt(sock.recv, 10)]
    sock.setblocking(True)
    out += [sock.gettimeout(), attempt(sock.recv, 10, kernel.MSG_DONTWAIT)]
    for wrong in (-1, -0.1, "x", float("nan"), 1 << 70, b""):
        out.append(attempt(sock.settimeout, wrong)[0])
    return out


@case
def receive_timeout_option(w):
    sock = w.socket()
    sock.bind((HERE, 0))
    packed = struct.pack("ll", 0, 20000)
    sock.setsockopt(SOL_SOCKET, kernel.SO_RCVTIMEO, packed)
    begin = time.monotonic()
    out = [attempt(sock.recv, 10), time.monotonic() - begin >= 0.019]
    return [*out, sock.getsockopt(SOL_SOCKET, kernel.SO_RCVTIMEO, 16) >= packed]


@case
def nonblocking_type(w):
    sock = w.socket(kernel.AF_INET, kernel.SOCK_DGRAM | kernel.SOCK_NONBLOCK)
    return sock.gettimeout(), sock.type, attempt(sock.recv, 1)


@case
def readiness(w):
    server, client = pair(w)
    out = []

    def ready():
        return bool(select.select([server], [], [], 0)[0])

    out.append(ready())
    client.send(b"1")
    client.send(b"2")
    w.settle()
    out.append(ready())
    server.recv(10)
    out.append(ready())
    server.recv(10, kernel.MSG_PEEK)
    out.append(ready())
    server.recv(10)
    out.append(ready())
    out.append(bool(select.select([], [server], [], 0)[1]))
    return out


@case
def refused(w):
    closed = w.socket()
    closed.bind((HERE, 0))
    address = closed.getsockname()
    closed.close()
    sock = w.socket()
    sock.settimeout(0)
    sock.connect(address)
    out = []
    sock.send(b"x")
    w.settle()
    out.append(bool(select.select([sock], [], [], 0)[0]))
    out.append(sock.getsockopt(SOL_SOCKET, kernel.SO_ERROR))
    out.append(bool(select.select([sock], [], [], 0)[0]))
    out.append(sock.getsockopt(SOL_SOCKET, kernel.SO_ERROR))
    sock.send(b"x")
    w.settle()
    out += [attempt(sock.recv, 10), attempt(sock.recv, 10)]
    sock.send(b"x")
    w.settle()
    out += [attempt(sock.send, b"y"), sock.send(b"z")]
    return out


@case
def shut_down(w):
    server, client = sent(w)
    out = [
        attempt(server.shutdown, 0),
        attempt(server.shutdown, 3),
        attempt(server.shutdown, -1),
    ]
    out += [server.recv(10)]
    server.connect(client.getsockname())
    out += [
        attempt(server.shutdown, kernel.SHUT_RD),
        bool(select.select([server], [], [], 0)[0]),
    ]
    server.settimeout(0)
    out += [attempt(server.recv, 10)]
    server.settimeout(0.01)
    out += [attempt(server.recv, 10)]
    server.settimeout(None)
    out += [
        server.recv(10),
        server.recvfrom(10),
        server.recvmsg(10),
        server.recv_into(bytearray(3)),
    ]
    out += [server.recvfrom_into(bytearray(3)), server.recvmsg_into([bytearray(3)])]
    client.send(b"late")
    w.settle()
    out += [server.recv(10), server.send(b"still")]
    out += [attempt(server.shutdown, kernel.SHUT_WR), attempt(server.send, b"x")]
    return out


# ---- options


@case
def option_defaults(w):
    sock = w.socket()
    out = {}
    for level, names in {
        SOL_SOCKET: [2, 3, 4, 6, 7, 8, 11, 15, 30, 38, 39, 40],
        SOL_IP: [1, 2, 8, 10, 12, 13, 15, 20, 33],
        SOL_UDP: [103, 104],
    }.items():
        for name in names:
            out[level, name] = attempt(sock.getsockopt, level, name)
            out[level, name, "bytes"] = attempt(sock.getsockopt, level, name, 64)
            out[level, name, "short"] = attempt(sock.getsockopt, level, name, 2)
    return out


@case
def option_values(w):
    sock = w.socket()
    out = []
    for level, name, values in [
        (SOL_SOCKET, kernel.SO_REUSEADDR, [1, 0, 5, -1]),
        (SOL_SOCKET, kernel.SO_REUSEPORT, [1, 0]),
        (SOL_SOCKET, kernel.SO_BROADCAST, [1, 0, True]),
        (SOL_SOCKET, 40, [1, 0]),
        (SOL_SOCKET, kernel.SO_SNDBUF, [0, 1, 2304, 2305, 10000, 212992, -1]),
        (SOL_SOCKET, kernel.SO_RCVBUF, [0, 1, 1152, 1153, 10000, 212992]),
        (SOL_SOCKET, 33, [0, 1 << 24, -1]),
        (SOL_SOCKET, kernel.SO_TYPE, [1]),
        (SOL_SOCKET, kernel.SO_ERROR, [1]),
        (SOL_IP, kernel.IP_TTL, [1, 255, 0, 256, -1, -2]),
        (SOL_IP, kernel.IP_TOS, [0, 0x10, 0xB8]),
        (SOL_IP, 8, [1, 0]),
        (SOL_IP, 12, [1, 0]),
        (SOL_IP, kernel.IP_RECVTOS, [1, 0]),
        (SOL_IP, 10, [0, 1, 2, 3, 4, 5, 6, -1]),
        (SOL_IP, kernel.IP_MULTICAST_TTL, [0, 255, 256, -1, -2]),
        (SOL_UDP, 103, [0, 1000, 65535, -1, 65536]),
    ]:
        for value in values:
            out.append((level, name, value, attempt(sock.setsockopt, level, name, value)))
            out.append(attempt(sock.getsockopt, level, name))
    return out


@case
def option_wrong(w):
    sock = w.socket()
    return [
        attempt(sock.getsockopt, SOL_SOCKET, 999),
        attempt(sock.getsockopt, SOL_IP, 999),
        attempt(sock.getsockopt, SOL_UDP, 999),
        attempt(sock.setsockopt, SOL_SOCKET, 999, 1),
        attempt(sock.setsockopt, SOL_IP, 999, 1),
        attempt(sock.setsockopt, SOL_UDP, 999, 1),
        attempt(sock.setsockopt, SOL_SOCKET, 8, b"x"),
        attempt(sock.setsockopt, SOL_SOCKET, 8, b""),
        attempt(sock.setsockopt, SOL_SOCKET, 8, None),
        attempt(sock.setsockopt, SOL_SOCKET, 8, "x"),
        attempt(sock.setsockopt, SOL_SOCKET, 8, 1.5)[0],
        attempt(sock.setsockopt, SOL_IP, kernel.IP_TOS, b"\x10"),
        sock.getsockopt(SOL_IP, kernel.IP_TOS),
        attempt(sock.setsockopt, SOL_SOCKET, kernel.SO_RCVTIMEO, 1),
        attempt(sock.setsockopt, SOL_SOCKET, kernel.SO_RCVTIMEO, struct.pack("ll", 0, 1000000)),
        attempt(sock.getsockopt, SOL_SOCKET, 8, -1),
        attempt(sock.getsockopt, SOL_SOCKET, 8, 1025),
    ]


@case
def meminfo(w):
    sock = w.socket()
    values = struct.unpack("9I", sock.getsockopt(SOL_SOCKET, 55, 36))
    return values, len(sock.getsockopt(SOL_SOCKET, 55, 20))


@case
def control_messages_wrong(w):
    server, client = pair(w)
    number = struct.pack("i", 1)
    wrong = [
        5,
        None,
        [5],
        [object()],
        [()],
        [(1, 2)],
        [(0, 2, number, b"")],
        [(1, 2, 3)],
        [(1, 1, "x")],
        [("x", 2, number)],
        [(0, "x", number)],
    ]
    return [attempt(client.sendmsg, [b"x"], given)[0] for given in wrong] + [
        attempt(client.sendmsg, 5),
        attempt(client.sendmsg, [b"x"], 5),
        attempt(server.recvmsg_into, 5),
        attempt(server.recvmsg_into, [b"x"]),
    ]


@case
def control_messages_of_other_levels(w):
    _, client = pair(w)
    number = struct.pack("i", 1)
    given = [
        [(77, 99, number)],
        [(41, 50, bytes(20))],
        [(SOL_SOCKET, 1, number)],
        [(SOL_SOCKET, 2, bytes(12))],
        [(SOL_SOCKET, 37, struct.pack("i", 1))],
        [(SOL_SOCKET, 37, struct.pack("i", 0x303))],
        [(SOL_SOCKET, 37, struct.pack("i", 0x18))],
        [(SOL_SOCKET, 37, b"x")],
        [(SOL_SOCKET, 99, number)],
        [(SOL_UDP, 103, number)],
        [(SOL_UDP, 104, number)],
        [[SOL_IP, kernel.IP_TTL, number]],
        [(77, 0, bytes(100000))],
        [(77, 0, bytes(200000))],
        [(77, 0, bytes(20000))] * 7,
    ]
    return [attempt(client.sendmsg, [b"x"], control) for control in given]


@case
def as_many_buffers_as_linux_takes(w):
    server, client = pair(w)
    out = [attempt(client.sendmsg, [b"ab"] * n) for n in (0, 16, 17, 1024, 1025, 1)]
    w.settle()
    for n in (0, 16, 17, 1024, 1025):
        into = [bytearray(1) for _ in range(n)]
        got = attempt(server.recvmsg_into, into)
        out += [got[:3], b"".join(into)]
    return out


@case
def receiving_nothing_takes_nothing(w):
    server, _ = sent(w)
    out = [server.recv(0), server.recv_into(bytearray()), server.recvfrom(9)[0]]
    server.setblocking(False)
    out += [server.recv(0), server.recv_into(bytearray())]
    server.close()
    return [*out, server.recv(0), server.recv_into(bytearray())]


@case
def an_address_of_none(w):
    _, client = pair(w)
    return [
        attempt(client.sendto, b"x", None),
        attempt(client.sendto, b"x", 0, None),
        client.sendmsg([b"x"], [], 0, None),
        attempt(client.sendto, b"x", ("\ud800", 7)),
        attempt(client.connect_ex, 5),
        attempt(client.connect_ex, (HERE, 70000)),
        client.close(),
        attempt(client.connect_ex, 5),
    ]


@case
def waiting_for_errors_beside_datagrams(w):
    server, _ = sent(w)
    server.settimeout(0.05)
    return attempt(server.recvmsg, 9, 99, kernel.MSG_ERRQUEUE), server.recv(9)


# ---- the object


@case
def kinds_that_do_not_exist(w):
    dgram = kernel.SOCK_DGRAM
    types = [dgram | 0x10, dgram | 0x40, dgram | 0x100000, 99, 11, -1 & ~dgram]
    flagged = w.socket(kernel.AF_INET, dgram | kernel.SOCK_CLOEXEC | kernel.SOCK_NONBLOCK)
    return [
        [attempt(w.socket, kernel.AF_INET, wrong, 17) for wrong in types],
        (flagged.type, flagged.getblocking()),
        w.socket(kernel.AF_INET, dgram, -1).proto,
    ]


@case
def timeouts_are_rounded_up(w):
    sock = w.socket()
    out = []
    for value in (1 / 3, 1.9e-9, 1e-12, 2.5, 123456.789012345678, 3, True):
        sock.settimeout(value)
        out.append(sock.gettimeout())
    return out + [
        attempt(sock.settimeout, value)[0]
        for value in (-1, -1e-12, float("nan"), float("inf"), -float("inf"), 2**64, -(2**64))
    ]


@case
def inheritable(w):
    sock = w.socket()
    out = [sock.get_inheritable(), sock.set_inheritable(True), sock.get_inheritable()]
    sock.close()
    return [*out, attempt(sock.get_inheritable), attempt(sock.set_inheritable, True)]


@case
def what_no_datagram_socket_does(w):
    sock = w.socket()
    return attempt(sock.sendfile, None)[::2], attempt(pickle.dumps, sock), attempt(copy, sock)


@case
def kinds(w):
    sock = w.socket()
    return [
        (sock.family, sock.type, sock.proto),
        w.socket(kernel.AF_INET, kernel.SOCK_DGRAM, kernel.IPPROTO_UDP).proto,
        attempt(w.socket, kernel.AF_INET, kernel.SOCK_DGRAM, kernel.IPPROTO_TCP),
        attempt(w.socket, 99, kernel.SOCK_DGRAM)[:2],
        attempt(w.socket, kernel.AF_INET, 9)[0],
    ]


@case
def closed(w):
    with w.socket() as sock:
        sock.bind((HERE, 0))
    sock.close()
    calls = [
        (sock.recv, 1),
        (sock.recvfrom, 1),
        (sock.recvmsg, 1),
        (sock.recv_into, bytearray(1)),
        (sock.send, b""),
        (sock.sendto, b"", (HERE, 9)),
        (sock.sendmsg, [b""]),
        (sock.bind, (HERE, 0)),
        (sock.connect, (HERE, 9)),
        (sock.connect_ex, (HERE, 9)),
        (sock.getsockname,),
        (sock.getpeername,),
        (sock.getsockopt, SOL_SOCKET, 8),
        (sock.setsockopt, SOL_SOCKET, 8, 1),
        (sock.shutdown, 0),
        (sock.listen,),
        (sock.accept,),
    ]
    return [attempt(*call) for call in calls] + [
        sock.fileno(),
        sock.family,
        sock.type,
        sock.gettimeout(),
    ]


@case
def not_for_datagrams(w):
    sock = w.socket()
    return attempt(sock.listen), attempt(sock.listen, 5), attempt(sock.accept)


@pytest.mark.parametrize("name", CASES)
def test_does_what_the_standard_library_does(name):
    theirs = KernelWorld()
    expected = result(CASES[name], theirs)
    theirs.close()
    with rig() as it:
        world = OurWorld(it)
        got = result(CASES[name], world)
        world.close()
    assert got == expected


# ---- what only ours have


def test_the_module_has_the_standard_library_s_constants():
    assert (ours.MsgFlag, ours.AddressInfo) == (kernel.MsgFlag, kernel.AddressInfo)
    names = [name for name in dir(kernel) if name.isupper() and name != "EBADF"]
    assert len(names) > 200
    assert {name: getattr(ours, name) for name in names if name in kernel.__all__} == {
        name: getattr(kernel, name) for name in names if name in kernel.__all__
    }


def test_repr_tells_what_the_standard_library_s_tells():
    with rig() as it:
        sock = it.socket(HERE, 9000)
        assert repr(sock) == (
            "<netstack.socket.socket family=2, type=2, proto=0, laddr=('127.0.0.1', 9000)>"
        )
        sock.connect((HERE, 9001))
        assert repr(sock).endswith("laddr=('127.0.0.1', 9000), raddr=('127.0.0.1', 9001)>")
        sock.close()
        assert repr(sock) == "<netstack.socket.socket [closed] family=2, type=2, proto=0>"


def test_a_forgotten_socket_warns_and_closes():
    with rig() as it:
        sock = ours.socket(it)
        sock.bind((HERE, 9000))
        with pytest.warns(ResourceWarning, match=r"unclosed <netstack\.socket\.socket"):
            del sock
        it.socket(HERE, 9000)


@pytest.mark.parametrize(
    ("name", "reason"), [("detach", "can't be detached"), ("dup", "can't be duplicated")]
)
def test_what_needs_the_socket_in_the_fd_is_refused_with_a_reason(name, reason):
    with rig() as it, pytest.raises(OSError, match=reason) as caught:
        getattr(it.socket(), name)()
    assert caught.value.errno == errno.EOPNOTSUPP


def test_a_socket_of_a_closed_host_is_closed():
    with rig() as it:
        sock = it.socket(HERE, 9000)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.recv(1)
    assert (sock.fileno(), sock.type) == (-1, kernel.SOCK_DGRAM)
    with pytest.raises(OSError, match="closed"):
        ours.socket(it)


def test_the_address_of_the_same_peer_is_the_same_object():
    with rig() as it:
        server, client = it.socket(HERE, 9000), it.socket(HERE, 9001)
        client.sendto(b"1", (HERE, 9000))
        client.sendto(b"2", (HERE, 9000))
        it.settle()
        assert server.recvfrom(10)[1] is server.recvfrom(10)[1]
