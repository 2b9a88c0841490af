"""A router: what is for others goes on, with a shorter life."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.l2 import Ether

from netstack._counters import mib
from netstack.proto.route import RTN, Route
from netstack.stats import ledger
from tests.memory_host import memory_host
from tests.proto.stack import ADDR, ETH0, PEER, Stack, eth, ip

NEXT, NEXT_MAC = "10.0.0.50", "02:00:00:00:00:50"
FAR = "20.1.2.3"


@pytest.fixture
def router(stack: Stack) -> Stack:
    """Forward 20.0.0.0/8 to 10.0.0.50, in the sender's subnet, and say nothing of that."""
    stack.config["net.ipv4.ip_forward"] = 1
    stack.config["net.ipv4.conf.all.send_redirects"] = 0
    stack.config["net.ipv4.conf.eth0.send_redirects"] = 0
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
        it.host.config["net.ipv4.conf.all.send_redirects"] = 0
        it.host.config["net.ipv4.conf.tap0.send_redirects"] = 0
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
        # Cut behind the last counter, as in Linux: one packet to all of them.
        assert counters.mib(mib.IpForwDatagrams) == counters.mib(mib.IpOutTransmits) < 4
        assert ledger(it.host).forwarded == 4


# ---- redirects


@pytest.fixture
def stick(stack: Stack) -> Stack:
    """Forward 20.0.0.0/8 to 10.0.0.50, through the device where the packets come from."""
    stack.config["net.ipv4.ip_forward"] = 1
    stack.neighbour(NEXT, NEXT_MAC)
    gateway = IPv4Address(NEXT)
    stack.inet.routes.add_route(Route(IPv4Network("20.0.0.0/8"), RTN.UNICAST, ETH0, gateway))
    return stack


def redirects(frames: list[Ether]) -> list[str]:
    """Give the routers that were named."""
    found = [frame[ICMP] for frame in frames if frame.haslayer(ICMP)]
    return [message.gw for message in found if message.type == 5]


def test_who_could_have_asked_the_next_hop_is_told(stick: Stack) -> None:
    frames = stick.give(eth() / ip(dst=FAR, ttl=9) / UDP(dport=9))
    assert redirects(frames) == [NEXT]
    told = next(frame for frame in frames if frame.haslayer(ICMP))
    assert (told[IP].dst, told[ICMP].code) == (PEER, 1)
    assert (told[ICMP][IPerror].dst, told[ICMP][IPerror].ttl) == (FAR, 8)
    assert sorted(frame[IP].dst for frame in frames) == [PEER, FAR]
    assert stick.fates() == {"FORWARDED": 1}
    assert stick.net.mib(mib.IcmpOutRedirects) == 1


def test_a_sender_that_does_not_listen_is_told_ever_more_seldom(stick: Stack) -> None:
    told = 0
    for _ in range(100):
        told += len(redirects(stick.give(eth() / ip(dst=FAR, ttl=9) / UDP(dport=9))))
        stick.advance(0.01)
    # 20 ms after the first is too soon for the second (40 ms), and so on: 0, 50, 140, 310, 640 ms.
    assert told == 5


def test_nine_are_enough_until_it_has_been_silent(stick: Stack) -> None:
    frame = eth() / ip(dst=FAR, ttl=9) / UDP(dport=9)
    told = 0
    for _ in range(12):
        told += len(redirects(stick.give(frame)))
        stick.advance(19)
    assert told == 9
    stick.advance(21)
    assert redirects(stick.give(frame)) == [NEXT]


@pytest.mark.parametrize("place", ["all", "eth0"])
def test_one_word_for_redirects_is_enough(stick: Stack, place: str) -> None:
    stick.config[f"net.ipv4.conf.{place}.send_redirects"] = 0
    assert redirects(stick.give(eth() / ip(dst=FAR, ttl=9) / UDP(dport=9))) == [NEXT]


def test_a_sender_behind_a_router_is_told_nothing(stick: Stack) -> None:
    network = IPv4Network("30.0.0.0/8")
    stick.inet.routes.add_route(Route(network, RTN.UNICAST, ETH0, IPv4Address(PEER)))
    assert redirects(stick.give(eth() / ip(src="30.0.0.1", dst=FAR) / UDP(dport=9))) == []


# ---- settings of a device


def test_ip_forward_is_every_device_s_forwarding(stack: Stack) -> None:
    stack.config["net.ipv4.ip_forward"] = 1
    words = ("all.forwarding", "default.forwarding", "eth0.forwarding", "all.accept_redirects")
    assert [stack.config[f"net.ipv4.conf.{word}"] for word in words] == [1, 1, 1, 0]


def test_a_device_may_refuse_to_forward(router: Stack) -> None:
    router.config["net.ipv4.conf.eth0.forwarding"] = 0
    assert router.config["net.ipv4.ip_forward"] == 1
    assert router.give(eth() / ip(dst=FAR) / ICMP()) == []
    assert router.fates() == {"IP_INADDRERRORS": 1}


def test_a_setting_holds_from_the_next_packet_on(router: Stack) -> None:
    assert len(router.give(eth() / ip(dst=FAR) / UDP())) == 1
    router.config["net.ipv4.conf.eth0.forwarding"] = 0
    assert router.give(eth() / ip(dst=FAR) / UDP()) == []
    router.config["net.ipv4.conf.eth0.forwarding"] = 1
    router.config["net.ipv4.conf.eth0.rp_filter"] = 1
    assert router.give(eth() / ip(src="9.9.9.9", dst=FAR) / UDP()) == []
    assert router.fates() == {"FORWARDED": 1, "IP_INADDRERRORS": 1, "IP_RPFILTER": 1}


@pytest.mark.parametrize(("local", "fate"), [(0, "IP_LOCAL_SOURCE"), (1, "FORWARDED")])
def test_our_own_address_as_a_source_is_a_setting(router: Stack, local: int, fate: str) -> None:
    router.config["net.ipv4.conf.eth0.accept_local"] = local
    router.give(eth() / ip(src=ADDR, dst=FAR) / UDP())
    assert router.fates() == {fate: 1}


# ---- limits


def test_a_sender_of_packets_without_a_way_is_told_twice_at_once(router: Stack) -> None:
    frame = eth() / ip(dst="30.0.0.1") / UDP()
    assert len(router.give(*[frame] * 10)) == 2
    router.advance(3)
    assert len(router.give(*[frame] * 10)) == 1


def test_what_waits_for_the_next_hop_is_still_queued(router: Stack) -> None:
    network = IPv4Network("40.0.0.0/8")
    router.inet.routes.add_route(Route(network, RTN.UNICAST, ETH0, IPv4Address("10.0.0.99")))
    router.give(*[eth() / ip(dst="40.0.0.1") / UDP()] * 3)
    assert router.inet.queued() == {"proto/arp": 3}
    router.neighbour("10.0.0.99", NEXT_MAC)
    assert len(router.sent()) == 3
    assert router.fates() == {"FORWARDED": 3}


def test_what_nobody_answers_for_is_dropped_with_its_frame(router: Stack) -> None:
    network = IPv4Network("40.0.0.0/8")
    router.inet.routes.add_route(Route(network, RTN.UNICAST, ETH0, IPv4Address("10.0.0.99")))
    router.give(eth() / ip(dst="40.0.0.1") / UDP())
    router.advance(5)
    assert router.fates() == {"NEIGH_FAILED": 1}
