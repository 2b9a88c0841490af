"""Buckets, holding, flushing, batches: the rules that hold for every protocol."""

import pytest

from tests.napi.frames import DST_MAC, SRC_MAC, Ip, Tcp, Udp, stream
from tests.napi.gro import NETIF_F_GRO, Gro


def flow(number: int, size: int = 100) -> Tcp:
    return Tcp(sport=1000 + number, data=b"x" * size)


def test_a_mergeable_frame_is_held_until_the_poll_ends(gro: Gro) -> None:
    gro.feed(flow(0))
    assert gro.up() == []
    assert gro.bench.held == [1, 0, 0, 0, 0, 0, 0, 0]
    assert [packet.frames for packet in gro.flushed()] == [1]
    assert gro.bench.held == [0] * 8


def test_a_packet_that_did_not_grow_goes_up_as_it_came(gro: Gro) -> None:
    gro.feed(flow(0))
    (packet,) = gro.flushed()
    assert packet.frame == gro.sent[0]
    assert (packet.type, packet.size, packet.segs) == (0, 0, 0)


def test_the_hash_chooses_one_of_eight_buckets(gro: Gro) -> None:
    for hash in range(16):
        gro.feed(flow(hash), hash=hash)
    assert gro.bench.held == [2] * 8
    assert gro.bench.bitmask == 0xFF


def test_frames_of_unequal_hash_are_not_compared(gro: Gro) -> None:
    one, two = stream(Tcp(), [100, 100])
    gro.feed(one, hash=8)
    gro.feed(two, hash=16)
    assert [packet.frames for packet in gro.flushed()] == [1, 1]


def test_a_full_bucket_pushes_out_its_oldest_packet(gro: Gro) -> None:
    gro.feed(*[flow(number) for number in range(8)])
    assert gro.bench.held[0] == 8
    gro.feed(flow(8))
    gro.bench.flush()
    assert [packet.ids for packet in gro.up()] == [[number] for number in range(1, 10)]


def test_an_empty_bucket_is_not_in_the_bitmask(gro: Gro) -> None:
    gro.feed(flow(0), hash=3)
    assert gro.bench.bitmask == 1 << 3
    gro.feed(*stream(Tcp(), [100, 100], last={"flags": 0x18})[1:], hash=3)
    assert gro.bench.bitmask == 0


def test_a_merge_does_not_make_a_packet_younger(gro: Gro) -> None:
    first = stream(Tcp(), [100, 100])
    gro.feed(first[0], *[flow(number) for number in range(1, 8)], first[1], flow(9))
    assert gro.bench.held[0] == 8
    assert gro.flushed()[0].ids == [1, 9]


def test_buckets_flush_in_order_and_each_with_the_oldest_first(gro: Gro) -> None:
    gro.feed(flow(0), flow(1), hash=5)
    gro.feed(flow(2), flow(3), hash=1)
    gro.bench.flush()
    assert [packet.ids for packet in gro.up()] == [[3], [4], [1], [2]]
    assert gro.bench.bitmask == 0


def test_a_flush_of_old_packets_keeps_those_of_this_jiffy(gro: Gro) -> None:
    gro.bench.poll(10)
    gro.feed(flow(0), flow(1))
    gro.bench.poll(11)
    gro.feed(flow(2))
    gro.bench.flush(old=True)
    assert [packet.ids for packet in gro.up()] == [[1], [2]]
    assert gro.bench.held[0] == 1
    assert gro.bench.bitmask == 1


