"""The life of a neighbour: requests, times, and what happens to packets that wait."""

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, ICMPerror, IPerror
from scapy.layers.l2 import ARP, Ether

from netstack._counters import mib
from netstack.proto._ip_output import send
from netstack.proto._neigh import nud
from tests.proto.stack import ADDR, ETH0, MAC, Stack, number
from tests.proto.test_arp import OTHER, OTHER_MAC, reply

BROADCAST = "ff:ff:ff:ff:ff:ff"


def out(stack: Stack, data: bytes = b"12345678", dst: str = OTHER) -> list[Any]:
    """Send a packet; give the frames that left."""
    send(stack.net, data, number(dst), 0, 77)
    return stack.sent()


def state(stack: Stack) -> nud | None:
    """Give the state of OTHER."""
    row = stack.entry(OTHER)
    return row[0] if row else None


def known(stack: Stack, how: nud = nud.NUD_REACHABLE) -> None:
    """Write OTHER into the table."""
    stack.neighbour(OTHER, OTHER_MAC, how)


# ---- INCOMPLETE


def test_the_first_packet_asks_everybody_at_once(stack: Stack) -> None:
    (request,) = out(stack)
    assert (request.dst, request[ARP].psrc, request[ARP].hwsrc) == (BROADCAST, ADDR, MAC)
    assert request[ARP].hwdst == "00:00:00:00:00:00"
    assert state(stack) == nud.NUD_INCOMPLETE


def test_further_packets_wait_without_asking(stack: Stack) -> None:
    out(stack)
    assert out(stack) == []
    assert stack.inet.neigh.queued(ETH0, number(OTHER)) == 2


def test_what_waits_leaves_in_order(stack: Stack) -> None:
    for i in range(5):
        out(stack, bytes([i]) * 8)
    frames = stack.give(reply(OTHER, OTHER_MAC))
    assert [bytes(frame[IP].payload)[0] for frame in frames] == [0, 1, 2, 3, 4]


def test_three_requests_a_second_apart_and_then_failed(stack: Stack) -> None:
    requests = out(stack)
    for _ in range(2):
        assert stack.advance(0.98) == []
        requests += stack.advance(0.02)
    assert [frame.dst for frame in requests] == [BROADCAST] * 3
    assert state(stack) == nud.NUD_INCOMPLETE
    stack.advance(1)
    assert state(stack) == nud.NUD_FAILED


