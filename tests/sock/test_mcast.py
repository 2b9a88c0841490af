"""Options about groups: the kernel's errors, its values, its filters; asked of the kernel's sockets too."""

from __future__ import annotations

import ctypes
import socket as std
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import netstack.socket as ns
from tests.memory_host import MemoryHost, memory_host
from tests.netns import fresh_netns, link_up, make_tap
from tests.proto import igmp_frames as f
from tests.proto.igmp_frames import GROUP, OTHER

IP = std.IPPROTO_IP
OURS, THIRD = "10.0.0.2", "10.0.0.3"


def addr(*names: str) -> bytes:
    return b"".join(std.inet_aton(name) for name in names)


def storage(name: str, family: int = 2) -> bytes:
    return struct.pack("=HH", family, 0) + addr(name) + bytes(120)


def greq(index: int, *names: str, family: int = 2) -> bytes:
    return struct.pack("=I4x", index) + b"".join(storage(name, family) for name in names)


def gfilter(index: int, group: str, mode: int, *names: str) -> bytes:
    head = struct.pack("=I4x", index) + storage(group) + struct.pack("=II", mode, len(names))
    return head + b"".join(storage(name) for name in names)


def msfilter(group: str, mode: int, *names: str, count: int | None = None) -> bytes:
    number = len(names) if count is None else count
    return addr(group, OURS) + struct.pack("=II", mode, number) + addr(*names)


def mreqn(group: str, address: str, index: int) -> bytes:
    return addr(group, address) + struct.pack("=I", index)


ANY, NOBODY = "0.0.0.0", "10.9.9.9"
S1, S2, S3 = "10.1.0.1", "10.1.0.2", "10.1.0.3"
JOIN, LEAVE, UNBLOCK, BLOCK, ADD, DROP, FILTER = 35, 36, 37, 38, 39, 40, 41
GJOIN, GBLOCK, GUNBLOCK, GLEAVE, GADD, GDROP, GFILTER = 42, 43, 44, 45, 46, 47, 48
IF, LOOP, ALL, TTL = 32, 34, 49, 33

# Steps of (option, value) one after the other on one socket; INDEX stands for the device's number.
INDEX = 77
STEPS: dict[str, list[tuple[int, bytes | int]]] = {
    "join, again, leave, again": [(n, addr(GROUP, OURS)) for n in (JOIN, JOIN, LEAVE, LEAVE)],
    "no group": [(n, addr("10.1.1.1", OURS)) for n in (JOIN, LEAVE)],
    "no such address": [(n, addr(GROUP, NOBODY)) for n in (JOIN, LEAVE)],
    "no route": [(n, addr(GROUP, ANY)) for n in (JOIN, LEAVE)],
    "by index": [(n, mreqn(GROUP, ANY, INDEX)) for n in (JOIN, JOIN, LEAVE, LEAVE)],
    "no such index": [(n, mreqn(GROUP, ANY, 99)) for n in (JOIN, LEAVE)],
    "joined by address, left by index": [(JOIN, addr(GROUP, OURS)), (LEAVE, mreqn(GROUP, ANY, INDEX))],
    "short values": [(n, bytes(k)) for n in range(35, 49) for k in (0, 1, 4, 7, 11, 13, 15, 135, 143)],
    "20 groups and no more": [(JOIN, addr(f"239.5.0.{i}", OURS)) for i in range(22)],
    "sources of an include filter": [
        (n, addr(GROUP, OURS, s)) for n, s in ((ADD, S1), (ADD, S2), (ADD, S2), (DROP, S3), (DROP, S1),
                                               (DROP, S2), (DROP, S2))
    ],
    "sources of an exclude filter": [(BLOCK, addr(GROUP, OURS, S1)), (JOIN, addr(GROUP, OURS))]
    + [(n, addr(GROUP, OURS, s)) for n, s in ((UNBLOCK, S1), (BLOCK, S1), (BLOCK, S1), (ADD, S2),
                                              (UNBLOCK, S1), (ADD, S2), (BLOCK, S1), (UNBLOCK, S2))],
    "ten sources and no more": [(ADD, addr(GROUP, OURS, f"10.1.0.{i}")) for i in range(12)],
    "filters as a whole": [
        (FILTER, msfilter(GROUP, 1, S1)), (JOIN, addr(GROUP, OURS)), (FILTER, msfilter(GROUP, 1, S1, S2)),
        (FILTER, msfilter(GROUP, 0, S3)), (FILTER, msfilter(GROUP, 2, S3)), (FILTER, msfilter(GROUP, 0)),
        (FILTER, msfilter(GROUP, 1, *[S1] * 11)), (FILTER, msfilter(GROUP, 1, S1, count=3)),
        (FILTER, msfilter(GROUP, 1)), (FILTER, msfilter(GROUP, 1)), (FILTER, msfilter("10.0.0.1", 1, S1)),
    ],
    "protocol-independent options": [
        (GJOIN, greq(INDEX, GROUP)), (GJOIN, greq(INDEX, GROUP)), (GBLOCK, greq(INDEX, GROUP, S1)),
        (GBLOCK, greq(INDEX, GROUP, S1)), (GUNBLOCK, greq(INDEX, GROUP, S1)), (GLEAVE, greq(INDEX, GROUP)),
        (GLEAVE, greq(INDEX, GROUP)), (GADD, greq(INDEX, GROUP, S1)), (GADD, greq(INDEX, GROUP, S2)),
        (GDROP, greq(INDEX, GROUP, S1)), (GDROP, greq(INDEX, GROUP, S2)), (GDROP, greq(INDEX, GROUP, S2)),
        (GJOIN, greq(0, GROUP)), (GJOIN, greq(99, GROUP)), (GJOIN, greq(INDEX, GROUP, family=10)),
        (GADD, greq(INDEX, GROUP, S2, family=10)), (GJOIN, greq(INDEX, "1.2.3.4")),
    ],
    "protocol-independent filters": [
        (GFILTER, gfilter(INDEX, GROUP, 1, S1)), (GJOIN, greq(INDEX, GROUP)),
        (GFILTER, gfilter(INDEX, GROUP, 1, S1, S2)), (GFILTER, gfilter(INDEX, GROUP, 0)),
        (GFILTER, gfilter(INDEX, GROUP, 5)), (GFILTER, gfilter(INDEX, GROUP, 1)),
    ],
    "the device for sending": [
        (IF, addr(OURS)), (IF, addr(NOBODY)), (IF, addr(ANY)), (IF, addr(ANY, OURS)), (IF, b"\0\0\0"), (IF, b""),
        (IF, mreqn(ANY, ANY, INDEX)), (IF, mreqn(ANY, OURS, INDEX)), (IF, mreqn(ANY, ANY, 99)),
    ],
    "flags": [(n, v) for n in (LOOP, ALL, TTL) for v in (0, 1, 2, 255, 256, -1, b"\1", b"", b"\0\0")],
}  # fmt: skip


