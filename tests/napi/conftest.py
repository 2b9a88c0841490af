"""A GRO for each test, whose ledger must balance when the test is over."""

from collections.abc import Iterator

import pytest

from tests.napi.gro import Gro


@pytest.fixture
def gro() -> Iterator[Gro]:
    """Give a NAPI with GRO on its device; afterwards every frame must have ended."""
    bench = Gro()
    yield bench
    bench.flushed()
    bench.check()
