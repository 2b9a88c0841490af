"""When datagrams of a UDP flow merge: for whom, in which form, how many."""

import pytest

from netstack._checksum import internet_checksum
from tests.napi.frames import Udp, address, datagrams
from tests.napi.gro import (
    CHECKSUM_NONE,
    CHECKSUM_PARTIAL,
    CHECKSUM_UNNECESSARY,
    NETIF_F_GRO,
    NETIF_F_GRO_FRAGLIST,
    NETIF_F_GRO_UDP_FWD,
    SKB_GSO_FRAGLIST,
    SKB_GSO_UDP_L4,
    UDP_GRO_ENABLED,
    UDP_GRO_HAS_SOCKET,
    Gro,
)

UDP_GRO_SOCKET = UDP_GRO_HAS_SOCKET | UDP_GRO_ENABLED


@pytest.fixture
def wanted(gro: Gro) -> Gro:
    """Give a GRO with a UDP_GRO socket on port 5000."""
    gro.bench.udp_socket(5000, UDP_GRO_SOCKET)
    return gro


def test_without_anybody_who_asked_no_datagram_is_held(gro: Gro) -> None:
    assert gro.sizes(datagrams(Udp(), [100] * 3)) == [1, 1, 1]
    assert gro.bench.counters == {"merged": 0, "held": 0, "normal": 3, "packets_out": 0}


def test_a_udp_gro_socket_gets_datagrams_merged(wanted: Gro) -> None:
    assert wanted.sizes(datagrams(Udp(), [100] * 5)) == [5]


def test_another_socket_gets_them_one_by_one(wanted: Gro) -> None:
    wanted.bench.udp_socket(5001, UDP_GRO_HAS_SOCKET)
    assert wanted.sizes(datagrams(Udp(dport=5001), [100] * 3)) == [1, 1, 1]


def test_datagrams_for_no_socket_are_not_merged(wanted: Gro) -> None:
    assert wanted.sizes(datagrams(Udp(dport=5001), [100] * 3)) == [1, 1, 1]


def test_rx_udp_gro_forwarding_merges_what_is_for_no_socket(wanted: Gro) -> None:
    wanted.bench.features(NETIF_F_GRO | NETIF_F_GRO_UDP_FWD)
    wanted.bench.udp_socket(5001, UDP_GRO_HAS_SOCKET)
    assert wanted.sizes(datagrams(Udp(dport=5001), [100] * 3)) == [1, 1, 1]
    assert wanted.sizes(datagrams(Udp(dport=5002), [100] * 3)) == [3]


def test_rx_udp_gro_forwarding_asks_nobody_while_no_socket_has_udp_gro(gro: Gro) -> None:
    gro.bench.features(NETIF_F_GRO | NETIF_F_GRO_UDP_FWD)
    (packet,) = gro.feed(*datagrams(Udp(), [100] * 3)).flushed()
    assert (packet.type, packet.frames) == (SKB_GSO_UDP_L4, 3)


def test_rx_gro_list_keeps_each_datagram_whole(gro: Gro) -> None:
    gro.bench.features(NETIF_F_GRO | NETIF_F_GRO_FRAGLIST)
    (packet,) = gro.feed(*datagrams(Udp(), [100] * 3)).flushed()
    assert (packet.type, packet.size, packet.segs) == (
        SKB_GSO_UDP_L4 | SKB_GSO_FRAGLIST,
        100,
        3,
    )
    assert packet.frame == gro.sent[0]
    assert packet.parts == gro.sent
    assert packet.ip_summed == CHECKSUM_UNNECESSARY


def test_rx_gro_list_is_for_sockets_without_udp_gro(wanted: Gro) -> None:
    wanted.bench.features(NETIF_F_GRO | NETIF_F_GRO_FRAGLIST)
    wanted.bench.udp_socket(5001, UDP_GRO_HAS_SOCKET)
    wanted.feed(*datagrams(Udp(dport=5001), [100] * 2), *datagrams(Udp(), [100] * 2))
    wanted.feed(*datagrams(Udp(dport=5002), [100] * 2))
    assert [packet.type for packet in wanted.flushed()] == [
        SKB_GSO_UDP_L4 | SKB_GSO_FRAGLIST,
        SKB_GSO_UDP_L4,
        SKB_GSO_UDP_L4 | SKB_GSO_FRAGLIST,
    ]


def test_a_socket_that_changes_its_mind_completes_the_held_packet(wanted: Gro) -> None:
    one, two, three = datagrams(Udp(), [100] * 3)
    wanted.bench.features(NETIF_F_GRO | NETIF_F_GRO_FRAGLIST)
    wanted.feed(one)
    wanted.bench.udp_socket(5000, UDP_GRO_HAS_SOCKET)
    wanted.feed(two, three)
    assert [packet.ids for packet in wanted.flushed()] == [[1], [2], [3]]


def test_rx_gro_list_does_not_mix_verified_and_other_checksums(gro: Gro) -> None:
    gro.bench.features(NETIF_F_GRO | NETIF_F_GRO_FRAGLIST)
    one, two = datagrams(Udp(), [100] * 2)
    packet = two.bytes()[14:]
    csum = int.from_bytes((internet_checksum(packet) ^ 0xFFFF).to_bytes(2, "big"), "little")
    gro.feed(one)
    gro.feed(two, ip_summed=2, csum=csum)
    assert [packet.ids for packet in gro.flushed()] == [[2], [1]]


