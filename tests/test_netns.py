"""The namespace helper isolates, and puts the thread back."""

import os
import socket

import pytest

from tests.netns import fresh_netns, inside, second_netns


def here() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def names() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


@pytest.mark.tap
def test_block_runs_in_an_empty_namespace_with_lo_up() -> None:
    before = here()
    with fresh_netns():
        assert here() != before
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.sendto(b"x", sock.getsockname())
            assert sock.recv(1) == b"x"
    assert here() == before


@pytest.mark.tap
def test_thread_comes_back_after_an_exception() -> None:
    before = here()
    with pytest.raises(KeyError), fresh_netns():
        raise KeyError("inside")
    assert here() == before


@pytest.mark.tap
def test_blocks_nest_and_a_second_namespace_can_be_entered() -> None:
    before = here()
    with fresh_netns():
        outer = here()
        with second_netns() as other:
            assert here() == outer
            with inside(other):
                assert here() not in (outer, before)
            assert here() == outer
    assert here() == before


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
def test_fixture_gives_a_namespace() -> None:
    assert "lo" in names()
    assert not [name for name in names() if name.startswith("e")]
