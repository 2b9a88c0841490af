"""What a router says of a better one is followed, under the conditions of Linux."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether

from netstack._net import sysctl
from netstack.proto._neigh import nud
from netstack.proto.route import RTN, Route
from tests.frames import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC
from tests.memory_host import MemoryHost, memory_host

FAR, BETTER, BETTER_MAC = "20.1.2.3", "10.0.0.50", "02:00:00:00:00:50"


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request):
    """Give a host whose router is the peer, with a socket that has sent to FAR."""
    with memory_host(fast_path=request.param) as it:
        it.meet()
        routes = it.host.inet.routes
        peer = IPv4Address(PEER_IP)
        routes.add_route(Route(IPv4Network("0.0.0.0/0"), RTN.UNICAST, it.device.ifindex, peer))
        it.sock = it.socket("", 4000)
        yield it


def know(it: MemoryHost, address: str = BETTER, mac: str = BETTER_MAC) -> None:
    """Write a neighbour into the table."""
    octets = bytes.fromhex(mac.replace(":", ""))
    it.host.inet.neigh.update(
        it.device.ifindex, int(IPv4Address(address)), octets, nud.NUD_PERMANENT,
        override=True, admin=True, create=True,
    )  # fmt: skip


def tell(it: MemoryHost, message: ICMP, by: str, of: str) -> list[bytes]:
    """Have a host send an ICMP message about a datagram of ours."""
    quoted = IP(src=OUR_IP, dst=of) / UDP(sport=4000, dport=9)
    frame = Ether(src=PEER_MAC, dst=OUR_MAC) / IP(src=by, dst=OUR_IP) / message / quoted
    return it.put(bytes(frame))


def say(
    it: MemoryHost, gw: str = BETTER, code: int = 1, by: str = PEER_IP, of: str = FAR
) -> list[bytes]:
    """Have a router say that a host is better reached through ``gw``."""
    return tell(it, ICMP(type=5, code=code, gw=gw), by, of)


def too_big(it: MemoryHost, mtu: int = 1000, of: str = PEER_IP) -> None:
    """Have the peer say what its link takes."""
    tell(it, ICMP(type=3, code=4, nexthopmtu=mtu), PEER_IP, of)


def way(it: MemoryHost, to: str = FAR) -> str:
    """Give the MAC address that a datagram leaves for."""
    it.sock.sendto(b"x", (to, 9))
    it.host.run()
    (frame,) = it.sent()
    return Ether(frame).dst


def test_a_redirect_to_a_known_neighbour_is_followed(it: MemoryHost) -> None:
    know(it)
    assert way(it) == PEER_MAC
    assert say(it) == []
    assert way(it) == BETTER_MAC


def test_a_stranger_is_asked_for_first(it: MemoryHost) -> None:
    (asked,) = say(it)
    assert Ether(asked)[ARP].pdst == BETTER
    assert way(it) == PEER_MAC
    know(it)
    say(it)
    assert way(it) == BETTER_MAC


def test_it_holds_for_gc_timeout(it: MemoryHost) -> None:
    know(it)
    know(it, PEER_IP, PEER_MAC)
    say(it)
    it.advance(it.host.net.get(sysctl.route_gc_timeout) - 1)
    assert way(it) == BETTER_MAC
    it.advance(2)
    assert way(it) == PEER_MAC


def test_only_the_router_that_was_used_may_speak(it: MemoryHost) -> None:
    know(it)
    say(it, by="10.0.0.77")
    assert way(it) == PEER_MAC


@pytest.mark.parametrize("gw", ["224.0.0.1", "0.0.0.0", "255.255.255.255", OUR_IP, PEER_IP])
def test_what_is_no_router_is_not_followed(it: MemoryHost, gw: str) -> None:
    if gw != PEER_IP:
        know(it, gw)
    say(it, gw=gw)
    assert way(it) == PEER_MAC


@pytest.mark.parametrize("code", range(4))
def test_networks_are_taken_as_hosts(it: MemoryHost, code: int) -> None:
    know(it)
    say(it, code=code)
    assert way(it) == BETTER_MAC
    it.sock.sendto(b"x", ("20.1.2.4", 9))
    it.host.run()
    assert [Ether(frame).dst for frame in it.sent()] == [PEER_MAC]


@pytest.mark.parametrize("forwarding", [0, 1])
@pytest.mark.parametrize("of_all", [0, 1])
@pytest.mark.parametrize("own", [0, 1])
def test_accept_redirects_is_asked_of_both_by_a_router(
    it: MemoryHost, forwarding: int, of_all: int, own: int
) -> None:
    it.host.config["net.ipv4.ip_forward"] = forwarding
    it.host.config["net.ipv4.conf.all.accept_redirects"] = of_all
    it.host.config["net.ipv4.conf.tap0.accept_redirects"] = own
    know(it)
    say(it)
    follows = (of_all and own) if forwarding else (of_all or own)
    assert way(it) == (BETTER_MAC if follows else PEER_MAC)


def test_off_shared_media_only_default_routers_are_secure(it: MemoryHost) -> None:
    for place in ("all", "tap0"):
        it.host.config[f"net.ipv4.conf.{place}.shared_media"] = 0
    know(it)
    say(it)
    assert way(it) == PEER_MAC, "secure_redirects"
    gateway = IPv4Address(BETTER)
    network = IPv4Network("77.0.0.0/8")
    it.host.inet.routes.add_route(Route(network, RTN.UNICAST, it.device.ifindex, gateway))
    say(it)
    assert way(it) == BETTER_MAC


def test_without_a_socket_nobody_listens(it: MemoryHost) -> None:
    know(it)
    it.sock.close()
    say(it)
    it.sock = it.socket("", 4000)
    assert way(it) == PEER_MAC


def test_a_neighbour_is_no_router(it: MemoryHost) -> None:
    know(it)
    say(it, of=PEER_IP)
    assert way(it, PEER_IP) == PEER_MAC


def test_a_neighbour_whose_mtu_was_learned_may_send_us_elsewhere(it: MemoryHost) -> None:
    too_big(it)
    (asked,) = say(it, of=PEER_IP)
    assert Ether(asked)[ARP].pdst == BETTER
    know(it)
    say(it, of=PEER_IP, by="10.0.0.77")
    assert way(it, PEER_IP) == PEER_MAC
    say(it, of=PEER_IP)
    assert way(it, PEER_IP) == BETTER_MAC


def test_so_may_who_was_named_himself(it: MemoryHost) -> None:
    know(it)
    know(it, FAR, "02:00:00:00:00:51")
    say(it, gw=FAR)
    assert way(it) == "02:00:00:00:00:51"
    say(it, by=FAR)
    assert way(it) == BETTER_MAC


def mtu(it: MemoryHost, to: str) -> int:
    return it.host.inet.routes.ip_route_output(int(IPv4Address(to))).mtu


def test_router_and_mtu_of_a_destination_end_together(it: MemoryHost) -> None:
    """The latest message says when: mtu_expires, or gc_timeout."""
    know(it)
    know(it, PEER_IP, PEER_MAC)
    expires = it.host.net.get(sysctl.route_mtu_expires)
    timeout = it.host.net.get(sysctl.route_gc_timeout)
    assert timeout < expires
    say(it)
    too_big(it, of=FAR)
    it.advance(expires - 1)
    assert (way(it), mtu(it, FAR)) == (BETTER_MAC, 1000)
    say(it, gw=PEER_IP, by=BETTER)
    it.advance(timeout - 1)
    assert (way(it), mtu(it, FAR)) == (PEER_MAC, 1000)
    it.advance(2)
    assert (way(it), mtu(it, FAR)) == (PEER_MAC, 1500)