def test_a_merged_packet_is_one_long_datagram(wanted: Gro) -> None:
    (packet,) = wanted.feed(*datagrams(Udp(), [100, 100, 40])).flushed()
    data = b"\0" * 100 + b"\1" * 100 + b"\2" * 40
    pseudo = address(Udp().src) + address(Udp().dst) + bytes([0, 17]) + (248).to_bytes(2, "big")
    assert packet.frame == Udp(data=data, check=internet_checksum(pseudo) ^ 0xFFFF).bytes()
    assert (packet.type, packet.size, packet.segs) == (SKB_GSO_UDP_L4, 100, 3)
    assert packet.ip_summed == CHECKSUM_PARTIAL
    assert (packet.csum >> 16, packet.csum & 0xFFFF) == (64 + 2 + 14 + 20, 6)


def test_a_shorter_datagram_is_the_last(wanted: Gro) -> None:
    wanted.feed(*datagrams(Udp(), [100, 100, 99, 100]))
    assert [packet.ids for packet in wanted.flushed()] == [[1, 2, 3], [4]]


def test_a_longer_datagram_begins_anew(wanted: Gro) -> None:
    wanted.feed(*datagrams(Udp(), [100, 100, 101, 101]))
    assert [packet.ids for packet in wanted.flushed()] == [[1, 2], [3, 4]]


@pytest.mark.parametrize("features", [0, NETIF_F_GRO_FRAGLIST])
def test_64_datagrams_are_the_most(wanted: Gro, features: int) -> None:
    wanted.bench.features(NETIF_F_GRO | features)
    wanted.bench.udp_socket(5000, 0 if features else UDP_GRO_SOCKET)
    wanted.feed(*datagrams(Udp(), [100] * 70))
    assert [packet.frames for packet in wanted.up()] == [64]
    assert [packet.frames for packet in wanted.flushed()] == [6]


@pytest.mark.parametrize("features", [0, NETIF_F_GRO_FRAGLIST])
def test_the_merged_packet_stays_below_64_kib(wanted: Gro, features: int) -> None:
    wanted.bench.features(NETIF_F_GRO | features)
    wanted.bench.udp_socket(5000, 0 if features else UDP_GRO_SOCKET)
    first, second = wanted.feed(*datagrams(Udp(), [1472] * 60)).flushed()
    # The list's test counts the headers of the newcomer as well; here both give 44.
    assert first.frames == (65535 - 28) // 1472
    assert first.frames + second.frames == 60


@pytest.mark.parametrize("ip_summed", [CHECKSUM_NONE, CHECKSUM_UNNECESSARY])
def test_a_datagram_without_checksum_is_passed_on_alone(wanted: Gro, ip_summed: int) -> None:
    one, two, three = datagrams(Udp(), [100] * 3)
    wanted.feed(one, two.but(check=0), two, three, ip_summed=ip_summed)
    assert [packet.ids for packet in wanted.flushed()] == [[2], [1, 3, 4]]


def test_a_wrong_checksum_is_passed_on_alone(wanted: Gro) -> None:
    one, two, three = datagrams(Udp(), [100] * 3)
    wanted.feed(one, two.but(check=0x1234), two, three)
    assert [packet.ids for packet in wanted.flushed()] == [[2], [1, 3, 4]]


def test_a_checksum_the_nic_has_verified_is_believed(wanted: Gro) -> None:
    frames = [one.but(check=0x1234) for one in datagrams(Udp(), [100] * 3)]
    assert wanted.sizes(frames, ip_summed=CHECKSUM_UNNECESSARY) == [3]


@pytest.mark.parametrize("ulen", [0, 7, 8, 107, 109])
def test_a_udp_length_that_is_not_the_packet_s_is_passed_on_alone(
    wanted: Gro, ulen: int
) -> None:
    one, two, three = datagrams(Udp(), [100] * 3)
    wanted.feed(one, two.but(ulen=ulen), two, three)
    assert [packet.ids for packet in wanted.flushed()] == [[2], [1, 3, 4]]


def test_an_empty_datagram_is_passed_on_alone(wanted: Gro) -> None:
    assert wanted.sizes(datagrams(Udp(), [0, 0])) == [1, 1]
    assert wanted.bench.counters["held"] == 0


def test_a_padded_datagram_is_passed_on_alone(wanted: Gro) -> None:
    one, two, three = datagrams(Udp(), [10] * 3)
    wanted.feed(one, two.but(pad=bytes(8)), two, three)
    assert [packet.ids for packet in wanted.flushed()] == [[2], [1, 3, 4]]


def test_a_change_of_ttl_completes_the_held_packet(wanted: Gro) -> None:
    one, two, three = datagrams(Udp(), [100] * 3)
    wanted.feed(one, two.but(ttl=3), three.but(ttl=3))
    assert [packet.ids for packet in wanted.flushed()] == [[1], [2, 3]]


def test_other_ports_are_another_flow(wanted: Gro) -> None:
    one, two = datagrams(Udp(), [100] * 2)
    wanted.feed(one, two.but(sport=1001), two)
    assert [packet.ids for packet in wanted.flushed()] == [[1, 3], [2]]
