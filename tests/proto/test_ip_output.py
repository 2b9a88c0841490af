"""The way out: header, ids, fragments, what goes to all, and what hooks see of it."""

from itertools import pairwise

import pytest
from scapy.layers.inet import IP

from netstack._counters import mib
from netstack.proto._ip_output import IPOutput, send
from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC, Stack, number

EMSGSIZE, ENETUNREACH, EINVAL = 90, 101, 22
ALL = "ff:ff:ff:ff:ff:ff"


def out(stack: Stack, data: bytes = b"12345678", dst: str = PEER, **kwargs: object) -> list[IP]:
    """Send; give the IP packets that left."""
    assert send(stack.net, data, number(dst), 0, 77, **kwargs) == 0
    return [frame[IP] for frame in stack.sent()]


def right(packet: IP) -> bool:
    """Check the header's checksum."""
    copy = packet.copy()
    del copy.chksum
    return IP(bytes(copy)).chksum == packet.chksum


def test_the_header_is_complete(stack: Stack) -> None:
    (packet,) = out(stack, tos=0x28, ttl=9)
    assert (packet.version, packet.ihl, packet.tos, packet.len) == (4, 5, 0x28, 28)
    assert (packet.ttl, packet.proto, packet.src, packet.dst) == (9, 77, ADDR, PEER)
    assert (packet.flags, packet.frag) == (0, 0)
    assert right(packet)


def test_ttl_is_ip_default_ttl_unless_given(stack: Stack) -> None:
    stack.config["net.ipv4.ip_default_ttl"] = 7
    assert out(stack)[0].ttl == 7


def test_a_packet_is_counted_once_on_its_way(stack: Stack) -> None:
    out(stack)
    counters = stack.counters()
    assert counters == {"IpOutRequests": 1, "IpOutTransmits": 1, "IpExtOutOctets": 28}


def test_ids_of_one_pair_count_up(stack: Stack) -> None:
    ids = [out(stack)[0].id for _ in range(5)]
    assert [(b - a) & 0xFFFF for a, b in pairwise(ids)] == [1] * 4


def test_ids_of_pairs_do_not_tell_each_other(stack: Stack) -> None:
    stack.neighbour("10.0.0.9", PEER_MAC)
    assert out(stack)[0].id != out(stack, dst="10.0.0.9")[0].id


def test_what_must_not_be_cut_needs_no_id(stack: Stack) -> None:
    (packet,) = out(stack, df=True)
    assert (packet.flags, packet.id) == ("DF", 0)


def test_the_same_seed_gives_the_same_ids() -> None:
    assert [out(Stack())[0].id for _ in range(2)] == [out(Stack())[0].id] * 2


def test_options_are_part_of_the_header(stack: Stack) -> None:
    (packet,) = out(stack, options=b"\x94\x04\0\0")
    assert (packet.ihl, packet.len) == (6, 32)
    assert right(packet)


@pytest.mark.parametrize("size", [1, 3, 44])
def test_options_are_words_up_to_40_bytes(stack: Stack, size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        send(stack.net, b"12345678", number(PEER), 0, 77, options=bytes(size))


# ---- size


@pytest.mark.parametrize("size", [1480, 1481, 2960, 2961, 65515])
def test_what_is_larger_than_the_mtu_is_cut(stack: Stack, size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    packets = out(stack, data)
    assert b"".join(bytes(packet.payload) for packet in packets) == data
    assert all(right(packet) and packet.len <= 1500 for packet in packets)
    assert len({packet.id for packet in packets}) == 1
    assert [bool(packet.flags.MF) for packet in packets] == [True] * (len(packets) - 1) + [
        False
    ]
    counters = stack.counters()
    assert counters.get("IpFragCreates", 0) == (len(packets) if len(packets) > 1 else 0)
    assert counters.get("IpFragOKs", 0) == (len(packets) > 1)
    assert counters["IpOutTransmits"] == len(packets)
    assert counters["IpExtOutOctets"] == size + 20 * len(packets)


def test_only_the_first_piece_carries_options_that_are_not_copied(stack: Stack) -> None:
    record_route, router_alert = b"\x07\x07\x08\1\2\3\4", b"\x94\x04\0\0"
    packets = out(stack, bytes(3000), options=record_route + b"\x01" + router_alert)
    bodies = [bytes(packet)[20:32] for packet in packets]
    assert bodies[0] == record_route + b"\x01" + router_alert
    assert set(bodies[1:]) == {b"\x01" * 8 + router_alert}


def test_df_refuses_to_be_cut(stack: Stack) -> None:
    assert send(stack.net, bytes(2000), number(PEER), 0, 77, df=True) == EMSGSIZE
    assert stack.sent() == []
    assert stack.net.mib(mib.IpFragFails) == 1


def test_nothing_is_larger_than_65535(stack: Stack) -> None:
    assert send(stack.net, bytes(65516), number(PEER), 0, 77) == EMSGSIZE
    assert stack.counters() == {}


def test_a_large_mtu_carries_several_buffers_in_a_frame(stack: Stack) -> None:
    stack.bench.mtu = 9000
    data = bytes(i % 253 for i in range(8980))
    (packet,) = out(stack, data)
    assert bytes(packet.payload) == data


def test_no_route_is_the_sender_s_business(stack: Stack) -> None:
    assert send(stack.net, b"12345678", number("8.8.8.8"), 0, 77) == ENETUNREACH
    assert send(stack.net, b"12345678", number(PEER), number("9.9.9.9"), 77) == ENETUNREACH


def test_an_exhausted_pool_is_no_buffers(stack: Stack) -> None:
    from netstack._skb import ProcessPool

    keep, small = stack.pool, ProcessPool(stack.net, (1, 0, 0))
    assert send(stack.net, bytes(1480), number(PEER), 0, 77) == 105
    assert all(free == total for _size, free, total in small.state())
    assert keep.state()
    stack.pool = small


# ---- to all


def test_a_broadcast_goes_to_all_and_comes_back(stack: Stack) -> None:
    (frame,) = [*_frames(stack, "10.0.0.255")]
    assert (frame.dst, frame.src) == (ALL, MAC)
    stack.settle()
    counters = stack.counters()
    assert counters["IpExtOutBcastPkts"] == counters["IpExtInBcastPkts"] == 1
    assert counters["IpExtOutBcastOctets"] == counters["IpExtInBcastOctets"] == 28


def test_a_group_has_a_hardware_address_made_of_its_own(stack: Stack) -> None:
    assert send(stack.net, b"12345678", number("239.129.2.3"), number(ADDR), 77) == 0
    (frame,) = stack.sent()
    assert frame.dst == "01:00:5e:01:02:03"
    assert stack.net.mib(mib.IpExtOutMcastPkts) == 1


def _frames(stack: Stack, dst: str) -> list[object]:
    send(stack.net, b"12345678", number(dst), 0, 77)
    return stack.sent()


def test_one_host_has_one_state(stack: Stack) -> None:
    with pytest.raises(RuntimeError, match="already"):
        IPOutput(stack.net, 1)
