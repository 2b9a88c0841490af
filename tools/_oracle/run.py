"""Runs of the oracle: the case list, and frames without end in epochs, each of which can be had again alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import Any

from netstack import lab
from netstack.errors import UsageError
from tests.proto.mutate import mutants, seeds
from tests.proto.odd_frames import HOST_CASES
from tools._oracle import router, trace
from tools._oracle.compare import Oracle

# Frames until kernel and hosts are made anew. State (neighbours, fragments, errors of sockets) lives on
# between the frames of an epoch, and stays far from any limit.
EPOCH = 5000
EXAMPLES = 3


@dataclass
class Report:
    """How many frames agreed, and the differences of the others, grouped by the fields that differ."""

    frames: int = 0
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def differing(self) -> int:
        """Frames that did not agree in every field, on every road."""
        return sum(group["frames"] for group in self.groups.values())

    @property
    def agreement(self) -> float:
        """Percent of the frames."""
        return 100 * (self.frames - self.differing) / self.frames if self.frames else 100.0

    def add(self, where: str, frame: bytes, difference: dict[str, dict[str, Any]]) -> None:
        """Count one frame, and remember how it differed."""
        self.frames += 1
        if not difference:
            return
        name = signature(difference)
        group = self.groups.setdefault(name, {"frames": 0, "examples": []})
        group["frames"] += 1
        if len(group["examples"]) < EXAMPLES:
            example = {"where": where, "frame": frame.hex(), "difference": difference}
            group["examples"].append(example)

    def merge(self, other: Report) -> None:
        """Add what another run found."""
        self.frames += other.frames
        for name, found in other.groups.items():
            group = self.groups.setdefault(name, {"frames": 0, "examples": []})
            group["frames"] += found["frames"]
            group["examples"] = (group["examples"] + found["examples"])[:EXAMPLES]
        self.notes += [note for note in other.notes if note not in self.notes]

    def as_dict(self) -> dict[str, Any]:
        """Give everything, for JSON."""
        return {
            "frames": self.frames,
            "differing": self.differing,
            "agreement": self.agreement,
            "groups": self.groups,
            "notes": self.notes,
        }

    def text(self) -> str:
        """Give everything, for people: the largest group first."""
        lines = [
            f"{self.frames:,} frames, {self.differing:,} differ: {self.agreement:.4f} % agree"
        ]
        for name, group in sorted(self.groups.items(), key=lambda one: -one[1]["frames"]):
            lines.append(f"{group['frames']:>8,}  {name}")
            for example in group["examples"][:1]:
                lines.append(f"          {example['where']}  {example['frame']}")
        return "\n".join([*lines, *self.notes])


def signature(difference: dict[str, dict[str, Any]]) -> str:
    """Name a difference: which road, which fields, and for counters and reasons, ours against theirs."""
    roads = {
        road: [named(*one) for one in fields.items()] for road, fields in difference.items()
    }
    same = len({json.dumps(fields) for fields in roads.values()}) == 1 and len(roads) == 2
    if same:
        return "; ".join(next(iter(roads.values())))
    return " | ".join(f"{road} road: {'; '.join(fields)}" for road, fields in roads.items())


def named(name: str, values: tuple[Any, Any]) -> str:
    """Name one field that differs."""
    ours, theirs = values
    if name == "reasons":
        return f"reasons {'+'.join(ours) or 'none'}, kernel {'+'.join(theirs) or 'none'}"
    if name in ("replies", "deliveries"):
        return f"{name} {len(ours)}, kernel {len(theirs)}"
    return f"{name} {ours:+}, kernel {theirs:+}"


@contextmanager
def drop_reasons() -> Iterator[tuple[trace.DropReasons | None, str]]:
    """Give the kernel's drop reasons, or None and why they can't be had. Keeps the thread on one CPU."""
    cpus = os.sched_getaffinity(0)
    why = trace.mount()
    if why:
        yield None, f"drop reasons are not compared: {why}"
        return
    # Several of us (--jobs) spread over the CPUs.
    os.sched_setaffinity(0, {sorted(cpus)[os.getpid() % len(cpus)]})
    reasons = trace.DropReasons()
    try:
        yield reasons, ""
    finally:
        reasons.close()
        os.sched_setaffinity(0, cpus)


@contextmanager
def fresh_oracle(reasons: trace.DropReasons | None) -> Iterator[Oracle]:
    """Make all hosts anew, in a network namespace of this thread's."""
    with lab.another_network():
        oracle = Oracle(reasons)
        try:
            yield oracle
        finally:
            oracle.close()


def case(name: str) -> list[bytes]:
    """Give the frames of one case."""
    if name not in HOST_CASES:
        near = get_close_matches(name, HOST_CASES, n=5, cutoff=0.3)
        raise UsageError(
            f"there is no case {name!r}",
            hint="\n".join(f"tools/kernel_oracle.py --case {one!r}" for one in near),
        )
    return [bytes(frame) for frame in HOST_CASES[name]]


def run_cases() -> Report:
    """Ask every case, each of fresh hosts."""
    report = Report()
    with drop_reasons() as (reasons, note):
        report.notes += [note] if note else []
        for name in HOST_CASES:
            with fresh_oracle(reasons) as oracle:
                for frame in case(name):
                    report.add(name, frame, oracle.ask(frame))
    return report


def run_fuzz(
    frames: int,
    seed: int,
    tell: Callable[[Report], None] = lambda report: None,
    *,
    forward: bool = False,
) -> Report:
    """Ask about frames changed at random, hosts or routers; epoch n is made of seed + n."""
    report = Report()
    base = seeds()
    with drop_reasons() as (reasons, note):
        report.notes += [note] if note else []
        for epoch in range(seed, seed + -(-frames // EPOCH)):
            count = min(EPOCH, frames - report.frames)
            with fresh_oracle(reasons) as oracle:
                if forward:
                    router.make_routers(oracle)
                source = router.for_others(epoch) if forward else mutants(epoch, base)
                for number, frame in enumerate(islice(source, count)):
                    where = f"seed {epoch}, frame {number}"
                    report.add(where, frame, oracle.ask(frame))
            tell(report)
    return report
