"""Raw and ping sockets do as in Linux: the same calls and the same frames, the same results."""

import errno
import itertools
import socket as kernel
import struct

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from netstack.socket import ICMP_FILTER, IP_MTU_DISCOVER, IP_RECVERR, SOL_RAW
from tests.datagram import checksum
from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC, ping
from tests.sock.rig import rig, udp_frame
from tests.sock.test_errqueue import error, quote, so_error
from tests.sock.worlds import Cases, attempt, drain, same

RAW, DGRAM = kernel.SOCK_RAW, kernel.SOCK_DGRAM
ICMP_P, UDP_P = kernel.IPPROTO_ICMP, kernel.IPPROTO_UDP
COUNTED = ("Ip", "Icmp", "Udp")
case = Cases()


def counted(w, call):
    """Give what a call makes the host count."""
    before = w.counters()
    result = call()
    w.settle()
    after = w.counters()
    names = [n for n in after if n.startswith(COUNTED) and not n.startswith("UdpLite")]
    return result, {
        n: after[n] - before.get(n, 0) for n in names if after[n] != before.get(n, 0)
    }


def packet(proto, data=b"payload", **fields):
    return Ether(dst=MAC, src=PEER_MAC) / IP(src=PEER, dst=ADDR, proto=proto, **fields) / data


def comparable(frames):
    """Blank IP ids and header checksums."""
    return [frame[:18] + b"\0\0" + frame[20:24] + b"\0\0" + frame[26:] for frame in frames]


@case
def what_can_be_made(w):
    out = []
    for kind in (RAW, DGRAM):
        for proto in (-1, 0, 1, 2, 17, 99, 255, 256, 261, 300, 1000):
            sock = attempt(w.socket, kind, proto)
            if kind == DGRAM and proto == 1:
                w.sysctl("net.ipv4.ping_group_range", 0, 2147483647)
                out.append(sock)
                sock = w.socket(kind, proto)
                w.sysctl("net.ipv4.ping_group_range", 1, 0)
            if isinstance(sock, tuple):
                out.append((kind, proto, sock))
            else:
                level = kernel.SOL_SOCKET
                names = kernel.SO_TYPE, kernel.SO_PROTOCOL, kernel.SO_DOMAIN
                out.append((kind, proto, [sock.getsockopt(level, name) for name in names]))
                out.append((sock.getsockname(), attempt(sock.getpeername)))
                out.append(attempt(sock.getsockopt, kernel.SOL_IP, kernel.IP_HDRINCL))
                out.append(attempt(sock.setsockopt, kernel.SOL_IP, kernel.IP_HDRINCL, 1))
    return out


@case
def each_gets_a_copy(w):
    a, b = w.socket(RAW, 99), w.socket(RAW, 99)
    other = w.socket(RAW, 98)
    sent = counted(w, lambda: w.give(packet(99), packet(99, b"x" * 1000, ttl=3, tos=4)))
    for sock in (a, b, other):
        sock.setsockopt(kernel.SOL_IP, 12, 1)
    return sent, drain(a), drain(b), drain(other)


@case
def without_a_socket_and_with_one_that_is_full(w):
    nobody = counted(w, lambda: w.give(packet(99)))
    sock = w.socket(RAW, 99)
    sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_RCVBUF, 4096)
    many = counted(w, lambda: len(w.give(*[packet(99, bytes(100))] * 40)))
    return nobody[1], many, len(drain(sock))


@case
def beside_udp_and_icmp(w):
    udp, raw, icmp = w.udp(ADDR, 9000), w.socket(RAW, UDP_P), w.socket(RAW, ICMP_P)
    frames = [
        udp_frame(b"one"),
        ping(20),
        udp_frame(b"two", dport=9),
        udp_frame(b"bad", check=1),
    ]
    replies = counted(w, lambda: comparable(w.give(*frames)))
    return replies, drain(udp), drain(raw), drain(icmp)


@case
def bound_and_connected(w):
    out = []
    for bind in (None, ADDR, "127.0.0.1", "224.0.0.1", "10.0.0.255", "10.0.0.77"):
        for peer in (None, PEER, "10.0.0.9"):
            sock = w.socket(RAW, 99)
            out.append((bind, peer))
            if bind:
                out.append(attempt(sock.bind, (bind, 7)))
            if peer:
                out.append(attempt(sock.connect, (peer, 0)))
            out.append((sock.getsockname(), attempt(sock.getpeername)))
            w.give(packet(99))
            out.append(len(drain(sock)))
            out.append(attempt(sock.bind, (ADDR, 0)))
            out.append(attempt(sock.send, b"x"))
            sock.close()
    return out