class Side:
    """A socket of ours or of the kernel, and which number the device has."""

    def __init__(self, sock: Any, index: int) -> None:
        self.sock, self.index = sock, index

    def set(self, name: int, value: bytes | int) -> int:
        if isinstance(value, bytes):
            value = value.replace(struct.pack("=I", INDEX), struct.pack("=I", self.index))
        try:
            self.sock.setsockopt(IP, name, value)
        except OSError as error:
            return error.errno
        return 0

    def get(self, name: int, buffer: bytes) -> tuple[int, bytes]:
        buffer = buffer.replace(struct.pack("=I", INDEX), struct.pack("=I", self.index))
        if isinstance(self.sock, ns.socket):
            try:
                found = self.sock.getsockopt(IP, name, buffer)
            except OSError as error:
                return error.errno, b""
        else:
            room = ctypes.create_string_buffer(buffer, len(buffer))
            size = ctypes.c_uint(len(buffer))
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.getsockopt(self.sock.fileno(), IP, name, room, ctypes.byref(size)):
                return ctypes.get_errno(), b""
            found = room.raw[: size.value]
        return 0, found.replace(struct.pack("=I", self.index), struct.pack("=I", INDEX))

    def state(self) -> list[Any]:
        asked = [self.get(n, bytes(k)) for n in (IF, LOOP, ALL, TTL) for k in (1, 4, 8)]
        asked += [self.get(FILTER, msfilter(GROUP, 0, *[ANY] * k)) for k in (0, 1, 3)]
        asked += [self.get(GFILTER, gfilter(INDEX, GROUP, 0, *[ANY] * k)) for k in (0, 2)]
        return [
            *asked,
            self.get(FILTER, b"abc"),
            self.get(GFILTER, bytes(20)),
            self.get(JOIN, bytes(8)),
        ]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Callable[[int], Side]]:
    with fresh_netns():
        make_tap("tap9")
        link_up("tap9")
        link_up("lo")
        from pyroute2 import IPRoute

        with IPRoute() as ipr:
            index = ipr.link_lookup(ifname="tap9")[0]
            ipr.addr("add", index=index, address=OURS, prefixlen=24)
        yield lambda kind: Side(
            std.socket(std.AF_INET, kind, 2 if kind == std.SOCK_RAW else 0), index
        )


@pytest.mark.tap
@pytest.mark.parametrize("kind", [std.SOCK_DGRAM, std.SOCK_RAW])
@pytest.mark.parametrize("name", STEPS)
def test_each_step_is_answered_as_by_the_kernel(kernel, name, kind):
    theirs = kernel(kind)
    with memory_host() as it, theirs.sock:
        sock = it.host.socket(std.AF_INET, kind, 2 if kind == std.SOCK_RAW else 0)
        it.sockets.append(sock)
        ours = Side(sock, it.device.ifindex)
        for option, value in STEPS[name]:
            what = f"{option}: {value!r}"
            assert (what, ours.set(option, value)) == (what, theirs.set(option, value))
            if len(STEPS[name]) < 30:
                assert (what, ours.state()) == (what, theirs.state())


