"""UDP, every rule twice: by the short cut, and with every packet through Python."""

import errno
import socket as kernel
import struct
from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from netstack.proto.route import RTN, Route
from netstack.socket import IP_MTU_DISCOVER, socket
from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC
from tests.sock.rig import Rig, rig, udp_frame

BROADCAST = "ff:ff:ff:ff:ff:ff"


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request):
    with rig(request.param) as made:
        yield made


def gone(it: Rig) -> dict[str, int]:
    """Give what was counted for UDP, and how the frames ended."""
    fates = {name.removeprefix("SKB_DROP_REASON_"): n for name, n in it.fates().items()}
    return {name: n for name, n in it.counters().items() if name.startswith("Udp")} | fates


# ---- lengths


@pytest.mark.parametrize("length", [0, 1, 7, 14, 9000, 65535])
def test_a_length_that_can_t_be_is_dropped(it, length):
    it.socket(ADDR, 9000)
    it.receive(udp_frame(b"hello", length=length))
    assert gone(it) == {"UdpInErrors": 1, "PKT_TOO_SMALL": 1}


@pytest.mark.parametrize("size", range(8))
def test_a_cut_header_is_dropped(it, size):
    it.socket(ADDR, 9000)
    it.give(
        Ether(dst="02:00:00:00:00:02", src=PEER_MAC)
        / IP(src=PEER, dst=ADDR, proto=17)
        / bytes(size)
    )
    assert gone(it) == {"UdpInErrors": 1, "PKT_TOO_SMALL": 1}


def test_bytes_behind_the_datagram_are_cut_off(it):
    sock = it.socket(ADDR, 9000)
    for more in (1, 2, 3, 40):
        good = udp_frame(b"hello")[34:]
        frame = IP(src=PEER, dst=ADDR, proto=17) / (good + b"z" * more)
        it.give(Ether(dst="02:00:00:00:00:02", src=PEER_MAC) / frame)
        assert sock.recv(100) == b"hello"
    assert gone(it) == {"UdpInDatagrams": 4, "DELIVERED": 4}


@pytest.mark.parametrize("size", [0, 1, 2, 67, 68, 69, 100, 555, 556, 1471, 1472])
def test_a_datagram_of_any_size_arrives_as_it_was(it, size):
    sock = it.socket(ADDR, 9000)
    payload = bytes(i * 7 & 255 for i in range(size))
    it.receive(udp_frame(payload))
    assert sock.recvfrom(2000) == (payload, (PEER, 4000))


# ---- checksums


def test_checksum_0_says_that_there_is_none(it):
    sock = it.socket(ADDR, 9000)
    it.receive(udp_frame(b"hello", check=0), udp_frame(b"x" * 1000, check=0))
    assert (sock.recv(100), len(sock.recv(2000))) == (b"hello", 1000)


def test_a_short_damaged_datagram_is_dropped_at_once(it):
    sock = it.socket(ADDR, 9000)
    it.receive(udp_frame(b"x" * 68, check=1))
    assert sock.info["queued"] == 0
    assert gone(it) == {"UdpInCsumErrors": 1, "UdpInErrors": 1, "UDP_CSUM": 1}


def test_a_long_damaged_datagram_is_found_out_by_the_reader(it):
    sock = it.socket(ADDR, 9000)
    it.receive(udp_frame(b"x" * 69, check=1), udp_frame(b"y" * 69, check=1), udp_frame(b"good"))
    assert sock.info["queued"] == 3
    assert sock.recv(100) == b"good"
    assert gone(it) == {
        "UdpInCsumErrors": 2,
        "UdpInErrors": 2,
        "UdpInDatagrams": 1,
        "UDP_CSUM": 2,
        "DELIVERED": 1,
    }
    assert (sock.info["drops"], sock.info["rmem"]) == (2, 0)


def test_a_damaged_datagram_alone_in_the_queue_is_no_datagram(it):
    sock = it.socket(ADDR, 9000)
    sock.setblocking(False)
    it.receive(udp_frame(b"x" * 500, check=1))
    with pytest.raises(BlockingIOError):
        sock.recv(100)
    assert gone(it) == {"UdpInCsumErrors": 1, "UdpInErrors": 1, "UDP_CSUM": 1}


