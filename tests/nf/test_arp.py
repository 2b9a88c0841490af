"""The hooks of ARP: rules of the arp family, and functions in Python, on both roads and beside the kernel."""

from __future__ import annotations

import socket
import subprocess

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import ARP, Ether

from netstack.cli.nft import listing
from netstack.lab import another_network
from netstack.nf.hooks import (
    NF_ACCEPT,
    NF_ARP_IN,
    NF_ARP_OUT,
    NF_DROP,
    NF_QUEUE,
    NF_STOLEN,
)
from netstack.proto._neigh import nud
from tests.frames import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, arp_reply, udp, who_has
from tests.memory_host import memory_host
from tools._oracle.kernel import Kernel

OTHER, OTHER_MAC, ALL = "10.0.0.9", "02:00:00:00:00:09", "ff:ff:ff:ff:ff:ff"


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request):
    with memory_host(fast_path=request.param) as it:
        yield it


def arp(dst=ALL, *, padding=0, **fields):
    """Give an ARP packet from the peer, as a frame."""
    given = {"op": 1, "hwsrc": PEER_MAC, "psrc": PEER_IP, "pdst": OUR_IP} | fields
    return bytes(Ether(dst=dst, src=PEER_MAC) / ARP(**given)) + bytes(padding)


def with_bytes(frame, offset, data):
    """Give a frame with other bytes at ``offset``."""
    return frame[:offset] + data + frame[offset + len(data) :]


def add(it, rule, chain="input"):
    it.host.nft.command(f"add rule arp filter {chain} {rule}")


def counts(it, chain="input"):
    """Give packets and bytes of each rule."""
    (found,) = it.host.nft.command(f"list chain arp filter {chain}")
    return [(row["packets"], row["bytes"]) for row in found["rules"]]


def neighbour(it, address=PEER_IP):
    """Give the state of a neighbour, None without an entry."""
    number = int.from_bytes(socket.inet_aton(address))
    row = it.host.inet.neigh.lookup(it.device.ifindex, number)
    return None if row is None else nud(row[3])


def ask(it, address=OTHER):
    """Send a datagram to who is not known yet; give what left."""
    it.socket().sendto(b"x", (address, 9))
    it.host.run()
    return it.sent()


# ---- rules

INPUT = """
arp operation request counter
arp operation != request counter
arp operation { request, reply } counter
arp operation < 3 counter
arp operation >= rrequest counter
arp operation 2-4 counter
arp htype 1 counter
arp htype 1 arp ptype ip arp hlen 6 arp plen 4 counter
arp ptype 0x86dd counter
arp ptype 0x1234 counter
arp saddr ip 10.0.0.1 counter
arp saddr ip 10.0.0.7/24 counter
arp saddr ip != 10.0.0.1-10.0.0.9 counter
arp saddr ip { 10.0.0.1, 10.0.0.2 } counter
arp daddr ip 10.0.0.2 counter
arp daddr ip > 10.0.0.2 counter
arp saddr ether 02:00:00:00:00:01 counter
arp saddr ether > 02:00:00:00:00:00 counter
arp saddr ether < 02:00:00:00:00:01 counter
arp saddr ether != 02:00:00:00:00:01 counter
arp saddr ether 02:00:00:00:00:00-02:00:00:00:00:05 counter
arp daddr ether 00:00:00:00:00:00 counter
ether saddr 02:00:00:00:00:01 counter
ether daddr ff:ff:ff:ff:ff:ff counter
ether daddr != ff:ff:ff:ff:ff:ff counter
ether type arp counter
ether type ip counter
meta protocol arp counter
meta length 28 counter
meta length < 46 counter
iifname "tap0" counter
iif "tap0" arp daddr ip 10.0.0.2 counter continue
counter comment "all"
""".strip().splitlines()
OUTPUT = """
arp operation request counter
arp operation reply counter
oifname "tap0" counter
arp saddr ether 02:00:00:00:00:02 counter
arp saddr ip 10.0.0.2 counter
arp daddr ip 10.0.0.9 counter
arp daddr ether 00:00:00:00:00:00 counter
meta protocol arp counter
meta length 28 counter
meta length 42 counter
counter
""".strip().splitlines()

