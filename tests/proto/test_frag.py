"""Reassembly: any order, bounded memory and time, and no patience with what overlaps."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, IPerror

from netstack._counters import mib
from tests.proto.odd_frames import ECHO, frags
from tests.proto.stack import ADDR, Stack, eth, ip, ping


def pieces(packet: bytes, size: int, ident: int = 5) -> list[object]:
    """Cut an IP payload into frames of `size` bytes each."""
    return frags(
        *(
            (at, packet[at : at + size], at + size < len(packet))
            for at in range(0, len(packet), size)
        ),
        ident=ident,
    )


def echo(size: int) -> bytes:
    """Make an echo request without its IP header."""
    return bytes(ICMP(id=9) / random.Random(size).randbytes(size))


@pytest.mark.parametrize("size", [1480, 3000, 20000, 65507])
def test_a_large_ping_comes_back_in_fragments(stack: Stack, size: int) -> None:
    request = echo(size)
    replies = stack.give(*pieces(request, 1480))
    data = b"".join(bytes(frame[IP].payload) for frame in replies)
    assert data[8:] == request[8:]
    assert stack.net.mib(mib.IpReasmOKs) == 1
    assert [frame[IP].frag * 8 for frame in replies] == list(range(0, size + 8, 1480))
    assert stack.fates() == {"CONSUMED": len(pieces(request, 1480))}


@given(st.integers(0, 3000), st.sampled_from([8, 16, 256, 1480]), st.randoms())
def test_any_order_gives_the_same(size: int, cut: int, rng: random.Random) -> None:
    stack = Stack(fast=False)
    size = min(size, 60 * cut - 8)  # 60 fragments are enough, and scapy takes its time for each
    frames = pieces(echo(size), cut)
    rng.shuffle(frames)
    replies = stack.give(*frames)
    assert b"".join(bytes(frame[IP].payload) for frame in replies)[8:] == echo(size)[8:]
    assert stack.inet.frags.memory == 0
    stack.check_ledger()
    stack.inet.close()


@given(
    st.lists(
        st.tuples(st.integers(0, 8190), st.integers(0, 64), st.booleans(), st.integers(0, 2)),
        max_size=30,
    )
)
def test_no_set_of_fragments_breaks_the_ledger(rows: list[tuple[int, int, bool, int]]) -> None:
    stack = Stack(fast=False)
    for offset, size, more, ident in rows:
        stack.give(*frags((offset * 8, bytes(size), more), ident=ident))
        stack.check_ledger()
    frags_ = stack.inet.frags
    assert frags_.memory == sum(q.memory for q in frags_.queues.values())
    stack.inet.close()
    stack.check_ledger()
    assert stack.bench.pool_in_use() == 0


def test_what_waits_is_in_the_ledger_by_place(stack: Stack) -> None:
    stack.give(*frags((0, ECHO[:16], 1), (24, ECHO[24:32], 1)))
    assert stack.inet.queued() == {"proto/frag": 2}


def test_after_thirty_seconds_it_is_given_up(stack: Stack) -> None:
    stack.give(*frags((0, ECHO[:16], 1), (24, ECHO[24:], 0)))
    assert stack.advance(29.9) == []
    (error,) = stack.advance(0.2)
    assert (error[ICMP].type, error[ICMP].code, error[IPerror].id) == (11, 1, 9)
    assert stack.fates() == {"FRAG_REASM_TIMEOUT": 2}
    counters = stack.counters()
    assert counters["IpReasmTimeout"] == counters["IpReasmFails"] == 1


def test_without_the_first_fragment_nobody_is_told(stack: Stack) -> None:
    stack.give(*frags((8, ECHO[8:16], 1)))
    assert stack.advance(31) == []
    assert stack.fates() == {"FRAG_REASM_TIMEOUT": 1}


def test_ipfrag_time_is_the_time(stack: Stack) -> None:
    stack.config["net.ipv4.ipfrag_time"] = 2
    stack.give(*frags((8, ECHO[8:16], 1)))
    stack.advance(2.1)
    assert stack.inet.queued() == {}


def test_beyond_high_thresh_new_fragments_are_dropped(stack: Stack) -> None:
    stack.config["net.ipv4.ipfrag_low_thresh"] = 0
    stack.config["net.ipv4.ipfrag_high_thresh"] = 832 * 10
    for ident in range(20):
        stack.give(*frags((0, bytes(16), 1), ident=ident))
    assert len(stack.inet.frags.queues) == 11
    assert stack.fates() == {"NOMEM": 9}
    assert stack.net.mib(mib.IpReasmFails) == 9


def test_high_thresh_0_takes_no_fragments(stack: Stack) -> None:
    stack.config["net.ipv4.ipfrag_low_thresh"] = 0
    stack.config["net.ipv4.ipfrag_high_thresh"] = 0
    stack.give(*frags((0, bytes(16), 1)))
    assert stack.fates() == {"NOMEM": 1}


def test_more_than_64_fragments_of_others_between_begin_anew(stack: Stack) -> None:
    first, last = frags((0, ECHO[:16], 1), (16, ECHO[16:], 0), ident=1000)
    stack.give(first)
    for ident in range(64):
        stack.give(*frags((0, bytes(8), 1), ident=ident))
    assert stack.give(last) == []
    assert stack.fates() == {"FRAG_TOO_FAR": 1}
    assert len(stack.give(first)) == 1


def test_64_fragments_between_are_near_enough(stack: Stack) -> None:
    first, last = frags((0, ECHO[:16], 1), (16, ECHO[16:], 0), ident=1000)
    stack.give(first)
    for ident in range(63):
        stack.give(*frags((0, bytes(8), 1), ident=ident))
    assert len(stack.give(last)) == 1


def test_max_dist_0_is_any_distance(stack: Stack) -> None:
    stack.config["net.ipv4.ipfrag_max_dist"] = 0
    first, last = frags((0, ECHO[:16], 1), (16, ECHO[16:], 0), ident=1000)
    stack.give(first)
    for ident in range(100):
        stack.give(*frags((0, bytes(8), 1), ident=ident))
    assert len(stack.give(last)) == 1


def test_other_sources_and_protocols_are_other_datagrams(stack: Stack) -> None:
    first, last = frags((0, ECHO[:16], 1), (16, ECHO[16:], 0))
    last[IP].src = "10.0.0.50"
    stack.give(first, last)
    assert len(stack.inet.frags.queues) == 2


def test_the_whole_has_the_first_header_and_its_frames(stack: Stack) -> None:
    from netstack.proto import net_protocol

    stack.inet.add_protocol(77, net_protocol(lambda host, skb: stack.kept.append(skb)))
    data = bytes(range(64))
    last, first = frags((40, data[40:], 0), (0, data[:40], 1), proto=77)
    stack.give(last, first)
    (skb,) = stack.kept
    header = IP(skb.network)
    assert (header.len, header.frag, header.flags, header.src) == (84, 0, 0, "10.0.0.1")
    assert skb.data == data
    assert stack.net.rx_frames() == 2
    skb.consume()
    stack.kept.clear()


def test_a_reassembled_header_has_a_right_checksum(stack: Stack) -> None:
    (error,) = stack.give(*frags((0, bytes(16), 1), (16, bytes(16), 0), proto=77))
    quoted = IP(bytes(error[ICMP].payload))
    good = quoted.chksum
    del quoted.chksum
    assert IP(bytes(quoted)).chksum == good


def test_closing_drops_what_waits(stack: Stack) -> None:
    stack.give(*frags((0, ECHO[:16], 1)))
    stack.inet.close()
    assert stack.fates() == {"QUEUE_PURGE": 1}


def test_a_large_echo_to_ourselves_needs_no_fragments(stack: Stack) -> None:
    from netstack.proto._icmp import push
    from tests.proto.stack import number

    push(stack.net, echo(60000), number(ADDR), 0)
    stack.settle()
    counters = stack.counters()
    assert counters["IcmpInEchoReps"] == 1
    assert "IpFragCreates" not in counters


def test_a_small_mtu_cuts_small(stack: Stack) -> None:
    stack.bench.mtu = 68
    replies = stack.give(ping(100))
    assert [frame[IP].len for frame in replies] == [68, 68, 32]
    assert all(frame[IP].flags == "MF" for frame in replies[:-1])
    assert eth() / ip() is not None
