"""A TAP is taken, used and given back; on every way out it is as it was found."""

import asyncio
import errno
import gc
import os
import socket
import subprocess
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from netstack.addresses import default_mac
from netstack.device.link import find_link
from netstack.device.tap import (
    TUN_F_CSUM,
    TUN_F_USO4,
    TUN_F_USO6,
    Tap,
    choose_addresses,
    open_tap,
)
from netstack.errors import UsageError, hint_of
from netstack.signals import orderly_exit
from tests.netns import IFF_TAP, inside, make_tap, second_netns
from tests.users import NOBODY, in_child, tun_node

PEER, HOST = IPv4Interface("10.0.0.1/24"), IPv4Interface("10.0.0.2/24")
IFF_TUN, IFF_MULTI_QUEUE = 0x1, 0x100
UDP_SEGMENT = 103


def ip(command: str) -> str:
    return subprocess.run(
        ["ip", *command.split()], check=True, capture_output=True, text=True
    ).stdout


def set_up(name: str) -> None:
    ip(f"addr add {PEER} dev {name}")
    ip(f"link set {name} up")


def descriptors() -> list[str]:
    gc.collect()  # hosts of earlier tests would let theirs go in between
    return os.listdir("/proc/self/fd")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("x" * 16, {}),
        ("", {}),
        ("a/b", {}),
        ("tap0", {"mtu": 67}),
        ("tap0", {"mtu": 70000}),
        ("tap0", {"txqueuelen": 0}),
    ],
)
def test_what_no_tap_could_have_is_refused_before_anything_is_opened(
    name: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        open_tap(name, **arguments, device=Path("/nonexistent"))


def test_missing_device_is_enoent_with_the_command_that_mends_it() -> None:
    with pytest.raises(FileNotFoundError, match="/nonexistent/tun does not exist") as caught:
        open_tap("tap0", device=Path("/nonexistent/tun"))
    assert hint_of(caught.value).startswith("sudo m")


def test_device_that_is_something_else_is_enotty(tmp_path: Path) -> None:
    (tmp_path / "tun").touch()
    before = descriptors()
    with pytest.raises(OSError, match="is not the TUN device") as caught:
        open_tap("tap0", device=tmp_path / "tun")
    assert caught.value.errno == errno.ENOTTY
    assert "mknod -m 0666" in hint_of(caught.value)
    assert len(descriptors()) == len(before)


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
class TestCreated:
    """A TAP that did not exist before."""

    def test_is_up_with_the_peers_address_and_gone_afterwards(self) -> None:
        before = descriptors()
        with open_tap("tap0", peer=PEER, host=HOST, mtu=9000, txqueuelen=5000) as tap:
            link = find_link("tap0")
            assert link == replace(
                link, index=tap.index, up=True, mtu=9000, txqueuelen=5000, addresses=(PEER,)
            )
            assert (tap.name, tap.mtu, tap.persistent) == ("tap0", 9000, False)
            assert default_mac("tap0", "kernel") in ip("link show tap0")
        assert find_link("tap0") is None
        assert len(descriptors()) == len(before)

    def test_carries_frames_both_ways(self) -> None:
        with open_tap("tap0", peer=PEER) as tap, socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("10.0.0.1", 9))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.sendto(b"hello", ("10.0.0.255", 7))
            frame = os.read(tap.fileno(), 2048)
            assert (frame[:6], frame[-5:]) == (b"\xff" * 6, b"hello")
            with pytest.raises(BlockingIOError):
                os.read(tap.fileno(), 2048)
            assert os.write(tap.fileno(), frame) == len(frame)

    def test_is_silent_because_ipv6_is_off(self) -> None:
        with open_tap("tap0", peer=PEER) as tap:
            assert Path("/proc/sys/net/ipv6/conf/tap0/disable_ipv6").read_text() == "1\n"
            assert "inet6" not in ip("addr show dev tap0")
            with pytest.raises(BlockingIOError):
                os.read(tap.fileno(), 2048)

    def test_vnet_hdr_puts_ten_bytes_before_a_frame_and_takes_offloads(self) -> None:
        with open_tap("tap0", peer=PEER, vnet_hdr=True) as tap:
            tap.set_offload(TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6)
            with pytest.raises(OSError, match="Invalid argument"):
                tap.set_offload(TUN_F_CSUM | TUN_F_USO4)
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sock.sendto(b"", ("10.0.0.255", 7))
            assert os.read(tap.fileno(), 70000)[10:16] == b"\xff" * 6

    def test_close_is_idempotent_and_the_descriptor_is_gone(self) -> None:
        tap = open_tap("tap0")
        fd = tap.fileno()
        tap.close()
        tap.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        with pytest.raises(OSError, match="tap0 is closed"):
            tap.fileno()
        assert "closed" in repr(tap)

    def test_two_of_different_subnets_live_side_by_side(self) -> None:
        other = IPv4Interface("10.0.1.1/24")
        with open_tap("tap0", peer=PEER), open_tap("tap1", peer=other):
            assert find_link("tap1") is not None

    def test_subnet_in_use_is_refused_and_nothing_is_left(self) -> None:
        with open_tap("tap0", peer=PEER):
            before = descriptors()
            with pytest.raises(OSError, match="overlaps") as caught:
                open_tap("tap1", peer=PEER)
            assert hint_of(caught.value) == "netstack up tap1 --addr 10.0.1.2/24"
            assert find_link("tap1") is None
            assert len(descriptors()) == len(before)

    def test_opens_and_closes_inside_a_running_event_loop(self) -> None:
        async def program() -> None:
            with open_tap("tap0", peer=PEER):
                link = find_link("tap0")
                assert link is not None
                assert link.addresses == (PEER,)

        asyncio.run(program())
        assert find_link("tap0") is None


