"""A virtio header is never trusted: what does not fit its frame is dropped, with a name."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from netstack.socket import UDP_GRO
from netstack.stats import ledger
from tests.frames import OUR_IP
from tests.memory_host import memory_host
from tests.vnet import (
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    GSO_UDP_L4,
    header,
    packet,
    singles,
)

PAYLOAD = b"x" * 1000


def patched(at: int, value: bytes) -> bytes:
    """Give the packet with some bytes changed."""
    frame = bytearray(packet(PAYLOAD))
    frame[at : at + len(value)] = value
    return bytes(frame)


BAD = {
    "gso_size 0": header(gso_size=0) + packet(PAYLOAD),
    "hdr_len beyond the frame": header(hdr_len=60000) + packet(PAYLOAD),
    "an unknown gso_type": header(gso_type=99) + packet(PAYLOAD),
    "UFO, which nobody offered": header(gso_type=GSO_UDP) + packet(PAYLOAD),
    "ECN, which nobody offered": header(gso_type=0x80 | GSO_TCPV4) + packet(PAYLOAD),
    "several frames with a finished checksum": header(flags=0) + packet(PAYLOAD),
    "TCP that is UDP": header(gso_type=GSO_TCPV4, csum_offset=16) + packet(PAYLOAD),
    "IPv6 that is IPv4": header(gso_type=GSO_TCPV6, csum_offset=16) + packet(PAYLOAD),
    "csum_start beyond the frame": header(csum_start=60000) + packet(PAYLOAD),
    "csum_start in the Ethernet header": header(gso_type=0, csum_start=2) + packet(PAYLOAD),
    "csum_start deep in the data": header(gso_type=0, csum_start=900) + packet(PAYLOAD),
    "csum_offset beyond the frame": header(gso_type=0, csum_offset=65000) + packet(PAYLOAD),
    "csum_start that is no UDP header": header(csum_start=38) + packet(PAYLOAD),
    "a checksum field that UDP has not": header(csum_offset=4) + packet(PAYLOAD),
    "an IP length that is not the frame's": header() + packet(PAYLOAD) + b"more",
    "a UDP length that is not the packet's": header() + patched(38, b"\0\x20"),
    "a fragment": header() + patched(20, b"\x20\x00"),
    "an IP header that is too short": header() + patched(14, b"\x44"),
    "an IP header that is too long": header() + patched(14, b"\x4f"),
    "IP of a version that is none": header() + patched(14, b"\x75"),
    "an EtherType that is not IP": header() + patched(12, b"\x08\x06"),
    "no payload": header(gso_size=10) + packet(b""),
    "nothing behind the header": header(),
    "half a header": header()[:5],
    "a runt with a partial checksum": header(gso_type=0) + b"abc",
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_can_not_be_is_dropped_with_a_name(what: str) -> None:
    with memory_host(vnet_hdr=True) as it:
        sock = it.socket(OUR_IP, 9000)
        it.put(BAD[what])
        assert it.drops() == {"DEV_HDR": 1}
        assert ledger(it.host).frames == 1
        it.put(header(gso_type=0) + packet(b"and on it goes"))
        assert sock.recv(100) == b"and on it goes"


@pytest.mark.parametrize("flags", [0, 2, 4, 0xFE])
def test_flags_that_ask_for_nothing_change_nothing(flags: int) -> None:
    with memory_host(vnet_hdr=True) as it:
        sock = it.socket(OUR_IP, 9000)
        it.put(header(flags, GSO_NONE, 0, 0, 0, 0) + singles(PAYLOAD, 1000)[0])
        assert sock.recv(2000) == PAYLOAD


def test_any_header_in_front_of_any_frame_is_taken_or_dropped_whole() -> None:
    """Headers and frames with random bytes changed: nothing is lost and nothing is read that was not sent."""
    rng = random.Random(7)
    with memory_host(vnet_hdr=True, queue=100) as it:
        sock = it.socket(OUR_IP, 9000)
        other = it.socket(OUR_IP, 9001)
        other.setsockopt(17, UDP_GRO, 1)
        tap = it.host.packet_tap()
        for _ in range(3000):
            raw = bytearray(
                header(
                    gso_type=rng.choice([0, GSO_UDP_L4, GSO_TCPV4]),
                    gso_size=rng.choice([1, 50, 999]),
                )
            )
            raw += packet(PAYLOAD[: rng.randrange(1, 1000)], dport=rng.choice([9000, 9001]))
            for _ in range(rng.randrange(3)):
                raw[rng.randrange(52)] = rng.randrange(256)
            it.put(bytes(raw))
            for each in (sock, other):
                with suppress(BlockingIOError):
                    while True:
                        assert set(each.recv(65535)) <= set(b"x")
            tap.drain(5000)
        tap.close()
        assert ledger(it.host).balanced
