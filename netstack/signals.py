"""End in an orderly way when a signal asks for it.

A TAP that is taken over has to be put back, and a summary printed, however the program ends.
Python leaves `with` blocks only for an exception; SIGINT raises one, SIGTERM and SIGHUP by
default end the process on the spot.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def orderly_exit() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into `SystemExit(128 + number)`.

    Further ones are ignored until the block has ended, so that a second Ctrl-C does not cut the
    way out short; SIGQUIT (Ctrl-\\) still does. Put it around everything that must be undone.
    Main thread only, as Python's signal handlers are.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        for other in ENDING:
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        for number in ENDING:
            if before[number] is not signal.SIG_IGN:  # nohup(1) asked for that
                signal.signal(number, leave)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
