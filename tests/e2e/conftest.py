"""A host on a real TAP in a network namespace of its own, with the real kernel as its peer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

import netstack
from netstack.stats import ledger
from tests.netns import fresh_netns

pytest.register_assert_rewrite("tests.e2e.twins")

HOST, PEER = "10.0.0.2", "10.0.0.1"


def run(
    *command: str, timeout: float = 60, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a client inside the namespace; its output is part of the failure."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def fast_path(request: pytest.FixtureRequest) -> bool:
    """Every scenario runs with the compiled short cut and without."""
    return bool(request.param)


@pytest.fixture
def live(fast_path: bool) -> Iterator[netstack.Host]:
    """Give a host at 10.0.0.2 behind tap0, the kernel at 10.0.0.1; the ledger balances after."""
    with (
        fresh_netns(),
        netstack.up("tap0", addr=f"{HOST}/24", fast_path=fast_path, control=False) as host,
    ):
        yield host
        host.settle()
        account = ledger(host)
        assert account.balanced, account