# ---- who gets what


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request: pytest.FixtureRequest) -> Iterator[MemoryHost]:
    with memory_host(fast_path=request.param) as it:
        it.meet()
        yield it


def read(sock: Any) -> list[bytes]:
    out = []
    while True:
        try:
            out.append(sock.recv(100))
        except BlockingIOError:
            return out


def member(it: MemoryHost, *options: tuple[int, bytes | int], port: int = 7) -> Any:
    sock = it.socket()
    sock.setsockopt(std.SOL_SOCKET, std.SO_REUSEADDR, 1)
    sock.bind(("", port))
    for name, value in options:
        sock.setsockopt(IP, name, value)
    return sock


def test_every_socket_that_matches_gets_a_datagram(it):
    one = member(it, (JOIN, addr(GROUP, OURS)))
    two = member(it, (JOIN, addr(GROUP, OURS)))
    bystander, elsewhere = member(it), member(it, port=8)
    it.put(f.datagram(GROUP, b"all"))
    assert [read(s) for s in (one, two, bystander, elsewhere)] == [
        [b"all"],
        [b"all"],
        [b"all"],
        [],
    ]


def test_without_multicast_all_only_what_it_has_joined_itself(it):
    member(it, (JOIN, addr(GROUP, OURS)), (JOIN, addr(OTHER, OURS)))
    picky = member(it, (ALL, 0), (JOIN, addr(OTHER, OURS)))
    it.put(f.datagram(GROUP, b"no"), f.datagram(OTHER, b"yes"))
    assert read(picky) == [b"yes"]


def test_sources_are_filtered_for_each_socket(it):
    only = member(it, (ADD, addr(GROUP, OURS, THIRD)))
    but = member(it, (JOIN, addr(GROUP, OURS)), (BLOCK, addr(GROUP, OURS, THIRD)))
    it.put(f.datagram(GROUP, b"3", src=THIRD), f.datagram(GROUP, b"4", src="10.0.0.4"))
    assert (read(only), read(but)) == ([b"3"], [b"4"])


def test_a_source_that_nobody_wants_does_not_reach_the_sockets(it):
    member(it, (ADD, addr(GROUP, OURS, THIRD)))
    it.put(f.datagram(GROUP, b"4", src="10.0.0.4"))
    assert it.drops() == {"IP_INVALID_DEST": 1}


def test_membership_ends_with_the_socket(it):
    sock = member(it, (JOIN, addr(GROUP, OURS)))
    sock.close()
    it.put(f.datagram(GROUP))
    assert it.drops() == {"NIC_DROP_FILTER": 1}
    assert it.host.memberships(2) == [("224.0.0.1", 1)]


def test_raw_sockets_are_filtered_too(it):
    raw = it.host.socket(std.AF_INET, std.SOCK_RAW, 17)
    raw.setblocking(False)
    it.sockets.append(raw)
    raw.setsockopt(IP, ADD, addr(GROUP, OURS, THIRD))
    member(it, (JOIN, addr(GROUP, OURS)))
    it.put(f.datagram(GROUP, b"3", src=THIRD), f.datagram(GROUP, b"4", src="10.0.0.4"))
    assert [data[-1:] for data in read(raw)] == [b"3"]


@pytest.mark.parametrize("loop", [1, 0])
def test_what_is_sent_to_a_group_of_ours_comes_back_if_wanted(it, loop):
    sock = member(it, (JOIN, addr(GROUP, OURS)), (IF, addr(OURS)), (LOOP, loop))
    sock.sendto(b"to all", (GROUP, 7))
    it.host.run()
    sent = [frame for frame in it.sent() if frame[23] == 17]
    assert read(sock) == [b"to all"] * loop
    assert [(frame[:6], frame[22]) for frame in sent] == [(f.group_mac(GROUP), 1)]


def test_time_to_live_0_stays_here(it):
    sock = member(it, (JOIN, addr(GROUP, OURS)), (IF, addr(OURS)), (TTL, 0))
    sock.sendto(b"us", (GROUP, 7))
    it.host.run()
    assert read(sock) == [b"us"]
    assert [frame for frame in it.sent() if frame[23] == 17] == []


def test_sending_without_a_route_needs_a_device(it):
    sock = it.socket()
    with pytest.raises(OSError, match="unreachable"):
        sock.sendto(b"x", (GROUP, 7))
    sock.setsockopt(IP, IF, mreqn(ANY, ANY, it.device.ifindex))
    sock.sendto(b"x", (GROUP, 7))
    assert it.sent()[0][26:30] == addr(OURS)
    sock.setsockopt(std.SOL_SOCKET, std.SO_BROADCAST, 1)
    with pytest.raises(OSError, match="unreachable"):
        sock.sendto(b"x", ("255.255.255.255", 7))
    sock.setsockopt(std.SOL_SOCKET, std.SO_BINDTODEVICE, b"tap0")
    sock.sendto(b"x", ("255.255.255.255", 7))
    assert it.sent()[-1][:6] == b"\xff" * 6
