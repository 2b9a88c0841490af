"""Splitting a merged packet: exact, wherever it stands, and also when others read it."""

import pytest

from netstack._counters import skb_drop_reason
from netstack._gso import gro_split
from netstack._net import Net
from netstack._skb import SkBuff
from netstack.napi._testing import GroBench, clone, gso, route
from tests.napi.frames import ACK, PSH, Ip, Tcp, Udp, datagrams, stream
from tests.napi.gro import NETIF_F_GRO, NETIF_F_GRO_FRAGLIST, NETIF_F_GRO_UDP_FWD

SEGMENTS = stream(Tcp(), [100, 100, 40], last={"flags": ACK | PSH})
DATAGRAMS = datagrams(Udp(), [100, 100, 40])
MERGES = pytest.mark.parametrize(
    ("frames", "features"),
    [
        (SEGMENTS, NETIF_F_GRO),
        (DATAGRAMS, NETIF_F_GRO | NETIF_F_GRO_UDP_FWD),
        (DATAGRAMS, NETIF_F_GRO | NETIF_F_GRO_FRAGLIST),
        (stream(Tcp(), [100, 100, 40]), NETIF_F_GRO | NETIF_F_GRO_FRAGLIST),
    ],
    ids=["tcp", "udp", "udp list", "tcp list"],
)


def merged(bench: GroBench, frames: list[Ip], features: int) -> SkBuff:
    bench.features(features)
    for frame in frames:
        assert bench.receive(frame.bytes())
    bench.flush()
    ((packet,),) = bench.take()
    return packet


def parts_of(packet: SkBuff, net: Net) -> list[bytes]:
    parts = gro_split(packet, net)
    frames = [part.frame for part in parts]
    for part in parts:
        part.consume()
    return frames


@MERGES
def test_a_split_gives_the_frames_as_they_came(frames: list[Ip], features: int) -> None:
    bench = GroBench(Net())
    packet = merged(bench, frames, features)
    assert parts_of(packet, bench.net) == [frame.bytes() for frame in frames]
    assert not packet, "the packet has been consumed"
    assert bench.packets_in_use == 0
    assert bench.net.fate(skb_drop_reason.SKB_CONSUMED) == 3


@MERGES
def test_the_parts_stand_where_the_packet_stood(frames: list[Ip], features: int) -> None:
    bench = GroBench(Net())
    packet = merged(bench, frames, features)
    packet.pull(20)
    parts = gro_split(packet, bench.net)
    assert [part.data for part in parts] == [frame.bytes()[34:] for frame in frames]
    assert [part.frame for part in parts] == [frame.bytes() for frame in frames]


@MERGES
def test_the_parts_are_ordinary_packets(frames: list[Ip], features: int) -> None:
    bench = GroBench(Net())
    parts = gro_split(merged(bench, frames, features), bench.net)
    for number, part in enumerate(parts, 1):
        facts = gso(part)
        assert part.id == number
        assert (facts["type"], facts["size"], facts["segs"]) == (0, 0, 0)
        assert (facts["ip_summed"], facts["truesize"], facts["frames"]) == (1, 832, 1)
        assert part.ifindex == 1


@MERGES
def test_the_parts_know_what_routing_said(frames: list[Ip], features: int) -> None:
    bench = GroBench(Net())
    packet = merged(bench, frames, features)
    route(packet, 0x10000000)
    assert [route(part) for part in gro_split(packet, bench.net)] == [0x10000000] * 3


def test_a_packet_that_is_not_merged_is_a_list_of_one() -> None:
    bench = GroBench(Net())
    packet = merged(bench, [Udp()], NETIF_F_GRO)
    (part,) = gro_split(packet, bench.net)
    assert part.frame == Udp().bytes()


@MERGES
def test_what_others_read_is_copied_and_the_copies_carry_the_frames(
    frames: list[Ip], features: int
) -> None:
    bench = GroBench(Net())
    packet = merged(bench, frames, features)
    before = packet.frame
    reader = clone(packet, bench)
    assert parts_of(packet, bench.net) == [frame.bytes() for frame in frames]
    assert reader.frame == before, "what the other reads has not changed"
    assert bench.net.fate(skb_drop_reason.SKB_CONSUMED) == 3
    reader.drop(skb_drop_reason.SKB_DROP_REASON_SOCKET_FILTER)
    assert bench.net.fate(skb_drop_reason.SKB_DROP_REASON_SOCKET_FILTER) == 0
    assert bench.packets_in_use == 0


@MERGES
def test_a_clone_splits_into_copies_that_carry_no_frame(
    frames: list[Ip], features: int
) -> None:
    bench = GroBench(Net())
    packet = merged(bench, frames, features)
    reader = clone(packet, bench)
    assert parts_of(reader, bench.net) == [frame.bytes() for frame in frames]
    assert bench.net.fate(skb_drop_reason.SKB_CONSUMED) == 0
    packet.consume()
    assert bench.net.fate(skb_drop_reason.SKB_CONSUMED) == 3
    assert bench.packets_in_use == 0


@MERGES
def test_without_memory_for_copies_the_packet_is_dropped(
    frames: list[Ip], features: int
) -> None:
    bench = GroBench(Net(), frames=3)
    packet = merged(bench, frames, features)
    readers = [clone(packet, bench) for _ in range(3)]  # all small ones of process context
    others = [clone(readers[0], bench) for _ in range(4)]  # and, of the larger, all but two
    assert gro_split(packet, bench.net) == []
    dropped = skb_drop_reason.SKB_DROP_REASON_NOMEM
    while readers or others:
        (readers or others).pop().drop(dropped)
    assert bench.net.fate(dropped) == 3
    assert bench.packets_in_use == 0


@pytest.mark.parametrize("check", [0x0000, 0xFFFF])
def test_both_zeros_of_a_checksum_come_back_as_they_were(check: int) -> None:
    """A field computed anew would forget which of the two zeros it was."""
    numbers = (Udp(ident=ident) for ident in range(0x10000))
    one = next(udp for udp in numbers if udp.bytes()[24:26] == b"\0\0").but(ip_check=check)
    bench = GroBench(Net())
    frames = [one, one]
    packet = merged(bench, frames, NETIF_F_GRO | NETIF_F_GRO_UDP_FWD)
    assert gso(packet)["segs"] == 2
    assert parts_of(packet, bench.net) == [frame.bytes() for frame in frames]


@MERGES
def test_a_merged_packet_that_is_dropped_ends_all_its_frames(
    frames: list[Ip], features: int
) -> None:
    bench = GroBench(Net())
    reason = skb_drop_reason.SKB_DROP_REASON_NO_SOCKET
    merged(bench, frames, features).drop(reason)
    assert bench.net.fate(reason) == 3
    assert bench.packets_in_use == 0


def test_a_buffer_that_comes_back_from_a_merge_is_charged_for_itself_again() -> None:
    bench = GroBench(Net())
    packet = merged(bench, SEGMENTS, NETIF_F_GRO)
    assert gso(packet)["truesize"] == 3 * 832
    packet.consume()
    for _ in range(3):
        bench.receive(Udp().bytes())
    bench.flush()
    ((first, *others),) = bench.take()
    assert [gso(one)["truesize"] for one in (first, *others)] == [832] * 3
