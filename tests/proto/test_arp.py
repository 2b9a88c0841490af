"""Rules of RFC 826 and of arp_process(): who is answered, and who is remembered."""

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import ARP, Ether

from netstack._counters import mib
from netstack._skb import SkBuff
from netstack.nf.hooks import NF_ACCEPT, NF_ARP_IN, NF_ARP_OUT, NF_DROP, nf_register_net_hook
from netstack.proto._arp import arp_init, arp_xmit
from netstack.proto._ip_output import send
from netstack.proto._neigh import nud
from tests.proto.stack import ADDR, ETH0, MAC, PEER, PEER_MAC, Stack, number, who_has

OTHER, OTHER_MAC, NEW_MAC = "10.0.0.9", "02:00:00:00:00:09", "02:00:00:00:00:99"


def reply(sip: str, sha: str, dst: str = MAC, tip: str = ADDR, tha: str = MAC) -> Ether:
    """Answer our request."""
    return Ether(dst=dst, src=sha) / ARP(op=2, hwsrc=sha, psrc=sip, hwdst=tha, pdst=tip)


def stranger(**kwargs: str) -> Ether:
    """Ask for us, as somebody who is not in the table."""
    return who_has(**{"hwsrc": OTHER_MAC, "psrc": OTHER} | kwargs)


def ask(stack: Stack) -> None:
    """Have a packet for OTHER wait for an answer."""
    assert send(stack.net, b"12345678", number(OTHER), 0, 77) == 0
    (request,) = stack.sent()
    assert request[ARP].op == 1
    assert request[ARP].pdst == OTHER


def test_a_request_for_us_is_answered_to_who_asked(stack: Stack) -> None:
    (answer,) = stack.give(stranger())
    assert (answer.dst, answer.src) == (OTHER_MAC, MAC)
    assert (answer[ARP].op, answer[ARP].psrc, answer[ARP].hwsrc) == (2, ADDR, MAC)
    assert (answer[ARP].pdst, answer[ARP].hwdst) == (OTHER, OTHER_MAC)
    assert stack.fates() == {"CONSUMED": 1}


def test_who_asks_is_remembered_as_stale(stack: Stack) -> None:
    stack.give(stranger())
    assert stack.entry(OTHER) == (nud.NUD_STALE, OTHER_MAC)


def test_who_asks_with_a_new_address_is_remembered_with_that(stack: Stack) -> None:
    stack.give(stranger(), stranger(hwsrc=NEW_MAC))
    assert stack.entry(OTHER) == (nud.NUD_STALE, NEW_MAC)


def test_a_request_for_another_makes_no_entry(stack: Stack) -> None:
    assert stack.give(stranger(pdst="10.0.0.77")) == []
    assert stack.entry(OTHER) is None
    assert stack.fates() == {"ARP_NOT_FOR_US": 1}


def test_a_request_for_another_updates_an_entry(stack: Stack) -> None:
    stack.give(stranger())
    stack.advance(2)
    stack.give(stranger(pdst="10.0.0.77", hwsrc=NEW_MAC))
    assert stack.entry(OTHER) == (nud.NUD_STALE, NEW_MAC)


def test_a_probe_for_our_address_is_answered_and_not_remembered(stack: Stack) -> None:
    (answer,) = stack.give(stranger(psrc="0.0.0.0"))
    assert answer[ARP].pdst == "0.0.0.0"
    assert len(stack.inet.neigh) == 1  # the peer


def test_a_reply_that_nobody_asked_for_makes_no_entry(stack: Stack) -> None:
    stack.give(reply(OTHER, OTHER_MAC))
    assert stack.entry(OTHER) is None
    assert stack.fates() == {"ARP_UNSOLICITED": 1}


def test_a_reply_makes_reachable_and_sends_what_waits(stack: Stack) -> None:
    ask(stack)
    (packet,) = stack.give(reply(OTHER, OTHER_MAC))
    assert (packet.dst, packet[IP].dst) == (OTHER_MAC, OTHER)
    assert stack.entry(OTHER) == (nud.NUD_REACHABLE, OTHER_MAC)


def test_a_broadcast_reply_proves_nothing(stack: Stack) -> None:
    ask(stack)
    (packet,) = stack.give(reply(OTHER, OTHER_MAC, dst="ff:ff:ff:ff:ff:ff"))
    assert packet.dst == OTHER_MAC
    # Sending at once made the stale entry wait for its confirmation.
    assert stack.entry(OTHER) == (nud.NUD_DELAY, OTHER_MAC)


def test_a_request_from_who_was_asked_for_is_an_answer_too(stack: Stack) -> None:
    ask(stack)
    sent = stack.give(stranger())
    assert [frame.type for frame in sent] == [0x0800, 0x0806]
    assert stack.entry(OTHER) == (nud.NUD_DELAY, OTHER_MAC)


def test_the_first_of_two_replies_within_a_second_counts(stack: Stack) -> None:
    ask(stack)
    stack.give(reply(OTHER, OTHER_MAC), reply(OTHER, NEW_MAC))
    assert stack.entry(OTHER) == (nud.NUD_REACHABLE, OTHER_MAC)


def test_a_reply_after_a_second_replaces(stack: Stack) -> None:
    ask(stack)
    stack.give(reply(OTHER, OTHER_MAC))
    stack.advance(1.1)
    stack.give(reply(OTHER, NEW_MAC))
    assert stack.entry(OTHER) == (nud.NUD_REACHABLE, NEW_MAC)


