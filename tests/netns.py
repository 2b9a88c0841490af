"""A private network namespace around a test.

`fresh_netns()` moves the calling thread into a new, empty network namespace with `lo` up, and
back again afterwards; every TAP, veth and address made inside dies with it. Threads and
processes started inside are born there; threads that were running before stay outside, so
start the host inside. `netns` is the same as a pytest fixture: tests/conftest.py names this
module as a plugin, no import is needed.

Needs root (CAP_SYS_ADMIN). Two traps inside: `/proc/self/net` shows the main thread's
namespace, `/proc/thread-self/net` the thread's own; and `/sys/class/net` shows the namespace
that mounted it, never this one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from netstack.lab import another_network
from tests.peer_errors import PEERS
from tests.sent_frames import RECORDING

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 0x1
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
IFF_TAP, IFF_NO_PI = 0x2, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def link_up(name: str) -> None:
    """Set an interface of this thread's namespace up, without pyroute2."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH22x", name.encode(), 0)
        flags = struct.unpack("16xH22x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[0]
        request = struct.pack("16sH22x", name.encode(), flags | IFF_UP)
        fcntl.ioctl(sock, SIOCSIFFLAGS, request)


def make_tap(name: str, flags: int = IFF_TAP, *, owner: int | None = None) -> None:
    """Leave a persistent TAP behind, as `ip tuntap add` does."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags | IFF_NO_PI))
    if owner is not None:
        fcntl.ioctl(fd, TUNSETOWNER, owner)
    fcntl.ioctl(fd, TUNSETPERSIST, 1)
    os.close(fd)


@contextmanager
def fresh_netns() -> Iterator[None]:
    """Run the block in a network namespace of its own, in this thread."""
    with another_network(), PEERS.watched(), RECORDING.taps():
        yield


@contextmanager
def second_netns() -> Iterator[int]:
    """Give an fd of another fresh namespace, for `ip link set ... netns /proc/self/fd/N`."""
    with fresh_netns():
        other = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield other
    finally:
        os.close(other)


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """Run the block in the namespace that this fd stands for, in this thread."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(namespace, CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(before, CLONE_NEWNET))
    finally:
        os.close(before)


@pytest.fixture
def netns() -> Iterator[None]:
    """Give the test a network namespace of its own."""
    with fresh_netns():
        yield