@case
def icmp_filter(w):
    sock = w.socket(RAW, ICMP_P)
    out = [sock.getsockopt(SOL_RAW, ICMP_FILTER)]
    sock.setsockopt(SOL_RAW, ICMP_FILTER, 1 << 8)
    w.give(ping(1), packet(1, bytes(ICMP(type=13)) + bytes(12)), packet(1, bytes(ICMP(type=0))))
    out += [sock.getsockopt(SOL_RAW, ICMP_FILTER), [row[0][20] for row in drain(sock)]]
    sock.setsockopt(SOL_RAW, ICMP_FILTER, ~(1 << 3) & 0xFFFFFFFF if False else -9)
    w.give(ping(1), error(), packet(1, b"\x08"), packet(1, bytes(ICMP(type=40))))
    out.append([row[0][20] for row in drain(sock)])
    other = w.socket(RAW, 99)
    out.append(attempt(other.setsockopt, SOL_RAW, ICMP_FILTER, 1))
    out.append(attempt(other.getsockopt, SOL_RAW, ICMP_FILTER))
    out.append(attempt(sock.setsockopt, SOL_RAW, 2, 1))
    return out


@case
def sending(w):
    out = []
    sock = w.socket(RAW, 99)
    out.append(attempt(sock.send, b"nobody"))
    for size in (0, 1, 100, 1480, 1481, 3000, 65515, 65516, 65535, 65536):
        out.append((size, counted(w, lambda n=size: attempt(sock.sendto, b"x" * n, (PEER, 9)))))
        frames = comparable(w.sent())
        out.append([(len(f), f[14:34].hex()) for f in frames][:3])
    sock.setsockopt(kernel.SOL_IP, kernel.IP_TTL, 7)
    sock.setsockopt(kernel.SOL_IP, kernel.IP_TOS, 8)
    sock.setsockopt(kernel.SOL_IP, IP_MTU_DISCOVER, 0)
    out.append(attempt(sock.sendto, b"x", (PEER, 0)))
    out.append([f.hex() for f in comparable(w.sent())])
    out.append(attempt(sock.sendto, b"x", ("10.0.0.255", 0)))
    out.append(attempt(sock.sendto, b"x", ("192.0.2.1", 0)))
    icmp = w.socket(RAW, ICMP_P)
    out.append(counted(w, lambda: icmp.sendto(bytes(ICMP(type=8)), (PEER, 0))))
    return out


@case
def sending_with_a_header(w):
    out = []
    sock = w.socket(RAW, 255)
    whole = bytes(IP(src=ADDR, dst=PEER, id=7, proto=99) / b"data")
    headers = {
        "whole": whole,
        "filled in": b"\x45\0\0\0\0\0\0\0\x40\x63\0\0" + bytes(4) + whole[16:],
        "short": whole[:19],
        "ihl too long": b"\x4f" + whole[1:],
        "ihl too short": b"\x43" + whole[1:],
        "another's": bytes(IP(src="192.0.2.9", dst="192.0.2.8", id=7) / UDP() / b"data"),
        "icmp": bytes(IP(src=ADDR, dst=PEER, id=7) / ICMP()),
        "too long": whole + bytes(1500),
        "options": bytes(IP(src=ADDR, dst=PEER, id=7, proto=99, options=b"\x01" * 4) / b"data"),
    }
    for name, data in headers.items():
        out.append((name, counted(w, lambda d=data: attempt(sock.sendto, d, (PEER, 0)))))
        frames = w.sent()
        if name == "filled in":
            frames = comparable(frames)
        out.append([frame.hex() for frame in frames])
    return out


@case
def errors_about_what_was_sent(w):
    out = []
    for type_, code in ((3, 3), (3, 1), (3, 4), (11, 0), (12, 0), (4, 0), (5, 0)):
        for connected in (False, True):
            for wanted in (False, True):
                sock = w.socket(RAW, 99)
                if connected:
                    sock.connect((PEER, 0))
                sock.setsockopt(kernel.SOL_IP, IP_RECVERR, wanted)
                w.give(error(type_, code, quote(proto=99), 1200))
                out.append((type_, code, connected, wanted, so_error(sock)))
                out.append(drain(sock, kernel.MSG_ERRQUEUE))
                sock.close()
    sock = w.socket(RAW, 255)
    sock.setsockopt(kernel.SOL_IP, IP_RECVERR, 1)
    w.give(error(3, 3, quote(proto=255)))
    return [*out, drain(sock, kernel.MSG_ERRQUEUE)]


