"""Counters and the ledger: names come from the enum, the account adds up or says that not."""

import pytest

from netstack import stats
from netstack._counters import mib, skb_drop_reason
from netstack._net import Net
from tests.fakehost import FakeHost


@pytest.fixture
def host():
    return FakeHost()


def end(host, **frames):
    """Let frames end: ``end(host, SKB_DELIVERED=3)``."""
    for name, count in frames.items():
        host.net.fates[skb_drop_reason[name]] = count


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("IpInReceives", ("Ip", "InReceives")),
        ("IpExtInOctets", ("IpExt", "InOctets")),
        ("IcmpInMsgs", ("Icmp", "InMsgs")),
        ("IcmpMsgInType", ("IcmpMsg", "InType")),
        ("TcpExtIPReversePathFilter", ("TcpExt", "IPReversePathFilter")),
    ],
)
def test_a_name_splits_into_group_and_counter(name, expected):
    assert stats.split_name(name) == expected


def test_every_counter_of_the_enum_is_in_exactly_one_table():
    net = Net(1)
    names = [n for n in mib.__members__ if n != "MIB_NR" and not n.startswith("IcmpMsg")]
    assert sorted(stats.nstat(net)) == sorted(names)
    tables = stats.snmp(net) | stats.netstat(net)
    shown = {group + name for group, table in tables.items() for name in table}
    assert set(names) <= shown


def test_counts_arrive_under_their_name():
    net = Net(2)
    net.count(mib.UdpNoPorts, 3)
    net.count(mib.IpExtInOctets, 28)
    assert stats.snmp(net)["Udp"]["NoPorts"] == 3
    assert stats.netstat(net)["IpExt"]["InOctets"] == 28
    assert stats.nstat(net)["UdpNoPorts"] == 3


def test_icmp_messages_are_listed_by_type_and_only_if_seen():
    net = Net(1)
    assert stats.counters(net, "IcmpMsg") == {}
    net.count(int(mib.IcmpMsgInType) + 8)
    net.count(int(mib.IcmpMsgOutType) + 0, 2)
    assert stats.counters(net, "IcmpMsg") == {"InType8": 1, "OutType0": 2}
    assert stats.nstat(net)["IcmpMsgInType8"] == 1


def test_gauges_say_what_the_sysctls_say(host):
    assert stats.snmp(host.net)["Ip"]["Forwarding"] == 2
    assert stats.snmp(host.net)["Ip"]["DefaultTTL"] == 64
    host.config.ip_forward = 1
    assert stats.snmp(host.net)["Ip"]["Forwarding"] == 1
    assert "IpForwarding" not in stats.nstat(host.net)


def test_patterns_select_as_in_a_shell():
    names = ["UdpInDatagrams", "UdpNoPorts", "IpInReceives"]
    assert stats.matching(names, []) == names
    assert stats.matching(names, ["Udp*", "*Receives"]) == names
    assert stats.matching(names, ["*NoPorts"]) == ["UdpNoPorts"]


def test_an_unused_host_has_a_balanced_ledger(host):
    account = stats.ledger(host)
    assert account.balanced
    assert account.frames == 0


def test_ledger_is_the_sum_of_all_ends_and_queues(host):
    host.net.frames = 100
    end(host, SKB_DELIVERED=50, SKB_CONSUMED=20, SKB_FORWARDED=5)
    end(host, SKB_DROP_REASON_NO_SOCKET=14, NIC_DROP_FILTER=1)
    host.places = {"socket queues": 7, "rx ring": 3}
    account = stats.ledger(host)
    assert account.balanced
    assert account.dropped == {"NO_SOCKET": 14, "NIC_DROP_FILTER": 1}
    assert account.delivered == 50


def test_a_frame_without_an_end_is_missed(host):
    host.net.frames = 3
    end(host, SKB_DELIVERED=2)
    account = stats.ledger(host)
    assert not account.balanced
    assert account.difference == 1
    assert "off by 1 frames" in account.text()


def test_a_frame_that_ended_twice_is_noticed(host):
    host.net.frames = 1
    end(host, SKB_DELIVERED=1, SKB_CONSUMED=1)
    assert stats.ledger(host).difference == -1


def test_an_end_that_says_nothing_does_not_hide_a_frame(host):
    host.net.frames = 1
    end(host, SKB_NOT_DROPPED_YET=1)
    assert not stats.ledger(host).balanced


def test_ledger_text_names_every_place(host):
    host.net.frames = 12
    end(host, SKB_DELIVERED=5, SKB_DROP_REASON_NO_SOCKET=4)
    host.places = {"rx ring": 3, "seam": 0}
    text = stats.ledger(host).text()
    assert "frames off the wire" in text
    assert "  NO_SOCKET" in text
    assert "  rx ring" in text
    assert "seam" not in text
    assert text.endswith("balanced")


def test_ledger_as_dict_has_the_verdict(host):
    host.net.frames = 2
    end(host, SKB_CONSUMED=2)
    assert stats.ledger(host).as_dict() == {
        "frames": 2,
        "delivered": 0,
        "consumed": 2,
        "forwarded": 0,
        "dropped": {},
        "queued": {},
        "difference": 0,
        "balanced": True,
    }


def test_by_count_puts_the_largest_first_and_omits_zeros():
    assert stats.by_count({"a": 1, "b": 0, "c": 5}) == [("c", 5), ("a", 1)]
