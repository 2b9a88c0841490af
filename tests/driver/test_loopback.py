"""What a host sends to itself over `lo`: datagrams of UDP_SEGMENT stay one packet as far as the socket."""

from __future__ import annotations

import itertools
import socket as kernel
import struct
from typing import Any

import pytest

import netstack
from netstack.ethnl import set_features, show_features
from netstack.nf.hooks import NF_ACCEPT, NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT
from netstack.socket import UDP_GRO, UDP_SEGMENT
from tests.memory_host import memory_host
from tests.sock.worlds import Cases, World, attempt, drain, our_host, same

UDP, IP = kernel.IPPROTO_UDP, kernel.IPPROTO_IP
GROUP = "239.1.1.1"
OURS = "10.0.0.2"
SHAPES = [
    (100, 250),  # the last is shorter
    (100, 300),
    (100, 100),  # one only: no cut
    (100, 50),
    (1, 128),
    (1472, 1473),
    (1000, 64000),
    (20000, 65000),  # more than a buffer each
]
case = Cases()


def payload(length: int) -> bytes:
    return bytes(i % 251 for i in range(length))


def sender(w: World, size: int) -> Any:
    sock = w.udp("", 5000)
    sock.setsockopt(UDP, UDP_SEGMENT, size)
    return sock


def receiver(w: World, gro: int, address: str = "") -> Any:
    sock = w.udp(address, 9000)
    sock.setsockopt(UDP, UDP_GRO, gro)
    return sock


def happened(w: World, call: Any, *args: Any) -> list[Any]:
    """Give the answer of a call, and what it and its packets changed in the counters."""
    before, looped = w.counters(), w.looped()
    answer = attempt(call, *args)
    w.settle()
    after = w.counters()
    changed = {name: n - before.get(name, 0) for name, n in after.items()}
    changed = {name: n for name, n in changed.items() if n}
    return [answer, changed, {name: n - looped[name] for name, n in w.looped().items()}]


def sent_and_read(w: World, size: int, length: int, gro: int, to: str) -> list[Any]:
    sock, out = receiver(w, gro), sender(w, size)
    said = happened(w, out.sendto, payload(length), (to, 9000))
    return [said, drain(sock), w.counters().get("UdpInDatagrams")]


for _size, _length in SHAPES:
    for _gro, _to in itertools.product((0, 1), ("127.0.0.1", OURS)):
        name = f"{_length} bytes in {_size}, UDP_GRO {_gro}, to {_to}"
        case[name] = lambda w, args=(_size, _length, _gro, _to): sent_and_read(w, *args)


@case
def connected(w: World) -> Any:
    out = []
    for gro in (0, 1):
        sock, send = receiver(w, gro, "127.0.0.1"), sender(w, 100)
        sock.connect(("127.0.0.1", 5000))
        send.connect(("127.0.0.1", 9000))
        out += [happened(w, send.send, payload(250)), drain(sock)]
        sock.close()
        send.close()
    return out


@case
def by_control_message(w: World) -> Any:
    sock, out = receiver(w, 1), w.udp("", 5000)
    size = [(UDP, UDP_SEGMENT, struct.pack("H", 100))]
    said = happened(w, out.sendmsg, [payload(250)], size, 0, ("127.0.0.1", 9000))
    return [said, drain(sock)]


@case
def to_a_group(w: World) -> Any:
    result = []
    for gro in (0, 1):
        sock, out = receiver(w, gro), sender(w, 100)
        group = kernel.inet_aton(GROUP) + kernel.inet_aton(OURS)
        sock.setsockopt(IP, kernel.IP_ADD_MEMBERSHIP, group)
        out.setsockopt(IP, kernel.IP_MULTICAST_IF, kernel.inet_aton(OURS))
        said = happened(w, out.sendto, payload(250), (GROUP, 9000))
        result += [said[0], {n: v for n, v in said[1].items() if n.startswith("Udp")}]
        result += [said[1]["IpInReceives"], drain(sock)]
        sock.close()
        out.close()
    return result


@case
def a_group_on_it_comes_back_whatever_is_asked(w: World) -> Any:
    result = []
    sock = w.udp("", 9000)
    group = kernel.inet_aton(GROUP) + kernel.inet_aton("127.0.0.1")
    sock.setsockopt(IP, kernel.IP_ADD_MEMBERSHIP, group)
    for loop in (1, 0):
        out = w.socket()
        out.setsockopt(IP, kernel.IP_MULTICAST_IF, kernel.inet_aton("127.0.0.1"))
        out.setsockopt(IP, kernel.IP_MULTICAST_LOOP, loop)
        result.append(happened(w, out.sendto, b"x", (GROUP, 9000)))
        result.append([(row[0], row[3][0]) for row in drain(sock)])
    return result


@case
def with_and_without_udp_gro_in_one_group(w: World) -> Any:
    whole, cut = w.socket(), w.socket()
    group = kernel.inet_aton(GROUP) + kernel.inet_aton(OURS)
    for sock in (whole, cut):
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEADDR, 1)
        sock.bind(("", 9000))
        sock.setsockopt(IP, kernel.IP_ADD_MEMBERSHIP, group)
    whole.setsockopt(UDP, UDP_GRO, 1)
    out = sender(w, 100)
    out.setsockopt(IP, kernel.IP_MULTICAST_IF, kernel.inet_aton(OURS))
    out.sendto(payload(250), (GROUP, 9000))
    w.settle()
    return drain(whole), drain(cut)


