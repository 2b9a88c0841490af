"""Options: the same calls to sockets of the kernel and to ours, with right and wrong names, lengths and values."""

from __future__ import annotations

import socket as kernel
import struct
from typing import Any

import pytest

import netstack.socket as ours
from tests.datagram import checksum
from tests.frames import PEER_IP
from tests.sock.rig import udp_frame
from tests.sock.worlds import (
    Cases,
    World,
    attempt,
    drain,
    kernel_world,
    our_host,
    our_world,
    same,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("netns")
SOL_IP, SOL_SOCKET, SOL_UDP = 0, 1, 17
KINDS = {
    "udp": (kernel.SOCK_DGRAM, 0),
    "raw": (kernel.SOCK_RAW, 200),
    "raw_icmp": (kernel.SOCK_RAW, 1),
    "ping": (kernel.SOCK_DGRAM, 1),
}
NUMBERS = (-1, 0, 1, 2, 3, 5, 6, 7, 255, 256, 65536, 2**31 - 1, -(2**31))
VALUES = (b"", b"\1", b"\1\0", b"\1\0\0", b"\1" + bytes(7), b"\2" + bytes(63))
MULTICAST = {32, *range(34, 50)}  # see test_multicast, where groups are joined

# What Linux has and we refuse with ENOPROTOOPT: docs/kernel-map.md says so.
REFUSED = {
    *((SOL_IP, name) for name in (4, 5, 7, 16, 17, 23, 25, 26, 64, 65, 66, 67)),
    *((SOL_SOCKET, name) for name in (45, 47, 48, 50, 51, 52, 60, 61, 68, 69, 70, 71, 80)),
}
# Other tests have these: they take pointers, or what they give differs from socket to socket.
ELSEWHERE = {(SOL_SOCKET, name) for name in (13, 20, 21, 26, 27, 57, 66, 67)} | {
    (SOL_UDP, 100),
    (SOL_UDP, 105),
}
NAMES = [
    key
    for key in (
        *((SOL_SOCKET, name) for name in range(90)),
        *((SOL_IP, name) for name in range(70) if name not in MULTICAST),
        *((SOL_UDP, name) for name in (0, 1, 100, 101, 102, 103, 104, 105)),
        *((255, 1), (255, 2), (6, 1), (41, 1), (1000, 1)),
    )
    if key not in ELSEWHERE
]


def sweep(world: World, kind: str) -> dict[Any, Any]:
    """Set and get everything; a socket for each call that may change something."""
    world.sysctl("net.ipv4.ping_group_range", 0, 0)
    out = {}
    for level, name in NAMES:
        sock = world.socket(*KINDS[kind])
        row = [attempt(sock.getsockopt, level, name, size) for size in (0, 1, 2, 4, 8, 64)]
        row.append(attempt(sock.setsockopt, level, name, None, 4))
        for value in (*NUMBERS, *VALUES):
            with world.make(kernel.AF_INET, *KINDS[kind]) as one:
                row.append((value, attempt(one.setsockopt, level, name, value),
                            attempt(one.getsockopt, level, name)))  # fmt: skip
        out[level, name] = row
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_takes_and_gives_what_the_kernel_s_does(kind: str) -> None:
    with kernel_world() as world:
        theirs = sweep(world, kind)
    with our_world(True) as world:
        mine = sweep(world, kind)
    for key in NAMES:
        if key not in REFUSED:
            assert mine[key] == theirs[key], key
        else:
            assert all(got == ("OSError", 92) for got in mine[key][:6]), key


def test_what_is_refused_exists_in_the_kernel() -> None:
    """The list of differences holds nothing that is the same."""
    with kernel_world() as world:
        theirs = {kind: sweep(world, kind) for kind in ("udp", "raw")}
    for key in REFUSED - {
        (SOL_SOCKET, 50),
        (SOL_SOCKET, 51),
        (SOL_SOCKET, 52),
        (SOL_SOCKET, 80),
    }:
        rows = [repr(theirs[kind][key]) for kind in theirs]
        assert any("None" in row or "22" in row or "64" in row for row in rows), key


cases = Cases()


@cases
def the_priority_of_each_tos(w: World) -> Any:
    sock = w.socket()
    out = []
    for tos in range(256):
        sock.setsockopt(SOL_IP, kernel.IP_TOS, tos)
        out.append(sock.getsockopt(SOL_SOCKET, kernel.SO_PRIORITY))
    return out


@cases
def timeouts_in_both_forms(w: World) -> Any:
    sock = w.socket()
    out = []
    for name in (kernel.SO_RCVTIMEO, kernel.SO_SNDTIMEO, 66, 67):
        for pair in ((1, 500_000), (0, 0), (0, 1_000_000), (-1, 0)):
            out.append(attempt(sock.setsockopt, SOL_SOCKET, name, struct.pack("qq", *pair)))
        out.append(attempt(sock.setsockopt, SOL_SOCKET, name, struct.pack("qq", 7, 0)))
        out += [attempt(sock.getsockopt, SOL_SOCKET, other, 16) for other in (20, 21, 66, 67)]
        out += [attempt(sock.getsockopt, SOL_SOCKET, name, size) for size in (0, 3, 8, 40)]
    return out


@cases
def the_peer_s_name(w: World) -> Any:
    sock = w.udp("10.0.0.2", 9000)
    sock.connect(("10.0.0.1", 4000))
    return [attempt(sock.getsockopt, SOL_SOCKET, 28, size) for size in (1, 4, 16, 17, 0)]


@cases
def a_device_s_name(w: World) -> Any:
    sock = w.socket()
    out = [attempt(sock.setsockopt, SOL_SOCKET, 25, w.dev.encode())]
    out += [attempt(sock.getsockopt, SOL_SOCKET, 25, size) for size in (0, 4, 15)]
    name = sock.getsockopt(SOL_SOCKET, 25, 16)
    out.append(name == w.dev.encode() + b"\0")
    out.append(attempt(sock.setsockopt, SOL_SOCKET, 25, b"nothing"))
    out.append(attempt(sock.setsockopt, SOL_SOCKET, 25, None, 0))
    out.append(attempt(sock.getsockopt, SOL_SOCKET, 25, 16))
    return out


@cases
def memory_that_a_socket_says_it_uses(w: World) -> Any:
    sock = w.udp("", 9000)
    w.give(udp_frame(b"x"), udp_frame(b"y" * 700))
    info = struct.unpack("9I", sock.getsockopt(SOL_SOCKET, 55, 36))
    return info[0] > 0, info[1], info[2], info[3], info[5], info[8]


@cases
def a_locked_filter(w: World) -> Any:
    sock = w.socket()
    lock, detach = 44, 27
    out = [attempt(sock.setsockopt, SOL_SOCKET, detach, 0)]
    for value in (0, 1, 1, 0):
        out.append(attempt(sock.setsockopt, SOL_SOCKET, lock, value))
        out.append(attempt(sock.getsockopt, SOL_SOCKET, lock))
    out.append(attempt(sock.setsockopt, SOL_SOCKET, detach, 0))
    out.append(attempt(sock.setsockopt, SOL_SOCKET, 26, bytes(16)))
    return out


@cases
def no_encapsulation(w: World) -> Any:
    sock = w.socket()
    return [(attempt(sock.setsockopt, SOL_UDP, 100, value), sock.getsockopt(SOL_UDP, 100))
            for value in (0, 1, 4, -1)]  # fmt: skip


@cases
def looking_further_with_peek_off(w: World) -> Any:
    sock = w.udp("", 9000)
    peek = kernel.MSG_PEEK
    w.give(udp_frame(b"0123456789"), udp_frame(b""), udp_frame(b"abcdef"))
    out: list[Any] = []
    sock.setsockopt(SOL_SOCKET, 42, 4)
    for size in (3, 100, 100, 100, 2, 100, 100):
        out.append(attempt(sock.recv, size, peek))
        out.append(sock.getsockopt(SOL_SOCKET, 42))
    sock.setsockopt(SOL_SOCKET, 42, 12)
    out.append(attempt(sock.recvmsg, 100, 0, peek)[:3:2])
    out.append((sock.recv(100), sock.getsockopt(SOL_SOCKET, 42)))
    out.append(attempt(sock.recv, 100, peek))
    sock.setsockopt(SOL_SOCKET, 42, 1)
    buffer = bytearray(2)
    out += [attempt(sock.recv_into, buffer, 0, peek), bytes(buffer)]
    w.give(udp_frame(b"later"))
    sock.setsockopt(SOL_SOCKET, 42, -1)
    out += [sock.recv(100, peek), sock.recv(100), sock.recv(100), sock.recv(100)]
    return out


@cases
def lingering(w: World) -> Any:
    out = []
    for kind, proto in KINDS.values():
        if (kind, proto) == KINDS["ping"]:
            continue
        for value in (b"", b"1234", (1, 5), (0, 7), (5, 0), (1, 1 << 30), 1):
            sock = w.socket(kind, proto)
            for each in (struct.pack("ii", 1, 3), value):
                data = struct.pack("ii", *each) if isinstance(each, tuple) else each
                out.append(attempt(sock.setsockopt, SOL_SOCKET, kernel.SO_LINGER, data))
            out += [
                attempt(sock.getsockopt, SOL_SOCKET, kernel.SO_LINGER, n) for n in (0, 4, 8, 12)
            ]
    return out


@cases
def reading_less_than_was_looked_at(w: World) -> Any:
    out = []
    sock, sender = w.udp("", 9000), w.socket()
    for steps in ((("p", 2), ("r", 3)), (("p", 9), ("p", 9), ("r", 1)), (("p", 9), ("t", 1))):
        sock.setsockopt(SOL_SOCKET, ours.SO_PEEK_OFF, 0)
        for data in (b"abcdef", b"ghijkl"):
            sender.sendto(data, ("127.0.0.1", 9000))
        w.settle()
        for kind, size in steps:
            flags = {"r": 0, "p": kernel.MSG_PEEK, "t": kernel.MSG_TRUNC}[kind]
            data = attempt(sock.recvmsg, size, 0, flags)[0]
            out.append((data, sock.getsockopt(SOL_SOCKET, ours.SO_PEEK_OFF)))
        sock.setsockopt(SOL_SOCKET, ours.SO_PEEK_OFF, -1)
        out.append(len(drain(sock)))
    return out


@cases
def one_datagram_of_many_sends(w: World) -> Any:
    sock = w.udp("10.0.0.2", 9000)
    more = kernel.MSG_MORE
    to = (PEER_IP, 4000)
    out: list[Any] = [attempt(sock.send, b"nowhere", more)]
    out.append(sock.sendto(b"one", more, to))
    out.append(sock.sendto(b"two", more, ("10.9.9.9", 1)))
    before = [frame[42:] for frame in w.sent()]
    out.append(sock.sendto(b"three", to))
    out.append((before, [frame[36:38] + frame[42:] for frame in w.sent()]))
    sock.setsockopt(SOL_UDP, 1, 1)
    sock.sendto(b"four", to)
    sock.sendto(b"five", to)
    out.append([frame[42:] for frame in w.sent()])
    sock.setsockopt(SOL_UDP, 1, 0)
    out.append([frame[42:] for frame in w.sent()])
    out.append(attempt(sock.sendto, bytes(40000), more, to))
    out.append(attempt(sock.sendto, bytes(25508), more, to))
    out.append(attempt(sock.sendto, b"again", to))
    out.append([frame[42:] for frame in w.sent()])
    return out


@cases
def one_raw_packet_of_many_sends(w: World) -> Any:
    sock = w.socket(kernel.SOCK_RAW, 200)
    sock.sendto(b"one", kernel.MSG_MORE, (PEER_IP, 0))
    sock.sendto(b"two", (PEER_IP, 0))
    return [frame[34:] for frame in w.sent()]


@cases
def ports_of_a_socket_s_own_range(w: World) -> Any:
    out: list[Any] = []
    for first, last in ((40000, 40001), (0, 32769), (60998, 0), (1, 2)):
        got = set()
        made = []
        for _ in range(2):
            sock = w.socket()
            sock.setsockopt(SOL_IP, 51, struct.pack("HH", first, last))
            sock.bind(("", 0))
            got.add(sock.getsockname()[1])
            made.append(sock)
        sock = w.socket()
        sock.setsockopt(SOL_IP, 51, struct.pack("HH", first, last))
        full = attempt(sock.bind, ("", 0))
        out.append((sorted(got), full) if (first, last) != (1, 2) else len(got))
        for sock in made:
            sock.close()
    return out


@cases
def an_address_without_a_port(w: World) -> Any:
    sock = w.socket()
    sock.setsockopt(SOL_IP, 24, 1)
    sock.bind(("10.0.0.2", 0))
    out = [sock.getsockname()]
    sock.sendto(b"x", (PEER_IP, 4000))
    out.append(sock.getsockname()[1] != 0)
    other = w.socket()
    other.setsockopt(SOL_IP, 24, 1)
    out.append(attempt(other.bind, ("10.0.0.2", 9000)))
    out.append(other.getsockname())
    return out


@cases
def addresses_that_are_not_ours(w: World) -> Any:
    out: list[Any] = []
    for name in (None, kernel.IP_TRANSPARENT, 15):
        sock = w.socket()
        if name is not None:
            sock.setsockopt(SOL_IP, name, 1)
        out.append(attempt(sock.bind, ("10.7.7.7", 9000)))
        out.append(attempt(sock.sendto, b"x", (PEER_IP, 4000)))
        out.append([frame[26:30] for frame in w.sent()])
        sock.close()
    return out


@cases
def no_router(w: World) -> Any:
    sock = w.udp("10.0.0.2", 9000)
    sock.sendto(b"near", kernel.MSG_DONTROUTE, (PEER_IP, 4000))
    sock.setsockopt(SOL_SOCKET, kernel.SO_DONTROUTE, 1)
    sock.sendto(b"near too", (PEER_IP, 4000))
    return [frame[42:] for frame in w.sent()], attempt(sock.sendto, b"far", ("192.0.2.1", 1))


@cases
def the_device_of_unicast_messages(w: World) -> Any:
    sock = w.udp("", 9000)
    out: list[Any] = []
    for index in (1, 2, 3):
        out.append(attempt(sock.setsockopt, SOL_IP, 50, struct.pack("!I", index)))
    sock.setsockopt(SOL_IP, 50, bytes(4))
    out.append(attempt(sock.sendto, b"x", (PEER_IP, 4000)))
    return out[2:]


@cases
def the_mark_of_a_packet_from_the_wire(w: World) -> Any:
    sock = w.udp("", 9000)
    for name in (75, 82, 40):
        sock.setsockopt(SOL_SOCKET, name, 1)
    w.give(udp_frame(b"x"))
    return drain(sock)


def ask_for_time(w: World, sock: Any, name: int, value: Any) -> list[Any]:
    """Say which messages come, how long they are, and what the options then say."""
    sock.setsockopt(SOL_SOCKET, name, value)
    w.give(udp_frame(b"stamped"))
    got = sock.recvmsg(100, 500)
    stamps = [(level, kind, len(data), data[-8:] == bytes(8)) for level, kind, data in got[1]]
    return [stamps, got[2]] + [
        sock.getsockopt(SOL_SOCKET, other) for other in (29, 35, 37, 63, 64, 65)
    ]


def stamp_all(w: World) -> None:
    """Let every packet be stamped: the kernel turns that on later, from a work queue."""
    w.socket().setsockopt(SOL_SOCKET, 29, 1)
    for _ in range(10_000):
        probe = w.udp("", 9000)
        w.give(udp_frame(b"is it on?"))
        probe.setsockopt(SOL_SOCKET, 37, 24)
        messages = probe.recvmsg(100, 500)[1]
        probe.close()
        if messages:
            return
    raise AssertionError("packets are not stamped, though a socket asked for it")


@cases
def every_form_of_time_stamp(w: World) -> Any:
    stamp_all(w)
    out = []
    for names in ((29,), (35,), (63,), (64,), (29, 35), (35, 29), (29, 64), (64, 29), (63, 35)):
        sock = w.udp("", 9000)
        out += [ask_for_time(w, sock, name, 1) for name in names]
        out.append(ask_for_time(w, sock, names[-1], 0))
        sock.close()
    for name in (37, 65):
        for flags in (8, 16, 24, 24 | 4 | 64, 16 | 0x20000, 24 | 0x20000, 0x20000):
            sock = w.udp("", 9000)
            out.append(ask_for_time(w, sock, name, flags))
            sock.setsockopt(SOL_SOCKET, 35, 1)
            out.append(ask_for_time(w, sock, name, flags))
            sock.close()
    return out


@cases
def flags_of_timestamping(w: World) -> Any:
    sock = w.socket()
    out = []
    for bit in range(32):
        value = struct.pack("I", 1 << bit)
        out.append(attempt(sock.setsockopt, SOL_SOCKET, 37, value))
        out.append(attempt(sock.setsockopt, SOL_SOCKET, 37, value + struct.pack("i", 1)))
    for both in (0x10080, 0x1800, 0x1000 | 0x80):
        out.append(attempt(sock.setsockopt, SOL_SOCKET, 37, both))
    return out


@cases
def a_packet_that_came_before_the_question_and_was_stamped(w: World) -> Any:
    stamp_all(w)
    return late_questions(w)


def late_questions(w: World) -> Any:
    """Ask about packets that are queued already: first for stamps alone, then for a time."""
    sock = w.udp("", 9000)
    w.give(udp_frame(b"early"), udp_frame(b"early too"))
    sock.setsockopt(SOL_SOCKET, 37, 24)
    first = [kind for _level, kind, _data in sock.recvmsg(100, 500)[1]]
    sock.setsockopt(SOL_SOCKET, 35, 1)
    return first, [kind for _level, kind, _data in sock.recvmsg(100, 500)[1]]


@cases
def time_stamps_of_other_sockets(w: World) -> Any:
    raw = w.socket(kernel.SOCK_RAW, 17)
    packet = w.socket(kernel.SOCK_RAW, socket_all(), kernel.AF_PACKET)
    packet.bind((w.dev, 3))
    for sock in (raw, packet):
        sock.setsockopt(SOL_SOCKET, 35, 1)
    w.give(udp_frame(b"x"))
    out = []
    for sock in (raw, packet):
        data, messages, _flags, _address = sock.recvmsg(2000, 500)
        out.append((len(data), [(level, kind, len(value)) for level, kind, value in messages]))
    return out


def socket_all() -> int:
    return kernel.htons(3)


@cases
def a_time_stamp_of_an_error(w: World) -> Any:
    sock = w.udp("10.0.0.2", 9000)
    sock.setsockopt(SOL_IP, 11, 1)
    sock.setsockopt(SOL_SOCKET, 29, 1)
    sock.sendto(b"x", (PEER_IP, 4000))
    (sent,) = w.sent()
    w.give(port_unreachable(sent))
    got = sock.recvmsg(100, 500, kernel.MSG_ERRQUEUE)
    return [(level, kind, len(data)) for level, kind, data in got[1]]


def port_unreachable(sent: bytes) -> bytes:
    """Answer a datagram as a host without that port does."""
    icmp = struct.pack("!BBHI", 3, 3, 0, 0) + sent[14:42]
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    ip = (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0)
        + sent[30:34]
        + sent[26:30]
    )
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return sent[6:12] + sent[:6] + b"\x08\x00" + ip + icmp


