"""Fast path on or off: the same replies, the same counters, the same ends of every frame."""

import pytest

from tests.proto.odd_frames import CASES
from tests.proto.stack import Stack


@pytest.mark.parametrize("name", CASES)
def test_both_roads_do_the_same(name: str) -> None:
    seen = []
    for fast in (True, False):
        stack = Stack(fast)
        replies = stack.give(*CASES[name])
        stack.check_ledger()
        seen.append(([bytes(frame) for frame in replies], stack.counters(), stack.fates()))
        stack.inet.close()
    assert seen[0] == seen[1]