def send_segments() -> None:
    """Send two datagrams of 1000 bytes in one call (UDP_SEGMENT)."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        sock.sendto(bytes(2000), ("10.0.0.255", 7))


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
def test_address_found_on_the_tap_decides_where_none_is_given() -> None:
    assert choose_addresses("tap0") == (HOST, PEER)
    make_tap("tap0")
    assert choose_addresses("tap0") == (HOST, PEER)
    ip("addr add 10.9.0.1/24 dev tap0")
    found = (IPv4Interface("10.9.0.2/24"), IPv4Interface("10.9.0.1/24"))
    assert choose_addresses("tap0") == found
    assert choose_addresses("tap0", "10.0.0.2/24") == (HOST, PEER)


def changed(tap: Tap) -> None:
    link = find_link(tap.name)
    assert link is not None
    assert (link.up, link.mtu, link.addresses) == (True, 1280, (PEER,))


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
class TestPersistent:
    """A TAP that was there before, and is there afterwards."""

    def test_is_put_back_as_found(self) -> None:
        make_tap("tap0")
        before = find_link("tap0")
        with open_tap("tap0", peer=PEER, mtu=1280, txqueuelen=64) as tap:
            assert tap.persistent
            changed(tap)
        assert find_link("tap0") == before
        assert Path("/proc/sys/net/ipv6/conf/tap0/disable_ipv6").read_text() == "0\n"

    def test_is_put_back_after_an_exception(self) -> None:
        make_tap("tap0")
        before = find_link("tap0")

        def program() -> None:
            with open_tap("tap0", peer=PEER, mtu=1280) as tap:
                changed(tap)
                raise KeyError("program")

        with pytest.raises(KeyError):
            program()
        assert find_link("tap0") == before

    @pytest.mark.parametrize("number", [2, 15, 1])
    def test_is_put_back_after_a_signal(self, number: int) -> None:
        make_tap("tap0")
        before = find_link("tap0")

        def program() -> None:
            with orderly_exit(), open_tap("tap0", peer=PEER, mtu=1280) as tap:
                changed(tap)
                os.kill(os.getpid(), number)

        with pytest.raises(SystemExit):
            program()
        assert find_link("tap0") == before

    def test_keeps_what_was_set_up_on_it(self) -> None:
        make_tap("tap0")
        set_up("tap0")
        ip("link set tap0 mtu 1400 txqueuelen 500")
        ip("addr add 10.5.0.1/16 dev tap0")
        before = find_link("tap0")
        with open_tap("tap0", peer=PEER) as tap:
            assert tap.mtu == 1400
        assert find_link("tap0") == before

    @pytest.mark.parametrize("state", ["up", "down"])
    def test_keeps_ipv6_if_it_has_an_address_of_its_own(self, state: str) -> None:
        make_tap("tap0")
        ip(f"link set tap0 {state}")
        ip("addr add fd00::1/64 dev tap0 nodad")
        with open_tap("tap0", peer=PEER):
            assert "fd00::1/64" in ip("addr show dev tap0")
        assert "fd00::1/64" in ip("addr show dev tap0")

    def test_offloads_of_an_earlier_owner_do_not_last(self) -> None:
        make_tap("tap0")
        with open_tap("tap0", peer=PEER, vnet_hdr=True) as tap:
            tap.set_offload(TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6)
            send_segments()
            assert len(os.read(tap.fileno(), 70000)) > 2000  # both, for the reader to split
        with open_tap("tap0", peer=PEER) as tap:
            send_segments()
            assert len(os.read(tap.fileno(), 70000)) == 14 + 20 + 8 + 1000

    def test_mtu_found_out_of_range_is_refused_and_put_back(self) -> None:
        make_tap("tap0")
        ip("link set tap0 mtu 20000")
        before = find_link("tap0")
        with pytest.raises(UsageError, match="mtu 20000 is out of range"):
            open_tap("tap0", peer=PEER)
        assert find_link("tap0") == before

    def test_deleted_meanwhile_closes_quietly(self) -> None:
        make_tap("tap0")
        with open_tap("tap0", peer=PEER):
            ip("link del tap0")
        assert find_link("tap0") is None

    def test_closed_in_another_namespace_changes_nothing_there(self) -> None:
        make_tap("tap0")
        tap = open_tap("tap0", peer=PEER, mtu=1280)
        with second_netns() as other, inside(other):
            before = [find_link(name) for name in ("lo",)]
            with pytest.raises(OSError, match="another network namespace"):
                tap.close()
            assert [find_link(name) for name in ("lo",)] == before

    def test_host_address_owned_by_the_kernels_end_is_refused(self) -> None:
        make_tap("tap0")
        ip(f"addr add {HOST} dev tap0")
        with pytest.raises(OSError, match=r"10.0.0.2 belongs to this machine's own tap0"):
            open_tap("tap0", peer=PEER, host=HOST)


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
class TestRefused:
    """What the kernel refuses is told with the reason and the way on."""

    def test_busy_names_the_process(self) -> None:
        ready, held = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            with open_tap("tap0"):
                os.write(ready[1], b"x")
                os.read(held[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
        with pytest.raises(OSError, match=rf"tap0 is in use by .+ \(pid {pid}\)") as caught:
            open_tap("tap0")
        assert caught.value.errno == errno.EBUSY
        assert hint_of(caught.value) == f"kill {pid}\nnetstack up tap1"
        os.write(held[1], b"x")
        os.waitpid(pid, 0)
        for fd in (*ready, *held):
            os.close(fd)

    def test_busy_with_ourselves_says_so(self) -> None:
        with open_tap("tap0"), pytest.raises(OSError, match="in use by this process") as caught:
            open_tap("tap0")
        assert hint_of(caught.value) == "netstack up tap1"

    @pytest.mark.parametrize(
        ("flags", "message"),
        [(IFF_TUN, "is a TUN"), (IFF_TAP | IFF_MULTI_QUEUE, "is a multiqueue TAP")],
    )
    def test_other_kinds_of_tun_are_einval(self, flags: int, message: str) -> None:
        make_tap("tap0", flags)
        with pytest.raises(OSError, match=message) as caught:
            open_tap("tap0")
        assert caught.value.errno == errno.EINVAL
        assert hint_of(caught.value) == "netstack up tap1"

    def test_interface_that_is_no_tap_is_einval(self) -> None:
        with pytest.raises(OSError, match="lo exists and is not a TAP") as caught:
            open_tap("lo")
        assert caught.value.errno == errno.EINVAL


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
class TestOrdinaryUser:
    """Without a capability, a persistent TAP of one's own is all that is needed."""

    def test_own_tap_that_is_set_up_needs_no_capability(self) -> None:
        make_tap("tap0", owner=NOBODY)
        set_up("tap0")
        before = find_link("tap0")

        def attempt() -> tuple[str, int, int]:
            with open_tap("tap0", peer=PEER, host=HOST, device=node) as tap:
                return tap.name, tap.mtu, tap.missed()

        with tun_node() as node:
            assert in_child(attempt, uid=NOBODY) == ("tap0", 1500, 0)
        assert find_link("tap0") == before

    def test_own_tap_that_is_not_set_up_names_what_is_missing(self) -> None:
        make_tap("tap0", owner=NOBODY)
        with tun_node() as node, pytest.raises(PermissionError) as caught:
            in_child(lambda: open_tap("tap0", peer=PEER, device=node), uid=NOBODY)
        assert hint_of(caught.value) == (
            "sudo ip addr add 10.0.0.1/24 dev tap0\nsudo ip link set tap0 up"
        )
        for line in hint_of(caught.value).splitlines():
            ip(line.removeprefix("sudo ip "))
        with tun_node() as node:
            in_child(lambda: open_tap("tap0", peer=PEER, device=node).close(), uid=NOBODY)

    def test_tap_of_another_user_names_him(self) -> None:
        make_tap("tap0", owner=4711)
        with tun_node() as node, pytest.raises(PermissionError) as caught:
            in_child(lambda: open_tap("tap0", peer=PEER, device=node), uid=NOBODY)
        assert "tap0 belongs to user 4711, not to nobody" in str(caught.value)
        assert "sudo ip tuntap add dev tap1 mode tap user nobody" in hint_of(caught.value)

    def test_creating_needs_the_capability_and_the_hint_makes_it_work(self) -> None:
        with tun_node() as node:
            with pytest.raises(PermissionError, match="CAP_NET_ADMIN") as caught:
                in_child(lambda: open_tap("tap0", peer=PEER, device=node), uid=NOBODY)
            up, own = hint_of(caught.value).splitlines()
            assert up == "sudo netstack up tap0"
            for command in own.split(" && "):
                ip(command.removeprefix("sudo ip "))
            in_child(lambda: open_tap("tap0", peer=PEER, device=node).close(), uid=NOBODY)

    def test_device_closed_to_users_gives_its_mode(self) -> None:
        with tun_node(0o600) as node:
            with pytest.raises(PermissionError, match="has mode 0600") as caught:
                in_child(lambda: open_tap("tap0", device=node), uid=NOBODY)
            assert hint_of(caught.value) == f"sudo chmod 0666 {node}"