@pytest.mark.parametrize("name", cases)
def test_options_do_what_the_kernel_s_do(name: str) -> None:
    same(cases[name], our_host)


def test_a_packet_that_came_before_the_question_and_was_not_stamped() -> None:
    # The kernel stamps for the whole machine, and stops from a work queue: it may still be on.
    for _ in range(1000):
        with kernel_world() as world:
            theirs = late_questions(world)
        if not theirs[0]:
            break
    for fast in (True, False):
        with our_host(fast) as world:
            if theirs[0]:  # a clock's daemon has asked, for all networks
                stamp_all(world)
            assert late_questions(world) == theirs, f"fast={fast}"


def test_a_time_stamp_is_the_moment_at_which_the_packet_came() -> None:
    with our_host(True) as world:
        sock = world.udp("", 9000)
        sock.setsockopt(SOL_SOCKET, ours.SO_TIMESTAMPNS, 1)
        world.host.clock.advance(2.5)
        came = world.host.clock.ns
        world.give(udp_frame(b"x"))
        world.host.clock.advance(7)
        ((_level, _kind, data),) = sock.recvmsg(100, 100)[1]
        assert struct.unpack("qq", data) == divmod(came, 1_000_000_000)


def test_nobody_pays_for_time_stamps_after_the_last_socket_that_wanted_them() -> None:
    with our_host(True) as world:
        sock, other = world.udp("", 9000), world.udp("", 9001)
        sock.setsockopt(SOL_SOCKET, ours.SO_TIMESTAMP, 1)
        sock.setsockopt(SOL_SOCKET, ours.SO_TIMESTAMPING, 8)
        sock.close()
        world.give(udp_frame(b"x", dport=9001))
        other.setsockopt(SOL_SOCKET, ours.SO_TIMESTAMPING, 8 | 16)
        assert other.recvmsg(100, 100)[1] == []  # it was not stamped


