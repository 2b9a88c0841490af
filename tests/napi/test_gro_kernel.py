"""The same frames to the kernel's GRO and to ours: the same packets, to the byte.

The kernel completes what it holds when a jiffy ends between two writes, whatever the frames
say. So a difference counts only if it comes again and again.

Rules change between releases (6.10: IP IDs, TCP in lists; 6.18: IDs that stand without DF, CWR).
The reference is 6.18; another kernel is asked only what all releases answer alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings

from tests.napi.flows import EVENTS, Event, frames
from tests.napi.frames import ACK, CWR, ECE, FIN, PSH, URG, Ip, Tcp, Udp, datagrams, stream
from tests.napi.gro import (
    NETIF_F_GRO,
    NETIF_F_GRO_FRAGLIST,
    NETIF_F_GRO_UDP_FWD,
    SKB_GSO_FRAGLIST,
    UDP_GRO_ENABLED,
    UDP_GRO_HAS_SOCKET,
    Gro,
)
from tests.napi.kernel import KernelGro, Seen

pytestmark = pytest.mark.tap
ATTEMPTS = 20
REFERENCE = os.uname().release.startswith("6.18.")


class Pair:
    """The kernel's GRO and ours, set up alike."""

    def __init__(self, kernel: KernelGro, features: int, sockets: dict[int, bool]) -> None:
        self.kernel, self.features, self.sockets = kernel, features, sockets

    def ours(self, sent: list[bytes]) -> list[Seen]:
        gro = Gro()
        gro.bench.features(self.features)
        for port, udp_gro in self.sockets.items():
            answer = UDP_GRO_HAS_SOCKET | (UDP_GRO_ENABLED if udp_gro else 0)
            gro.bench.udp_socket(port, answer)
        packets = gro.feed(*sent).flushed()
        gro.check()
        return [
            listed(packet.parts, packet.size)
            if packet.type & SKB_GSO_FRAGLIST
            else Seen(packet.frame, packet.size)
            for packet in packets
        ]

    def agree(self, packets: list[Ip]) -> list[int]:
        """Assert that both pass up the same; give the frames in each packet."""
        sent = [packet.bytes() for packet in packets]
        ours = [self.comparable(packet) for packet in self.ours(sent)]
        for _ in range(ATTEMPTS):
            theirs = [self.comparable(packet) for packet in self.kernel.up(sent)]
            if ours == theirs:
                break
        assert ours == theirs
        return [packet.segs for packet in self.ours(sent)]

    def comparable(self, packet: Seen) -> Seen:
        """Leave out what differs here in a list of whole packets: the first one's lengths."""
        if not self.features & NETIF_F_GRO_FRAGLIST or not packet.size:
            return packet
        frame = packet.frame
        return Seen(frame[:16] + frame[18:24] + frame[26:38] + frame[40:], packet.size)


def listed(parts: list[bytes], size: int) -> Seen:
    """Show a list of whole packets as the kernel shows it: one header, then all payload."""
    header = 34 + (8 if parts[0][23] == 17 else (parts[0][46] >> 4) * 4)
    return Seen(parts[0] + b"".join(part[header:] for part in parts[1:]), size)


SETTINGS: dict[str, tuple[list[str], int, dict[int, bool]]] = {
    "plain": ([], NETIF_F_GRO, {}),
    "sockets": ([], NETIF_F_GRO, {5000: True, 5001: False}),
    "forwarding": (["rx-udp-gro-forwarding"], NETIF_F_GRO | NETIF_F_GRO_UDP_FWD, {}),
    "forwarding and sockets": (
        ["rx-udp-gro-forwarding"],
        NETIF_F_GRO | NETIF_F_GRO_UDP_FWD,
        {5000: True, 5001: False},
    ),
    "list": (["rx-gro-list"], NETIF_F_GRO | NETIF_F_GRO_FRAGLIST, {}),
    "list and sockets": (
        ["rx-gro-list"],
        NETIF_F_GRO | NETIF_F_GRO_FRAGLIST,
        {5000: True, 5001: False},
    ),
}


