"""Write the pages of docs/ that are made from the code, or the parts of pages that are.

    python tools/pages.py            says which are out of date
    python tools/pages.py --write    writes them

docs/counters.md is made whole, from the tables of reasons, counters and tunables. In
docs/kernel-map.md the list of functions is: it comes from the headers of the stage files and the
kernel's names in brackets that docstrings end with. A test compares both with the code.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "netstack"
COUNTERS = ROOT / "docs" / "counters.md"
KERNEL_MAP = ROOT / "docs" / "kernel-map.md"
STAGES = ("device", "driver", "irq", "napi", "netif", "nf", "proto", "sock")
# Where names are declared, or listed for people, rather than counted.
TABLES = {"_counters.pxd", "_counters.pyi", "drops.py", "stats.py", "procfs.py", "nstat.py"}
TABLES |= {"_softirq.pyx", "kworker.py"}  # they read what others count

HEAD = """\
# Counters, drop reasons, tunables

Made by `python tools/pages.py --write` from the tables in the code: `_counters.pxd`,
`drops.py`, `config.py`. Do not edit it; a test compares it with them.
"""
BEGIN = "<!-- made by tools/pages.py: begin -->"
END = "<!-- made by tools/pages.py: end -->"

DEFINITION = re.compile(r"^ *(?:async )?(?:cdef|cpdef|def|class)\b(?:[^(=]*?)(\w+)\s*[(:]")
KERNEL_NAMES = re.compile(r"\[((?:the head of )?\w+\(\)(?:,\s+(?:the head of )?\w+\(\))*)\]")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Give the lines of a table."""
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        cells = (cell.replace("|", r"\|") for cell in row)
        yield f"| {' | '.join(cells)} |"


# ---- docs/counters.md


def places() -> dict[str, list[str]]:
    """Map each identifier that looks like a counter or a reason to the files that use it."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.p*")):
        if path.suffix in {".py", ".pyx", ".pxd"} and path.name not in TABLES:
            for name in set(re.findall(r"\b[A-Z]\w{4,}", path.read_text())):
                found.setdefault(name, set()).add(str(path.relative_to(PACKAGE)))
    return {name: sorted(files) for name, files in found.items()}


def files_of(name: str, used: dict[str, list[str]]) -> str:
    """Return the files that use a name, for a cell."""
    return ", ".join(f"`{file}`" for file in used.get(name, [])) or "–"


def reasons(used: dict[str, list[str]]) -> Iterator[str]:
    """Give the section on drop reasons."""
    from netstack._counters import skb_drop_reason
    from netstack.drops import REASONS
    from netstack.stats import NOT_DROPS, reason_name

    yield "\n## How a frame ends\n"
    yield "`SKB_DELIVERED` to a socket, `SKB_CONSUMED` by a protocol, `SKB_FORWARDED`, or"
    yield "dropped for one of these reasons. `netstack drops` prints those that have counted.\n"
    rows = []
    for name in skb_drop_reason.__members__:
        if name not in (*NOT_DROPS, "SKB_FATE_NR"):
            row = REASONS[reason_name(name)]
            where = files_of(name, used)
            rows.append((f"`{reason_name(name)}`", row.text, where, row.hint))
    yield from table(("reason", "what it means", "used in `netstack/`", "what to do"), rows)


def counters(used: dict[str, list[str]]) -> Iterator[str]:
    """Give the section on counters."""
    from netstack._counters import mib

    yield "\n## Counters\n"
    yield "Under the names of `nstat`; `netstack proc net/snmp` and `net/netstat` print the same."
    yield "A dash: reached as a neighbour's offset (the ECN counters), or never counted here; it"
    yield "stands in the texts because tools expect it.\n"
    rows = []
    for name in mib.__members__:
        if name != "MIB_NR":
            shown = f"`{name}`*n*" if name.startswith("IcmpMsg") else f"`{name}`"
            rows.append((shown, files_of(name, used)))
    yield from table(("counter", "counted in `netstack/`"), rows)


def tunables() -> Iterator[str]:
    """Give the section on tunables."""
    from netstack.config import TUNABLES

    yield "\n## Tunables\n"
    yield "`netstack sysctl NAME=VALUE`, or `host.config[NAME] = VALUE`.\n"
    rows = []
    for row in TUNABLES:
        default = " ".join(map(str, row.default))
        if row.scale != 1:
            default = "by the size of the pools"
        rows.append((f"`{row.key}`", default, row.range, row.text))
    yield from table(("name", "default", "allowed", "what it does"), rows)


def counters_page() -> str:
    """Return the text of docs/counters.md."""
    used = places()
    return "\n".join([HEAD.rstrip(), *reasons(used), *counters(used), *tunables()]) + "\n"


# ---- the list of functions in docs/kernel-map.md


def functions(path: Path) -> list[tuple[str, str, str]]:
    """Return what a file takes from the kernel: (ours, theirs, what it does)."""
    found: dict[str, tuple[str, str, str]] = {}
    lines = path.read_text().splitlines()
    owner = ""
    for number, line in enumerate(lines):
        if not (definition := DEFINITION.match(line)):
            continue
        indented = line.startswith(" ")
        name = definition[1]
        if re.match(r"\s*(cdef )?class ", line):
            owner = name
        elif not indented:
            owner = ""
        text = docstring(lines, number)
        if kernel := KERNEL_NAMES.search(text):
            ours = f"{owner}.{name}" if indented and owner else name
            theirs = ", ".join(f"`{part.strip()}`" for part in kernel[1].split(","))
            what = re.split(r"(?<=[.?])\s|$", KERNEL_NAMES.sub("", text).strip(), maxsplit=1)[0]
            found[ours] = (f"`{ours}`", theirs, what.replace("``", "`"))
    return list(found.values())


def docstring(lines: list[str], number: int) -> str:
    """Return the docstring of the definition that begins on this line, in one line."""
    head = lines[number]
    while head.count("(") > head.count(")") and number + 1 < len(lines):
        number += 1
        head += lines[number]
    if not head.rstrip().endswith(":"):
        return ""  # a declaration: the body is elsewhere
    body = lines[number + 1 : number + 12]
    if not body or not body[0].strip().startswith('"""'):
        return ""
    text = " ".join(part.strip() for part in body).removeprefix('"""')
    return text.partition('"""')[0]


def kernel_functions() -> str:
    """Return the list of functions, a table for each file that has any."""
    parts = []
    for stage in STAGES:
        for path in sorted((PACKAGE / stage).glob("*.p[yx]*")):
            if path.suffix in {".py", ".pyx", ".pxd"} and (rows := functions(path)):
                parts.append(f"\n### {path.relative_to(PACKAGE)}\n")
                parts += table(("ours", "kernel", "what it does"), rows)
    return "\n".join(parts)


def kernel_map_page(now: str) -> str:
    """Return the text of docs/kernel-map.md with the list put in."""
    head, begin, rest = now.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{KERNEL_MAP} has lost its marks {BEGIN} and {END}")
    return f"{head}{begin}\n{kernel_functions()}\n\n{end}{tail}"


def pages() -> dict[Path, str]:
    """Return what each page should be."""
    return {COUNTERS: counters_page(), KERNEL_MAP: kernel_map_page(KERNEL_MAP.read_text())}


def main() -> int:
    """Write the pages, or say which are out of date."""
    status = 0
    for path, text in pages().items():
        if path.exists() and path.read_text() == text:
            continue
        if "--write" in sys.argv[1:]:
            path.write_text(text)
        else:
            print(f"{path.relative_to(ROOT)} is out of date: python tools/pages.py --write")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
