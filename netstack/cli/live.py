"""What ``netstack up`` shows while it runs: rates, drops by reason, queue depths.

On a terminal a small table that is drawn again in place; elsewhere a line each time, or a JSON
object. A sample reads counters, some microseconds of work, so watching costs nothing.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from typing import Any, TextIO

from netstack import stats

CLEAR_DOWN, ERASE_LINE = "\x1b[J", "\x1b[K"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
DIM, BOLD, RED, RESET = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Sample:
    """The host's counters at one moment; all but ``queued`` only ever grow."""

    at: float
    received: int
    delivered: int
    consumed: int
    forwarded: int
    sent: int
    missed: int
    dropped: dict[str, int] = field(default_factory=dict)
    queued: dict[str, int] = field(default_factory=dict)


def sample(host: Any, at: float | None = None) -> Sample:
    """Read a host. ``at``: seconds of a monotonic clock."""
    account = stats.ledger(host)
    wires = [device.stats() for device in host.devices if device.name != "lo"]
    return Sample(
        at=time.monotonic() if at is None else at,
        received=account.frames,
        delivered=account.delivered,
        consumed=account.consumed,
        forwarded=account.forwarded,
        sent=sum(counts["tx_packets"] for counts in wires),
        missed=sum(counts.get("rx_missed_errors", 0) for counts in wires),
        dropped=account.dropped,
        queued=account.queued,
    )


COLUMNS = ("received", "delivered", "consumed", "forwarded", "sent", "missed")


def rates(now: Sample, before: Sample) -> dict[str, float]:
    """Return frames a second between two samples, by column; drops together as ``dropped``."""
    seconds = max(now.at - before.at, 1e-9)
    found = {name: (getattr(now, name) - getattr(before, name)) / seconds for name in COLUMNS}
    lost = sum(now.dropped.values()) - sum(before.dropped.values())
    return found | {"dropped": lost / seconds}


def plain_line(now: Sample, before: Sample) -> str:
    """Return one line without any terminal code."""
    rate = rates(now, before)
    parts = [f"{rate['received']:,.0f} frames/s in", f"{rate['sent']:,.0f} out"]
    parts.append(f"{rate['delivered']:,.0f} delivered")
    parts.append(f"{rate['dropped']:,.0f} dropped")
    parts += [f"{reason} {count:,}" for reason, count in stats.by_count(now.dropped)[:3]]
    parts += [f"{place} {count:,}" for place, count in stats.by_count(now.queued)[:3]]
    return ", ".join(parts)


def json_line(now: Sample, before: Sample) -> str:
    """Return the sample as a JSON object, with the rates."""
    totals = {name: getattr(now, name) for name in COLUMNS}
    per_second = {name: round(value, 1) for name, value in rates(now, before).items()}
    return json.dumps(
        {"totals": totals, "per_second": per_second, "dropped": now.dropped}
        | {"queued": now.queued}
    )


def table_lines(
    title: str, now: Sample, before: Sample, height: int = 24, width: int = 80
) -> list[str]:
    """Return the table: what came and went, drops by reason, queues that are not empty.

    No line is longer than the terminal: one that goes on below would be drawn again elsewhere.
    """
    names = max(min(26, width - 1 - 12 - 16), 9)

    def line(name: str, per_second: float | None, total: int, style: str = "") -> str:
        rate = "" if per_second is None else f"{per_second:,.0f}"
        return styled(f"{name:<{names}.{names}}{rate:>12}{total:>16,}", style)

    def styled(text: str, style: str) -> str:
        return f"{style}{text[: width - 1]}{RESET}" if style else text[: width - 1]

    rate = rates(now, before)
    lines = [styled(title, BOLD), styled(f"{'frames':<{names}}{'/s':>12}{'total':>16}", DIM)]
    for name in COLUMNS:
        total = getattr(now, name)
        if total or name in ("received", "delivered", "sent"):
            lines.append(line(name, rate[name], total, RED if name == "missed" else ""))
    lines.append(line("dropped", rate["dropped"], sum(now.dropped.values())))
    seconds = max(now.at - before.at, 1e-9)
    for reason, count in stats.by_count(now.dropped):
        per_second = (count - before.dropped.get(reason, 0)) / seconds
        lines.append(line(f"  {reason}", per_second, count))
    lines.append(line("queued", None, sum(now.queued.values())))
    lines += [line(f"  {place}", None, n) for place, n in stats.by_count(now.queued)]
    return lines[: max(height - 1, 4)]


class Live:
    """Show a host on ``out`` each time ``show`` is called, in the way that suits ``out``."""

    def __init__(self, host: Any, title: str, out: TextIO, *, as_json: bool = False) -> None:
        self._host = host
        self._title = title
        self._out = out
        self._json = as_json
        self._drawn = 0
        self.is_table = not as_json and out.isatty()
        self._before = sample(host)

    @property
    def interval(self) -> float:
        """Seconds between two looks: people want one a second, logs want fewer."""
        return 1.0 if self.is_table or self._json else 10.0

    def show(self) -> None:
        """Look at the host and print."""
        now, before = sample(self._host), self._before
        self._before = now
        if self.is_table:
            size = shutil.get_terminal_size()
            self._draw(table_lines(self._title, now, before, size.lines, size.columns))
        else:
            make = json_line if self._json else plain_line
            print(make(now, before), file=self._out, flush=True)

    def _draw(self, lines: list[str]) -> None:
        """Write over what was drawn before, in one piece so that it does not flicker."""
        up = f"\x1b[{self._drawn}A" if self._drawn else HIDE_CURSOR
        body = "".join(f"{line}{ERASE_LINE}\n" for line in lines)
        self._out.write(f"{up}\r{body}{CLEAR_DOWN}")
        self._out.flush()
        self._drawn = len(lines)

    def close(self) -> None:
        """Give the cursor back; the last table stays."""
        if self._drawn:
            self._out.write(SHOW_CURSOR)
            self._out.flush()
