"""Pictures of benchmarks: the best is on top, lines go from quartile to quartile, the same file comes of the same."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.bench  # numpy in a sanitized run would tell nothing about netstack

TOOL = Path(__file__).resolve().parent.parent / "tools" / "picture.py"
ROWS = [
    {"side": "bare", "ns": 400.0, "kpps": 2500.0, "quartiles": {"ns": [390.0, 420.0]}},
    {"side": "slow", "ns": 900.0, "kpps": 1111.0, "quartiles": {"ns": [850.0, 990.0]}},
    {"side": "fast", "ns": 450.0, "kpps": 2222.0, "quartiles": {"ns": [445.0, 460.0]}},
]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """Give tools/picture.py; numpy's threads would stay in this process, where other tests want none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        importlib.import_module("numpy")
    spec = importlib.util.spec_from_file_location("picture", TOOL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(axes) -> list[str]:
    """Give the bars' names from the top."""
    low, high = axes.get_ylim()
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    return ticks if low > high else ticks[::-1]


def test_the_best_is_on_top(tool: ModuleType) -> None:
    it = tool.Picture("what", "where", 2, 2)
    it.bars(ROWS, "side", "ns", "cost", "ns", most=False)
    it.bars(ROWS, "side", "kpps", "rate", "thousand", most=True)
    assert names(it.grid[0]) == ["bare", "fast", "slow"]
    assert names(it.grid[1]) == ["bare", "fast", "slow"]
    assert [bar.get_width() for bar in it.grid[1].patches] == [2500, 2222, 1111]


def test_a_line_goes_from_quartile_to_quartile(tool: ModuleType) -> None:
    it = tool.Picture("what", "where", 1)
    it.bars(ROWS, "side", "ns", "cost", "ns", most=False)
    assert [list(line.get_xdata()) for line in it.grid[0].lines] == [
        [390, 420],
        [445, 460],
        [850, 990],
    ]


def test_parts_stand_one_behind_the_other(tool: ModuleType) -> None:
    rows = [{"road": "a", "napi": 3.0, "sock": 4.0}, {"road": "b", "napi": 5.0}]
    it = tool.Picture("what", "where", 1)
    it.stack(rows, "road", ["napi", "sock"], "parts", "instructions")
    assert [(bar.get_x(), bar.get_width()) for bar in it.grid[0].patches] == [
        *((0, 3), (0, 5)),
        *((3, 4), (5, 0)),
    ]


def test_a_curve_has_its_points_in_order_and_the_limit_beside_it(tool: ModuleType) -> None:
    rows = [{"side": "a", "offered": x, "arrived": min(x, 20)} for x in (30, 10, 20)]
    it = tool.Picture("what", "where", 1)
    it.curves(rows, "side", "offered", "arrived", "goodput", ("offered", "arrived"), limit=True)
    curve, limit = it.grid[0].lines
    assert list(zip(curve.get_xdata(), curve.get_ydata(), strict=True)) == [
        (10, 10),
        (20, 20),
        (30, 20),
    ]
    assert list(limit.get_xdata()) == list(limit.get_ydata()) == [0, 20]


def test_the_same_figures_give_the_same_file(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tools/bench_rx.py", "--sides", "a b", "--json"])
    for name in ("one.svg", "two.svg"):
        it = tool.Picture("a long title " * 9, "vm, Linux", 3, 2)
        for _ in range(3):
            it.bars(ROWS, "side", "ns", "cost", "ns", most=False)
        it.save(tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    for words in ("vm, Linux", "$ tools/bench_rx.py --sides 'a b' --json", "fast"):
        assert words in text
