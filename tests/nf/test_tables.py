"""Rules in nft's words: what they match, count and do, on both roads."""

from __future__ import annotations

import time

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from netstack.capture.bpf import compile_filter
from netstack.errors import hint_of
from netstack.nf.hooks import (
    NF_ACCEPT,
    NF_DROP,
    NF_INET_LOCAL_IN,
    NF_INET_PRE_ROUTING,
    NF_QUEUE,
    NF_REPEAT,
)
from netstack.nf.tables import is_by_flow
from tests.frames import OUR_IP, PEER_IP, ping, udp
from tests.memory_host import memory_host


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request):
    with memory_host(fast_path=request.param) as it:
        it.meet()
        yield it


def rules(it, chain="input", family="ip"):
    (found,) = it.host.nft.command(f"list chain {family} filter {chain}")
    return [row["rule"] for row in found["rules"]]


def add(it, rule, chain="input", family="ip"):
    it.host.nft.command(f"add rule {family} filter {chain} {rule}")


def counts(it, chain="input"):
    (found,) = it.host.nft.command(f"list chain ip filter {chain}")
    return [row.get("packets") for row in found["rules"]]


# A rule, and which of these it matches: udp 4000 > 9000 from PEER_IP, the same to 9001, a ping.
MATCHES = [
    ("counter", (1, 1, 1)),
    ("udp dport 9000 counter", (1, 0, 0)),
    ("udp dport != 9000 counter", (0, 1, 0)),
    ("udp dport { 9000, 9001 } counter", (1, 1, 0)),
    ("udp dport 9001-9100 counter", (0, 1, 0)),
    ("udp dport > 9000 counter", (0, 1, 0)),
    ("udp sport 4000 udp dport 9001 counter", (0, 1, 0)),
    ("tcp dport 9000 counter", (0, 0, 0)),
    ("icmp type echo-request counter", (0, 0, 1)),
    ("icmp type != { echo-reply, 3 } counter", (0, 0, 1)),
    ("ip protocol udp counter", (1, 1, 0)),
    ("ip protocol != udp counter", (0, 0, 1)),
    ("meta l4proto icmp counter", (0, 0, 1)),
    (f"ip saddr {PEER_IP} counter", (1, 1, 1)),
    ("ip saddr 10.0.0.0/8 counter", (1, 1, 1)),
    ("ip saddr != 10.0.0.0/8 counter", (0, 0, 0)),
    ("ip saddr 10.0.0.0-10.0.0.9 counter", (1, 1, 1)),
    (f"ip daddr {{ 1.2.3.4, {OUR_IP} }} counter", (1, 1, 1)),
    ("ip ttl < 5 counter", (0, 0, 0)),
    ("ip length > 20 counter", (1, 1, 1)),
    ("meta length 28-40 counter", (1, 1, 1)),
    ('iifname "tap0" udp dport 9000 counter', (1, 0, 0)),
    ("iif lo counter", (0, 0, 0)),
    ('meta iifname "tap0" counter comment "mine"', (1, 1, 1)),
]


@pytest.mark.parametrize("chain", ["input", "prerouting"])
@pytest.mark.parametrize(("rule", "expected"), MATCHES)
def test_what_a_rule_matches(it, chain, rule, expected):
    it.socket(OUR_IP, 9000)
    it.socket(OUR_IP, 9001)
    add(it, rule, chain)
    for frame, hit in zip((udp(), udp(dport=9001), ping()), expected, strict=True):
        for _ in range(3):  # the second time the flow may be remembered
            before = counts(it, chain)[0]
            it.put(frame)
            assert counts(it, chain)[0] - before == hit
    assert it.drops() == {}


def test_a_drop_at_each_hook_has_its_reason(it):
    sock = it.socket(OUR_IP, 9000)
    for family, chain in (("ip", "input"), ("ip", "prerouting"), ("netdev", "ingress")):
        add(it, "udp dport 9000 counter drop", chain, family)
        it.put(udp(b"1"), udp(b"2"))
        it.host.nft.command(f"flush chain {family} filter {chain}")
    assert it.drops() == {"NETFILTER_DROP": 6}
    it.put(udp(b"through"))
    assert sock.recv(100) == b"through"
    assert it.host.net.nf_rules == 0
    assert it.host.net.nf_hooks == 0


