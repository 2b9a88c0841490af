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
from tests.napi.frames import Ip, Tcp, stream
from tests.napi.gro_cases import CASES
from tools._oracle.gro import SETTINGS, Pair

pytestmark = pytest.mark.tap
REFERENCE = os.uname().release.startswith("6.18.")


CHOSEN = SETTINGS if REFERENCE else {name: SETTINGS[name] for name in ("plain", "sockets")}


@pytest.fixture(scope="module", params=CHOSEN, ids=lambda name: name.replace(" ", "-"))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Give both GROs, in each of the settings."""
    with Pair.open(request.param) as pair:
        yield pair


def agree(pair: Pair, packets: list[Ip]) -> list[int]:
    """Assert that both pass up the same; give the frames in each packet."""
    sent = [packet.bytes() for packet in packets]
    ours, theirs = pair.ask(sent)
    assert ours == theirs
    return [packet.segs for packet in pair.ours(sent)]


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
    agree(pair, CASES[case])


@settings(max_examples=40)
@given(
    EVENTS if REFERENCE else EVENTS.map(lambda events: [(*event[:2], {}) for event in events])
)
def test_both_pass_up_the_same_packets_whatever_comes(pair: Pair, events: list[Event]) -> None:
    agree(pair, frames(events))


def test_the_kernel_holds_from_poll_to_poll(pair: Pair) -> None:
    """Without this, equal results would say only that neither merged."""
    assert agree(pair, [*stream(Tcp(), [100] * 8)]) == [8]