if not REFERENCE:
    SETTINGS = {name: SETTINGS[name] for name in ("plain", "sockets")}


@pytest.fixture(scope="module", params=SETTINGS, ids=lambda name: name.replace(" ", "-"))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Give both GROs, in each of the settings."""
    names, features, sockets = SETTINGS[request.param]
    with KernelGro(*names, sockets=sockets) as kernel:
        yield Pair(kernel, features, sockets)


def flagged(*flags: int) -> list[Ip]:
    segments = stream(Tcp(), [100] * len(flags))
    return [one.but(flags=ACK | bits) for one, bits in zip(segments, flags, strict=True)]


CASES: dict[str, list[Ip]] = {
    "segments": [*stream(Tcp(), [100] * 7 + [40])],
    "64 KiB": [*stream(Tcp(), [1448] * 60)],
    "sequence numbers wrap": [*stream(Tcp(seq=2**32 - 250), [100] * 6)],
    "IDs stand, DF": [*stream(Tcp(), [100] * 4, id_step=0)],
    "IDs stand, no DF": [*stream(Tcp(frag_off=0), [100] * 4, id_step=0)],
    "IDs count, no DF": [*stream(Tcp(frag_off=0, ident=0xFFFE), [100] * 4)],
    "IDs step by two": [*stream(Tcp(), [100] * 4, id_step=2)],
    "CWR": flagged(CWR, CWR, 0, 0, CWR, 0),
    "ECE": flagged(ECE, ECE, 0, 0),
    "PSH": flagged(0, PSH, PSH, 0, 0, PSH),
    "FIN": flagged(0, 0, FIN, 0),
    "URG": flagged(0, URG, 0),
    "pure acknowledgements": [*stream(Tcp(), [100, 0, 0, 100])],
    "nine flows": [
        packet
        for turn in zip(*[stream(Tcp(sport=i), [100] * 3) for i in range(9)], strict=True)
        for packet in turn
    ],
    "datagrams": [*datagrams(Udp(), [100] * 7 + [40, 100])],
    "datagrams for a socket without UDP_GRO": [*datagrams(Udp(dport=5001), [100] * 3)],
    "datagrams for no socket": [*datagrams(Udp(dport=5002), [100] * 3)],
    "more than 64 datagrams": [*datagrams(Udp(), [10] * 130)],
    "64 KiB of datagrams": [*datagrams(Udp(), [1472] * 50)],
    "datagrams grow": [*datagrams(Udp(), [10, 10, 11, 11, 12])],
    "datagrams without checksum": [*datagrams(Udp(check=0), [100] * 3)],
    "small frames, padded": [*datagrams(Udp(pad=bytes(8)), [10] * 3)],
}


OLD_RULES = [
    "segments",
    "sequence numbers wrap",
    "PSH",
    "FIN",
    "nine flows",
    "datagrams",
    "datagrams for a socket without UDP_GRO",
    "datagrams for no socket",
    "datagrams grow",
    "datagrams without checksum",
]


@pytest.mark.parametrize("case", CASES if REFERENCE else OLD_RULES)
def test_both_pass_up_the_same_packets(pair: Pair, case: str) -> None:
    pair.agree(CASES[case])


@settings(max_examples=40)
@given(
    EVENTS if REFERENCE else EVENTS.map(lambda events: [(*event[:2], {}) for event in events])
)
def test_both_pass_up_the_same_packets_whatever_comes(pair: Pair, events: list[Event]) -> None:
    pair.agree(frames(events))


def test_the_kernel_holds_from_poll_to_poll(pair: Pair) -> None:
    """Without this, equal results would say only that neither merged."""
    assert pair.agree([*stream(Tcp(), [100] * 8)]) == [8]
