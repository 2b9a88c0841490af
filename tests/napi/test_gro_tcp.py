"""When segments of a TCP stream merge, and what completes the packet."""

import pytest

from netstack._checksum import internet_checksum
from tests.napi.frames import ACK, CWR, ECE, FIN, PSH, RST, SYN, URG, Tcp, address, stream
from tests.napi.gro import (
    CHECKSUM_COMPLETE,
    CHECKSUM_PARTIAL,
    CHECKSUM_UNNECESSARY,
    NETIF_F_GRO,
    NETIF_F_GRO_FRAGLIST,
    SKB_GSO_FRAGLIST,
    SKB_GSO_TCPV4,
    Gro,
)


def flagged(*flags: int) -> list[Tcp]:
    segments = stream(Tcp(), [100] * len(flags))
    return [one.but(flags=ACK | bits) for one, bits in zip(segments, flags, strict=True)]


def test_segments_in_sequence_merge(gro: Gro) -> None:
    assert gro.sizes(stream(Tcp(), [100] * 30)) == [30]


def test_sequence_numbers_wrap(gro: Gro) -> None:
    assert gro.sizes(stream(Tcp(seq=2**32 - 150), [100] * 4)) == [4]


def test_a_merged_packet_is_one_long_segment(gro: Gro) -> None:
    segments = stream(Tcp(seq=9), [100] * 3 + [40])
    (packet,) = gro.feed(*segments).flushed()
    data = b"".join(segment.data for segment in segments)
    long = Tcp(seq=9, data=data, check=0).bytes()
    assert (packet.type, packet.size, packet.segs) == (SKB_GSO_TCPV4, 100, 4)
    assert packet.frame[:50] + packet.frame[52:] == long[:50] + long[52:]


def test_a_merged_packet_s_checksum_is_left_as_for_transmission(gro: Gro) -> None:
    (packet,) = gro.feed(*stream(Tcp(), [100] * 3)).flushed()
    pseudo = address(Tcp().src) + address(Tcp().dst) + bytes([0, 6]) + (320).to_bytes(2, "big")
    field = int.from_bytes(packet.frame[50:52], "big")
    assert packet.ip_summed == CHECKSUM_PARTIAL
    assert field == internet_checksum(pseudo) ^ 0xFFFF
    start, offset = packet.csum >> 16, packet.csum & 0xFFFF
    # From the start of the buffer: headroom, two bytes so that the IP header is aligned.
    assert (start, offset) == (64 + 2 + 14 + 20, 16)


def test_a_merged_packet_carries_all_its_frames_and_their_memory(gro: Gro) -> None:
    (packet,) = gro.feed(*stream(Tcp(), [100] * 3)).flushed()
    assert (packet.frames, packet.truesize) == (3, 3 * 832)
    (packet,) = gro.feed(Tcp(sport=9)).flushed()
    assert packet.truesize == 832


def test_a_gap_completes_the_held_packet(gro: Gro) -> None:
    one, two, three, four = stream(Tcp(), [100] * 4)
    gro.feed(one, three.but(ident=2), four.but(ident=3), two)
    assert [packet.ids for packet in gro.flushed()] == [[1], [2, 3], [4]]