@pytest.mark.parametrize("size", [4, 1000])
def test_a_damaged_datagram_for_nobody_gets_no_answer(it, size):
    assert it.give(udp_frame(b"x" * size, check=1)) == []
    assert gone(it) == {"UdpInCsumErrors": 1, "UdpInErrors": 1, "UDP_CSUM": 1}


# ---- nobody, everybody


def test_a_datagram_for_nobody_is_answered_port_unreachable(it):
    frame = udp_frame(b"hello")
    (answer,) = it.give(frame)
    assert (answer[ICMP].type, answer[ICMP].code) == (3, 3)
    assert (answer[IP].dst, answer.dst) == (PEER, PEER_MAC)
    assert bytes(answer[ICMP].payload)[:33] == frame[14:47]
    assert gone(it) == {"UdpNoPorts": 1, "NO_SOCKET": 1}


def test_a_broadcast_reaches_every_socket_of_the_port(it):
    sockets = []
    for address in ["", "10.0.0.255", "", ADDR]:
        sock = it.socket()
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEADDR, 1)
        sock.bind((address, 9000))
        sockets.append(sock)
    it.receive(udp_frame(b"all", dst="10.0.0.255", mac=BROADCAST))
    assert it.balanced()
    assert [sock.info["queued"] for sock in sockets] == [1, 1, 1, 0]
    for sock in sockets[:3]:
        assert it.balanced()
        assert sock.recvfrom(100) == (b"all", (PEER, 4000))
    assert gone(it) == {"UdpInDatagrams": 3, "DELIVERED": 1}


ALONE = [  # bound to, the latest last; "=": connected to port 4000 of the peer. And who gets it
    (["", "", ""], "0.0.0.0", 0, "0.0.0.0", [2]),
    (["", "255.255.255.255", "255.255.255.255"], "0.0.0.0", 0, "255.255.255.255", [2]),
    (["", "255.255.255.255", ""], "0.0.0.0", 0, "255.255.255.255", [1]),
    (["", "255.255.255.255", ""], "0.0.0.0", 1, "255.255.255.255", [0, 1, 2]),
    (["", "10.0.0.255", "=10.0.0.255"], PEER, 4000, "10.0.0.255", [2]),
    (["", "10.0.0.255", "=10.0.0.255"], PEER, 4001, "10.0.0.255", [0, 1]),
    (["=10.0.0.255", "10.0.0.255"], PEER, 4000, "10.0.0.255", [0, 1]),
]


@pytest.mark.parametrize(("bound", "src", "sport", "dst", "alone"), ALONE)
def test_a_broadcast_to_our_mac_is_a_connected_sockets_alone(it, bound, src, sport, dst, alone):
    """As early demultiplexing in Linux has it, to which no peer is port 0 of 0.0.0.0."""
    sockets = []
    for address in bound:
        sock = it.socket()
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEADDR, 1)
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_BROADCAST, 1)
        sock.bind((address.lstrip("="), 9000))
        if address.startswith("="):
            sock.connect((PEER, 4000))
        sockets.append(sock)
    fits = [address[:1] != "=" or sport == 4000 for address in bound]
    for mac, who in ((MAC, [n in alone for n in range(len(bound))]), (BROADCAST, fits)):
        before = [sock.info["queued"] for sock in sockets]
        it.receive(udp_frame(b"x", src=src, sport=sport, dst=dst, mac=mac))
        after = [sock.info["queued"] for sock in sockets]
        assert [b - a for a, b in zip(before, after, strict=True)] == who


def test_a_broadcast_that_one_socket_never_reads_still_balances(it):
    reader, sleeper = it.socket(), it.socket()
    for sock in (reader, sleeper):
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEADDR, 1)
        sock.bind(("", 9000))
    it.receive(udp_frame(b"all", dst="10.0.0.255", mac=BROADCAST))
    reader.recv(100)
    assert it.balanced()
    sleeper.close()
    assert it.fate("SKB_DELIVERED") == 1, "the best of its ends counts"


def test_a_broadcast_for_nobody_is_ignored_without_an_answer(it):
    assert it.give(udp_frame(b"all", dst="255.255.255.255", mac=BROADCAST)) == []
    assert gone(it) == {"UdpIgnoredMulti": 1, "NO_SOCKET": 1}


