"""The flow of a packet as a number: the same both ways, without ports for fragments, and a good hash."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.l2 import Dot1Q

import netstack
from netstack.netif._flow_dissector import flow_hash, siphash
from netstack.netif.core import ETH_P_ALL
from tests.frames import OUR_IP, PEER_IP, ether, ip, who_has
from tests.memory_host import memory_host


def test_siphash_gives_its_authors_values():
    words = [int.from_bytes(bytes(range(8 * i, 8 * i + 8)), "little") for i in range(2)]
    assert siphash(*words, *words) == 0x3F2ACC7F57C29BDB


@pytest.fixture
def hashes():
    """Give a function that says the hash of each frame."""
    found: list[int] = []

    def watch(host: netstack.Host, skb: object) -> None:
        found.append(flow_hash(skb))

    with memory_host() as it:
        it.host.register_ethertype(ETH_P_ALL, watch)

        def ask(*frames: object) -> list[int]:
            found.clear()
            it.put(*(bytes(frame) for frame in frames))
            return list(found)

        yield ask


def test_both_directions_are_one_flow(hashes):
    there = ip() / UDP(sport=5000, dport=9000) / b"x"
    back = ip(src=OUR_IP, dst=PEER_IP) / UDP(sport=9000, dport=5000) / b"x"
    assert len(set(hashes(there, back))) == 1


def test_each_field_makes_another_flow(hashes):
    udp = UDP(sport=5000, dport=9000)
    frames = [
        ip() / udp,
        ip() / UDP(sport=5001, dport=9000),
        ip() / UDP(sport=5000, dport=9001),
        ip(src="10.0.0.7") / udp,
        ip(dst="10.0.0.7") / udp,
        ip() / TCP(sport=5000, dport=9000),
        ether() / Dot1Q(vlan=7) / (ip() / udp).payload,
        ip() / ICMP(),
        who_has(),
    ]
    found = hashes(*frames)
    assert len(found) == len(frames)
    assert len(set(found)) == len(frames)
    assert all(found)


def test_payload_and_ttl_make_none(hashes):
    udp = UDP(sport=5000, dport=9000)
    assert len(set(hashes(ip() / udp / b"a", ip(ttl=3) / udp / b"bc", ip(id=7) / udp))) == 1


def test_options_are_skipped(hashes):
    from scapy.layers.inet import IPOption_NOP

    plain = ip() / UDP(sport=5000, dport=9000)
    nops = ip(options=[IPOption_NOP()] * 4) / UDP(sport=5000, dport=9000)
    assert len(set(hashes(plain, nops))) == 1


def test_fragments_of_a_datagram_stay_together(hashes):
    first = ip(flags="MF", id=9) / UDP(sport=5000, dport=9000) / bytes(16)
    second = ip(frag=3, id=9, proto=17) / bytes(16)
    whole = ip() / UDP(sport=5000, dport=9000) / bytes(16)
    a, b, c = hashes(first, second, whole)
    assert a == b != c


def test_what_is_cut_short_has_a_hash_too(hashes):
    short = bytes(ip() / UDP(sport=5000, dport=9000))[:36]
    assert all(hashes(short, short[:20], bytes(ether(type=0x0800)) + b"\x4f"))
