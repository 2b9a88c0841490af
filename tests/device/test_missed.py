"""The drop counter counts from where it began, wherever it is read."""

import errno
import os
import socket
import subprocess
import threading
from ipaddress import IPv4Interface

import pytest

from netstack.device.missed import DropCounter
from netstack.device.tap import open_tap
from tests.netns import inside, second_netns

PEER, HOST = IPv4Interface("10.0.0.1/24"), "10.0.0.2"
pytestmark = [pytest.mark.tap, pytest.mark.usefixtures("netns")]


def flood(frames: int) -> None:
    """Send that many frames into the TAP: broadcasts, which wait for no ARP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for _ in range(frames):
            sock.sendto(b"x", ("10.0.0.255", 9))


def test_frames_beyond_the_queue_are_counted() -> None:
    with open_tap("tap0", peer=PEER, txqueuelen=10) as tap:
        flood(10)
        assert tap.missed() == 0
        flood(5)
        assert tap.missed() == 5


def test_a_later_counter_starts_at_zero() -> None:
    with open_tap("tap0", peer=PEER, txqueuelen=10) as tap:
        flood(13)
        with DropCounter(tap.index) as second:
            assert second.read() == 0
            flood(2)
            assert (tap.missed(), second.read()) == (5, 2)


def test_last_value_stays_after_close() -> None:
    with open_tap("tap0", peer=PEER, txqueuelen=10) as tap:
        flood(12)
    assert tap.missed() == 2


def test_last_value_stays_after_the_interface_has_gone() -> None:
    with open_tap("tap0", peer=PEER, txqueuelen=10) as tap:
        counter = DropCounter(tap.index)
        flood(12)
        assert counter.read() == 2
    assert counter.read() == 2
    counter.close()
    counter.close()
    assert counter.read() == 2


def test_counter_keeps_to_the_namespace_it_was_made_in() -> None:
    with open_tap("tap0", peer=PEER, txqueuelen=10) as tap, second_netns() as other:
        flood(12)
        with inside(other):
            assert tap.missed() == 2


def test_threads_may_read_at_the_same_time() -> None:
    with open_tap("tap0", peer=PEER, txqueuelen=10) as tap:
        flood(12)
        seen: list[int] = []
        threads = [
            threading.Thread(target=lambda: seen.extend(tap.missed() for _ in range(200)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [2] * 800


def test_unknown_interface_is_enodev_and_leaks_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No such device") as caught:
        DropCounter(4711)
    assert caught.value.errno == errno.ENODEV
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_the_qdisc_passed_on_is_known_until_the_interface_ends() -> None:
    with open_tap("tap0", peer=PEER, txqueuelen=10) as tap:
        before = tap.passed()
        assert before is not None
        flood(13)  # those that found the queue full were passed on too
        assert tap.passed() == before + 13
        subprocess.run(["ip", "link", "del", "tap0"], check=True)
        assert tap.passed() is None
    assert tap.passed() is None


def test_an_interface_without_a_qdisc_has_passed_nothing_on() -> None:
    with open_tap("tap0", peer=PEER) as tap:
        subprocess.run(["tc", "qdisc", "replace", "dev", "tap0", "root", "noqueue"], check=True)
        flood(3)
        assert tap.passed() == 0