# ---- ping sockets


def pinger(w):
    w.sysctl("net.ipv4.ping_group_range", 0, 2147483647)
    return w.socket(DGRAM, ICMP_P)


def reply(identifier, data=b"data", **fields):
    return packet(1, bytes(ICMP(type=0, id=identifier, seq=3) / data), **fields)


@case
def who_may_ping(w):
    out = []
    for low, high in ((1, 0), (0, 0), (1, 5), (0, 2147483647)):
        w.sysctl("net.ipv4.ping_group_range", low, high)
        sock = attempt(w.socket, DGRAM, ICMP_P)
        out.append(sock if isinstance(sock, tuple) else "may")
    return out


@case
def ping_binds_an_id(w):
    a, b = pinger(w), pinger(w)
    out = [a.getsockname(), attempt(a.bind, (ADDR, 77)), a.getsockname()]
    out += [attempt(a.bind, (ADDR, 78)), attempt(b.bind, ("", 77))]
    for sock in (a, b):
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEADDR, 1)
    out += [attempt(b.bind, ("", 77)), attempt(pinger(w).bind, ("224.0.0.1", 1))]
    out += [
        attempt(pinger(w).bind, ("10.0.0.9", 1)),
        attempt(pinger(w).bind, ("10.0.0.255", 1)),
    ]
    auto = pinger(w)
    auto.bind(("", 0))
    return [*out, auto.getsockname()[1] > 0]


@case
def ping_sends(w):
    sock = pinger(w)
    sock.bind(("", 77))
    out = []
    echo = bytes(ICMP(type=8, id=1, seq=9) / b"abc")
    for data in (echo, b"", echo[:7], echo[:8], b"\0" + echo[1:], b"\x08\x01" + echo[2:]):
        out.append(counted(w, lambda d=data: attempt(sock.sendto, d, (PEER, 5))))
        out.append([f.hex() for f in comparable(w.sent())])
    out.append(attempt(sock.send, echo))
    out.append(attempt(sock.sendto, echo, ("10.0.0.255", 0)))
    for size in (1472, 1473, 65507, 65508, 65528):
        out.append((size, attempt(sock.sendto, b"\x08" + bytes(7 + size), (PEER, 0))))
        out.append([len(f) for f in w.sent()][:2])
    return out


@case
def ping_receives(w):
    sock, other = pinger(w), pinger(w)
    sock.bind(("", 77))
    other.bind(("", 78))
    sock.setsockopt(kernel.SOL_IP, 12, 1)
    sock.connect((PEER, 0))
    frames = [reply(77), reply(79), reply(77, ttl=9), ping(4)]
    out = [counted(w, lambda: comparable(w.give(*frames)))]
    return [*out, drain(sock), drain(other), sock.getsockname(), attempt(sock.getpeername)]


@case
def ping_hears_errors(w):
    out = []
    echo = struct.pack("!BBHHH", 8, 0, 0, 77, 3) + b"data"
    for type_, code in ((3, 3), (3, 1), (3, 4), (11, 0), (12, 0), (4, 0)):
        for connected in (False, True):
            for wanted in (False, True):
                sock = pinger(w)
                sock.bind(("", 77))
                if connected:
                    sock.connect((PEER, 0))
                sock.setsockopt(kernel.SOL_IP, IP_RECVERR, wanted)
                quoted = quote(proto=1)[:20] + echo
                w.give(error(type_, code, quoted, 1200))
                out.append((type_, code, connected, wanted, so_error(sock)))
                out.append(drain(sock, kernel.MSG_ERRQUEUE))
                sock.close()
    return out


@case
def sending_after_the_end_of_sending(w):
    out = []
    for header in (False, True):
        sock = w.socket(RAW, 200)
        sock.connect((PEER, 0))
        if header:
            sock.setsockopt(kernel.SOL_IP, kernel.IP_HDRINCL, 1)
        sock.shutdown(kernel.SHUT_RDWR)
        data = bytes.fromhex("4500001a00000000404800000000000000000000") + b"header"
        out += [attempt(sock.send, data), len(w.sent())]
    return out


