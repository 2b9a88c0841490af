"""A rig for every test of this folder that asks for one."""

from collections.abc import Iterator

import pytest

from tests.sock.rig import Rig, rig


@pytest.fixture
def it() -> Iterator[Rig]:
    with rig() as made:
        yield made
