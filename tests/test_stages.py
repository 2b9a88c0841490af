"""No stage takes a twentieth more instructions a frame than were recorded: they are repeatable, times are not.

With one compiler the counts are the same to the digit in every run; the next version of it moves a stage by up to 3 %,
so that with another one a stage may take 15 % more. Processors do not matter: callgrind knows no AVX-512, and what libc
chooses by the processor is not counted.

Type ``tools/bench_stages.py --record tests/stages.json`` after a change that is meant to cost something, and say in
the commit what it buys.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tests" / "stages.json"
MARGIN, SLACK = 1.05, 2  # the slack is for stages of a few instructions
OTHER_MARGIN, OTHER_SLACK = 1.15, 6  # another compiler than that of the record
OURS = ("device", "driver", "irq", "napi", "netif", "proto", "sock", "other")


def load(name: str) -> ModuleType:
    """Load a tool as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """Give bench_stages, where it can count and the record holds."""
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind: nothing counts instructions")
    if platform.machine() != "x86_64":
        pytest.skip("the recorded figures are those of x86-64")
    if debug_build():
        pytest.skip("a debug build does more")
    return load("bench_stages")


def debug_build() -> bool:
    """Tell whether the modules were built with invariants on."""
    fingerprint = ROOT / "build" / "fingerprint"
    return fingerprint.exists() and "NETSTACK_DEBUG" in fingerprint.read_text()


def grown(
    now: dict[str, float], recorded: dict[str, float], same_compiler: bool = True
) -> dict[str, tuple[float, float]]:
    """Give the stages that take more than the record and its margin allow; ``all`` has no slack."""
    margin, slack = (MARGIN, SLACK) if same_compiler else (OTHER_MARGIN, OTHER_SLACK)
    both = {stage: (recorded.get(stage, 0), now.get(stage, 0)) for stage in OURS}
    total = tuple(round(sum(column), 1) for column in zip(*both.values(), strict=True))
    too_many = {
        stage: (old, new) for stage, (old, new) in both.items() if new > old * margin + slack
    }
    return too_many | ({"all": total} if total[1] > total[0] * margin else {})


@pytest.mark.parametrize(
    ("stage", "count", "same_compiler", "found"),
    [
        ("napi", 212, True, set()),
        ("napi", 213, True, {"napi"}),
        ("napi", 213, False, set()),
        ("napi", 237, False, {"napi"}),
        ("irq", 6, True, set()),
        ("irq", 7, True, {"irq"}),
        ("irq", 204, True, {"irq"}),
        ("irq", 205, True, {"irq", "all"}),
        ("wire", 900, True, set()),
    ],
)
def test_a_stage_that_grew_is_found(
    stage: str, count: float, same_compiler: bool, found: set[str]
) -> None:
    recorded = {"proto": 3796, "napi": 200, "irq": 4, "wire": 100}
    assert set(grown({**recorded, stage: count}, recorded, same_compiler)) == found


def test_stages_that_all_grow_a_little_are_found() -> None:
    recorded = dict.fromkeys(OURS, 10.0)
    assert grown({stage: 11.9 for stage in OURS}, recorded) == {"all": (80.0, 95.2)}


@pytest.mark.bench
def test_no_stage_takes_more_instructions_than_recorded(tool: ModuleType) -> None:
    record = json.loads(RECORD.read_text())
    recorded, same = record["instructions"], record["compiler"] == tool.compiler()
    counts = tool.count_instructions(tool.ROADS)
    assert set(counts) == set(recorded)
    assert {
        name: worse for name in counts if (worse := grown(counts[name], recorded[name], same))
    } == {}
