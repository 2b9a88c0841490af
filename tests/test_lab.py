"""An ordinary user gets a network of his own, and finds it again from a second terminal."""

import errno
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from netstack import lab
from netstack.device.tap import open_tap
from netstack.errors import UsageError, hint_of
from tests.users import NOBODY, in_child, tun_node

PEER = IPv4Interface("10.0.0.1/24")


def namespaces() -> list[str]:
    return [os.readlink(f"/proc/self/ns/{kind}") for kind, _ in lab.NAMESPACES]


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("bits", "expected"), [(0, False), (1 << 12, True), (1 << 13, False), ((1 << 41) - 1, True)]
)
def test_capability_is_read_from_the_effective_set(
    tmp_path: Path, bits: int, expected: bool
) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapPrm:\t{(1 << 41) - 1:016x}\nCapEff:\t{bits:016x}\n")
    assert lab.may_administer(status) == expected


@pytest.mark.parametrize(
    ("switch", "value", "hint"),
    [
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=10000"),
        ("user/max_net_namespaces", "0", "sudo sysctl -w user.max_net_namespaces=10000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sudo netstack up tap0"),
        ("kernel/unprivileged_userns_clone", "1", "sudo netstack up tap0"),
        ("kernel/unprivileged_userns_clone", "", "sudo netstack up tap0"),
    ],
)
def test_refusal_names_the_switch_that_forbids_labs(
    tmp_path: Path, switch: str, value: str, hint: str
) -> None:
    file = tmp_path / "sys" / switch
    file.parent.mkdir(parents=True)
    file.write_text(value)
    error = lab.refusal(errno.EPERM, proc=tmp_path)
    assert isinstance(error, PermissionError)
    assert hint_of(error) == hint


def test_refusal_without_a_known_switch_keeps_the_errno(tmp_path: Path) -> None:
    assert "chroot" in str(lab.refusal(errno.EPERM, proc=tmp_path))
    assert "No space left" in str(lab.refusal(errno.ENOSPC, proc=tmp_path))


def test_process_with_threads_is_refused() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    number = len(os.listdir("/proc/self/task"))
    try:
        with pytest.raises(OSError, match=f"with one thread; this one has {number}") as caught:
            lab.enter()
        assert caught.value.errno == errno.EINVAL
    finally:
        stop.set()
        thread.join()


def test_errno_of_tells_what_happened_in_the_child() -> None:
    def fail() -> None:
        raise BlockingIOError(errno.EAGAIN, "busy")

    def break_down() -> None:
        raise KeyError("bug")

    assert lab.errno_of(lambda: 5) == 0
    assert lab.errno_of(fail) == errno.EAGAIN
    assert lab.errno_of(break_down) == errno.EIO


def test_execute_without_a_command_says_how() -> None:
    with pytest.raises(UsageError, match="no command"):
        lab.execute(os.getpid(), [])


def test_lab_of_a_process_that_ended_is_esrch() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError, match="has ended"):
        in_child(lambda: lab.join(pid))


@pytest.mark.tap
def test_root_needs_no_lab_and_a_user_does_unless_the_interface_exists() -> None:
    assert not lab.is_needed("tap0")
    assert in_child(lambda: lab.is_needed("no-such-tap"), uid=NOBODY)
    assert not in_child(lambda: lab.is_needed("lo"), uid=NOBODY)


@pytest.mark.tap
def test_user_in_a_lab_keeps_his_uid_and_administers_only_there() -> None:
    def program() -> tuple[bool, tuple[int, int], list[str], bool]:
        before = namespaces()
        lab.enter()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))  # lo is up
        moved = all(a != b for a, b in zip(before, namespaces(), strict=True))
        names = [name for _, name in socket.if_nameindex()]
        return moved, (os.getuid(), os.getgid()), names, lab.may_administer()

    moved, ids, names, administers = in_child(program, uid=NOBODY)
    assert moved
    assert ids == (NOBODY, NOBODY)
    assert "lo" in names
    assert administers
    assert not in_child(lab.may_administer, uid=NOBODY)


@pytest.mark.tap
def test_programs_started_in_a_lab_keep_the_capabilities() -> None:
    def program() -> str:
        lab.enter()
        return output("ip", "link", "set", "lo", "mtu", "1280") + output("id", "-u")

    assert in_child(program, uid=NOBODY) == f"{NOBODY}\n"


@pytest.mark.tap
def test_tap_is_made_in_a_lab() -> None:
    def program() -> str:
        lab.enter()
        with open_tap("tap0", peer=PEER, device=node):
            return output("ip", "-br", "addr", "show", "dev", "tap0")

    with tun_node() as node:
        assert "10.0.0.1/24" in in_child(program, uid=NOBODY)


@contextmanager
def running_lab() -> Iterator[int]:
    """Keep a process of NOBODY in a lab with a TAP; give its pid."""
    ready, stop = os.pipe(), os.pipe()
    with tun_node() as node:
        pid = os.fork()
        if pid == 0:
            os.close(stop[1])

            def program() -> None:
                lab.enter()
                with open_tap("tap0", peer=PEER, device=node):
                    os.write(ready[1], f"{os.getpid()}\n".encode())
                    os.read(stop[0], 1)

            in_child(program, uid=NOBODY)
            os._exit(0)
        for fd in (ready[1], stop[0]):
            os.close(fd)
        try:
            yield int(os.read(ready[0], 20))
        finally:
            os.close(stop[1])
            os.waitpid(pid, 0)
            os.close(ready[0])


@pytest.mark.tap
def test_second_process_joins_the_lab_and_keeps_its_directory() -> None:
    def program(pid: int) -> tuple[str, str, str]:
        os.chdir("/usr")
        lab.join(pid)
        shown = output("ip", "-br", "addr", "show", "dev", "tap0")
        return shown, output("pwd"), output("id", "-u")

    with running_lab() as pid:
        shown, directory, uid = in_child(lambda: program(pid), uid=NOBODY)
    assert "10.0.0.1/24" in shown
    assert (directory, uid) == ("/usr\n", f"{NOBODY}\n")


@pytest.mark.tap
def test_execute_becomes_the_command_inside() -> None:
    def program(pid: int) -> None:
        lab.execute(pid, ["ip", "link", "set", "tap0", "mtu", "1400"])

    def missing(pid: int) -> None:
        lab.execute(pid, ["no-such-command"])

    with running_lab() as pid:
        with pytest.raises(EOFError):  # exec: nobody is left to answer
            in_child(lambda: program(pid), uid=NOBODY)
        with pytest.raises(FileNotFoundError, match="no-such-command: no such command"):
            in_child(lambda: missing(pid), uid=NOBODY)
        assert "mtu 1400" in in_child(lambda: shown_in(pid), uid=NOBODY)


def shown_in(pid: int) -> str:
    lab.join(pid)
    return output("ip", "link", "show", "dev", "tap0")


@pytest.mark.tap
def test_another_user_cannot_join() -> None:
    with (
        running_lab() as pid,
        pytest.raises(PermissionError, match=f"the lab of process {pid}"),
    ):
        in_child(lambda: lab.join(pid), uid=NOBODY - 1)
