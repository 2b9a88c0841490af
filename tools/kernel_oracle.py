#!/usr/bin/env python3
"""Give the same frames to the kernel and to netstack, and name every difference.

    sudo .venv/bin/python tools/kernel_oracle.py                            # the case list, then 20,000 fuzzed frames
    sudo .venv/bin/python tools/kernel_oracle.py --frames 1000000 --seed 1  # a million; --jobs 2 takes half the time
    sudo .venv/bin/python tools/kernel_oracle.py --case "VLAN 5"            # one case, and what each side did
    sudo .venv/bin/python tools/kernel_oracle.py --frame 0200...            # one frame, given as hexadecimal digits
    sudo .venv/bin/python tools/kernel_oracle.py --gro --frames 20000       # the kernel's GRO instead
    sudo .venv/bin/python tools/kernel_oracle.py --forward --frames 20000   # routers, and frames for others
    sudo .venv/bin/python tools/kernel_oracle.py --groups                   # memberships and IGMP over time instead
    sudo .venv/bin/python tools/kernel_oracle.py --json                     # for programs

The kernel is a network namespace with a TAP of its own, netstack two hosts on wires in memory: one
with the short cut, one with every packet through Python. Each frame is compared alone, in every
field: the frames sent, what each socket got, the change of every SNMP and netstat counter, and the
drop reasons, which the kernel tells by the tracepoint skb:kfree_skb. The exit status is 1 when less
than --require percent of the frames agree (the cases: 100).

Needs root. Nothing else on the machine is touched.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools._oracle import gro, groups, run


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0],
        epilog="\n".join(lines[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--frames", type=int, default=20_000, help="fuzzed frames [20000]")
    parser.add_argument(
        "--seed", type=int, default=1, help="the same seed, the same frames [1]"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes that share the frames [1]"
    )
    parser.add_argument("--case", help="only this case of tests/proto/odd_frames.py")
    parser.add_argument("--frame", help="only this frame, in hexadecimal")
    parser.add_argument("--gro", action="store_true", help="compare GRO instead")
    parser.add_argument("--forward", action="store_true", help="let both sides be routers")
    parser.add_argument(
        "--groups", action="store_true", help="compare memberships and IGMP over time instead"
    )
    parser.add_argument("--require", type=float, default=99.5, help="percent [99.5]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args(arguments)
    if chosen.frames < 0 or chosen.jobs < 1:
        parser.error(f"--frames {chosen.frames} --jobs {chosen.jobs}: 0 or more, and 1 or more")
    if os.geteuid():
        parser.error(
            "a network namespace with a TAP needs root; type: sudo .venv/bin/python tools/kernel_oracle.py"
        )
    return chosen


def fuzz(chosen: argparse.Namespace) -> run.Report:
    """Share the frames among processes: whole epochs each."""

    def tell(report: run.Report) -> None:
        if not chosen.json:
            print(
                f"\r{report.frames:,} frames, {report.differing} differ ",
                end="",
                file=sys.stderr,
            )

    work = gro.run_fuzz if chosen.gro else run.run_fuzz
    if chosen.forward:
        work = functools.partial(run.run_fuzz, forward=True)
    if chosen.jobs == 1:
        return work(chosen.frames, chosen.seed, tell)
    share = -(-chosen.frames // chosen.jobs // run.EPOCH) * run.EPOCH
    parts = [
        (max(0, min(share, chosen.frames - n * share)), chosen.seed + n * (share // run.EPOCH))
        for n in range(chosen.jobs)
    ]
    report = run.Report()
    with multiprocessing.get_context("spawn").Pool(chosen.jobs) as pool:
        for part in pool.starmap(work, parts):
            report.merge(part)
    return report


def one(chosen: argparse.Namespace) -> int:
    """Show what each side makes of one case, or one frame."""
    with run.drop_reasons() as (reasons, note), run.fresh_oracle(reasons) as oracle:
        frames = [bytes.fromhex(chosen.frame)] if chosen.frame else run.case(chosen.case)
        seen = [oracle.show(frame) for frame in frames]
    print(json.dumps(seen, indent=2))
    print(note, file=sys.stderr, end="\n" if note else "")
    return any(each["difference"] for each in seen)


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; 0 when enough agrees."""
    chosen = parse(arguments)
    if chosen.groups:
        return 1 if groups.report() else 0
    if chosen.case or chosen.frame:
        return one(chosen)
    reports = {"cases": gro.run_cases() if chosen.gro else run.run_cases()}
    if chosen.frames:
        reports["fuzz"] = fuzz(chosen)
    if chosen.json:
        print(
            json.dumps({name: report.as_dict() for name, report in reports.items()}, indent=2)
        )
    else:
        for name, report in reports.items():
            print(f"\n{name}: {report.text()}")
    fuzzed = reports.get("fuzz")
    good = reports["cases"].differing == 0
    return 0 if good and (fuzzed is None or fuzzed.agreement >= chosen.require) else 1


if __name__ == "__main__":
    sys.exit(main())