REQUEST = arp()
FRAMES = {
    "request": REQUEST,
    "padded to 60 bytes": arp(padding=18),
    "probe": arp(psrc="0.0.0.0"),
    "for another": arp(pdst="10.0.0.77"),
    "unasked reply": arp(OUR_MAC, op=2, hwdst=OUR_MAC, psrc="10.0.0.5"),
    "reply to all": arp(op=2, hwdst=OUR_MAC),
    "announcement": arp(psrc=PEER_IP, pdst=PEER_IP),
    "operation 3": with_bytes(REQUEST, 20, b"\0\3"),
    "hardware 6": with_bytes(REQUEST, 14, b"\0\6"),
    "hardware 7": with_bytes(REQUEST, 14, b"\0\7"),
    "protocol IPv6": with_bytes(REQUEST, 16, b"\x86\xdd"),
    "five bytes of hardware": with_bytes(REQUEST, 18, b"\5"),
    "cut off": REQUEST[:40],
    "for a group": arp(pdst="224.0.0.1"),
    "to another machine": arp("02:00:00:00:00:77"),
    "to a group's address": arp("01:00:5e:00:00:01"),
    "tag of VID 0": REQUEST[:12] + bytes.fromhex("81000000") + REQUEST[12:],
    "tag of VID 5": REQUEST[:12] + bytes.fromhex("81000005") + REQUEST[12:],
    "802.1ad": REQUEST[:12] + bytes.fromhex("88a80000") + REQUEST[12:],
    "two tags": REQUEST[:12] + bytes.fromhex("8100000081000000") + REQUEST[12:],
}