def test_a_connected_socket_knows_cpu_and_napi_of_what_it_gets() -> None:
    with our_host(True) as world:
        sock, free = world.udp("10.0.0.2", 9000), world.udp("10.0.0.2", 9001)
        sock.connect((PEER_IP, 4000))
        world.give(udp_frame(b"x"), udp_frame(b"y", dport=9001))
        assert sock.getsockopt(SOL_SOCKET, ours.SO_INCOMING_CPU) == 0
        assert free.getsockopt(SOL_SOCKET, ours.SO_INCOMING_CPU) == -1
        napi = sock.getsockopt(SOL_SOCKET, ours.SO_INCOMING_NAPI_ID)
        assert napi > 0
        assert free.getsockopt(SOL_SOCKET, ours.SO_INCOMING_NAPI_ID) == napi


def test_a_mark_goes_with_the_packet_to_a_socket_of_the_same_host() -> None:
    with our_host(True) as world:
        receiver, sender = world.udp("127.0.0.1", 9000), world.socket()
        for name in (ours.SO_RCVMARK, ours.SO_RCVPRIORITY):
            receiver.setsockopt(SOL_SOCKET, name, 1)
        sender.setsockopt(SOL_SOCKET, ours.SO_MARK, 77)
        sender.setsockopt(SOL_SOCKET, ours.SO_PRIORITY, 5)
        sender.sendto(b"x", ("127.0.0.1", 9000))
        named = [(SOL_SOCKET, ours.SO_MARK, struct.pack("I", 9))]
        sender.sendmsg([b"y"], named, 0, ("127.0.0.1", 9000))
        world.settle()
        for mark in (77, 9):
            assert receiver.recvmsg(100, 100)[1] == [
                (SOL_SOCKET, ours.SO_MARK, struct.pack("I", mark)),
                (SOL_SOCKET, ours.SO_PRIORITY, struct.pack("I", 5)),
            ]