@pytest.mark.parametrize(
    "change",
    [
        {"ack": 8},
        {"window": 501},
        {"tcp_options": b"\1\1\1\1"},
        {"doff": 6},
        {"reserved": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_ack_window_options_and_reserved_bits_must_be_equal(
    gro: Gro, change: dict[str, object]
) -> None:
    one, two = stream(Tcp(), [100] * 2)
    gro.feed(one, two.but(**change))
    assert [packet.ids for packet in gro.up()] == []
    gro.bench.flush()
    assert [packet.ids for packet in gro.up()] == [[1], [2]]
    assert gro.bench.counters["merged"] == 0


def test_equal_options_merge(gro: Gro) -> None:
    options = b"\x01\x01\x08\x0a" + bytes(range(8))
    segments = stream(Tcp(tcp_options=options), [100] * 3)
    assert gro.sizes(segments) == [3]
    later = options[:11] + b"\xff"
    assert gro.sizes([segments[0], segments[1].but(tcp_options=later)]) == [1, 1]


def test_a_longer_segment_begins_anew(gro: Gro) -> None:
    gro.feed(*stream(Tcp(), [100, 100, 101, 101]))
    assert [packet.ids for packet in gro.flushed()] == [[1, 2], [3, 4]]


def test_a_shorter_segment_is_the_last(gro: Gro) -> None:
    gro.feed(*stream(Tcp(), [100, 99, 100]))
    assert gro.bench.held[0] == 1
    assert [packet.ids for packet in gro.flushed()] == [[1, 2], [3]]


def test_a_pure_ack_is_not_held_and_completes_the_held_packet(gro: Gro) -> None:
    gro.feed(*stream(Tcp(), [100, 0]))
    assert gro.bench.held[0] == 0
    assert [packet.ids for packet in gro.flushed()] == [[1], [2]]
    assert gro.bench.counters == {"merged": 0, "held": 1, "normal": 1, "packets_out": 0}


@pytest.mark.parametrize("bits", [PSH, FIN, PSH | FIN], ids=["PSH", "FIN", "both"])
def test_psh_and_fin_merge_and_complete(gro: Gro, bits: int) -> None:
    gro.feed(*flagged(0, bits, 0))
    first, second = gro.flushed()
    assert (first.ids, second.ids) == ([1, 2], [3])
    assert first.frame[47] == ACK | bits


@pytest.mark.parametrize("bits", [PSH, FIN, SYN, RST, URG])
def test_flags_that_mean_now_are_not_held(gro: Gro, bits: int) -> None:
    gro.feed(*flagged(bits))
    assert gro.bench.held[0] == 0


@pytest.mark.parametrize("bits", [SYN, RST, URG, ECE, CWR])
def test_a_change_of_flags_completes_the_held_packet(gro: Gro, bits: int) -> None:
    gro.feed(*flagged(0, bits))
    assert [packet.ids for packet in gro.flushed()] == [[1], [2]]


def test_ece_on_all_segments_merges(gro: Gro) -> None:
    assert gro.sizes(flagged(ECE, ECE, ECE)) == [3]


def test_cwr_is_said_once_and_never_merged(gro: Gro) -> None:
    assert gro.sizes(flagged(CWR, CWR, 0)) == [1, 1, 1]


def test_the_merged_packet_stays_below_64_kib(gro: Gro) -> None:
    gro.feed(*stream(Tcp(), [1448] * 90), ip_summed=CHECKSUM_UNNECESSARY)
    first, second = gro.flushed()
    assert first.frames == (65535 - 40) // 1448
    assert first.frames + second.frames == 90


@pytest.mark.parametrize(("last", "sizes"), [(335, [46]), (336, [45, 1])])
def test_65535_bytes_are_the_most_that_an_ip_packet_can_say(
    gro: Gro, last: int, sizes: list[int]
) -> None:
    segments = stream(Tcp(), [1448] * 45 + [last])
    assert gro.sizes(segments, ip_summed=CHECKSUM_UNNECESSARY) == sizes


def test_a_wrong_checksum_is_passed_on_alone(gro: Gro) -> None:
    one, two, three = stream(Tcp(), [100] * 3)
    gro.feed(one, two.but(check=0x1234), two, three)
    assert [packet.ids for packet in gro.flushed()] == [[2], [1, 3, 4]]


def test_a_checksum_the_nic_has_verified_is_believed(gro: Gro) -> None:
    segments = [one.but(check=0x1234) for one in stream(Tcp(), [100] * 3)]
    assert gro.sizes(segments, ip_summed=CHECKSUM_UNNECESSARY) == [3]


def test_a_checksum_found_right_needs_no_second_look(gro: Gro) -> None:
    gro.feed(Tcp(), Tcp(sport=2, check=0x1234))
    assert [packet.ip_summed for packet in gro.flushed()] == [0, CHECKSUM_UNNECESSARY]


def sum_of(segment: Tcp) -> int:
    """Give what a NIC with CHECKSUM_COMPLETE gives: the sum from the IP header on."""
    total = internet_checksum(segment.bytes()[14:]) ^ 0xFFFF
    return int.from_bytes(total.to_bytes(2, "big"), "little")


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_sum_over_the_packet_is_used_but_not_the_last_word(gro: Gro, wrong: int) -> None:
    for segment in stream(Tcp(), [100, 100]):
        gro.feed(segment, ip_summed=CHECKSUM_COMPLETE, csum=sum_of(segment) ^ wrong)
    assert [packet.frames for packet in gro.flushed()] == [2]


def test_a_sum_that_shows_a_wrong_checksum_is_believed(gro: Gro) -> None:
    one = Tcp(check=0x1234)
    gro.feed(one, ip_summed=CHECKSUM_COMPLETE, csum=sum_of(one))
    assert gro.bench.counters["normal"] == 1


@pytest.mark.parametrize("doff", [0, 4, 15])
def test_a_header_length_that_can_t_be_is_passed_on_alone(gro: Gro, doff: int) -> None:
    one, two = stream(Tcp(), [30, 30])
    gro.feed(one, two.but(doff=doff), two)
    assert [packet.ids for packet in gro.flushed()] == [[2], [1, 3]]


def test_with_rx_gro_list_each_segment_stays_whole(gro: Gro) -> None:
    gro.bench.features(NETIF_F_GRO | NETIF_F_GRO_FRAGLIST)
    (packet,) = gro.feed(*stream(Tcp(), [100] * 3)).flushed()
    assert (packet.type, packet.size, packet.segs) == (SKB_GSO_TCPV4 | SKB_GSO_FRAGLIST, 100, 3)
    assert packet.frame == gro.sent[0]
    assert packet.parts == gro.sent
    assert packet.ip_summed == CHECKSUM_UNNECESSARY


def test_with_rx_gro_list_psh_and_fin_do_not_merge(gro: Gro) -> None:
    gro.bench.features(NETIF_F_GRO | NETIF_F_GRO_FRAGLIST)
    assert gro.sizes(flagged(0, 0, PSH)) == [2, 1]


def test_with_rx_gro_list_64_segments_are_the_most(gro: Gro) -> None:
    gro.bench.features(NETIF_F_GRO | NETIF_F_GRO_FRAGLIST)
    assert gro.sizes(stream(Tcp(), [100] * 70)) == [64, 6]