@case
def nobody_is_bound(w: World) -> Any:
    out = sender(w, 100)
    said = happened(w, out.sendto, payload(250), ("127.0.0.1", 9000))
    out.connect(("127.0.0.1", 9000))
    again = happened(w, out.send, payload(250))
    return [said, again, attempt(out.send, b"x")]


@case
def raw_and_packet_sockets_see_one_packet(w: World) -> Any:
    raw = w.socket(kernel.SOCK_RAW, kernel.IPPROTO_UDP)
    packet = w.socket(kernel.SOCK_RAW, kernel.htons(3), kernel.AF_PACKET)
    packet.bind(("lo", 3))
    sock, out = receiver(w, 0), sender(w, 100)
    out.sendto(payload(250), ("127.0.0.1", 9000))
    w.settle()

    def without_id(data: bytes) -> bytes:
        return data[:4] + data[6:10] + data[12:]

    whole = [without_id(row[0]) for row in drain(raw)]
    frames = [(row[0][:14], without_id(row[0][14:]), row[3]) for row in drain(packet)]
    return whole, frames, drain(sock)


@case
def a_device_that_may_not_take_it_whole(w: World) -> Any:
    w.looped_whole(False)
    out = [sent_and_read(w, 100, 250, 1, "127.0.0.1")]
    w.looped_whole(True)
    w.made[0].close()
    w.made[1].close()
    return [*out, sent_and_read(w, 100, 250, 1, "127.0.0.1")]


@case
def header_fields_of_each(w: World) -> Any:
    result = []
    for gro in (0, 1):
        sock, out = receiver(w, gro), sender(w, 100)
        for option in (kernel.IP_RECVTOS, 12, 8):  # IP_RECVTTL, IP_PKTINFO
            sock.setsockopt(IP, option, 1)
        out.setsockopt(IP, kernel.IP_TOS, 0x2E)
        out.setsockopt(IP, kernel.IP_TTL, 9)
        result.append(happened(w, out.sendto, payload(250), ("127.0.0.1", 9000)))
        result.append(drain(sock))
        sock.close()
        out.close()
    return result


@pytest.mark.tap
@pytest.mark.parametrize("name", case)
def test_it_is_as_in_the_kernel(name: str) -> None:
    same(case[name], our_host)


# ---- rules that need no kernel


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def world(request: Any) -> Any:
    with our_host(request.param) as it:
        yield it
        account = netstack.ledger(it.host.host)
        assert account.balanced
        assert account.delivered == 0, "no frame of it was on a wire"


def test_it_is_one_packet_to_rules_and_hooks(world: World) -> None:
    host = world.host.host
    seen: list[int] = []

    def note(_host: Any, skb: Any) -> int:
        seen.append(skb.gso_segs)
        return NF_ACCEPT

    for hook in (NF_INET_LOCAL_OUT, NF_INET_LOCAL_IN):
        host.hook(hook, note)
    for chain in ("input", "output"):
        host.nft.command(f"add rule ip filter {chain} udp dport 9000 counter accept")
    sock, out = receiver(world, 1), sender(world, 100)
    out.sendto(payload(250), ("127.0.0.1", 9000))
    world.settle()
    assert [len(row[0]) for row in drain(sock)] == [250]
    for chain in ("input", "output"):
        (found,) = host.nft.command(f"list chain ip filter {chain}")
        assert [(row["packets"], row["bytes"]) for row in found["rules"]] == [(1, 278)]
    assert seen == [3, 3]


def test_a_capture_shows_each_datagram_with_its_checksum(world: World) -> None:
    tap = world.host.host.packet_tap()
    sock, out = receiver(world, 1), sender(world, 100)
    out.sendto(payload(250), ("127.0.0.1", 9000))
    world.settle()
    frames = [row[5] for row in tap.drain(10)]
    tap.close()
    assert [len(frame) - 42 for frame in frames] == [100, 100, 50] * 2, "out, and in"
    assert b"".join(frame[42:] for frame in frames[:3]) == payload(250)
    assert frames[:3] == frames[3:]
    assert [len(row[0]) for row in drain(sock)] == [250]


def test_a_batch_gives_each(world: World) -> None:
    sock, out = receiver(world, 1), sender(world, 100)
    out.sendto(payload(250), ("127.0.0.1", 9000))
    world.settle()
    assert [len(data) for data, _peer in sock.recv_batch(10)] == [100, 100, 50]


def test_its_features_are_what_linux_s_lo_has_of_ours() -> None:
    with memory_host() as it:
        nic = it.host.lo.nic
        rows = {row["name"]: row for row in show_features("lo", nic)}
        on = {name for name, row in rows.items() if row["active"] and row["fixed"] is not None}
        assert on == {
            "rx-checksumming",
            "tx-checksum-ip-generic",
            "tx-scatter-gather",
            "tx-scatter-gather-fraglist",
            "generic-segmentation-offload",
            "highdma",
            "vlan-challenged",
            "tx-udp-segmentation",
            "loopback",
        }
        assert [name for name, row in rows.items() if row["fixed"] is False] == [
            "tx-udp-segmentation"
        ]
        set_features("lo", nic, {"tx-udp-segmentation": "off"})
        assert not {row["name"]: row for row in show_features("lo", nic)}[
            "tx-udp-segmentation"
        ]["active"]
        with pytest.raises(OSError, match="Could not change any device features"):
            set_features("lo", nic, {"tx-checksum-ip-generic": "off"})