# ---- out


def test_what_is_sent_is_a_good_datagram(it):
    sock = it.socket(ADDR, 9000)
    for size in (0, 1, 18, 19, 1000, 1472):
        payload = bytes(i * 5 & 255 for i in range(size))
        assert sock.sendto(payload, (PEER, 53)) == size
        (frame,) = it.sent()
        check = frame[UDP].chksum
        del frame[UDP].chksum
        assert Ether(bytes(frame))[UDP].chksum == check
        assert (frame[IP].src, frame[IP].dst, frame[IP].ttl, frame[IP].flags) == (
            ADDR,
            PEER,
            64,
            "DF",
        )
        assert (frame[UDP].sport, frame[UDP].dport, frame[UDP].len) == (9000, 53, size + 8)
        assert bytes(frame[UDP].payload)[:size] == payload
    assert gone(it) == {"UdpOutDatagrams": 6}


def test_what_is_larger_than_the_mtu_goes_in_fragments_and_comes_back_whole(it):
    sender, receiver = it.socket(ADDR, 9000), it.socket(ADDR, 9001)
    receiver.setsockopt(kernel.SOL_SOCKET, 33, 1 << 20)
    for size in (1473, 3000, 65507):
        payload = bytes(i * 3 & 255 for i in range(size))
        sender.sendto(payload, (PEER, 53))
        pieces = it.sent()
        assert len(pieces) == -(-(size + 8) // 1480)
        data = b"".join(bytes(piece[IP].payload)[: piece[IP].len - 20] for piece in pieces)
        assert data[8:] == payload
        sender.sendto(payload, (ADDR, 9001))
        it.settle()
        assert receiver.recv(70000) == payload


def test_a_socket_without_a_port_gets_one_when_it_sends(it):
    sock = it.socket()
    sock.sendto(b"", (PEER, 53))
    assert sock.getsockname()[0] == "0.0.0.0"
    assert 32768 <= sock.getsockname()[1] <= 60999
    assert it.sent()[0][UDP].sport == sock.getsockname()[1]


def test_the_no_check_option_sends_checksum_0(it):
    sock = it.socket(ADDR, 9000)
    sock.setsockopt(kernel.SOL_SOCKET, 11, 1)
    sock.sendto(b"hello", (PEER, 53))
    assert it.sent()[0][UDP].chksum == 0


def test_udp_segment_sends_several_datagrams(it):
    sock = it.socket(ADDR, 9000)
    sock.setsockopt(kernel.IPPROTO_UDP, 103, 100)
    sock.sendto(bytes(range(250)), (PEER, 53))
    frames = it.sent()
    assert [frame[UDP].len - 8 for frame in frames] == [100, 100, 50]
    assert b"".join(bytes(f[UDP].payload)[: f[UDP].len - 8] for f in frames) == bytes(
        range(250)
    )


@pytest.mark.parametrize("address", ["10.0.0.255", "255.255.255.255"])
def test_a_broadcast_needs_the_option(it, address):
    it.inet.routes.add_route(Route(IPv4Network("0.0.0.0/0"), RTN.UNICAST, 2, IPv4Address(PEER)))
    sock = it.socket(ADDR, 9000)
    for call in (sock.connect, lambda to: sock.sendto(b"", to)):
        with pytest.raises(PermissionError):
            call((address, 9))
    sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_BROADCAST, 1)
    sock.sendto(b"all", (address, 9))
    (frame,) = it.sent()
    assert (frame.dst, frame[IP].dst) == (BROADCAST, address)


@pytest.mark.parametrize(
    ("mode", "flag", "fits"),
    [(0, 0, True), (1, 2, True), (2, 2, False), (3, 2, False), (4, 0, False), (5, 0, True)],
)
def test_path_mtu_discovery_decides_about_df_and_fragments(it, mode, flag, fits):
    sock = it.socket(ADDR, 9000)
    sock.setsockopt(kernel.SOL_IP, IP_MTU_DISCOVER, mode)
    sock.sendto(b"x" * 1472, (PEER, 53))
    assert it.sent()[0][IP].flags == flag
    if fits:
        assert sock.sendto(b"x" * 1473, (PEER, 53)) == 1473
        assert len(it.sent()) == 2
    else:
        with pytest.raises(OSError, match="too long"):
            sock.sendto(b"x" * 1473, (PEER, 53))


