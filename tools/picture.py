"""Draw what a benchmark measured: sorted bars with their spread, stacked bars, curves. SVG or PNG.

matplotlib draws; it comes with the extra ``bench`` and is imported only where something is drawn.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ENDINGS = (".png", ".svg")
INSTALL = f"{sys.executable} -m pip install matplotlib"
# Whose a bar is: a yardstick that does no more than read, the kernel, another stack, or ours.
COLOURS = {
    "bare": "#9aa0a6",
    "read": "#9aa0a6",
    "kernel": "#e8a33d",
    "pytcp": "#b5651d",
    "scapy": "#b5651d",
}
OURS, INK, FAINT, LINES = "#3572b0", "#202124", "#5f6368", "#e8eaed"
SHADES = (
    "#3572b0",
    "#e8a33d",
    "#5b8c5a",
    "#c0504d",
    "#8064a2",
    "#4bacc6",
    "#b5651d",
    "#9aa0a6",
)

Row = dict[str, Any]


def option(parser: argparse.ArgumentParser) -> None:
    """Add ``--picture`` to a tool."""
    parser.add_argument(
        "--picture",
        type=_file,
        metavar="FILE",
        help="draw it too, as FILE.svg or FILE.png (needs matplotlib: pip install '.[bench]')",
    )


def _file(text: str) -> Path:
    """Refuse what could not be drawn, before anything is measured."""
    path = Path(text)
    if path.suffix not in ENDINGS:
        allowed = " or ".join(ENDINGS)
        raise argparse.ArgumentTypeError(f"{text}: a picture's name ends with {allowed}")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no directory {path.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError(f"matplotlib is not installed; type: {INSTALL}")
    return path


class Picture:
    """Panels, one below the other or side by side, under one title; ``save`` writes the file.

    ``what`` says what was measured and ``where`` on which machine and when; the command that was
    typed stands below.
    """

    def __init__(self, what: str, where: str, panels: int, columns: int = 1) -> None:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib.figure import Figure

        self.columns = min(columns, panels)
        self.left = panels
        self.grid: list[Any] = []
        self.heights: list[float] = [0.0] * -(-panels // self.columns)
        self.figure = Figure(figsize=(1, 1), layout="constrained")
        self.what, self.where = what, where
        self._axes = self.figure.subplots(len(self.heights), self.columns, squeeze=False)

    def _next(self, heading: str, unit: str, lines: float) -> Any:
        """Give the next panel, high enough for so many lines."""
        row, column = divmod(len(self.grid), self.columns)
        axes = self._axes[row][column]
        self.grid.append(axes)
        self.heights[row] = max(self.heights[row], 0.27 * lines + 0.85)
        axes.set_title(heading, loc="left", fontsize=10, fontweight="bold", color=INK)
        axes.set_xlabel(unit, fontsize=8.5, color=FAINT)
        axes.tick_params(labelsize=8.5, colors=INK, length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color("#dadce0")
        axes.grid(axis="x", color=LINES, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.locator_params(axis="x", nbins=6 if self.columns < 3 else 4)
        return axes

    def bars(
        self,
        rows: Sequence[Row],
        label: str,
        value: str,
        heading: str,
        unit: str,
        *,
        most: bool,
    ) -> None:
        """Draw a bar a row, the best on top: the most or the least. Its line is between the quartiles."""
        rows = sorted(rows, key=lambda row: row[value], reverse=most)
        axes = self._next(heading, unit, len(rows))
        values = [row[value] for row in rows]
        names = [str(row[label]) for row in rows]
        places = range(len(rows))
        axes.barh(places, values, 0.7, color=[_colour(name) for name in names])
        ends = list(values)
        for place, row in enumerate(rows):
            low, high = row.get("quartiles", {}).get(value, (row[value], row[value]))
            axes.plot([low, high], [place, place], color=INK, linewidth=1.4)
            ends[place] = max(row[value], high)
        self._label(axes, ends, [_number(each) for each in values])
        axes.set_yticks(places, names)
        axes.invert_yaxis()

    def stack(
        self, rows: Sequence[Row], label: str, parts: Sequence[str], heading: str, unit: str
    ) -> None:
        """Draw a bar a row that is made of parts, in their order."""
        axes = self._next(heading, unit, len(rows) + 1.2)
        places = range(len(rows))
        before = [0.0] * len(rows)
        shades = _shades(len(parts))
        for part, shade in zip(parts, shades, strict=True):
            sizes = [row.get(part) or 0.0 for row in rows]
            axes.barh(places, sizes, 0.7, left=before, color=shade, label=part)
            before = [a + b for a, b in zip(before, sizes, strict=True)]
        self._label(axes, before, [_number(each) for each in before])
        axes.set_yticks(places, [str(row[label]) for row in rows])
        axes.invert_yaxis()
        axes.legend(
            ncols=len(parts), fontsize=8, frameon=False, loc="lower left", handlelength=1,
            bbox_to_anchor=(-0.01, 0.98), columnspacing=1, handletextpad=0.4, borderpad=0,
        )  # fmt: skip
        axes.set_title(heading, loc="left", fontsize=10, fontweight="bold", color=INK, pad=20)

    def curves(
        self,
        rows: Sequence[Row],
        label: str,
        x: str,
        y: str,
        heading: str,
        units: tuple[str, str],
        *,
        limit: bool = False,
    ) -> None:
        """Draw a line through the rows of each label; with ``limit`` a dashed one where y is x."""
        axes = self._next(heading, units[0], 12)
        axes.set_ylabel(units[1], fontsize=8.5, color=FAINT)
        axes.grid(axis="y", color=LINES, linewidth=0.8)
        names = list(dict.fromkeys(row[label] for row in rows))
        shades = _shades(len(names))
        for name, shade in zip(names, shades, strict=True):
            mine = sorted((row[x], row[y]) for row in rows if row[label] == name)
            axes.plot(*zip(*mine, strict=True), "o-", color=shade, markersize=4, label=name)
        top = max(row[y] for row in rows)
        if limit:
            axes.plot([0, top], [0, top], "--", color=FAINT, linewidth=1, label="all of it")
        axes.set_xlim(left=0)
        axes.set_ylim(0, top * 1.1)
        axes.legend(fontsize=8, frameon=False)

    def _label(self, axes: Any, ends: Sequence[float], texts: Sequence[str]) -> None:
        """Write figures behind the bars, and leave room for them."""
        room = max(ends, default=0) or 1
        for place, (end, text) in enumerate(zip(ends, texts, strict=True)):
            axes.text(end + room * 0.012, place, text, va="center", fontsize=8.5, color=INK)
        axes.set_xlim(0, room * (1.04 + 0.022 * max(map(len, texts), default=0)))

    def save(self, path: Path) -> None:
        """Write the file; an SVG of the same figures is the same to the byte."""
        import matplotlib as mpl

        for axes in self._axes.flat[len(self.grid) :]:
            axes.set_visible(False)
        width = 9.6 if self.columns > 1 else 8
        title = textwrap.wrap(self.what, int(10.5 * width))
        above = 0.2 * len(title) + 0.45
        height = above + sum(self.heights) + 0.35
        self.figure.set_size_inches(width, height)
        self._axes[0][0].get_gridspec().set_height_ratios(self.heights)
        layout = self.figure.get_layout_engine()
        layout.set(rect=(0, 0.35 / height, 1, (height - above - 0.35) / height))
        inch, left = 1 / height, 0.12 / width
        text = self.figure.text
        text(
            left, 1 - 0.1 * inch, "\n".join(title), size=12, weight="bold", color=INK, va="top"
        )
        text(left, 1 - (above - 0.3) * inch, self.where, size=9, color=FAINT, va="top")
        text(left, 0.12 * inch, f"$ {command()}", size=8, color=FAINT, family="monospace",
             parse_math=False)  # fmt: skip
        with mpl.rc_context({"svg.hashsalt": "netstack", "svg.fonttype": "none"}):
            self.figure.savefig(
                path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None
            )


def command() -> str:
    """Say what was typed."""
    program = os.path.relpath(sys.argv[0]) if os.path.exists(sys.argv[0]) else sys.argv[0]
    return shlex.join([program, *sys.argv[1:]])


def _colour(name: str) -> str:
    first = name.replace("-", " ").split(" ")[0]
    return COLOURS.get(first, OURS)


def _shades(count: int) -> list[Any]:
    return [SHADES[i % len(SHADES)] for i in range(count)]


def _number(value: float) -> str:
    """Write a figure with three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
