"""The reason a TAP could not be had is told by what is there, not by the errno alone."""

import errno
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from netstack.device.link import Link
from netstack.device.tap_errors import (
    IFF_TAP,
    attach_error,
    holders,
    open_error,
    own_tap,
    unused_name,
    user_name,
)
from netstack.errors import hint_of

TUN = Path("/dev/net/tun")
MKNOD = "sudo mkdir -p /dev/net && sudo mknod -m 0666 /dev/net/tun c 10 200"
LINK = Link(7, "tap0", up=True, mtu=1500, txqueuelen=1000, tun_type=IFF_TAP)


@pytest.mark.parametrize(
    ("number", "message", "hint"),
    [
        (errno.ENOENT, "does not exist", "sudo modprobe tun"),
        (errno.ENOTDIR, "does not exist", "sudo modprobe tun"),
        (errno.ENODEV, "no TUN driver is behind it", "sudo modprobe tun"),
        (errno.ENXIO, "no TUN driver is behind it", "sudo modprobe tun"),
        (errno.EPERM, "container", "docker run --device /dev/net/tun --cap-add NET_ADMIN ..."),
        (errno.EMFILE, "Too many open files", "netstack doctor"),
    ],
)
def test_open_errors(number: int, message: str, hint: str) -> None:
    error = open_error(number, TUN, misc=Path("/nonexistent"))
    assert error.errno == number
    assert message in str(error)
    assert hint_of(error) == hint


def test_missing_node_with_a_driver_in_the_kernel_needs_only_the_node(tmp_path: Path) -> None:
    assert hint_of(open_error(errno.ENOENT, TUN, misc=tmp_path)) == MKNOD


def test_closed_device_tells_its_mode_and_the_user(tmp_path: Path) -> None:
    node = tmp_path / "tun"
    node.touch(mode=0o640)
    error = open_error(errno.EACCES, node, uid=4711)
    assert "has mode 0640, so user 4711 may not open it" in str(error)
    assert hint_of(error) == f"sudo chmod 0666 {node}"
    assert "mode unknown" in str(open_error(errno.EACCES, tmp_path / "gone", uid=4711))


def test_tap_of_a_group_names_it() -> None:
    link = Link(7, "tap0", True, 1500, 1000, tun_type=IFF_TAP, group=0)
    assert "belongs to group root" in str(attach_error(errno.EPERM, "tap0", link, uid=4711))
    link = Link(7, "tap0", True, 1500, 1000, tun_type=IFF_TAP, group=54321)
    assert "belongs to group 54321" in str(attach_error(errno.EPERM, "tap0", link, uid=4711))
    assert "belongs to somebody else" in str(attach_error(errno.EPERM, "tap0", LINK, uid=4711))


def test_busy_with_nobody_to_see_offers_another_name(tmp_path: Path) -> None:
    error = attach_error(errno.EBUSY, "tap0", LINK, proc=tmp_path)
    assert "a process that this user may not look at" in str(error)
    assert hint_of(error) == "netstack up tap1"


def test_any_other_errno_keeps_the_kernels_words() -> None:
    error = attach_error(errno.ENFILE, "tap0", None)
    assert str(error) == "[Errno 23] tap0 cannot be had: Too many open files in system"


def process(proc: Path, pid: int, name: str, namespace: str, fdinfo: str) -> None:
    folder = proc / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "ns" / "net").symlink_to(namespace)
    (folder / "comm").write_text(f"{name}\n")
    (folder / "fdinfo").mkdir()
    (folder / "fdinfo" / "0").write_text("pos:\t0\n")
    (folder / "fdinfo" / "7").write_text(f"pos:\t0\n{fdinfo}\n")


def test_holders_are_those_of_this_namespace_with_that_very_name(tmp_path: Path) -> None:
    (tmp_path / "thread-self" / "ns").mkdir(parents=True)
    (tmp_path / "thread-self" / "ns" / "net").symlink_to("net:[1]")
    (tmp_path / "meminfo").touch()
    process(tmp_path, 30, "qemu", "net:[1]", "iff:\ttap0")
    process(tmp_path, 4, "other", "net:[1]", "iff:\ttap01")
    process(tmp_path, 5, "elsewhere", "net:[2]", "iff:\ttap0")
    process(tmp_path, 9, "netstack", "net:[1]", "iff:\ttap0")
    (tmp_path / "11").mkdir()
    assert holders("tap0", proc=tmp_path) == [(9, "netstack"), (30, "qemu")]


def test_holders_of_a_name_nobody_has_is_empty() -> None:
    assert holders("no-such-tap") == []


def test_unused_name_is_free_and_short_enough() -> None:
    assert unused_name("tap0", ["lo", "tap0"]) == "tap1"
    assert unused_name("tap7", ["tap0", "tap1"]) == "tap2"
    assert unused_name("wire", []) == "wire0"
    assert unused_name("123", ["tap0"]) == "tap1"
    assert len(unused_name("abcdefghijklmno", [])) <= 15


def test_own_tap_is_one_line_to_paste() -> None:
    assert own_tap("tap0", 0, IPv4Interface("10.0.0.1/24")) == (
        "sudo ip tuntap add dev tap0 mode tap user root"
        " && sudo ip addr add 10.0.0.1/24 dev tap0 && sudo ip link set tap0 up"
    )
    assert user_name(0) == "root"
    assert user_name(4711) == "4711"
