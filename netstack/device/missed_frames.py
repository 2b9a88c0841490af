"""missed_frames: count the frames that were lost in front of a TAP that hands messages over whole.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       tx_dropped, and what the qdisc passed on   device/missed.py
Out      frames                            the NIC's missed-packets register
Context  process; Python, about once a second
Kernel   none; qdisc_bstats_update(), include/net/sch_generic.h, counts what we count by

A sender's message of 64 datagrams that finds the TAP's queue full is one dropped packet to the kernel, and 64 missed
frames to a NIC. But the qdisc before the TAP counts frames: those that it passed on and that the NIC did not take are
lost, as soon as none stands in the TAP's queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netstack.device.tap import Tap

# In which nothing comes; so nothing is on its way from the qdisc to the queue either.
QUIET_MS = 1


class MissedFrames:
    """The frames lost in front of ``tap`` since it was opened; ``taken()`` says how many its NIC has read.

    Exact once the queue has been empty after the loss. Until then, while it overflows, every lost packet counts as
    one frame; so it stays where the interface has no qdisc that counts. It never falls. Frames that went around the
    qdisc (PACKET_QDISC_BYPASS) while messages were lost make it too low, but never lower than the packets.
    """

    def __init__(self, tap: Tap, taken: Callable[[], int]) -> None:
        self._tap = tap
        self._taken = taken
        self._lock = threading.Lock()
        # As things stood when all was accounted for. What a new TAP has seen is all for us.
        self._frames = self._lost = self._was_taken = 0
        self._passed = (tap.passed() or 0) if tap.persistent else 0

    def read(self) -> int:
        """Return the frames lost so far."""
        with self._lock:
            lost = self._tap.missed()
            if lost != self._lost:
                self._settle(lost)
            return self._frames + lost - self._lost

    def _settle(self, lost: int) -> None:
        """Account for what was lost, if nothing moves."""
        passed = self._tap.passed()
        if passed is None or not self._tap.quiet(QUIET_MS):
            return
        taken = self._taken()
        if (self._tap.passed(), self._tap.missed()) != (passed, lost):
            return
        frames = passed - self._passed - (taken - self._was_taken)
        self._frames += max(frames, lost - self._lost)
        self._passed, self._lost, self._was_taken = passed, lost, taken
