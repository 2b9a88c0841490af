"""ICMP errors reach sockets as they do in Linux: so_error, IP_RECVERR, the path's MTU.

The kernel is asked the same, where a test may have a TAP; the rules that need none follow.
"""

import errno
import socket as kernel
import struct

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from netstack.socket import IP_MTU, IP_MTU_DISCOVER, IP_RECVERR
from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC
from tests.sock.rig import rig, udp_frame
from tests.sock.worlds import Cases, attempt, drain, same

MSG_ERRQUEUE = kernel.MSG_ERRQUEUE
FRAG_NEEDED = 3, 4
ERRORS = [(3, code) for code in range(18)] + [
    (4, 0),
    (5, 0),
    (11, 0),
    (11, 1),
    (12, 0),
    (12, 1),
]
case = Cases()


def quote(sport=9000, dport=53, payload=b"hello", *, proto=17, src=ADDR, dst=PEER, ihl=5, df=0):
    """Make the packet of ours that an error quotes."""
    size = 20 + 8 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x40 | ihl, 0, size, 1, df << 14, 64, proto, 0)
    head += kernel.inet_aton(src) + kernel.inet_aton(dst)
    return head + struct.pack("!4H", sport, dport, 8 + len(payload), 0) + payload


def error(type_=3, code=3, quoted=None, info=0, src="10.0.0.7", **fields):
    """Make an ICMP error of a router; `info` is the second word of the message."""
    message = struct.pack("!BBHI", type_, code, 0, info) + (quoted or quote())
    packet = IP(src=src, dst=ADDR, ttl=61, tos=0xC0, **fields) / ICMP(message)
    del packet[ICMP].chksum
    return Ether(dst=MAC, src=PEER_MAC) / packet


def so_error(sock):
    return sock.getsockopt(kernel.SOL_SOCKET, kernel.SO_ERROR)


@case
def every_type_to_every_kind_of_socket(w):
    out = []
    for type_, code in ERRORS:
        for connected in (False, True):
            for wanted in (False, True):
                sock = w.udp(ADDR, 9000)
                if connected:
                    sock.connect((PEER, 53))
                sock.setsockopt(kernel.SOL_IP, IP_RECVERR, wanted)
                w.give(error(type_, code, info=0x01000000 if type_ == 12 else 1400))
                out.append((type_, code, connected, wanted, so_error(sock)))
                out.append(drain(sock, MSG_ERRQUEUE))
                sock.close()
    return out


@case
def several_errors_and_the_errno_that_stays(w):
    sock = w.udp(ADDR, 9000)
    sock.setsockopt(kernel.SOL_IP, IP_RECVERR, 1)
    w.give(error(3, 3), error(3, 1), error(11, 0))
    out = [attempt(sock.recv, 10), attempt(sock.recv, 10)]
    for _ in range(4):
        out += [attempt(sock.recvmsg, 100, 100, MSG_ERRQUEUE), so_error(sock)]
    return out


@case
def small_buffers(w):
    sock = w.udp(ADDR, 9000)
    sock.setsockopt(kernel.SOL_IP, IP_RECVERR, 1)
    out = []
    for size, room in ((0, 0), (3, 16), (3, 40), (5, 47), (6, 48), (100, 200)):
        w.give(error())
        out.append(attempt(sock.recvmsg, size, room, MSG_ERRQUEUE))
        so_error(sock)
        w.give(error())
        out.append(attempt(sock.recvfrom, size, MSG_ERRQUEUE | kernel.MSG_PEEK))
        out.append(attempt(sock.recvfrom, size, MSG_ERRQUEUE))
        so_error(sock)
    return out


@case
def control_messages_are_of_the_icmp_message(w):
    sock = w.udp(ADDR, 9000)
    for option in (IP_RECVERR, kernel.IP_RECVTOS, 12, 8):
        sock.setsockopt(kernel.SOL_IP, option, 1)
    w.give(error())
    return drain(sock, MSG_ERRQUEUE)


@case
def switching_it_off_forgets_the_errors(w):
    sock = w.udp(ADDR, 9000)
    out = [sock.getsockopt(kernel.SOL_IP, IP_RECVERR)]
    sock.setsockopt(kernel.SOL_IP, IP_RECVERR, 1)
    w.give(error(), error())
    sock.setsockopt(kernel.SOL_IP, IP_RECVERR, 0)
    out.append(drain(sock, MSG_ERRQUEUE))
    return [*out, so_error(sock), attempt(sock.sendto, b"x", (PEER, 53))]


