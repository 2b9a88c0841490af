"""A lost message counts as the frames it was, as soon as that can be known, and never as less than one."""

from __future__ import annotations

import os
import socket
import subprocess
from ipaddress import IPv4Interface
from typing import Any, cast

import pytest

from netstack.device.missed_frames import MissedFrames
from netstack.device.tap import TUN_F_CSUM, TUN_F_USO4, TUN_F_USO6, Tap, open_tap
from tests.vnet import HEADERS

PEER, HOST = IPv4Interface("10.0.0.1/24"), "10.0.0.2"
UDP_SEGMENT = 103


class FakeTap:
    """What MissedFrames asks of a TAP, as numbers."""

    def __init__(self, passed: int | None = 0, persistent: bool = False) -> None:
        self.persistent = persistent
        self.sent = passed
        self.lost = self.taken = 0
        self.empty = True
        self.meanwhile = 0  # frames that come while one looks

    def passed(self) -> int | None:
        return self.sent

    def missed(self) -> int:
        return self.lost

    def quiet(self, ms: int) -> bool:
        assert ms > 0
        if self.sent is not None:
            self.sent += self.meanwhile
        return self.empty


def counter(tap: FakeTap) -> MissedFrames:
    return MissedFrames(cast("Tap", tap), lambda: tap.taken)


def test_nothing_lost_is_nothing_missed_and_nobody_waits() -> None:
    tap = FakeTap()
    it = counter(tap)
    tap.sent, tap.taken, tap.quiet = 70, 64, cast("Any", None)  # six are in the queue
    assert it.read() == 0


def test_a_lost_message_counts_as_its_frames_once_the_queue_is_empty() -> None:
    tap = FakeTap()
    it = counter(tap)
    tap.sent, tap.taken, tap.lost, tap.empty = 64 * 10, 64 * 6, 2, False
    assert it.read() == 2
    tap.taken, tap.empty = 64 * 8, True
    assert it.read() == 128
    tap.sent, tap.lost = 64 * 11, 3
    assert it.read() == 192


def test_what_moves_meanwhile_is_not_believed() -> None:
    tap = FakeTap()
    it = counter(tap)
    tap.sent, tap.lost, tap.meanwhile = 64, 1, 5
    assert it.read() == 1
    tap.taken, tap.meanwhile = 5, 0
    assert it.read() == 64


def test_frames_around_the_qdisc_never_make_it_less_than_the_packets() -> None:
    tap = FakeTap()
    it = counter(tap)
    tap.sent, tap.taken, tap.lost = 64, 1000, 3
    assert it.read() == 3
    tap.sent, tap.lost = 64 + 128, 5
    assert it.read() == 3 + 128


def test_without_a_qdisc_every_lost_packet_is_one() -> None:
    tap = FakeTap(passed=None)
    it = counter(tap)
    tap.taken, tap.lost = 20, 7
    assert it.read() == 7


def test_a_new_qdisc_begins_again_and_takes_nothing_away() -> None:
    tap = FakeTap()
    it = counter(tap)
    tap.sent, tap.taken, tap.lost = 640, 512, 2
    assert it.read() == 128
    tap.sent, tap.taken, tap.lost = 64, 512, 3
    assert it.read() == 129


def test_what_a_persistent_tap_passed_on_before_does_not_count() -> None:
    tap = FakeTap(passed=5000, persistent=True)
    it = counter(tap)
    tap.sent, tap.lost = 5000 + 64, 1
    assert it.read() == 64


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
def test_the_kernel_counts_as_this_expects() -> None:
    with open_tap("tap0", peer=PEER, txqueuelen=5, vnet_hdr=True) as tap:
        tap.set_offload(TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6)
        there = f"ip neigh replace {HOST} lladdr 02:00:00:00:00:02 dev tap0"
        subprocess.run(there.split(), check=True)
        taken = 0
        it = MissedFrames(tap, lambda: taken)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 10)
            for _ in range(9):
                sock.sendto(bytes(10 * 16), (HOST, 9))
        assert tap.passed() == 9 * 16
        assert (tap.missed(), it.read()) == (4, 4)
        while not tap.quiet(1):
            taken += (len(os.read(tap.fileno(), 65536)) - 10 - HEADERS) // 10
        assert taken == 5 * 16
        assert it.read() == 4 * 16
    assert it.read() == 4 * 16
