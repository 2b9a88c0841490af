"""No stage takes more instructions a frame than were recorded: they are repeatable, times are not.

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
SLACK, MARGIN = 6, 1.15  # compilers differ; so do processors in what libc chooses
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


def grown(now: dict[str, float], recorded: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Give the stages that take more than the record and its margin allow."""
    return {
        stage: (recorded.get(stage, 0), now.get(stage, 0))
        for stage in OURS
        if now.get(stage, 0) > recorded.get(stage, 0) * MARGIN + SLACK
    }


def test_a_stage_that_grew_is_found() -> None:
    assert grown({"napi": 60, "sock": 60}, {"napi": 40, "sock": 60}) == {"napi": (40, 60)}


@pytest.mark.bench
def test_no_stage_takes_more_instructions_than_recorded(tool: ModuleType) -> None:
    recorded = json.loads(RECORD.read_text())
    counts = tool.count_instructions(tool.ROADS)
    assert set(counts) == set(recorded)
    assert {
        name: worse for name in counts if (worse := grown(counts[name], recorded[name]))
    } == {}