@case
def data_waits_behind_the_error(w):
    sock = w.udp(ADDR, 9000)
    sock.connect((PEER, 53))
    w.give(udp_frame(b"data", sport=53), error(3, 3))
    return [attempt(sock.recv, 10), attempt(sock.recv, 10), attempt(sock.send, b"x")]


@case
def a_send_that_is_too_long(w):
    out = []
    for connected in (False, True):
        sock = w.udp(ADDR, 9000 + connected)
        sock.setsockopt(kernel.SOL_IP, IP_RECVERR, 1)
        sock.setsockopt(kernel.SOL_IP, IP_MTU_DISCOVER, 2)
        if connected:
            sock.connect((PEER, 53))
        out.append(attempt(sock.sendto, b"x" * 1473, (PEER, 99)))
        out += [so_error(sock), drain(sock, MSG_ERRQUEUE)]
        out.append(attempt(sock.sendto, b"x" * 65508, (PEER, 99)))
        out += [so_error(sock), drain(sock, MSG_ERRQUEUE)]
    return out


@case
def path_mtu(w):
    out = []
    for mode in (0, 1, 2, 3, 4, 5):
        sock = w.udp(ADDR, 9000)
        sock.setsockopt(kernel.SOL_IP, IP_MTU_DISCOVER, mode)
        out.append(attempt(sock.getsockopt, kernel.SOL_IP, IP_MTU))
        peer = f"10.0.0.{50 + mode}"
        w.give(error(*FRAG_NEEDED, quote(dst=peer), 1200))
        sock.connect((peer, 53))
        out.append((mode, so_error(sock), attempt(sock.getsockopt, kernel.SOL_IP, IP_MTU)))
        for size in (1172, 1173, 1472, 1473):
            out.append(attempt(sock.send, b"x" * size))
        w.give(error(*FRAG_NEEDED, quote(dst=peer), 1300))
        out.append((so_error(sock), sock.getsockopt(kernel.SOL_IP, IP_MTU)))
        w.give(error(*FRAG_NEEDED, quote(dst=peer), 100))
        out.append((so_error(sock), sock.getsockopt(kernel.SOL_IP, IP_MTU)))
        out.append(attempt(sock.send, b"x" * 600))
        sock.close()
    return out


@case
def path_mtu_on_the_wire(w):
    out = []
    for mode in (0, 1, 2, 3):
        sock = w.udp(ADDR, 9000)
        sock.setsockopt(kernel.SOL_IP, IP_MTU_DISCOVER, mode)
        for mtu in (1200, 400):
            w.give(error(*FRAG_NEEDED, quote(), mtu))
            so_error(sock)
            w.sent()
            attempt(sock.sendto, b"x" * 900, (PEER, 53))
            attempt(sock.sendto, b"x" * 100, (PEER, 53))
            out.append([(len(frame), frame[20:22].hex()) for frame in w.sent()])
        sock.close()
    return out


@case
def nonsense_quotes(w):
    sock = w.udp(ADDR, 9000)
    sock.setsockopt(kernel.SOL_IP, IP_RECVERR, 1)
    before = w.counters()
    for quoted in (
        b"\0",
        quote()[:19],
        quote()[:20],
        quote()[:27],
        quote(ihl=4),
        quote(ihl=15),
        quote(sport=9001),
        quote(src="10.0.0.9"),
        quote(proto=47),
        quote(proto=99),
        quote(proto=1),
        b"\x65" + quote()[1:],
    ):
        w.give(error(3, 3, quoted), error(3, 4, quoted, 600))
    after = w.counters()
    names = [name for name in after if name.startswith("IcmpIn")]
    counted = {name: after[name] - before.get(name, 0) for name in names if after[name]}
    return drain(sock, MSG_ERRQUEUE), so_error(sock), counted


@pytest.mark.tap
@pytest.mark.parametrize("name", case)
def test_the_kernel_s_sockets_give_the_same(name):
    same(case[name])


# ---- rules that need no kernel


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request):
    with rig(request.param) as made:
        yield made