@case
def messages_too_short_for_a_type(w):
    out = []
    for proto, size in itertools.product((ICMP_P, UDP_P, 253), range(4)):
        sock = w.socket(RAW, proto)
        for to in (ADDR, "9.9.9.9"):  # there is no way to the second
            out.append(attempt(sock.sendto, b"\x08" * size, (to, 0)))
        w.settle()
        out.append([row[0][20:] for row in drain(sock)])
        sock.setsockopt(kernel.SOL_IP, kernel.IP_HDRINCL, 1)
        out.append(attempt(sock.sendto, b"\x45" * size, (PEER, 0)))
    return out


@case
def a_connected_socket_is_bound_to_nothing_else(w):
    sock = w.socket(RAW, 253)
    sock.connect((PEER, 0))
    return [attempt(sock.bind, (address, 0)) for address in (ADDR, "1.2.3.4", "")]


@case
def where_it_was_sent_to_with_two_bytes_of_the_message(w):
    out = []
    for proto, message in (
        (UDP_P, struct.pack("!4H", 5, 9, 8, 0)),
        (253, b"abcd"),
    ):
        sock = w.socket(RAW, proto)
        sock.setsockopt(kernel.SOL_IP, 20, 1)  # IP_RECVORIGDSTADDR
        w.give(packet(proto, message))
        out.append([row[1] for row in drain(sock)])
    return out


@case
def where_replies_came_to(w):
    out = []
    for peer in (PEER, ADDR, "127.0.0.1"):
        sock = pinger(w)
        sock.bind(("", 777))
        for option in (8, 20):  # IP_PKTINFO, IP_RECVORIGDSTADDR
            sock.setsockopt(kernel.SOL_IP, option, 1)
        sock.sendto(b"\x08" + bytes(7) + b"data", (peer, 0))
        w.sent()
        if peer == PEER:
            w.give(reply(777))
        out.append([row[1] for row in drain(sock)])
        sock.close()
    return out


@pytest.mark.tap
@pytest.mark.parametrize("name", case)
def test_the_kernel_s_sockets_give_the_same(name):
    same(case[name])


# ---- rules that need no kernel


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request):
    with rig(request.param) as made:
        yield made


def raw(it, kind=RAW, proto=ICMP_P):
    from netstack.socket import socket

    made = socket(it, kernel.AF_INET, kind, proto)
    made.setblocking(False)
    it.sockets.append(made)
    return made


def test_the_short_cut_comes_back_when_the_last_raw_socket_is_closed(it):
    a, b = raw(it), raw(it)
    it.give(ping(3))
    a.close()
    it.give(ping(3))
    assert len(drain(b)) == 2
    b.close()
    before = it.inet.queued()
    it.give(ping(3))
    assert it.inet.queued() == before
    assert it.count("IcmpInEchos") == 3


def test_a_handler_of_python_keeps_its_packets_when_a_raw_socket_is_closed(it):
    it.net.want_protocol(17, True)
    raw(it, proto=17).close()
    seen = []
    it.handlers[0x0800] = lambda _host, skb: (seen.append(skb.data[9]), skb.consume())
    it.receive(udp_frame(b"x"))
    it.settle()
    assert seen == [17]


def test_a_raw_socket_is_charged_what_linux_charges(it):
    sock = raw(it)
    sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_RCVBUF, 4096)
    for _ in range(20):
        it.give(ping(3))
    assert sock.info["rmem"] == 10 * 832  # the last one may exceed SO_RCVBUF
    assert sock.info["drops"] == 10
    assert len(drain(sock)) == 10
    assert sock.info["rmem"] == 0


def test_a_filter_sees_the_ip_header_and_can_cut(it):
    sock = raw(it)
    cut = struct.pack("HBBI", 0x06, 0, 0, 24)
    import ctypes

    buffer = ctypes.create_string_buffer(cut)
    sock.setsockopt(kernel.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(buffer)))
    it.give(ping(100))
    (row,) = drain(sock)
    assert len(row[0]) == 24


def test_ping_group_range_refuses_what_is_out_of_it(it):
    with pytest.raises(PermissionError) as caught:
        raw(it, DGRAM)
    assert caught.value.errno == errno.EACCES
    it.config["net.ipv4.ping_group_range"] = (0, 2147483647)
    assert raw(it, DGRAM).proto == ICMP_P
    assert checksum(b"") == 0xFFFF
