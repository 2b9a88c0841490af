"""No test leaves a thread behind: it would run into the next test and be blamed on that."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

PATIENCE = 5  # seconds that a thread may take to end after its test


def threads() -> set[str]:
    """Name the threads of this process, Python's and the compiled ones, by number."""
    return set(os.listdir("/proc/self/task"))


def names(numbers: set[str]) -> list[str]:
    """Give the names of threads, as Python knows them or else the kernel."""
    known = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    found = []
    for number in sorted(numbers):
        with suppress(OSError), open(f"/proc/self/task/{number}/comm") as comm:
            found.append(known.get(number) or comm.read().strip())
    return found


@pytest.fixture(autouse=True)
def _no_thread_left_behind() -> Iterator[None]:
    before = threads()
    yield
    until = time.monotonic() + PATIENCE
    while left := threads() - before:
        if time.monotonic() > until:
            pytest.fail(f"still running after the test: {', '.join(names(left))}")
        time.sleep(0.001)  # a thread that was joined is still listed for a moment