def test_an_old_packet_stays_old_when_it_grows(gro: Gro) -> None:
    one, two = stream(Tcp(), [100, 100])
    gro.bench.poll(10)
    gro.feed(one)
    gro.bench.poll(11)
    gro.feed(two)
    gro.bench.flush(old=True)
    assert [packet.ids for packet in gro.up()] == [[1, 2]]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_normal_packets_go_up_in_batches_of_gro_normal_batch(gro: Gro, batch: int) -> None:
    from netstack._net import sysctl

    gro.net.set(sysctl.gro_normal_batch, batch)
    gro.feed(*[Udp()] * 10)
    assert [len(packets) for packets in gro.batches()] == [batch] * (10 // batch)


def test_a_merged_packet_counts_its_frames_in_the_batch(gro: Gro) -> None:
    gro.feed(Udp(), *stream(Tcp(), [100] * 7, last={"flags": 0x18}))
    assert [[packet.frames for packet in batch] for batch in gro.batches()] == [[1, 7]]


def test_order_within_a_batch_is_the_order_of_completion(gro: Gro) -> None:
    gro.feed(flow(0), Udp(), flow(1))
    assert [packet.ids for packet in gro.flushed()] == [[2], [1], [3]]


def test_the_end_of_a_poll_passes_up_an_incomplete_batch(gro: Gro) -> None:
    gro.feed(Udp(), Udp())
    assert gro.up() == []
    gro.bench.flush()
    assert [[packet.ids for packet in batch] for batch in gro.batches()] == [[[1], [2]]]


def test_nothing_is_passed_up_when_nothing_waits(gro: Gro) -> None:
    gro.bench.flush()
    assert gro.batches() == []


def test_a_device_without_gro_holds_nothing(gro: Gro) -> None:
    gro.bench.features(0)
    assert gro.sizes(stream(Tcp(), [100, 100])) == [1, 1]
    assert gro.bench.counters["held"] == 0
    gro.bench.features(NETIF_F_GRO)
    assert gro.sizes(stream(Tcp(), [100, 100])) == [2]


def test_frames_count_as_merged_held_or_normal(gro: Gro) -> None:
    gro.feed(*stream(Tcp(), [100] * 5), Udp(), Udp())
    gro.bench.flush()
    assert gro.bench.counters == {"merged": 4, "held": 1, "normal": 2, "packets_out": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"dst_mac": DST_MAC[:5] + b"\x09"},
        {"dst_mac": b"\x0a" + DST_MAC[1:]},
        {"src_mac": SRC_MAC[:5] + b"\x09"},
        {"src": "10.9.0.3"},
        {"dst": "10.9.0.3"},
        {"sport": 1001},
        {"dport": 81},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_flow_leaves_the_held_packet_alone(gro: Gro, change: dict[str, object]) -> None:
    one, two, three = stream(Tcp(), [100] * 3)
    gro.feed(one, two.but(**change), two, three)
    assert [packet.ids for packet in gro.flushed()] == [[1, 3, 4], [2]]


def test_another_protocol_is_another_flow(gro: Gro) -> None:
    gro.bench.features(NETIF_F_GRO | 32)
    one, two = stream(Tcp(sport=53, dport=53), [100] * 2)
    gro.feed(one, Udp(sport=53, dport=53), two)
    assert [packet.ids for packet in gro.flushed()] == [[1, 3], [2]]


def test_another_device_is_another_flow(gro: Gro) -> None:
    one, two = stream(Tcp(), [100, 100])
    gro.feed(one, dev=0)
    gro.feed(two, dev=1)
    assert [packet.ids for packet in gro.flushed()] == [[1], [2]]


@pytest.mark.parametrize(("first", "second"), [(5, 6), (None, 5), (0, None)])
def test_another_vlan_is_another_flow(gro: Gro, first: int | None, second: int | None) -> None:
    one, two = stream(Tcp(), [100, 100])
    gro.feed(one, vlan=first)
    gro.feed(two, vlan=second)
    assert [packet.ids for packet in gro.flushed()] == [[1], [2]]


def test_one_vlan_is_one_flow(gro: Gro) -> None:
    assert gro.sizes(stream(Tcp(), [100, 100]), vlan=5) == [2]


@pytest.mark.parametrize(
    "change",
    [
        {"vhl": 0x46, "options": b"\x01\x01\x01\x01"},
        {"vhl": 0x65},
        {"frag_off": 0x2000},
        {"frag_off": 0x0001},
        {"ip_check": 0x1234},
    ],
    ids=["options", "version", "first fragment", "later fragment", "header checksum"],
)
def test_an_ip_header_that_is_not_plain_is_passed_on_alone(
    gro: Gro, change: dict[str, object]
) -> None:
    one, two, three = stream(Tcp(), [100] * 3)
    gro.feed(one, two.but(**change), two, three)
    assert [packet.ids for packet in gro.flushed()] == [[2], [1, 3, 4]]


@pytest.mark.parametrize(
    "change",
    [{"frag_off": 0xC000}, {"pad": b"\0"}, {"tot_len": 139}],
    ids=["reserved bit", "padded", "shorter than it is"],
)
def test_a_length_or_flag_that_is_odd_completes_the_flow_s_packet(
    gro: Gro, change: dict[str, object]
) -> None:
    one, two, three = stream(Tcp(), [100] * 3)
    gro.feed(one, two.but(**change), three)
    assert [packet.ids for packet in gro.flushed()] == [[1], [2], [3]]
    assert gro.bench.counters["held"] == 2


@pytest.mark.parametrize("field", ["ttl", "tos", "frag_off"])
def test_ttl_tos_and_df_must_be_equal(gro: Gro, field: str) -> None:
    one, two, three, four = stream(Tcp(ttl=64, tos=0, frag_off=0x4000), [100] * 4)
    other = {"ttl": 63, "tos": 2, "frag_off": 0}[field]
    gro.feed(one, two, three.but(**{field: other}), four.but(**{field: other}))
    assert [packet.ids for packet in gro.flushed()] == [[1, 2], [3, 4]]


@pytest.mark.parametrize("df", [0, 0x4000])
@pytest.mark.parametrize("step", [0, 1])
def test_ip_ids_may_stand_or_count(gro: Gro, df: int, step: int) -> None:
    segments = stream(Tcp(ident=0xFFFE, frag_off=df), [100] * 5, id_step=step)
    assert gro.sizes(segments) == [5]


@pytest.mark.parametrize(
    ("idents", "sizes"),
    [
        ([1, 3, 5], [1, 1, 1]),
        ([1, 2, 2], [2, 1]),
        ([1, 1, 2], [2, 1]),
        ([1, 2, 4], [2, 1]),
        ([3, 2, 1], [1, 1, 1]),
        ([1, 2, 1], [2, 1]),
    ],
)
def test_the_second_frame_decides_how_ip_ids_go_on(
    gro: Gro, idents: list[int], sizes: list[int]
) -> None:
    segments = stream(Tcp(), [100] * len(idents))
    frames = [one.but(ident=ident) for one, ident in zip(segments, idents, strict=True)]
    assert gro.sizes(frames) == sizes


@pytest.mark.parametrize("size", range(14, 54))
def test_a_cut_frame_goes_up_as_it_came(gro: Gro, size: int) -> None:
    frame = Tcp(data=b"").bytes()[:size]
    gro.feed(flow(0), frame)
    assert frame in [packet.frame for packet in gro.flushed()]


def test_other_ethertypes_and_protocols_are_passed_on(gro: Gro) -> None:
    arp = DST_MAC + SRC_MAC + b"\x08\x06" + bytes(46)
    icmp = Ip()
    gro.feed(arp, icmp)
    assert [packet.frame for packet in gro.flushed()] == [arp, icmp.bytes()]
    assert gro.bench.counters["normal"] == 2
