"""The house: which room a file is in, which way imports point, what no file may hold.

These rules read sources only. Each names the file and the line that breaks it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "netstack"
STAGES = ["device", "driver", "irq", "napi", "netif", "nf", "proto", "sock"]
OTHER_FOLDERS = {"capture", "cli", "testing"}
MAX_LINES = 450

PYTHON = sorted(PACKAGE.rglob("*.py"))
COMPILED = sorted([*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])
SOURCES = sorted([*PYTHON, *COMPILED, *PACKAGE.rglob("*.pyi")])

# A room may import from itself and from the rooms named here; "base" is what lies directly in
# netstack/ and serves every stage. Calls the other way are pointers in structs, as in Linux.
MAY_IMPORT = {
    "base": set(),
    # napi/*.pxd holds the struct of the CPU (softnet_data), which every stage is passed.
    "sock": {"base", "napi"},
    "nf": {"base"},
    "proto": {"base", "napi", "sock", "nf"},
    "device": {"base"},
    "napi": {"base", "device"},
    "driver": {"base", "napi", "device", "irq"},
    "irq": {"base", "napi", "device"},
    "netif": {"base", "napi", "irq", "proto", "nf", "sock"},
    "capture": {"base"},
    "_fastpath": {"base", *STAGES},
    "host": {"base", "_fastpath", "capture", *STAGES},
    "testing": {"base", "_fastpath", "host", "capture", *STAGES},
    "cli": {"base", "_fastpath", "host", "testing", "capture", *STAGES},
}
# Files directly in netstack/ that are not "base": they stand above the stages.
ABOVE = {
    "_fastpath": "_fastpath",
    "host": "host",
    "host_views": "host",
    "socket": "host",
    "aio": "host",
    "live": "host",
    "commands": "host",
    "rtnl": "host",
    "rtnl_neigh": "host",
    "rtnl_route": "host",
    "tapstream": "host",
    "__init__": "host",
    "__main__": "cli",
    "doctor": "cli",
}


def room(module: str) -> str:
    """Name the room of a dotted module name below netstack."""
    first, _, _rest = module.removeprefix("netstack").removeprefix(".").partition(".")
    if first in STAGES or first in OTHER_FOLDERS:
        return first
    return ABOVE.get(first or "__init__", "base")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Give line and dotted name of all that a file imports from netstack, at any depth."""
    if path.suffix == ".py":
        yield from python_imports(path)
        return
    package = module_of(path).rpartition(".")[0]
    pattern = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+(.*)|c?import\s+([\w., ]+))")
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not (found := pattern.match(line)):
            continue
        source, names, plain = found.groups()
        for name in [source] if source else plain.split(","):
            dotted = absolute(name.split(" as ")[0].strip(), package)
            if dotted == "netstack" and names:
                for part in re.findall(r"\w+", names.replace("(", "")):
                    yield number, f"netstack.{part}"
            elif dotted.startswith("netstack"):
                yield number, dotted


