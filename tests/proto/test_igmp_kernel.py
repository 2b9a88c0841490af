"""Memberships over time: reports, texts and counters as the kernel's (tools/_oracle/groups.py)."""

import os

import pytest

from tools._oracle import groups

pytestmark = [
    pytest.mark.tap,
    pytest.mark.skipif(
        not os.uname().release.startswith("6.18."), reason="Linux 6.18 is the reference"
    ),
]


@pytest.mark.parametrize("name", groups.SCENARIOS)
def test_the_kernel_reports_and_shows_the_same(name: str) -> None:
    fast = (
        len(name) % 2 == 0
    )  # each road has half of them; tools/kernel_oracle.py --groups has all
    ours, theirs = groups.ask(name, fast)
    for mine, kernels in zip(ours, theirs, strict=True):
        assert mine == kernels
