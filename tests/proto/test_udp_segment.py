"""UDP_SEGMENT: the kernel's errors in the kernel's order, and the same frames whoever cuts."""

from __future__ import annotations

import errno
import itertools
import socket
import struct
import subprocess
from collections.abc import Callable

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from tests.frames import OUR_IP, PEER_IP
from tests.memory_host import memory_host
from tests.netns import link_up, make_tap

UDP_SEGMENT, UDP_GRO, SO_NO_CHECK, IP_MTU_DISCOVER = 103, 104, 11, 10
SIZES = (0, 1, 18, 508, 1471, 1472, 1473, 2000, 65535)
LENGTHS = (0, 1, 17, 18, 19, 500, 1472, 1473, 1474, 2944, 65507, 65508)
CASES = [
    *itertools.product(SIZES, LENGTHS),
    *((100, 100 * segments) for segments in (64, 65, 127, 128, 129)),
    *((1, length) for length in (128, 129, 1000)),
]
SETTINGS = {
    "plain": [],
    "IP_PMTUDISC_DO": [(socket.SOL_IP, IP_MTU_DISCOVER, 2)],
    "IP_PMTUDISC_DONT": [(socket.SOL_IP, IP_MTU_DISCOVER, 0)],
    "SO_NO_CHECK": [(socket.SOL_SOCKET, SO_NO_CHECK, 1)],
}


def outcome(call: Callable[[], int]) -> int | str:
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def outcomes(
    make: Callable[[], socket.socket], to: tuple[str, int], options: list[tuple[int, int, int]]
) -> dict[object, int | str]:
    """Send every case by option and by control message."""
    found: dict[object, int | str] = {}
    with make() as sock:
        for option in options:
            sock.setsockopt(*option)
        for size, length in CASES:
            data = bytes(length)
            ancillary = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", size))]
            found[size, length, "cmsg"] = outcome(
                lambda data=data, anc=ancillary: sock.sendmsg([data], anc, 0, to)
            )
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
            found[size, length, "option"] = outcome(lambda data=data: sock.sendto(data, to))
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
        for value in (-1, 0, 1, 65535, 65536):
            found[value, "set"] = outcome(
                lambda value=value: sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, value) or 0
            )
            found[value, "get"] = sock.getsockopt(socket.IPPROTO_UDP, UDP_SEGMENT)
        for value in (-1, 0, 1, 2):
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, value)
            found[value, "gro"] = sock.getsockopt(socket.IPPROTO_UDP, UDP_GRO)
    return found


@pytest.mark.tap
@pytest.mark.parametrize("vnet_hdr", [False, True], ids=["cut by us", "cut by the wire"])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_call_ends_as_in_the_kernel(name: str, vnet_hdr: bool, netns: None) -> None:
    make_tap("t0")
    link_up("t0")
    for command in (
        f"ip addr add {PEER_IP}/24 dev t0",
        f"ip neigh add {OUR_IP} lladdr 02:00:00:00:00:02 dev t0",
    ):
        subprocess.run(command.split(), check=True)
    theirs = outcomes(
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), (OUR_IP, 9), SETTINGS[name]
    )
    with memory_host(vnet_hdr=vnet_hdr) as it:
        it.meet()
        ours = outcomes(it.host.socket, (PEER_IP, 9), SETTINGS[name])
    assert {
        case: (theirs[case], ours[case]) for case in theirs if theirs[case] != ours[case]
    } == {}


@pytest.mark.parametrize("size", [1, 100, 1472])
def test_a_device_that_can_cut_and_one_that_can_not_send_the_same(size: int) -> None:
    payload = bytes(i % 251 for i in range(min(120 * size, 60000)))
    seen: list[list[bytes]] = []
    for vnet_hdr in (False, True):
        with memory_host(vnet_hdr=vnet_hdr) as it:
            it.meet()
            tap = it.host.packet_tap()
            sock = it.socket(OUR_IP, 9000)
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
            sock.sendto(payload, (PEER_IP, 4000))
            it.sent()
            frames = [bytearray(row[5]) for row in tap.drain(500)]
            tap.close()
            for frame in frames:
                frame[18:20] = frame[24:26] = (
                    b"\0\0"  # the ids are of one counter or of one packet
                )
            seen.append([bytes(frame) for frame in frames])
    assert seen[0] == seen[1]
    assert len(seen[0]) == -(-len(payload) // size)


def test_what_the_device_may_not_cut_is_cut_before_it() -> None:
    with memory_host(vnet_hdr=True) as it:
        it.meet()
        it.device.nic.features &= ~512  # NETIF_F_GSO_UDP_L4
        sock = it.socket(OUR_IP, 9000)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
        sock.sendto(bytes(250), (PEER_IP, 4000))
        sent = it.sent()
        assert [len(frame) - 52 for frame in sent] == [100, 100, 50]
        it.device.nic.features &= ~256  # NETIF_F_HW_CSUM
        sock.sendto(bytes(250), (PEER_IP, 4000))
        for frame in sent + it.sent():
            packet = Ether(frame[10:])
            there = packet[UDP].chksum
            del packet[UDP].chksum
            assert Ether(bytes(packet))[UDP].chksum == there, "made by the NIC, or before it"
            assert frame[:10] == bytes(10)
