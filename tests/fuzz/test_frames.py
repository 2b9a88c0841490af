"""Whatever frames come, none raises, prints, leaks or is lost from the account.

The suite tries the same sequences every time. `./dev.sh fuzz` feeds a million frames that were
never tried before; a failure names the number that makes them again.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
    for seed in range(SEED, SEED + -(-FRAMES // BATCH)):
        rng = Random(seed)
        steps = [mutant(rng) if rng.randrange(10) else rng.choice(PAUSES) for _ in range(BATCH)]
        again = f"NETSTACK_FUZZ_SEED={seed} NETSTACK_FUZZ_FRAMES={BATCH} ./dev.sh fuzz"
        try:
            feed(steps, fast_path)
        except Exception as error:
            raise AssertionError(f"again with: {again}") from error
        assert caplog.messages == [], again


def feed(steps: Iterable[bytes | float], fast_path: bool) -> None:
    """Put frames on a host's wire, let time pass; the host has checked its account at the end."""
    with memory_host(fast_path=fast_path) as it:
        sockets = [it.socket("", port) for port in PORTS[:2]]
        for is_pause, run in itertools.groupby(steps, lambda step: isinstance(step, float)):
            if is_pause:
                it.advance(sum(run))
            else:
                it.put(*run)
        for sock in sockets:
            drain(sock)


def drain(sock: socket.socket) -> None:
    """Read what came. An unconnected socket hears of no ICMP error, so nothing else is raised."""
    while True:
        try:
            sock.recvfrom(65535)
        except BlockingIOError:
            return