class Nft:
    """The kernel, and nft beside it."""

    def __init__(self):
        self.kernel = Kernel()
        self.kernel.stop_time()
        chains = "".join(
            f"chain {name} {{\ntype filter hook {name} priority 0; policy accept;\n"
            + "\n".join(rules)
            + "\n}\n"
            for name, rules in (("input", INPUT), ("output", OUTPUT))
        )
        self.nft("-f", "-", text=f"table arp filter {{\n{chains}}}\n")

    def nft(self, *words, text=""):
        """Call nft; give what it prints."""
        done = subprocess.run(["nft", *words], input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def listing(self):
        """List the table."""
        return self.nft("list", "table", "arp", "filter")

    def put(self, frame):
        """Receive; give what was sent."""
        return self.kernel.put(frame)

    def ask(self):
        """Send to who is not known."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", (OTHER, 9))
        return self.kernel.take()


class Ours:
    """A host of ours with the same rules."""

    def __init__(self, it):
        self.it = it
        it.host.inet.neigh.update(
            it.device.ifindex, int.from_bytes(socket.inet_aton(PEER_IP)),
            bytes.fromhex(PEER_MAC.replace(":", "")), nud.NUD_PERMANENT,
            override=True, admin=True, create=True,
        )  # fmt: skip
        for chain, rules in (("input", INPUT), ("output", OUTPUT)):
            for rule in rules:
                add(it, rule, chain)

    def listing(self):
        """List the table."""
        return listing(self.it.host.nft.command("list table arp filter"))

    def put(self, frame):
        """Receive; give what was sent."""
        return self.it.put(frame)

    def ask(self):
        """Send to who is not known."""
        return ask(self.it)


@pytest.mark.tap
def test_nft_lists_and_counts_the_same_in_the_kernel(it):
    with another_network():
        theirs, ours = Nft(), Ours(it)
        assert ours.listing() == theirs.listing()
        for name, frame in FRAMES.items():
            assert ours.put(frame) == theirs.put(frame), name
            assert ours.listing() == theirs.listing(), name
        assert ours.ask() == theirs.ask()
        assert ours.listing() == theirs.listing()
        theirs.kernel.close()


def test_what_input_drops_is_not_answered_and_not_learned(it):
    add(it, f"arp saddr ip {PEER_IP} counter drop")
    assert it.put(arp(), arp(padding=18), arp_reply()) == []
    assert neighbour(it) is None
    assert it.drops() == {"NETFILTER_DROP": 3}
    assert counts(it) == [(3, 28 + 46 + 28)]
    assert len(it.put(arp(hwsrc=OTHER_MAC, psrc=OTHER))) == 1
    it.host.nft.command("flush ruleset")
    assert len(it.put(arp())) == 1
    assert it.host.net.nf_rules == 0


def test_rules_are_asked_of_what_arp_process_would_drop(it):
    """The hook stands behind the sizes and before the rest, as in Linux."""
    add(it, "counter drop")
    it.put(FRAMES["operation 3"], FRAMES["hardware 7"], FRAMES["for a group"])
    it.put(FRAMES["five bytes of hardware"], FRAMES["to another machine"])
    assert counts(it) == [(3, 84)]
    assert it.drops().pop("NETFILTER_DROP") == 3


def test_the_policy_drops_replies_requests_and_probes_on_the_way_out(it):
    it.host.nft.command("add chain arp filter output { policy drop ; }")
    assert it.put(arp()) == []  # learned, not answered
    assert neighbour(it) == nud.NUD_STALE
    assert ask(it) == []
    assert neighbour(it, OTHER) == nud.NUD_INCOMPLETE
    it.host.nft.command("flush ruleset")
    it.put(arp_reply(OTHER, OTHER_MAC))
    assert neighbour(it, OTHER) == nud.NUD_REACHABLE
    it.host.config["net.ipv4.neigh.default.delay_first_probe_time"] = 1
    add(it, "arp operation request counter drop", "output")
    it.socket().sendto(b"x", (PEER_IP, 9))
    for _ in range(5):
        it.advance(1)
    assert counts(it, "output") == [(3, 126)], "it was probed ucast_solicit times"
    assert neighbour(it) == nud.NUD_FAILED


def test_ingress_sees_arp_before_its_own_hook(it):
    it.host.nft.command("add rule netdev filter ingress arp operation request counter drop")
    it.host.nft.command("add rule netdev filter ingress counter")
    add(it, "counter")
    it.socket(OUR_IP, 9000)
    assert it.put(arp(), udp(), arp_reply()) == []
    (found,) = it.host.nft.command("list chain netdev filter ingress")
    assert [row["packets"] for row in found["rules"]] == [1, 2]
    assert counts(it) == [(1, 28)]


REFUSED = [
    ("add rule arp filter input reject", "cannot use reject with arp"),
    ("add rule arp filter input ip saddr 1.2.3.4 drop", "syntax error: ip saddr; allowed: accept arp"),
    ("add rule arp filter input arp saddr 1.2.3.4 drop", "arp saddr; arp has htype, .*saddr ip"),
    ("add rule arp filter input arp saddr ip x drop", "an IPv4 address"),
    ("add rule arp filter input arp saddr ether 1.2.3.4 drop", "a hardware address"),
    ("add rule arp filter input arp operation 70000 drop", "0 to 65535, or request reply"),
    ("add rule arp filter input oifname tap0 drop", "oifname is not known in input"),
    ("add rule arp filter output iifname tap0 drop", "iifname is not known in output"),
    ("add rule arp filter output ether type arp drop", "ether is not known in output"),
    ("add rule arp filter forward counter", "chain arp filter forward"),
    ("add rule ip filter input arp operation request drop", "syntax error: arp operation"),
    ("add table arp nat", "table arp nat"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_can_not_be_is_refused_and_changes_nothing(text, message):
    with memory_host() as it:
        with pytest.raises((ValueError, OSError), match=message):
            it.host.nft.command(text)
        assert it.host.net.nf_rules == 0
        it.host.nft.command("add table arp filter")
        assert it.host.nft.command("list ruleset") == []


# ---- functions in Python


def test_a_function_sees_both_ways_what_its_filter_matches_and_may_change_it(it):
    seen = []

    def came(host, skb):
        assert (skb.ifindex, len(skb.data)) == (it.device.ifindex, 28)
        seen.append(("in", skb.network[:8].hex()))
        skb.store(8, bytes.fromhex("02000000aaaa"))  # the sender's hardware address
        return NF_ACCEPT

    def leaves(host, skb):
        assert (skb.ifindex, len(skb.data)) == (it.device.ifindex, 42)
        seen.append(("out", skb.network[:8].hex()))
        skb.store(6, bytes.fromhex("02000000bbbb"))  # the source of the frame
        return NF_ACCEPT

    undo = [
        it.host.hook(NF_ARP_IN, came, filter=f"arp[6:2] = 1 and ether src {PEER_MAC}"),
        it.host.hook(NF_ARP_OUT, leaves, filter="arp and arp[6:2] = 2"),
    ]
    (answer,) = it.put(who_has())
    frame = Ether(answer)
    assert (frame.dst, frame.src) == ("02:00:00:00:aa:aa", "02:00:00:00:bb:bb")
    assert (frame[ARP].op, frame[ARP].hwdst) == (2, "02:00:00:00:aa:aa")
    assert seen == [("in", "0001080006040001"), ("out", "0001080006040002")]
    it.put(arp(op=2), arp(hwsrc=OTHER_MAC, psrc=OTHER, pdst="10.0.0.77"))
    assert Ether(ask(it, "10.0.0.3")[0])[ARP].op == 1
    assert len(seen) == 3, "the third is the request for another"
    for each in undo:
        each()
    assert it.host.net.nf_hooks == 0


def test_what_a_function_drops_has_the_reason_of_a_rule(it):
    it.host.hook(NF_ARP_IN, lambda host, skb: NF_DROP, filter=f"arp src host {PEER_IP}")
    assert it.put(who_has()) == []
    assert neighbour(it) is None
    it.host.hook(NF_ARP_OUT, lambda host, skb: NF_DROP)
    assert it.put(arp(hwsrc=OTHER_MAC, psrc=OTHER)) == []
    assert ask(it, "10.0.0.3") == []
    assert neighbour(it, OTHER) == nud.NUD_STALE
    assert it.drops() == {"NETFILTER_DROP": 1}


def test_rules_stand_at_priority_0_among_functions(it):
    order = []

    def fn(name, chain):
        return lambda host, skb: order.append((name, counts(it, chain)[0][0])) or NF_ACCEPT

    for hook, chain in ((NF_ARP_IN, "input"), (NF_ARP_OUT, "output")):
        add(it, "counter", chain)
        it.host.hook(hook, fn("after", chain), 1)
        it.host.hook(hook, fn("before", chain), -1)
    assert len(it.put(who_has())) == 1
    assert order == [("before", 0), ("after", 1)] * 2
    assert counts(it) == [(1, 28)]
    assert counts(it, "output") == [(1, 42)]


def test_a_filter_that_does_not_match_leaves_the_packet_to_the_rules(it):
    asked = []
    it.host.hook(
        NF_ARP_IN, lambda host, skb: asked.append(1) or NF_ACCEPT, filter="arp[6:2] = 2"
    )
    add(it, "arp operation request counter drop")
    assert it.put(who_has()) == []
    assert (asked, counts(it)) == ([], [(1, 28)])


def test_stolen_and_queued_packets_are_somebody_s(it):
    kept = []
    undo = it.host.hook(NF_ARP_OUT, lambda host, skb: kept.append(skb) or NF_STOLEN)
    assert it.put(who_has()) == []
    undo()
    assert Ether(kept.pop().data)[ARP].op == 2
    it.host.hook(NF_ARP_IN, lambda host, skb: NF_QUEUE)
    it.host.hook(NF_ARP_OUT, lambda host, skb: NF_QUEUE)
    assert it.put(who_has(), arp(hwsrc=OTHER_MAC, psrc=OTHER)) == []
    hooks = it.host.inet.hooks
    assert it.host.queued() == {"nf/queue": 2}
    hooks.reinject(hooks.queue[1], NF_ACCEPT)
    hooks.reinject(hooks.queue[0], NF_DROP)
    it.host.run()
    assert it.host.queued() == {}
    (reply,) = hooks.queue
    hooks.reinject(reply, NF_ACCEPT)
    assert Ether(it.sent()[0])[ARP].pdst == OTHER
    assert it.drops() == {"NETFILTER_DROP": 1}


def test_tags_between_hide_no_address_from_a_filter(it):
    seen = []
    text = f"arp and ether src {PEER_MAC} and ether broadcast and arp[6:2] = 1"
    it.host.hook(NF_ARP_IN, lambda host, skb: seen.append(1) or NF_ACCEPT, filter=text)
    assert len(it.put(*(FRAMES[name] for name in ("tag of VID 0", "802.1ad", "two tags")))) == 3
    assert seen == [1, 1, 1]


def test_what_a_function_has_cut_off_is_looked_at_again(it):
    it.host.hook(NF_ARP_IN, lambda host, skb: skb.pull(4) or NF_ACCEPT)
    assert it.put(who_has()) == []
    assert it.drops() == {"PKT_TOO_SMALL": 1}


def test_packets_of_ip_are_not_asked_about(it):
    it.put(who_has(), arp_reply())
    seen = []
    for hook in (NF_ARP_IN, NF_ARP_OUT):
        it.host.hook(hook, lambda host, skb: seen.append(1) or NF_DROP)
    sock = it.socket(OUR_IP, 9000)
    it.put(udp(b"x"))
    assert sock.recv(9) == b"x"
    sock.sendto(b"y", (PEER_IP, 1))
    assert Ether(it.sent()[0])[IP].dst == PEER_IP
    assert seen == []
