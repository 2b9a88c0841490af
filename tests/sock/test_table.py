"""Who may have a port, and which socket a datagram finds. The kernel is asked the same questions."""

import errno
import itertools
import socket as kernel
from collections import Counter

import pytest

from tests.sock.rig import OUR_IP, udp_frame

ADDRESSES = ["0.0.0.0", "127.0.0.1", "127.0.0.2"]
FLAGS = [(), ("SO_REUSEADDR",), ("SO_REUSEPORT",), ("SO_REUSEADDR", "SO_REUSEPORT")]


def bind(sock, flags, address):
    """Set the options, bind, and give the errno."""
    for flag in flags:
        sock.setsockopt(kernel.SOL_SOCKET, getattr(kernel, flag), 1)
    try:
        sock.bind(address)
    except OSError as error:
        return error.errno
    return 0


def free_port() -> int:
    with kernel.socket(kernel.AF_INET, kernel.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize(("first", "second"), [*itertools.product(FLAGS, FLAGS)])
def test_a_port_can_be_shared_exactly_when_linux_says_so(it, first, second):
    for one, other in itertools.product(ADDRESSES, ADDRESSES):
        port = free_port()
        with (
            kernel.socket(kernel.AF_INET, kernel.SOCK_DGRAM) as a,
            kernel.socket(kernel.AF_INET, kernel.SOCK_DGRAM) as b,
        ):
            theirs = bind(a, first, (one, port)), bind(b, second, (other, port))
        with it.socket() as a, it.socket() as b:
            ours = bind(a, first, (one, port)), bind(b, second, (other, port))
        assert ours == theirs, (one, other)


def test_an_address_that_is_not_ours_can_t_be_bound(it):
    for address in ["10.0.0.1", "192.0.2.1", "10.0.0.3"]:
        with pytest.raises(OSError, match="Cannot assign") as caught:
            it.socket(address, 9000)
        assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("address", ["", OUR_IP, "10.0.0.255", "255.255.255.255", "224.0.0.1"])
def test_own_broadcast_and_multicast_addresses_can_be_bound(it, address):
    assert it.socket(address, 53).getsockname()[1] == 53


def test_a_bound_socket_can_t_be_bound_again(it):
    sock = it.socket(OUR_IP, 0)
    with pytest.raises(OSError, match="Invalid argument"):
        sock.bind((OUR_IP, 0))


def test_port_0_gives_a_free_port_of_the_range(it):
    it.config["net.ipv4.ip_local_port_range"] = (40000, 40009)
    ports = {it.socket(OUR_IP, 0).getsockname()[1] for _ in range(10)}
    assert ports == set(range(40000, 40010))
    with pytest.raises(OSError, match="in use"):
        it.socket(OUR_IP, 0)
    with pytest.raises(BlockingIOError):
        it.socket().sendto(b"", (OUR_IP, 1))
    assert it.socket("127.0.0.1", 0).getsockname()[1] in ports, "another address has its own"


def test_the_port_of_a_closed_socket_is_free(it):
    it.socket(OUR_IP, 9000).close()
    it.socket(OUR_IP, 9000)


def test_the_most_exact_socket_gets_the_datagram(it):
    anyone = it.socket("", 9000)
    anyone.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEADDR, 1)
    here, friend = it.socket(), it.socket()
    for sock in (here, friend):
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEADDR, 1)
        sock.bind((OUR_IP, 9000))
    friend.connect(("10.0.0.1", 4000))
    it.receive(udp_frame(b"friend"), udp_frame(b"here", sport=4001))
    assert [sock.info["queued"] for sock in (anyone, here, friend)] == [0, 1, 1]
    here.close()
    friend.close()
    it.receive(udp_frame(b"anyone"))
    assert anyone.recv(100) == b"anyone"


def test_of_equal_sockets_the_last_one_gets_the_datagram(it):
    first, last = it.socket(), it.socket()
    for sock in (first, last):
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEADDR, 1)
        sock.bind((OUR_IP, 9000))
    it.receive(udp_frame(b""))
    assert (first.info["queued"], last.info["queued"]) == (0, 1)


def test_a_reuseport_group_shares_flows_and_keeps_each_at_one_socket(it):
    group = [it.socket() for _ in range(4)]
    for sock in group:
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEPORT, 1)
        sock.bind(("", 9000))
    flows = range(2000, 2200)
    for sport in flows:
        it.receive(*[udp_frame(b"", sport=sport)] * 2)
    owners = Counter()
    for sock in group:
        seen = Counter(sock.recvfrom(10)[1][1] for _ in range(sock.info["queued"]))
        assert set(seen.values()) == {2}, "a flow has one socket"
        owners[sock] = len(seen)
    assert sum(owners.values()) == 200
    assert min(owners.values()) > 25, "the hash spreads them"


def test_a_reuseport_group_goes_on_while_members_come_and_go(it):
    group = []
    for _ in range(20):
        sock = it.socket()
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEPORT, 1)
        sock.bind(("", 9000))
        group.append(sock)
    while group:
        for sport in range(2000, 2020):
            it.receive(udp_frame(b"", sport=sport))
        assert sum(sock.info["queued"] for sock in group) == 20
        for sock in group:
            for _ in range(sock.info["queued"]):
                sock.recv(1)
        group.pop(len(group) // 2).close()
    assert it.fate("SKB_DELIVERED") == 400


def test_a_connected_socket_hears_its_peer_only(it):
    sock = it.socket(OUR_IP, 9000)
    sock.connect(("10.0.0.1", 4000))
    it.receive(udp_frame(b"peer"), udp_frame(b"other", sport=4001))
    assert sock.info["queued"] == 1
    assert it.count("UdpNoPorts") == 1


def test_ten_thousand_sockets_find_their_datagrams(it):
    sockets = {port: it.socket("", port) for port in range(10000, 20000)}
    for port in range(10000, 20000, 97):
        it.receive(udp_frame(port.to_bytes(2), dport=port))
        assert sockets[port].recv(2) == port.to_bytes(2)
