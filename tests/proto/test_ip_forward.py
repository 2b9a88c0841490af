"""A router: what is for others goes on, with a shorter life."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import ICMP, IP, TCP

from netstack._counters import mib
from netstack.proto.route import RTN, Route
from tests.memory_host import memory_host
from tests.proto.stack import ETH0, PEER, Stack, eth, ip

NEXT, NEXT_MAC = "10.0.0.50", "02:00:00:00:00:50"
FAR = "20.1.2.3"


@pytest.fixture
def router(stack: Stack) -> Stack:
    """Forward 20.0.0.0/8 to 10.0.0.50."""
    stack.config["net.ipv4.ip_forward"] = 1
    stack.neighbour(NEXT, NEXT_MAC)
    gateway = IPv4Address(NEXT)
    stack.inet.routes.add_route(Route(IPv4Network("20.0.0.0/8"), RTN.UNICAST, ETH0, gateway))
    return stack


def test_a_packet_goes_on_to_the_next_hop(router: Stack) -> None:
    (frame,) = router.give(eth() / ip(dst=FAR, ttl=9) / ICMP(id=1) / b"hello")
    assert (frame.dst, frame[IP].ttl, frame[IP].dst, frame[IP].src) == (NEXT_MAC, 8, FAR, PEER)
    good = frame[IP].chksum
    del frame[IP].chksum
    assert IP(bytes(frame[IP])).chksum == good
    assert router.fates() == {"FORWARDED": 1}
    counters = router.counters()
    assert counters["IpForwDatagrams"] == counters["IpOutTransmits"] == 1
    assert "IpOutRequests" not in counters


def test_the_end_of_its_life_is_told(router: Stack) -> None:
    (error,) = router.give(eth() / ip(dst=FAR, ttl=1) / ICMP())
    assert (error[IP].dst, error[ICMP].type, error[ICMP].code) == (PEER, 11, 0)
    assert router.fates() == {"IP_INHDR": 1}
    assert router.net.mib(mib.IpInHdrErrors) == 1


def test_what_does_not_fit_and_must_not_be_cut_is_told(router: Stack) -> None:
    router.bench.mtu = 576
    (error,) = router.give(eth() / ip(dst=FAR, flags="DF") / ICMP() / bytes(1000))
    assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu) == (3, 4, 576)
    assert router.fates() == {"PKT_TOO_BIG": 1}


def test_what_may_be_cut_is_cut(router: Stack) -> None:
    router.bench.mtu = 576
    frames = router.give(eth() / ip(dst=FAR) / ICMP() / bytes(1000))
    assert [frame[IP].len for frame in frames] == [572, 476]


def test_without_a_route_the_network_is_unreachable(router: Stack) -> None:
    (error,) = router.give(eth() / ip(dst="30.0.0.1") / ICMP())
    assert (error[ICMP].type, error[ICMP].code) == (3, 0)
    assert router.fates() == {"IP_INNOROUTES": 1}
    assert router.net.mib(mib.IpExtInNoRoutes) == 1


@pytest.mark.parametrize(("rtype", "code"), [(RTN.UNREACHABLE, 1), (RTN.PROHIBIT, 13)])
def test_a_route_that_refuses_says_so(router: Stack, rtype: RTN, code: int) -> None:
    router.inet.routes.add_route(Route(IPv4Network("40.0.0.0/8"), rtype, ETH0))
    (error,) = router.give(eth() / ip(dst="40.0.0.1") / ICMP())
    assert error[ICMP].code == code


def test_a_black_hole_is_silent(router: Stack) -> None:
    router.inet.routes.add_route(Route(IPv4Network("40.0.0.0/8"), RTN.BLACKHOLE, ETH0))
    assert router.give(eth() / ip(dst="40.0.0.1") / ICMP()) == []


def test_a_packet_in_a_broadcast_frame_does_not_go_on(router: Stack) -> None:
    assert router.give(eth(dst="ff:ff:ff:ff:ff:ff") / ip(dst=FAR) / ICMP()) == []
    assert router.fates() == {"IP_INVALID_DEST": 1}


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "python"])
def test_what_gro_merged_goes_on_frame_by_frame(fast: bool) -> None:
    segments = [
        bytes(
            eth()
            / ip(dst=FAR, id=i, ttl=9, flags="DF")
            / TCP(flags="A", seq=1 + 1000 * i)
            / bytes(1000)
        )
        for i in range(4)
    ]
    with memory_host(fast_path=fast) as it:
        it.meet()
        it.host.config["net.ipv4.ip_forward"] = 1
        gateway = IPv4Address(PEER)
        network = IPv4Network("20.0.0.0/8")
        it.host.inet.routes.add_route(Route(network, RTN.UNICAST, it.device.ifindex, gateway))
        frames = [IP(frame[14:]) for frame in it.put(*segments)]
        assert [(frame.id, frame.ttl, frame.len) for frame in frames] == [
            (i, 8, 1040) for i in range(4)
        ]
        assert [bytes(frame[TCP]) for frame in frames] == [segment[34:] for segment in segments]
        counters = it.host.net
        assert counters.mib(mib.IpInReceives) < 4, "GRO merged nothing"
        assert counters.mib(mib.IpForwDatagrams) == 4
