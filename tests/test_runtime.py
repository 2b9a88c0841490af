"""Sockets and notes lie where only their owner can put them, and the dead leave no trace."""

import errno
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netstack.errors import UsageError, hint_of
from netstack.runtime import announce, find_lab, labs, runtime_dir

ME = os.geteuid()


def test_root_has_run_and_others_their_runtime_directory(tmp_path: Path) -> None:
    run, xdg, tmp = (tmp_path / name for name in ("run", "xdg", "tmp"))
    for path in (run, xdg, tmp):
        path.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(xdg)}
    expected = run / "netstack" if ME == 0 else xdg / "netstack"
    assert runtime_dir(environ=environ, run=run, tmp=tmp) == expected
    assert stat.S_IMODE(expected.stat().st_mode) == 0o700


@pytest.mark.parametrize("xdg", ["", "/nonexistent"])
def test_without_either_it_is_a_directory_in_tmp(tmp_path: Path, xdg: str) -> None:
    environ = {"XDG_RUNTIME_DIR": xdg}
    path = runtime_dir(environ=environ, run=Path("/nonexistent"), tmp=tmp_path)
    assert path == tmp_path / f"netstack-{ME}"
    assert runtime_dir(environ=environ, run=Path("/nonexistent"), tmp=tmp_path) == path


def test_directory_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "netstack").mkdir(mode=0o755)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    path = runtime_dir(environ=environ, run=tmp_path, tmp=tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_directory_that_somebody_else_could_have_made_is_refused(
    tmp_path: Path, kind: str
) -> None:
    trap = tmp_path / f"netstack-{ME}"
    if kind == "symlink":
        trap.symlink_to(tmp_path)
    else:
        trap.touch()
    with pytest.raises(OSError, match="for control sockets") as caught:
        runtime_dir(environ={}, run=Path("/nonexistent"), tmp=tmp_path)
    assert hint_of(caught.value)


@pytest.mark.tap
def test_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    trap = tmp_path / f"netstack-{ME}"
    trap.mkdir(mode=0o777)
    os.chown(trap, 4711, 4711)
    with pytest.raises(PermissionError, match="belongs to somebody else") as caught:
        runtime_dir(environ={}, run=Path("/nonexistent"), tmp=tmp_path)
    assert hint_of(caught.value) == f"sudo rm -r {trap}"


@contextmanager
def holder(directory: Path, name: str) -> Iterator[int]:
    """Keep another process that announces a lab; give its pid."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        with announce(name, directory):
            os.write(writable, b"x")
            signal.pause()
        os._exit(0)
    os.read(readable, 1)
    os.close(readable)
    os.close(writable)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_lab_is_found_while_its_process_lives(tmp_path: Path) -> None:
    with holder(tmp_path, "tap0") as pid:
        assert labs(tmp_path) == {"tap0": pid}
        assert find_lab(tmp_path) == find_lab(tmp_path, "tap0") == pid
    assert (tmp_path / "tap0.lab").exists()  # SIGKILL: the note stays, the lock does not
    assert labs(tmp_path) == {}


def test_note_of_a_dead_process_is_taken_over_and_removed(tmp_path: Path) -> None:
    (tmp_path / "tap0.lab").write_text("999999999999\n")
    with announce("tap0", tmp_path) as path:
        assert path.read_text() == f"{os.getpid()}\n"
    assert list(tmp_path.iterdir()) == []


def test_second_lab_of_one_name_is_busy(tmp_path: Path) -> None:
    with holder(tmp_path, "tap0") as pid:
        with pytest.raises(OSError, match=f"tap0 is up in the lab of process {pid}") as caught:
            announce("tap0", tmp_path).__enter__()
        assert caught.value.errno == errno.EBUSY
        assert f"kill {pid}" in hint_of(caught.value)
        assert labs(tmp_path) == {"tap0": pid}


def test_no_lab_and_several_labs_say_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no lab is running") as none:
        find_lab(tmp_path)
    assert hint_of(none.value) == "netstack up tap0"
    with holder(tmp_path, "tap0"), holder(tmp_path, "tap1"):
        with pytest.raises(UsageError, match="tap0, tap1; say which") as several:
            find_lab(tmp_path)
        assert "netstack -i tap1 exec COMMAND" in hint_of(several.value)
        with pytest.raises(FileNotFoundError, match="no lab of tap2"):
            find_lab(tmp_path, "tap2")


def test_note_that_is_a_symlink_or_garbage_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("1\n")
    (tmp_path / "a.lab").symlink_to(tmp_path / "real")
    (tmp_path / "b.lab").write_text("x" * 50)
    (tmp_path / "c.lab").mkdir()
    assert labs(tmp_path) == {}
