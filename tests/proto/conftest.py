"""Every test of a layer runs twice: with the short cut, and with every packet through Python."""

from collections.abc import Iterator

import pytest

from tests.proto.stack import Stack


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Give a host, and check its ledger at the end."""
    stack = Stack(fast=request.param)
    yield stack
    stack.settle()
    stack.check_ledger()
    for skb in stack.kept:
        skb.consume()
    stack.inet.close()
    stack.bench.sent()
    assert stack.bench.pool_in_use() == 0
    assert all(free == total for _size, free, total in stack.pool.state())
