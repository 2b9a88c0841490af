"""Every test of the queue runs twice: with the short cut, and with every packet through Python."""

from collections.abc import Iterator

import pytest

from tests.sock.rig import Rig, rig


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with rig(request.param) as made:
        yield made
