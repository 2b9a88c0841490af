"""The same frames to the kernel and to netstack: tools/kernel_oracle.py in short.

Linux 6.18 is the reference. Other releases count a little differently, so there only the replies
are compared.
"""

import os
import struct
import threading
from typing import Any

import pytest

from netstack.lab import another_network
from tools._oracle import compare, run
from tools._oracle.trace import TRACING, DropReasons, mount, sweep

pytestmark = pytest.mark.tap

REFERENCE = os.uname().release.startswith("6.18.")
REQUIRED = 99.5


@pytest.fixture(autouse=True)
def replies_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with another release what all releases do alike."""
    if REFERENCE:
        return
    differs = compare.Outcome.differs

    def replies(self: compare.Outcome, other: compare.Outcome) -> dict[str, Any]:
        return {name: both for name, both in differs(self, other).items() if name == "replies"}

    monkeypatch.setattr(compare.Outcome, "differs", replies)


def test_the_kernel_does_the_same_with_every_case() -> None:
    report = run.run_cases()
    assert report.frames > 400
    assert report.agreement == 100, report.text()


def test_the_kernel_does_the_same_with_frames_changed_at_random() -> None:
    report = run.run_fuzz(5000, seed=1)
    assert report.frames == 5000
    assert report.agreement >= REQUIRED, report.text()


def test_each_field_is_compared() -> None:
    """Two outcomes that differ in one field differ in that field only."""
    base = dict(replies=[b"a"], deliveries=[1], counters={"IpInReceives": 1})
    for name, other in (("replies", []), ("deliveries", [2])):
        ours = compare.Outcome(**base | {name: other})
        found = ours.differs(compare.Outcome(**base))
        assert list(found) == ([name] if REFERENCE or name == "replies" else [])
    more = compare.Outcome(**base | {"counters": {"IpInReceives": 2}})
    if REFERENCE:
        assert more.differs(compare.Outcome(**base)) == {"IpInReceives": (2, 1)}


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ({}, {}, True),
        ({"NO_SOCKET": 1}, {"NO_SOCKET": 1}, True),
        ({"IP_NOPROTO": 3}, {"IP_NOPROTO": 1}, True),
        ({"NO_SOCKET": 1}, {}, False),
        ({}, {"NO_SOCKET": 1}, False),
        ({"NO_SOCKET": 1}, {"UDP_CSUM": 1}, False),
        ({"PKT_TOO_SMALL": 1}, {"NOT_SPECIFIED": 1}, True),
        ({}, {"NOT_SPECIFIED": 1}, False),
        ({"ARP_UNSOLICITED": 1}, {}, True),
    ],
)
def test_reasons_agree_when_each_names_what_the_other_names(
    ours: dict[str, int], theirs: dict[str, int], same: bool
) -> None:
    assert compare.same_reasons(compare.Counter(ours), compare.Counter(theirs)) is same


def test_the_kernel_tells_why_it_drops() -> None:
    if why := mount():
        pytest.skip(why)
    with run.drop_reasons() as (reasons, _), another_network():
        assert isinstance(reasons, DropReasons)
        side = compare.Side(compare.Kernel(), reasons)
        for name, reason in (("UDP to port 65535", "NO_SOCKET"), ("IP checksum", "IP_CSUM")):
            assert side.outcome(run.case(name)[0]).reasons == {reason: 1}
        side.close()


def test_a_run_that_was_killed_traces_no_longer_than_until_the_next() -> None:
    if why := mount():
        pytest.skip(why)
    left = TRACING / "instances" / f"netstack-{2**22 + 1}"  # PID_MAX_LIMIT is below
    left.mkdir(exist_ok=True)
    (left / "events/skb/consume_skb/enable").write_text("1")
    with run.drop_reasons():
        assert not left.exists()
        sweep()
        own = TRACING / "instances" / f"netstack-{threading.get_native_id()}"
        assert own.exists()
    assert not own.exists()


@pytest.mark.parametrize(
    ("flags", "counts"), [(0, True), (0x80, True), (0x08, False), (0x10, False), (0x90, False)]
)
def test_what_an_interrupt_frees_is_not_the_frames(flags: int, counts: bool) -> None:
    """That softirqs are off (0x80) says nothing: they are while a TAP takes a frame."""
    come, drop, skb = 1, 2, 0xFFFF888000001000
    trace = DropReasons.__new__(DropReasons)
    trace.come, trace.drop, trace.used = come, drop, 3
    trace.come_skb = trace.drop_skb = 8
    trace.reason, trace.names, trace.alive = 16, {79: "DEV_READY"}, set()
    page = b""
    for kind, context in ((come, 0x80), (drop, flags)):
        event = struct.pack("<HBBiQI8s", kind, context, 0, 0, skb, 79, b"tap0")
        page += struct.pack("<I", len(event) // 4) + event
    trace.fd, end = os.pipe2(os.O_NONBLOCK)
    os.write(end, struct.pack("<QQ", 0, len(page)) + page)
    assert trace.take() == ({"DEV_READY": 1} if counts else {})
    assert not trace.alive, "whoever frees it, it is gone"
    os.close(end)
    os.close(trace.fd)