def python_imports(path: Path) -> Iterator[tuple[int, str]]:
    package = (
        module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    )
    tree = ast.parse(path.read_text())
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue  # says what a thing is; at run time nothing is imported
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = absolute("." * node.level + (node.module or ""), package)
            names = [source]
            if source == "netstack":
                names = [f"netstack.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "netstack":
                yield node.lineno, name


def absolute(name: str, package: str) -> str:
    """Resolve leading dots against a package."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    base = package.split(".")[: len(package.split(".")) - dots + 1]
    return ".".join([*base, name.lstrip(".")]).rstrip(".")


def lines_matching(paths: list[Path], pattern: str) -> list[str]:
    expression = re.compile(pattern)
    return [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if expression.search(line)
    ]


def test_stage_folders_sort_in_receive_order() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert sorted(folders & set(STAGES)) == STAGES
    assert folders - set(STAGES) <= OTHER_FOLDERS, "a new folder needs a place in the design"


STAGE_FILES = [
    path
    for path in [*PYTHON, *PACKAGE.rglob("*.pyx")]
    if path.relative_to(PACKAGE).parts[0] in STAGES and path.name != "__init__.py"
]


@pytest.mark.parametrize("path", STAGE_FILES, ids=relative)
def test_a_stage_file_says_which_room_it_is(path: Path) -> None:
    stage = path.relative_to(PACKAGE).parts[0]
    place = " ".join(f"[{name}]" if name == stage else name for name in STAGES)
    stage_line = f"Stage {STAGES.index(stage) + 1} of 8:  {place}"
    fields = "".join(
        rf"{name:<9}\S.*\n(?: {{9}}\S.*\n)*" for name in ["In", "Out", "Context", "Kernel"]
    )
    header = r'"""[\w./ -]+: \S.*\.\n\n' + re.escape(stage_line) + rf'\n{fields}(?:"""|\n)'
    assert re.match(header, path.read_text()), (
        f'{relative(path)} has to begin with """NAME: SENTENCE., an empty line, {stage_line!r} '
        "and the fields In, Out, Context, Kernel, each in nine columns"
    )


def test_imports_point_one_way() -> None:
    wrong = []
    for path in [*PYTHON, *COMPILED]:
        here = room(module_of(path))
        for line, name in imported_names(path):
            there = room(name)
            if there != here and there not in MAY_IMPORT[here]:
                wrong.append(f"{relative(path)}:{line}: {here} imports {name} ({there})")
    assert wrong == []


def test_the_table_of_imports_has_no_circle() -> None:
    done: set[str] = set()
    while left := MAY_IMPORT.keys() - done:
        ready = {name for name in left if MAY_IMPORT[name] <= done}
        assert ready, f"a circle among {sorted(left)}"
        done |= ready


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_nothing_is_left_for_later() -> None:
    ours = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    words = "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"])
    assert lines_matching(ours, rf"\b({words})\b") == []


def test_nothing_names_a_place_of_the_author_s_machine() -> None:
    ours = [
        *SOURCES,
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "tools").rglob("*"),
        ROOT / "dev.sh",
    ]
    texts = [
        path for path in ours if path.suffix in {".py", ".pyx", ".pxd", ".pyi", ".sh", ".md"}
    ]
    assert lines_matching(texts, "(?<![\\w.])/" + r"(work|home/\w+|root)/") == []


def test_a_function_without_the_gil_says_that_it_never_raises() -> None:
    """A bare `cdef void f() nogil` takes the GIL after every call to look for an exception."""
    declarations = r"^\s*c(p)?def\b.*\)\s*nogil\b"
    assert lines_matching(COMPILED, declarations) == []


def test_no_compiled_code_takes_the_gil() -> None:
    """But the one place that only a program's own thread comes to."""
    compiled = [path for path in COMPILED if path.stem != "_local_out"]
    assert lines_matching(compiled, r"^[^#\"'`]*\bwith\s+gil\b") == []


def test_a_compiled_module_that_python_sees_has_a_stub() -> None:
    visible = re.compile(r"^(?:    )?(?:async )?(?:def|cpdef|class|cdef class) ", re.MULTILINE)
    missing = [
        relative(path)
        for path in PACKAGE.rglob("*.pyx")
        if not path.with_suffix(".pyi").exists()
        and any(
            visible.search(part.read_text())
            for part in (path, path.with_suffix(".pxd"))
            if part.exists()
        )
    ]
    assert missing == []


def test_a_stub_has_a_module() -> None:
    stubs = PACKAGE.rglob("*.pyi")
    assert [relative(path) for path in stubs if not path.with_suffix(".pyx").exists()] == []


def test_tests_mirror_the_package() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    known = {path.name for path in PACKAGE.iterdir() if path.is_dir()} | {"e2e", "fuzz", "bare"}
    assert {name for name in folders if not name.startswith("_")} <= known