def test_a_rule_works_from_the_next_packet_on_and_a_flow_is_asked_again(it):
    sock = it.socket(OUR_IP, 9000)
    add(it, "udp dport 1 drop")
    it.put(udp(b"1"), udp(b"2"))
    add(it, "udp dport 9000 counter drop")
    it.put(udp(b"3"))
    it.host.nft.command("delete rule filter input handle 3")
    it.put(udp(b"4"))
    assert [sock.recv(9) for _ in range(3)] == [b"1", b"2", b"4"]
    assert rules(it) == ["udp dport 1 drop"]


def test_the_first_verdict_counts_and_continue_goes_on(it):
    sock = it.socket(OUR_IP, 9000)
    add(it, "counter continue")
    add(it, "ip saddr 10.0.0.1 counter accept")
    add(it, "counter drop")
    it.put(udp(b"x"))
    assert sock.recv(9) == b"x"
    assert counts(it) == [1, 1, 0]
    it.host.nft.command("insert rule ip filter input udp dport 9000 counter drop")
    it.put(udp(b"y"))
    assert counts(it) == [1, 1, 1, 0]
    assert rules(it)[0] == "udp dport 9000 counter packets 1 bytes 29 drop"


def test_the_policy(it):
    sock = it.socket(OUR_IP, 9000)
    it.host.nft.command(
        "add chain ip filter input { type filter hook input priority 0 ; policy drop ; }"
    )
    add(it, "udp dport 9000 accept")
    it.put(udp(b"x"), ping())
    assert sock.recv(9) == b"x"
    assert it.drops() == {"NETFILTER_DROP": 1}


def test_what_is_sent_is_refused_as_linux_does(it):
    sock = it.socket(OUR_IP, 9000)
    for chain in ("output", "postrouting"):
        add(it, "udp dport 5 counter drop", chain)
        with pytest.raises(PermissionError):
            sock.sendto(b"x", (PEER_IP, 5))
        it.host.nft.command(f"flush chain ip filter {chain}")
    add(it, 'oifname "tap0" counter', "output")
    sock.sendto(b"x", (PEER_IP, 5))
    assert len(it.sent()) == 1
    assert counts(it, "output") == [1]
    it.put(ping())
    assert counts(it, "output") == [2]


def test_who_is_rejected_is_told(it):
    it.socket(OUR_IP, 9000)
    add(it, "udp dport 9000 counter reject with icmp type port-unreachable")
    (answer,) = it.put(udp(b"x"))
    icmp = Ether(answer)[ICMP]
    assert (icmp.type, icmp.code) == (3, 3)
    assert counts(it) == [1]
    assert it.drops() == {"NETFILTER_DROP": 1}
    assert len(it.put(ping())) == 1  # others take the short cut


def test_a_hook_with_a_filter_sees_only_what_it_asked_for_and_may_change_it(it):
    sock = it.socket(OUR_IP, 9000)
    seen = []

    def fn(host, skb):
        seen.append(skb.data[9])
        skb.store(28, b"Y")
        return NF_ACCEPT

    remove = it.host.hook(NF_INET_PRE_ROUTING, fn, filter="udp and udp[8] = 0x58")
    no_sum = Ether(udp(b"Xa"))
    no_sum[UDP].chksum = 0  # so that the change needs no new sum
    frame = bytearray(bytes(no_sum))
    frame[40:42] = b"\0\0"
    it.put(bytes(frame))
    it.put(udp(b"ab"), ping())
    assert seen == [17]
    assert [sock.recv(9) for _ in range(2)] == [b"Ya", b"ab"]
    remove()
    assert it.host.net.nf_hooks == 0


