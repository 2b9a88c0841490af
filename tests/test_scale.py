"""A frame costs the same whatever else is there, and memory is bounded (tools/bench_scale.py)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.test_stages import debug_build, load, tool

__all__ = ["tool"]

MIB = 1 << 20
TENTH = 1.1


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    """Give bench_scale."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
    try:
        return load("bench_scale")
    finally:
        del sys.path[0]


@pytest.mark.bench
@pytest.mark.parametrize(
    "name", ["sockets", "flows", "groups", "ring", "routes", "rules", "budget"]
)
def test_a_frame_costs_no_tenth_more_over_the_range(
    tool: ModuleType, scale: ModuleType, name: str
) -> None:
    roads = scale.ranges(sockets=(1, 100, 10_000))[name]
    costs = {road: scale.ours(row) for road, row in tool.count_instructions(roads).items()}
    first = costs[roads[0].name]
    assert {road: cost for road, cost in costs.items() if cost > first * TENTH} == {}


@pytest.mark.bench
def test_memory_of_idle_sockets_and_of_a_host(scale: ModuleType) -> None:
    if debug_build():
        pytest.skip("a sanitizer's shadow is memory too")
    used = scale.memory(60_000)
    assert used["socket"] < 2048
    assert used["host"] < 40 * MIB
    assert used["files"] < 100  # an idle socket has no file descriptor before fileno()
