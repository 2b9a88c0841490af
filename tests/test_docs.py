"""The pages say what the code does: those made from it are fresh, and every link leads somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
PACKAGE = ROOT / "netstack"


def relative(path):
    return str(path.relative_to(ROOT))


def test_pages_made_from_the_code_are_fresh():
    spec = importlib.util.spec_from_file_location("pages", ROOT / "tools" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stale = [
        relative(path) for path, text in module.pages().items() if path.read_text() != text
    ]
    assert stale == [], "type: python tools/pages.py --write"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    here = [target for target in targets if not target.startswith("http")]
    assert [t for t in here if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_file_that_is_named_is_there(page):
    named = set(
        re.findall(r"`(?:netstack/)?([\w/]+/[\w/]*\w+\.(?:pyx|pxd|py))`", page.read_text())
    )
    tops = {path.name for path in PACKAGE.iterdir()} | {"tools", "tests", "docs", "examples"}
    ours = [name for name in named if name.partition("/")[0] in tops]
    assert [n for n in ours if not (PACKAGE / n).exists() and not (ROOT / n).exists()] == []


def test_commands_that_are_shown_run_with_the_clones_python():
    """The Python of sudo has no pyroute2, and need not be the one that the modules were built for."""
    pages = [*PAGES, *(ROOT / "tools").glob("*.py"), *(ROOT / "examples").glob("*.py")]
    shown = re.compile(
        r"(?m)^    .*\b(?:tools|examples)/\w+\.py|`[^`\n]*\btools/\w+\.py [^`\n]*`|try: .*tools/.*"
    )
    ours = (".venv/bin/python ", "python tools/pages.py")  # pages.py needs nothing but a build
    wrong = [
        (relative(page), line)
        for page in pages
        for line in shown.findall(page.read_text())
        if not any(each in line for each in ours)
    ]
    assert wrong == []


def test_every_function_of_the_receive_path_is_there():
    """`docs/receive-path.md` names functions; each has to be in the sources."""
    text = (ROOT / "docs" / "receive-path.md").read_text()
    names = set(re.findall(r"`(\w+_\w+)(?:\(\))?`", text))
    source = "\n".join(
        path.read_text()
        for path in PACKAGE.rglob("*.p*")
        if path.suffix in (".pyx", ".pxd", ".py")
    )
    missing = [name for name in sorted(names) if not re.search(rf"\b{name}\b", source)]
    assert missing == []


def test_readme_shows_the_example_as_it_is():
    example = (ROOT / "examples" / "memory_wire.py").read_text().split('"""\n\n', 1)[1]
    assert f"```python\n{example}```" in (ROOT / "README.md").read_text()
