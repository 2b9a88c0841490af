"""The way in: what the short cut remembers is forgotten in time, and who wants a copy gets it."""

import pytest
from scapy.layers.inet import ICMP, IP

from netstack._counters import mib
from netstack.proto import net_protocol
from tests.proto.stack import ADDR, ETH0, PEER, Stack, eth, ip, ping

ALL = "ff:ff:ff:ff:ff:ff"


def test_a_removed_address_is_not_ours_from_the_next_packet_on(stack: Stack) -> None:
    assert len(stack.give(ping(), ping())) == 2
    stack.inet.routes.add_address(ETH0, "10.0.0.3/24")
    stack.inet.routes.remove_address(ETH0, f"{ADDR}/24")
    assert stack.give(ping()) == []
    assert stack.fates() == {"CONSUMED": 2, "IP_INADDRERRORS": 1}


def test_an_address_of_ours_is_no_source_from_the_next_packet_on(stack: Stack) -> None:
    stack.neighbour("10.0.0.9", "02:00:00:00:00:09")
    assert len(stack.give(ping(src="10.0.0.9"))) == 1
    stack.inet.routes.add_address(ETH0, "10.0.0.9/24")
    assert stack.give(ping(src="10.0.0.9")) == []
    assert stack.fates() == {"CONSUMED": 1, "IP_LOCAL_SOURCE": 1}


def test_rp_filter_holds_from_the_next_packet_on(stack: Stack) -> None:
    stack.give(ping(src="9.9.9.9"))
    stack.config["net.ipv4.conf.all.rp_filter"] = 1
    stack.give(ping(src="9.9.9.9"))
    assert stack.fates() == {"CONSUMED": 1, "IP_RPFILTER": 1}


def test_many_sources_share_the_places_of_the_short_cut(stack: Stack) -> None:
    for i in range(3, 200):
        stack.neighbour(f"10.0.0.{i}", "02:00:00:00:00:09")
    for _ in range(2):
        for i in range(3, 200):
            (reply,) = stack.give(ping(8, src=f"10.0.0.{i}"))
            assert reply[IP].dst == f"10.0.0.{i}"


def test_another_mac_s_packet_is_dropped_and_not_counted_by_ip(stack: Stack) -> None:
    stack.give(eth(dst="02:00:00:00:00:77") / ip() / ICMP())
    assert stack.fates() == {"OTHERHOST": 1}
    assert stack.counters() == {}


def test_unicast_in_a_broadcast_frame_can_be_refused(stack: Stack) -> None:
    frame = eth(dst=ALL) / ip() / ICMP(id=1)
    assert len(stack.give(frame)) == 1
    stack.config["net.ipv4.conf.all.drop_unicast_in_l2_multicast"] = 1
    assert stack.give(frame) == []
    assert stack.fates() == {"CONSUMED": 1, "UNICAST_IN_L2_MULTICAST": 1}


def test_padding_is_cut_off(stack: Stack) -> None:
    stack.inet.add_protocol(77, net_protocol(lambda host, skb: stack.kept.append(skb)))
    stack.give(bytes(eth() / ip(proto=77) / b"abc") + b"\xa5" * 23)
    assert stack.kept[0].data == b"abc"


def test_padding_over_two_buffers_is_cut_off(stack: Stack) -> None:
    stack.inet.add_protocol(77, net_protocol(lambda host, skb: stack.kept.append(skb)))
    data = bytes(i % 251 for i in range(3000))
    stack.give(bytes(eth() / ip(proto=77) / data[:1900]) + b"\xa5" * 1500)
    stack.give(bytes(eth() / ip(proto=77) / data[:1000]) + b"\xa5" * 3000)
    assert [skb.data for skb in stack.kept] == [data[:1900], data[:1000]]


def test_a_protocol_is_registered_once(stack: Stack) -> None:
    with pytest.raises(ValueError, match="IP protocol 1 has a handler"):
        stack.inet.add_protocol(1, net_protocol(print))
    with pytest.raises(ValueError, match="0 to 255"):
        stack.inet.add_protocol(256, net_protocol(print))
    stack.inet.add_protocol(77, net_protocol(print))
    stack.inet.remove_protocol(77)
    with pytest.raises(ValueError, match="no handler"):
        stack.inet.remove_protocol(77)


def test_a_protocol_that_python_wants_is_left_alone_by_the_short_cut(stack: Stack) -> None:
    stack.net.want_protocol(1, True)
    seen = []
    original = stack.inet.protocols[1]
    stack.inet.protocols[1] = original._replace(
        handler=lambda host, skb: (seen.append(len(skb)), original.handler(host, skb))
    )
    assert len(stack.give(ping(8))) == 1
    assert seen == [16]


def test_the_ecn_field_is_counted_by_value(stack: Stack) -> None:
    for tos in (0, 1, 2, 2, 3, 3, 3):
        stack.give(ping(tos=tos))
    names = ("NoECT", "ECT1", "ECT0", "CE")
    counters = stack.counters()
    assert [counters[f"IpExtIn{name}Pkts"] for name in names] == [1, 1, 2, 3]


def test_every_packet_from_a_peer_is_delivered_once(stack: Stack) -> None:
    stack.give(*[ping()] * 10)
    assert stack.net.mib(mib.IpInReceives) == stack.net.mib(mib.IpInDelivers) == 10
    assert PEER != ADDR
