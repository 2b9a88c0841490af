"""What a user gets: the wheel, the sdist, the version, and a command that starts at once."""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import netstack

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMAND = [sys.executable, "-c", "import sys; from netstack.cli import main; sys.exit(main())"]


def sources(*suffixes: str) -> set[str]:
    """Name the package's files with one of the suffixes, relative to the root."""
    files = (path for path in (ROOT / "netstack").rglob("*") if path.suffix in suffixes)
    return {str(path.relative_to(ROOT)) for path in files}


def build(what: str, out: Path) -> Path:
    """Make an archive; of the compiled modules only what is old is built again."""
    for leftover in (ROOT / "build").glob("lib.linux-*"):
        shutil.rmtree(leftover)  # setuptools would pack files that have left the tree since
    command = [sys.executable, "-m", "build", "--no-isolation", what, "--outdir", out, "."]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)
    (archive,) = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("--wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory that holds the wheel's content as pip would install it."""
    place = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def test_a_wheel_has_modules_stubs_and_declarations_and_no_sources(installed: Path) -> None:
    found = {str(path.relative_to(installed)) for path in installed.glob("netstack/**/*.*")}
    found = {name for name in found if "__pycache__" not in name}
    modules = {name.split(".")[0] + ".pyx" for name in found if name.endswith(".so")}
    assert modules == sources(".pyx")
    wanted = sources(".py", ".pyi", ".pxd", ".typed")
    assert {name for name in found if not name.endswith(".so")} == wanted
    assert "netstack/py.typed" in found


def test_an_sdist_has_all_that_a_build_needs_and_nothing_built(tmp_path: Path) -> None:
    archive = build("--sdist", tmp_path)
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = sources(".py", ".pyx", ".pxd", ".pyi", ".typed")
    assert wanted - names == set()
    assert {"setup.py", "pyproject.toml", "LICENSE", "dev.sh", "tests/conftest.py"} <= names
    built = (".c", ".so", ".o", ".pyc")
    assert [name for name in names if name.endswith(built) or name.startswith("build/")] == []


IMPORT_ALL = """
import importlib, pkgutil, sys
import netstack
assert netstack.__file__.startswith(sys.argv[1]), netstack.__file__
for module in pkgutil.walk_packages(netstack.__path__, "netstack."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def test_every_module_of_the_wheel_can_be_imported(installed: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, installed],
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(installed)},
        check=True,
    )


def test_the_version_is_the_same_everywhere(wheel: Path) -> None:
    version = PROJECT["version"]
    assert netstack.__version__ == version
    assert wheel.name.split("-")[1] == version
    said = subprocess.run([*COMMAND, "--version"], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.split() == ["netstack", version]


def test_help_takes_less_than_100_ms() -> None:
    """Of processor time: it waits for nothing, and what else the machine does is not its fault."""
    taken = []
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert statistics.median(taken) < 0.1, taken


def test_help_imports_neither_scapy_nor_pyroute2() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMAND[1:], "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "netstack.cli" in modules
    heavy = {"scapy", "pyroute2", "asyncio", "numpy"}
    assert {name.partition(".")[0] for name in modules} & heavy == set()


def test_the_command_is_the_entry_point(installed: Path) -> None:
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "netstack = netstack.cli:main" in entry_points.read_text()