def test_mcast_solicit_says_how_many_requests(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.mcast_solicit"] = 5
    assert len(out(stack)) + len(stack.advance(20)) == 5


def test_retrans_time_says_how_far_apart(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.retrans_time_ms"] = 100
    assert len(out(stack)) + len(stack.advance(0.25)) == 3
    stack.advance(0.1)
    assert state(stack) == nud.NUD_FAILED


def test_failure_tells_the_sender_host_unreachable(stack: Stack) -> None:
    quoted = []
    inet = stack.inet
    handler = inet.protocols[1].handler
    inet.protocols[1] = inet.protocols[1]._replace(
        handler=lambda host, skb: (quoted.append(skb.data), handler(host, skb))
    )
    out(stack)
    stack.advance(5)
    (message,) = quoted
    error = ICMP(message)
    assert (error.type, error.code, error[IPerror].dst) == (3, 1, OTHER)
    assert stack.net.mib(mib.IcmpOutDestUnreachs) == 1
    assert stack.net.mib(mib.IcmpInDestUnreachs) == 1
    assert ICMPerror not in error


def test_a_failed_neighbour_is_asked_again_by_the_next_packet(stack: Stack) -> None:
    out(stack)
    stack.advance(5)
    (request,) = out(stack)
    assert request[ARP].pdst == OTHER
    assert state(stack) == nud.NUD_INCOMPLETE


def test_the_oldest_make_room_in_a_full_queue(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.unres_qlen_bytes"] = 832 * 3
    for i in range(5):
        out(stack, bytes([i]) * 8)
    frames = stack.give(reply(OTHER, OTHER_MAC))
    assert [bytes(frame[IP].payload)[0] for frame in frames] == [2, 3, 4]


def test_the_default_queue_holds_256_small_packets(stack: Stack) -> None:
    for _ in range(300):
        out(stack)
    assert stack.inet.neigh.queued(ETH0, number(OTHER)) == 212992 // 832


def test_no_solicit_at_all_fails_at_once(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.mcast_solicit"] = 0
    assert out(stack) == []
    assert state(stack) == nud.NUD_FAILED


# ---- REACHABLE, STALE, DELAY, PROBE


def test_an_answer_counts_half_to_three_halves_of_the_base_time(stack: Stack) -> None:
    base = 30_000_000_000
    assert base // 2 <= stack.inet.neigh.reachable_ns() < base * 3 // 2


def test_base_reachable_time_is_half_to_three_halves(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.base_reachable_time_ms"] = 2000
    assert 10**9 <= stack.inet.neigh.reachable_ns() < 3 * 10**9


def test_reachable_becomes_stale_when_nobody_sends(stack: Stack) -> None:
    known(stack)
    seconds = stack.inet.neigh.reachable_ns() / 1e9
    stack.advance(seconds - 0.1)
    assert state(stack) == nud.NUD_REACHABLE
    stack.advance(0.2)
    assert state(stack) == nud.NUD_STALE


def test_a_reachable_neighbour_is_sent_to_without_more(stack: Stack) -> None:
    known(stack)
    (frame,) = out(stack)
    assert (frame.dst, frame.src, frame.type) == (OTHER_MAC, MAC, 0x0800)
    assert state(stack) == nud.NUD_REACHABLE


def test_a_stale_neighbour_is_sent_to_and_watched(stack: Stack) -> None:
    known(stack, nud.NUD_STALE)
    (frame,) = out(stack)
    assert frame.dst == OTHER_MAC
    assert state(stack) == nud.NUD_DELAY


def test_after_five_seconds_it_is_asked_at_its_address(stack: Stack) -> None:
    known(stack, nud.NUD_STALE)
    out(stack)
    assert stack.advance(4.9) == []
    (request,) = stack.advance(0.2)
    assert (request.dst, request[ARP].pdst) == (OTHER_MAC, OTHER)
    assert state(stack) == nud.NUD_PROBE


def test_an_answer_to_the_probe_makes_it_reachable(stack: Stack) -> None:
    known(stack, nud.NUD_STALE)
    out(stack)
    stack.advance(5.1)
    stack.give(reply(OTHER, OTHER_MAC))
    assert state(stack) == nud.NUD_REACHABLE


def test_three_probes_without_answer_and_it_has_failed(stack: Stack) -> None:
    known(stack, nud.NUD_STALE)
    out(stack)
    probes = stack.advance(7.9)
    assert [frame.dst for frame in probes] == [OTHER_MAC] * 3
    stack.advance(0.2)
    assert state(stack) == nud.NUD_FAILED


def test_ucast_solicit_says_how_many_probes(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.ucast_solicit"] = 1
    known(stack, nud.NUD_STALE)
    out(stack)
    assert [frame.dst for frame in stack.advance(5.9)] == [OTHER_MAC]
    stack.advance(0.3)
    assert state(stack) == nud.NUD_FAILED


def test_delay_first_probe_time_is_the_wait_of_a_stale_one(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.delay_first_probe_time"] = 1
    known(stack, nud.NUD_STALE)
    out(stack)
    assert stack.advance(0.9) == []
    assert len(stack.advance(0.2)) == 1


def test_packets_leave_while_it_is_probed(stack: Stack) -> None:
    known(stack, nud.NUD_STALE)
    out(stack)
    stack.advance(5.1)
    (frame,) = out(stack)
    assert frame.type == 0x0800


def test_a_confirmed_one_in_delay_becomes_reachable(stack: Stack) -> None:
    known(stack, nud.NUD_STALE)
    out(stack)
    stack.advance(2)
    stack.give(reply(OTHER, OTHER_MAC))
    assert state(stack) == nud.NUD_REACHABLE
    assert stack.advance(6) == []


# ---- the table


def test_old_entries_go_when_there_are_many(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.gc_thresh1"] = 1
    known(stack, nud.NUD_STALE)
    stack.advance(59)
    assert state(stack) == nud.NUD_STALE
    stack.advance(30)
    assert state(stack) is None
    assert len(stack.inet.neigh) == 1  # the permanent one


def test_few_entries_stay_however_old(stack: Stack) -> None:
    known(stack, nud.NUD_STALE)
    stack.advance(1000)
    assert state(stack) == nud.NUD_STALE


def test_gc_stale_time_is_the_age(stack: Stack) -> None:
    stack.config["net.ipv4.neigh.default.gc_thresh1"] = 1
    stack.config["net.ipv4.neigh.default.gc_stale_time"] = 300
    known(stack, nud.NUD_STALE)
    stack.advance(299)
    assert state(stack) == nud.NUD_STALE
    stack.advance(30)
    assert state(stack) is None


def test_deleting_drops_what_waits(stack: Stack) -> None:
    out(stack)
    assert stack.inet.neigh.delete(ETH0, number(OTHER))
    assert not stack.inet.neigh.delete(ETH0, number(OTHER))
    assert stack.give(reply(OTHER, OTHER_MAC)) == []


def test_the_data_path_asks_python_to_look_at_new_timers(stack: Stack) -> None:
    before = stack.bench.kicks
    out(stack)
    assert stack.bench.kicks > before
    assert stack.inet.next_deadline() == stack.now() + 1_000_000_000


def test_the_table_is_shown_in_iproute2_words(stack: Stack) -> None:
    out(stack)
    rows = {row["dst"]: row for row in stack.inet.neighbours()}
    assert rows[OTHER] == {"dst": OTHER, "ifindex": ETH0, "state": ["INCOMPLETE"]}
    assert rows["10.0.0.1"]["state"] == ["PERMANENT"]
    assert rows["10.0.0.1"]["lladdr"] == "02:00:00:00:00:01"


def test_an_impossible_state_is_refused(stack: Stack) -> None:
    with pytest.raises(ValueError, match="NUD_VALID"):
        stack.inet.neigh.update(ETH0, number(OTHER), bytes(6), nud.NUD_FAILED)


def test_one_host_has_one_table(stack: Stack) -> None:
    from netstack.proto._neigh_table import NeighTable

    with pytest.raises(RuntimeError, match="already"):
        NeighTable(stack.net)


def test_a_frame_of_ours_is_seen_by_ether(stack: Stack) -> None:
    known(stack)
    (frame,) = out(stack)
    assert Ether(bytes(frame))[IP].chksum is not None