@pytest.mark.parametrize("op", [1, 2])
def test_an_announcement_replaces_at_once(stack: Stack, op: int) -> None:
    ask(stack)
    stack.give(reply(OTHER, OTHER_MAC))
    garp = ARP(op=op, hwsrc=NEW_MAC, psrc=OTHER, pdst=OTHER, hwdst=NEW_MAC)
    stack.give(Ether(dst="ff:ff:ff:ff:ff:ff", src=NEW_MAC) / garp)
    assert stack.entry(OTHER) == (nud.NUD_STALE, NEW_MAC)


def test_an_announcement_by_reply_names_its_own_hardware_twice(stack: Stack) -> None:
    ask(stack)
    stack.give(reply(OTHER, OTHER_MAC))
    stack.give(reply(OTHER, NEW_MAC, dst="ff:ff:ff:ff:ff:ff", tip=OTHER, tha=OTHER_MAC))
    assert stack.entry(OTHER) == (nud.NUD_REACHABLE, OTHER_MAC)


def passed(stack: Stack, verdict: int = NF_ACCEPT) -> list[tuple[int, int]]:
    """Register at both hooks; give the list into which hook and operation of each packet go."""
    seen: list[tuple[int, int]] = []
    for hook in (NF_ARP_IN, NF_ARP_OUT):

        def fn(host: Stack, skb: SkBuff, hook: int = hook) -> int:
            seen.append((hook, skb.network[7]))
            return verdict

        nf_register_net_hook(stack, hook, fn)
    return seen


def test_requests_replies_and_probes_pass_the_output_hook(stack: Stack) -> None:
    seen = passed(stack)
    stack.give(stranger(), stranger(psrc="0.0.0.0"))
    assert seen == [(NF_ARP_IN, 1), (NF_ARP_OUT, 2)] * 2
    del seen[:]
    send(stack.net, b"12345678", number("10.0.0.8"), 0, 77)
    stack.settle()
    assert [frame[ARP].pdst for frame in stack.sent()] == ["10.0.0.8"]
    assert seen == [(NF_ARP_OUT, 1)]
    send(stack.net, b"12345678", number(OTHER), 0, 77)  # stale by now: will be probed
    stack.sent()
    del seen[:]
    sent = [frame for frame in stack.advance(8) if ARP in frame]
    assert [frame[ARP].pdst for frame in sent if frame.dst == OTHER_MAC] == [OTHER] * 3
    assert seen == [(NF_ARP_OUT, 1)] * len(sent)


def test_hooks_change_no_counter_and_no_answer_of_what_they_accept() -> None:
    plain, watched = Stack(), Stack()
    passed(watched)
    frames = [stranger(), stranger(psrc="0.0.0.0"), stranger(pdst="10.0.0.77"), who_has()]
    answers = [stack.give(*frames) for stack in (plain, watched)]
    assert answers[0] == answers[1]
    assert plain.counters() == watched.counters()
    assert plain.fates() == watched.fates() == {"CONSUMED": 4}
    assert plain.entry(OTHER) == watched.entry(OTHER)


def test_what_the_hooks_drop(stack: Stack) -> None:
    seen = passed(stack, NF_DROP)
    assert stack.give(stranger()) == []
    assert stack.entry(OTHER) is None
    assert stack.fates() == {"NETFILTER_DROP": 1}
    assert send(stack.net, b"12345678", number(OTHER), 0, 77) == 0, "nobody hears of it"
    stack.settle()
    assert stack.sent() == []
    assert seen == [(NF_ARP_IN, 1), (NF_ARP_OUT, 1)]


def test_a_permanent_entry_stays(stack: Stack) -> None:
    stack.give(who_has(hwsrc=NEW_MAC))
    assert stack.entry(PEER) == (nud.NUD_PERMANENT, PEER_MAC)


def test_a_looped_packet_is_no_arp_of_others(stack: Stack) -> None:
    arp_xmit(stack.net, 1, 1, number(ADDR), number(ADDR))
    stack.settle()
    assert stack.fates() == {}


def test_a_device_must_exist(stack: Stack) -> None:
    with pytest.raises(RuntimeError, match="no device has index 3"):
        arp_xmit(stack.net, 3, 1, number(OTHER), number(ADDR))


def test_a_hardware_address_has_six_bytes(stack: Stack) -> None:
    with pytest.raises(ValueError, match="6 bytes, not 3"):
        arp_xmit(stack.net, ETH0, 1, number(OTHER), number(ADDR), b"abc")


def test_a_full_table_answers_nobody(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.gc_thresh2"] = 4
    stack.config["net.ipv4.neigh.default.gc_thresh3"] = 4
    answers = [stack.give(stranger(psrc=f"10.0.0.{i}")) for i in range(20, 30)]
    assert [len(answer) for answer in answers] == [1, 1, 1, *[0] * 7]
    assert len(stack.inet.neigh) == 4


def test_a_full_table_forgets_who_was_quiet_for_five_seconds(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.gc_thresh2"] = 4
    stack.config["net.ipv4.neigh.default.gc_thresh3"] = 4
    for i in range(20, 24):
        stack.give(stranger(psrc=f"10.0.0.{i}"))
    stack.advance(6)
    assert len(stack.give(stranger())) == 1
    assert stack.entry(PEER) is not None


def test_what_can_not_be_remembered_is_dropped(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.gc_thresh2"] = 1
    stack.config["net.ipv4.neigh.default.gc_thresh3"] = 1
    assert send(stack.net, b"12345678", number(OTHER), 0, 77) == 105
    assert stack.sent() == []
    assert stack.net.mib(mib.IpOutTransmits) == 1


def test_the_table_comes_before_arp() -> None:
    from netstack._net import Net

    with pytest.raises(RuntimeError, match="NeighTable"):
        arp_init(Net(1))