def test_queue_puts_a_packet_aside_and_reinject_sends_it_on(it):
    sock = it.socket(OUR_IP, 9000)
    later = []
    it.host.hook(NF_INET_LOCAL_IN, lambda host, skb: NF_QUEUE, -5, "udp")
    it.host.hook(NF_INET_LOCAL_IN, lambda host, skb: later.append(1) or NF_ACCEPT, 5)
    it.put(udp(b"1"), udp(b"2"), udp(b"3"))
    assert it.host.queued() == {"nf/queue": 3}
    hooks = it.host.inet.hooks
    hooks.reinject(hooks.queue[1], NF_ACCEPT)
    hooks.reinject(hooks.queue[0], NF_DROP)
    assert sock.recv(9) == b"2"
    assert later == [1]
    assert it.host.queued() == {"nf/queue": 1}  # ends as QUEUE_PURGE when the host closes


def test_repeat_asks_again_and_ends_as_drop(it):
    asked = []
    it.host.hook(NF_INET_LOCAL_IN, lambda host, skb: asked.append(1) or NF_REPEAT)
    it.put(udp())
    assert len(asked) == 16
    assert it.drops() == {"NETFILTER_DROP": 1}


def test_rules_stand_at_priority_0_among_hooks(it):
    order = []

    def fn(name):
        return lambda host, skb: order.append((name, counts(it)[0])) or NF_ACCEPT

    it.socket(OUR_IP, 9000)
    add(it, "counter")
    it.host.hook(NF_INET_LOCAL_IN, fn("after"), 1)
    it.host.hook(NF_INET_LOCAL_IN, fn("before"), -1)
    it.put(udp())
    assert order == [("before", 0), ("after", 1)]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("ip and udp dst port 53", True),
        ("ip and (ip[12:4] & 0xff000000 == 0x0a000000)", True),
        ("icmp and icmp[0] == 8", True),
        ("ip[8] < 5", False),
        ("len > 100", False),
        ("udp[4:2] > 5", False),
        ("udp[8] = 1", False),
    ],
)
def test_which_programs_say_the_same_of_a_whole_flow(text, same):
    assert is_by_flow(compile_filter(text, 101).insns) == same


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("ip and udp dst port 53", True),
        ("arp or ip host 10.0.0.1", True),
        ("ether[12:2] == 0x1234", True),
        ("ether src 02:00:00:00:00:01", False),
        ("ip[8] < 5", False),
        ("ip and udp[4:2] > 5", False),
    ],
)
def test_which_programs_of_frames_say_the_same_of_a_whole_flow(text, same):
    assert is_by_flow(compile_filter(text, 1).insns, 14) == same


def test_ingress_takes_no_other_packet_for_one_of_a_flow_it_remembers(it):
    it.socket(OUR_IP, 9000)
    add(it, "ether type 0x1234 counter", "ingress", "netdev")
    it.put(udp(b"x"), udp(b"x"))
    alike = udp(b"x")
    it.put(alike[:12] + b"\x12\x34" + alike[14:])
    assert rules(it, "ingress", "netdev") == ["ether type 0x1234 counter packets 1 bytes 29"]


def test_a_rule_that_looks_at_more_than_the_flow_is_asked_each_time(it):
    it.socket(OUR_IP, 9000)
    add(it, "ip length > 100 counter")
    it.put(udp(b"short"), udp(b"x" * 200), udp(b"short"), udp(b"x" * 200))
    assert counts(it) == [2]


