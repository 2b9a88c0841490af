"""What the tools say about the sources. `./dev.sh check` runs these and the layout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What Cython adds to a module and no stub declares.
STUBTEST_ALLOWED = r"""
.*\.__reduce_cython__
.*\.__setstate_cython__
.*\.__test__
.*\.__pyx_capi__
"""


def run(*command: str | Path) -> None:
    """Run a tool of this interpreter's environment in the root; show its output if it fails."""
    tools = Path(sys.executable).parent  # cython-lint looks for pycodestyle on the PATH
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", "--quiet", ".")


def test_python_is_formatted() -> None:
    run("ruff", "format", "--quiet", "--check", "--diff", ".")


def test_mypy_finds_nothing() -> None:
    run("mypy")


PROGRAM = """
import selectors
from socket import AF_INET, SOCK_DGRAM

import netstack
import netstack.socket


def serve(host: netstack.Host) -> None:
    with host.socket(AF_INET, SOCK_DGRAM) as sock, selectors.DefaultSelector() as waiting:
        waiting.register(sock, selectors.EVENT_READ)
        batch(sock)


def batch(sock: netstack.socket.socket) -> None:
    sent: int = sock.send_batch(sock.recv_batch(64))
    buffer, packets = bytearray(65536), bytearray(1024)
    sent += sock.send_batch_from(buffer, packets, sock.recv_batch_into(buffer, packets))
    sock.sendto(b"%d" % sent, ("10.0.0.1", 7))


with netstack.up("tap0", addr="10.0.0.2/24") as host:
    serve(host)
"""


def test_mypy_finds_nothing_in_a_users_program(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    # netstack itself is looked at above, and imports what has no types
    run("mypy", "--strict", "--config-file", "", "--follow-imports", "silent", file)


def test_cython_lint_finds_nothing() -> None:
    run("cython_lint.cython_lint", "netstack")


def test_stubs_say_what_the_compiled_modules_have(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(STUBTEST_ALLOWED)
    stubs = sorted((ROOT / "netstack").rglob("*.pyi"))
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in stubs]
    config = ["--mypy-config-file", "pyproject.toml", "--allowlist", allowed]
    run("mypy.stubtest", "--ignore-unused-allowlist", *config, *modules)


TRANSLATE = """
import runpy
build = runpy.run_path("setup.py")
build["translate"](build["extensions"], "build/hints")
"""


@pytest.mark.timeout(300)
def test_cython_has_no_performance_hint() -> None:
    """Translate every module that is not known to be free of hints.

    Cython gives its hints only when it translates. So the C code kept here is that of a run
    without hints, and after a run with hints none is kept.
    """
    done = subprocess.run(
        [sys.executable, "-c", TRANSLATE], cwd=ROOT, capture_output=True, text=True
    )
    output = done.stdout + done.stderr
    hints = [line for line in output.splitlines() if "performance hint" in line]
    if done.returncode or hints:
        shutil.rmtree(ROOT / "build" / "hints", ignore_errors=True)
    assert done.returncode == 0, output
    assert hints == []
