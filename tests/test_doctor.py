"""For each way a machine can be broken there is a failed check with the line that mends it."""

import errno
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from netstack import doctor
from netstack.addresses import DEFAULT_ADDRESS, parse_addresses
from netstack.device.tap import open_tap
from netstack.doctor import Check
from netstack.errors import oserror
from tests.netns import make_tap
from tests.users import NOBODY, in_child, tun_node

OK = Check("one", True, "fine")
BAD = Check("two", False, "broken", "sudo mend\nnetstack doctor")
WARN = Check("three", False, "slow", "buy", essential=False)


def test_only_essential_checks_keep_netstack_from_running() -> None:
    assert doctor.ready([OK, WARN])
    assert not doctor.ready([OK, BAD])


def test_text_has_a_line_a_check_and_what_to_type_below() -> None:
    assert doctor.as_text([OK, BAD, WARN]).splitlines() == [
        "ok    one           fine",
        "FAIL  two           broken",
        "                    type: sudo mend",
        "                    type: netstack doctor",
        "warn  three         slow",
        "                    type: buy",
    ]


def test_json_has_every_field() -> None:
    assert json.loads(json.dumps(doctor.as_dicts([BAD]))) == [
        {
            "name": "two",
            "ok": False,
            "detail": "broken",
            "fix": "sudo mend\nnetstack doctor",
            "essential": True,
        }
    ]


def test_system_other_than_linux_and_old_kernels_fail() -> None:
    assert not doctor.check_system("darwin", "23.0", "arm64").ok
    assert not doctor.check_system("linux", "4.19.0-26-amd64", "x86_64").ok
    assert doctor.check_system("linux", "5.11.0-1-amd64", "x86_64").ok
    assert doctor.check_system("linux", "6.18", "x86_64").ok


def package(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "pretend"
    folder.mkdir()
    (folder / "_part.pyi").touch()
    for name in names:
        (folder / name).touch()
    return folder


def test_module_that_was_never_built_fails(tmp_path: Path) -> None:
    check = doctor.check_modules(package(tmp_path), ".cpython-311.so")
    assert not check.ok
    assert "_part is not built" in check.detail
    assert check.fix.startswith(sys.executable)
    assert "-m pip install --force-reinstall" in check.fix


def test_module_built_for_another_python_fails_and_a_checkout_is_built_anew(
    tmp_path: Path,
) -> None:
    (tmp_path / "setup.py").touch()
    check = doctor.check_modules(package(tmp_path, "_part.cpython-39.so"), ".cpython-311.so")
    assert "only _part.cpython-39.so" in check.detail
    assert check.fix == f"cd {tmp_path} && ./dev.sh build"


def test_module_that_cannot_be_loaded_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path, "_part.abi.so")
    monkeypatch.syspath_prepend(tmp_path)
    check = doctor.check_modules(folder, ".abi.so")
    assert "pretend._part cannot be imported" in check.detail


def test_modules_of_this_tree_are_fine() -> None:
    assert doctor.check_modules(doctor.PACKAGE).ok


def test_package_that_is_missing_names_the_pip_that_installs_it() -> None:
    check = doctor.check_package("no_such_package", essential=True)
    assert (check.ok, check.essential) == (False, True)
    assert check.fix == f"{sys.executable} -m pip install no_such_package"
    assert doctor.check_package("pyroute2", essential=True).ok


def test_libpcap_that_cannot_be_loaded_costs_only_filters() -> None:
    def missing() -> str:
        raise oserror(
            errno.ENOENT, "libpcap was not found", hint="sudo apt-get install libpcap0.8"
        )

    check = doctor.check_libpcap(missing)
    assert (check.ok, check.essential) == (False, False)
    assert check.fix == "sudo apt-get install libpcap0.8"
    assert doctor.check_libpcap(lambda: "libpcap 1.10").ok


def test_missing_device_fails(tmp_path: Path) -> None:
    check = doctor.check_device(tmp_path / "tun", misc=tmp_path)
    assert not check.ok
    assert check.fix.endswith(f"sudo mknod -m 0666 {tmp_path}/tun c 10 200")


def test_device_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "tun").touch()
    check = doctor.check_device(tmp_path / "tun")
    assert "is not the TUN device" in check.detail
    assert "mknod" in check.fix


