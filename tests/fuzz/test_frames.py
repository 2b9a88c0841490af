"""Whatever frames come, none raises, prints, leaks or is lost from the account.

The suite tries the same sequences every time. `./dev.sh fuzz` feeds a million frames that were
never tried before; a failure names the number that makes them again.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netstack.stats import ledger, nstat
from tests.fuzz.mutants import GOOD, PORTS, mutant
from tests.memory_host import memory_host

FRAMES = int(os.environ.get("NETSTACK_FUZZ_FRAMES", "20000"))
SEED = int(os.environ.get("NETSTACK_FUZZ_SEED", "0"))
BATCH = 500
# What comes between frames. 0: they are no longer one burst; else seconds, for GRO's timer, for a
# neighbour that is asked again, for a reassembly that is given up.
PAUSES = [0.0, 0.0, 0.0, 0.00005, 1.0, 31.0]

both_ways = pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "python"])
steps = st.lists(
    st.builds(mutant, st.randoms(use_true_random=False)) | st.sampled_from(PAUSES),
    min_size=1,
    max_size=40,
)


@both_ways
@settings(suppress_health_check=[*HealthCheck])
@given(steps=steps)
def test_whatever_comes_is_accounted_for(
    fast_path: bool, steps: list[bytes | float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    feed(steps, fast_path)
    assert caplog.messages == []


CUT = [frame[:size] for frame in GOOD for size in range(1, min(len(frame), 80))]


@both_ways
@pytest.mark.parametrize("frames", [GOOD, GOOD * 3, CUT], ids=["good", "repeated", "cut"])
def test_good_frames_and_their_beginnings_are_accounted_for(
    fast_path: bool, frames: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    feed(frames, fast_path)
    assert caplog.messages == []


@both_ways
@pytest.mark.timeout(0)
def test_many_frames_are_accounted_for(
    fast_path: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for again, steps in batches():
        try:
            feed(steps, fast_path)
        except Exception as error:
            raise AssertionError(f"again with: {again}") from error
        assert caplog.messages == [], again


@pytest.mark.timeout(0)
def test_both_ways_agree_frame_by_frame() -> None:
    """The short cut and the Python layers send, deliver, count and drop the same.

    In a burst they need not: what the short cut takes overtakes what Python has still to do.
    """
    for again, steps in batches():
        fast, python = outcome(steps, fast_path=True), outcome(steps, fast_path=False)
        for step, one, other in zip(steps, fast.sent, python.sent, strict=True):
            assert one == other, (again, step)
        assert fast == python, again


def batches() -> Iterator[tuple[str, list[bytes | float]]]:
    """Make FRAMES steps in batches, each with the command that makes it again."""
    for seed in range(SEED, SEED + -(-FRAMES // BATCH)):
        rng = Random(seed)
        steps = [mutant(rng) if rng.randrange(10) else rng.choice(PAUSES) for _ in range(BATCH)]
        yield f"NETSTACK_FUZZ_SEED={seed} ./dev.sh fuzz {BATCH}", steps


def feed(steps: Iterable[bytes | float], fast_path: bool) -> None:
    """Put bursts on a host's wire and let time pass. The host checks its account at the end."""
    with memory_host(fast_path=fast_path) as it:
        sockets = [it.socket("", port) for port in PORTS[:2]]
        for is_pause, run in itertools.groupby(steps, lambda step: isinstance(step, float)):
            if is_pause:
                it.advance(sum(run))
            else:
                it.put(*run)
        for sock in sockets:
            received(sock)


class Outcome(NamedTuple):
    """What a host did with the frames it got one by one."""

    sent: list[list[bytes]]
    received: list[list[tuple[bytes, object]]]
    ledger: object
    counters: dict[str, int]


def outcome(steps: Iterable[bytes | float], fast_path: bool) -> Outcome:
    """Put each frame on a host's wire alone."""
    with memory_host(fast_path=fast_path) as it:
        sockets = [it.socket("", port) for port in PORTS[:2]]
        sent = [it.advance(step) if isinstance(step, float) else it.put(step) for step in steps]
        return Outcome(
            [sorted(map(timeless, frames)) for frames in sent],
            [received(sock) for sock in sockets],
            ledger(it.host),
            nstat(it.host.net),
        )


def timeless(frame: bytes) -> bytes:
    """Take out what depends on the time at which a host answers, to the microsecond."""
    if frame[12:14] != b"\x08\x00":
        return frame
    masked = bytearray(frame)
    masked[18:20] = masked[24:26] = bytes(2)  # the id, from a clock, and the sum over it
    options = (frame[14] & 15) * 4 - 20
    if options:
        return bytes(masked[:34])  # perhaps a timestamp, and then the id in what is quoted
    if frame[23] == 1 and frame[34] == 14:  # ICMP timestamp reply
        masked[36:38], masked[46:54] = bytes(2), bytes(8)
    return bytes(masked)


def received(sock: socket.socket) -> list[tuple[bytes, object]]:
    """Read what came. An unconnected socket hears of no ICMP error, so nothing is raised."""
    out = []
    while True:
        try:
            out.append(sock.recvfrom(65535))
        except BlockingIOError:
            return out