def test_a_socket_can_be_bound_to_a_device(it):
    sock = it.socket("", 9000)
    assert sock.getsockopt(kernel.SOL_SOCKET, kernel.SO_BINDTODEVICE, 16) == b""
    for name, found in ((b"lo", 0), (b"eth0\0", 1)):
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_BINDTODEVICE, name)
        it.receive(udp_frame(b"x"))
        assert sock.info["queued"] == found
    assert sock.getsockopt(kernel.SOL_SOCKET, kernel.SO_BINDTODEVICE, 16) == b"eth0\0"
    with pytest.raises(OSError, match="No such device"):
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_BINDTODEVICE, b"eth9")
    it.sent()
    sock.sendto(b"x", ("127.0.0.1", 9000))  # never through lo: it is asked for on eth0's link
    (asked,) = it.sent()
    assert bytes(asked)[38:42] == bytes([127, 0, 0, 1])


def test_what_has_no_route_is_unreachable(it):
    with pytest.raises(OSError, match="unreachable") as caught:
        it.socket(ADDR, 9000).sendto(b"", ("192.0.2.1", 9))
    assert caught.value.errno == errno.ENETUNREACH
    assert it.count("IpOutNoRoutes") == 1


# ---- what others say about our datagrams


def unreachable(code: int, sport: int = 9000, type_: int = 3) -> Ether:
    """Make an ICMP error of the peer about our datagram from `sport` to its port 53."""
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 33, 1, 0, 64, 17, 0)
    quoted += (
        kernel.inet_aton(ADDR) + kernel.inet_aton(PEER) + struct.pack("!4H", sport, 53, 13, 0)
    )
    return (
        Ether(dst="02:00:00:00:00:02", src=PEER_MAC)
        / IP(src=PEER, dst=ADDR)
        / ICMP(type=type_, code=code)
        / quoted
    )


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (0, 0),
        (1, 0),
        (2, errno.ENOPROTOOPT),
        (3, errno.ECONNREFUSED),
        (4, errno.EMSGSIZE),
        (5, 0),
        (6, errno.ENETUNREACH),
        (7, errno.EHOSTDOWN),
        (8, errno.ENONET),
        (9, errno.ENETUNREACH),
        (10, errno.EHOSTUNREACH),
        (11, 0),
        (12, 0),
        (13, errno.EHOSTUNREACH),
        (14, errno.EHOSTUNREACH),
        (15, errno.EHOSTUNREACH),
    ],
)
def test_a_connected_socket_hears_of_errors_that_will_not_pass(it, code, number):
    connected, free = it.socket(ADDR, 9000), it.socket(ADDR, 9001)
    connected.connect((PEER, 53))
    it.give(unreachable(code), unreachable(code, sport=9001))
    assert connected.getsockopt(kernel.SOL_SOCKET, kernel.SO_ERROR) == number
    assert free.getsockopt(kernel.SOL_SOCKET, kernel.SO_ERROR) == 0
    assert it.count("IcmpInErrors") == 0


def test_an_error_is_told_once_and_before_data(it):
    sock = it.socket(ADDR, 9000)
    sock.connect((PEER, 53))
    it.receive(udp_frame(b"data", sport=53))
    it.give(unreachable(3))
    with pytest.raises(ConnectionRefusedError):
        sock.recv(100)
    assert sock.recv(100) == b"data"
    it.give(unreachable(3))
    with pytest.raises(ConnectionRefusedError):
        sock.send(b"")
    assert sock.send(b"") == 0


def test_an_error_about_a_datagram_of_nobody_counts_as_an_icmp_error(it):
    it.give(unreachable(3, sport=9999))
    assert it.count("IcmpInErrors") == 1


def test_a_closed_port_of_our_own_refuses(it):
    sock = it.socket()
    sock.connect((ADDR, 9999))
    sock.send(b"anyone?")
    it.settle()
    with pytest.raises(ConnectionRefusedError):
        sock.recv(100)


def test_socket_is_what_the_public_module_makes(it):
    assert isinstance(it.socket(), socket)