def test_without_a_lab_both_other_ways_are_offered(tmp_path: Path) -> None:
    switch = tmp_path / "sys/kernel/apparmor_restrict_unprivileged_userns"
    switch.parent.mkdir(parents=True)
    switch.write_text("1\n")
    check = doctor.check_privilege(False, [], lambda: errno.EPERM, proc=tmp_path)
    assert not check.ok
    assert "AppArmor" in check.detail
    up, own = check.fix.splitlines()
    assert up == "sudo netstack up tap0"
    assert own.startswith("sudo ip tuntap add dev tap0 mode tap user ")
    assert "sudo ip addr add 10.0.0.1/24 dev tap0" in own


def test_any_way_to_a_tap_is_enough() -> None:
    assert doctor.check_privilege(True, [], lambda: errno.EPERM).ok
    assert doctor.check_privilege(False, ["tap3"], lambda: errno.EPERM).ok
    assert doctor.check_privilege(False, [], lambda: 0).ok


def test_runtime_directory_that_cannot_be_made_fails() -> None:
    def refused() -> Path:
        raise oserror(errno.EPERM, "/tmp/x belongs to somebody else", hint="sudo rm -r /tmp/x")

    check = doctor.check_runtime(refused)
    assert (check.ok, check.fix) == (False, "sudo rm -r /tmp/x")


def test_socket_that_nobody_listens_to_is_stale(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX) as dead,
        socket.socket(socket.AF_UNIX) as alive,
    ):
        dead.bind(str(tmp_path / "tap0.sock"))
        alive.bind(str(tmp_path / "tap1.sock"))
        alive.listen()
        check = doctor.check_sockets(tmp_path)
    assert not check.ok
    assert check.detail.endswith(": tap0")
    assert check.fix == f"rm {tmp_path}/tap0.sock"
    assert doctor.check_sockets(tmp_path / "empty").ok


def test_sudo_that_does_not_find_the_program_needs_a_link(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "netstack"
    program.parent.mkdir()
    missing = doctor.check_sudo("/nonexistent", mine=program)
    assert missing.fix == f"{sys.executable} -m pip install netstack"
    program.touch(mode=0o755)
    check = doctor.check_sudo("/nonexistent", mine=program)
    assert check.fix == f"sudo ln -s {program} /usr/local/bin/netstack"
    assert doctor.check_sudo(str(program.parent)).ok


def test_one_cpu_is_slow_and_a_mask_can_be_widened() -> None:
    assert doctor.check_cpus(2, 2).ok
    assert doctor.check_cpus(1, 4).fix == "taskset -c 0-3 netstack up tap0"
    check = doctor.check_cpus(1, 1)
    assert (check.ok, check.essential, check.fix) == (False, False, "")


@pytest.mark.tap
def test_everything_is_looked_at_on_this_machine() -> None:
    found = {check.name: check for check in doctor.checks()}
    assert doctor.ready(found.values())
    assert {"system", "modules", "tun device", "privilege", "tap", "offloads"} <= found.keys()
    assert all(check.fix or check.name == "cpus" for check in found.values() if not check.ok)


@pytest.mark.tap
def test_no_tap_stays_behind_and_none_appears_here() -> None:
    before = socket.if_nameindex()
    with tun_node() as node:
        assert doctor.check_tap(node)[0].ok
        assert in_child(lambda: doctor.check_tap(node), uid=NOBODY)[0].ok
    assert socket.if_nameindex() == before


@pytest.mark.tap
def test_user_learns_that_the_device_is_closed_to_him() -> None:
    with tun_node(0o600) as node:
        check = in_child(lambda: doctor.check_device(node, uid=NOBODY), uid=NOBODY)
    assert not check.ok
    assert "mode 0600, so user nobody may not open it" in check.detail
    assert check.fix == f"sudo chmod 0666 {node}"


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
def test_persistent_tap_of_the_user_is_found() -> None:
    make_tap("tap3", owner=NOBODY)
    make_tap("tap4", owner=NOBODY - 1)
    assert in_child(lambda: doctor.own_taps(os.getuid()), uid=NOBODY) == ["tap3"]


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
def test_the_fix_for_a_user_without_a_lab_works_as_typed() -> None:
    def attempt(fix: str) -> bool:
        host, peer = parse_addresses(DEFAULT_ADDRESS)
        with open_tap("tap0", host=host, peer=peer, device=node) as tap:
            return tap.persistent

    refused = in_child(
        lambda: doctor.check_privilege(False, [], lambda: errno.EPERM), uid=NOBODY
    )
    own = refused.fix.splitlines()[-1]
    assert os.system(own.replace("sudo ", "")) == 0
    with tun_node() as node:
        assert in_child(lambda: attempt(own), uid=NOBODY)