def test_an_error_tells_what_it_is_about(it):
    sock = it.socket(ADDR, 9000)
    sock.setsockopt(kernel.SOL_IP, IP_RECVERR, 1)
    it.give(error(3, 1))
    data, ((level, kind, value),), flags, address = sock.recvmsg(100, 100, MSG_ERRQUEUE)
    assert (data, flags, address) == (b"hello", MSG_ERRQUEUE, (PEER, 53))
    assert (level, kind) == (kernel.SOL_IP, IP_RECVERR)
    assert struct.unpack("=IBBBBII", value[:16]) == (errno.EHOSTUNREACH, 2, 3, 1, 0, 0, 0)
    assert value[20:24] == kernel.inet_aton("10.0.0.7")


def test_errors_are_charged_to_the_socket_and_what_does_not_fit_is_lost(it):
    sock = it.socket(ADDR, 9000)
    sock.setsockopt(kernel.SOL_IP, IP_RECVERR, 1)
    sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_RCVBUF, 4096)
    it.give(*[error()] * 100)
    assert sock.info["rmem"] == 9 * 832
    sock.setblocking(False)
    assert len(drain(sock, MSG_ERRQUEUE)) == 9
    assert sock.info["rmem"] == 0


def test_an_error_makes_the_pollable_fd_readable(it):
    import select

    sock = it.socket(ADDR, 9000)
    sock.setsockopt(kernel.SOL_IP, IP_RECVERR, 1)

    def readable():
        return bool(select.select([sock], [], [], 0)[0])

    assert not readable()
    it.give(error())
    assert so_error(sock) == errno.ECONNREFUSED
    assert readable()
    sock.recvmsg(100, 100, MSG_ERRQUEUE)
    assert not readable()


def test_a_path_mtu_is_forgotten_after_mtu_expires(it):
    sock = it.socket(ADDR, 9000)
    sock.connect((PEER, 53))
    it.give(error(*FRAG_NEEDED, quote(), 1000))
    assert sock.getsockopt(kernel.SOL_IP, IP_MTU) == 1000
    it.clock.advance(599)
    assert sock.getsockopt(kernel.SOL_IP, IP_MTU) == 1000
    it.clock.advance(1)
    assert sock.getsockopt(kernel.SOL_IP, IP_MTU) == 1500


@pytest.mark.parametrize(("again", "ends"), [(1, 600), (299, 600), (300, 900), (599, 1199)])
def test_a_path_mtu_told_again_is_news_after_half_of_its_time(it, again, ends):
    sock = it.socket(ADDR, 9000)
    sock.connect((PEER, 53))
    it.give(error(*FRAG_NEEDED, quote(), 1000))
    it.clock.advance(again)
    it.give(error(*FRAG_NEEDED, quote(), 1000))
    it.clock.advance(ends - again - 1)
    assert sock.getsockopt(kernel.SOL_IP, IP_MTU) == 1000
    it.clock.advance(1)
    assert sock.getsockopt(kernel.SOL_IP, IP_MTU) == 1500


@pytest.mark.parametrize(("source", "mtu"), [(ADDR, 1000), ("9.9.9.9", 1500)])
def test_a_path_mtu_is_learned_from_what_quotes_a_packet_of_ours(it, source, mtu):
    it.socket("", 9000)
    sock = it.socket(ADDR, 9001)
    sock.connect((PEER, 53))
    it.give(error(*FRAG_NEEDED, quote(src=source), 1000))
    assert sock.getsockopt(kernel.SOL_IP, IP_MTU) == mtu


def test_nothing_changes_a_path_mtu_below_min_pmtu_until_its_end(it):
    sock = it.socket(ADDR, 9000)
    sock.connect((PEER, 53))
    it.give(error(*FRAG_NEEDED, quote(), 100))
    it.clock.advance(400)
    for mtu in (100, 552, 100):
        it.give(error(*FRAG_NEEDED, quote(), mtu))
        assert sock.getsockopt(kernel.SOL_IP, IP_MTU) == 552
    it.clock.advance(200)
    assert sock.getsockopt(kernel.SOL_IP, IP_MTU) == 1500


def test_min_pmtu_is_the_smallest_that_is_believed(it):
    it.config["net.ipv4.route.min_pmtu"] = 1200
    sock = it.socket(ADDR, 9000)
    sock.connect((PEER, 53))
    it.give(error(*FRAG_NEEDED, quote(), 1000))
    assert sock.getsockopt(kernel.SOL_IP, IP_MTU) == 1200