REFUSED = [
    ("", "nothing"),
    ("list everything", "list everything"),
    ("add rule ip filter nope counter", "chain ip filter nope"),
    ("add rule ip6 filter input counter", "chain ip6 filter input"),
    ("add rule ip filter input", "a rule ends with a verdict"),
    ("add rule ip filter input udp dport 70000 drop", "0 to 65535"),
    ("add rule ip filter input udp dport domain drop", "'domain' can't be"),
    ("add rule ip filter input udp dport { } drop", "the set is empty"),
    ("add rule ip filter input udp dport { 1, 2 drop", "without }"),
    ("add rule ip filter input udp dport < { 1, 2 } drop", "one value"),
    ("add rule ip filter input udp dport 9-3 drop", "goes down"),
    ("add rule ip filter input udp doprt 9 drop", "udp has sport, dport, length"),
    ("add rule ip filter input ip saddr 10.0.0.0/99 drop", "is no prefix"),
    ("add rule ip filter input ip saddr x drop", "an IPv4 address"),
    ("add rule ip filter input drop counter", "behind the verdict drop"),
    ('add rule ip filter input iifname "eth9" drop', "Interface does not exist"),
    ('add rule ip filter input oifname "tap0" drop', "oifname is not known in input"),
    ("add rule ip filter postrouting reject", "reject is for"),
    ("add rule ip filter input reject with tcp reset", "port-unreachable"),
    ("delete rule ip filter input handle 99", "there are: none"),
    ("delete rule ip filter input", "named by its handle"),
    ("flush table ip nat", "table ip nat"),
    ("add chain ip filter input { policy maybe ; }", "accept or drop"),
    ("list ruleset now", "unexpected 'now'"),
    ('add rule ip filter input comment "x', "No closing quotation"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_can_not_be_is_refused_and_changes_nothing(text, message):
    with memory_host() as it:
        with pytest.raises((ValueError, OSError), match=message) as info:
            it.host.nft.command(text)
        assert hint_of(info.value)
        assert it.host.nft.command("list ruleset") == []
        assert it.host.net.nf_rules == 0


def test_rules_come_and_go_under_traffic():
    with memory_host() as it:
        it.meet()
        sock = it.socket(OUR_IP, 9000)
        for n in range(200):
            add(it, f"udp dport {n + 1} counter drop")
            it.put(udp(b"%d" % n))
            assert sock.recv(9) == b"%d" % n
        for n in range(200):
            it.host.nft.command(f"delete rule ip filter input handle {n + 2}")
            it.put(udp(b"%d" % n))
            assert sock.recv(9) == b"%d" % n


def cost(it, frames, rounds=20):
    """CPU time of one datagram from the wire to a socket without room: all but the queueing."""
    best = float("inf")
    for _ in range(rounds):
        for frame in frames:
            it.wire.send(frame)
        start = time.thread_time()
        it.host.run()
        best = min(best, time.thread_time() - start)
    return best / len(frames)


@pytest.mark.bench
def test_a_thousand_rules_that_do_not_match_a_flow_cost_no_tenth_more_than_one():
    with memory_host() as it:
        it.meet()
        it.socket(OUR_IP, 9000)
        frames = [udp(b"x" * 100)] * 900
        # What others on the machine do can only make either slower: the best of all is the cost.
        without = with_rules = float("inf")
        chain = it.host.nft.chains["ip", "filter", "input"]
        for _ in range(25):
            add(it, "udp dport 1 drop")
            without = min(without, cost(it, frames))
            for n in range(1000):
                rule = it.host.nft._rule(chain, ["udp", "dport", str(10000 + n), "drop"])
                chain.rules.append(rule)
            add(it, "udp dport 1 drop")
            with_rules = min(with_rules, cost(it, frames))
            it.host.nft.command("flush ruleset")
            if with_rules < 1.10 * without:
                break
        assert with_rules < 1.10 * without


def test_what_is_written_must_be_inside_the_packet(it):
    wrong = []

    def fn(host, skb):
        with pytest.raises(ValueError, match="the packet has") as info:
            skb.store(9999, b"x")
        wrong.append(info.value)
        return NF_ACCEPT

    it.host.hook(NF_INET_LOCAL_IN, fn)
    it.put(ping())
    assert len(wrong) == 1


def test_a_forwarded_packet_knows_both_devices():
    with memory_host() as it:
        it.meet()
        it.host.config["net.ipv4.ip_forward"] = 1
        other = bytes(Ether(ping()[:14]) / IP(src=PEER_IP, dst="10.0.0.77", ttl=9) / UDP())
        add(it, 'iifname "tap0" oifname "tap0" counter drop', "forward")
        it.put(other)
        assert counts(it, "forward") == [1]
        assert it.drops() == {"NETFILTER_DROP": 1}
