"""Offloads on a real TAP: the same arrives and leaves with them and without, and the kernel agrees."""

from __future__ import annotations

import socket
import struct
import subprocess

import pytest

import netstack
from netstack.stats import ledger, nstat
from tests.netns import fresh_netns, inside, link_up, second_netns

pytestmark = pytest.mark.tap

HOST, PEER = "10.0.0.2", "10.0.0.1"
SOL_UDP, UDP_SEGMENT, UDP_GRO = socket.IPPROTO_UDP, 103, 104
PAYLOAD = bytes(i % 251 for i in range(65507))
SHAPES = [
    (18, 64 * 18),
    (18, 128 * 18 - 3),
    (100, 1000),
    (1000, 1001),
    (1472, 44 * 1472),
    (1, 100),
]
COUNTERS = (
    *(
        "UdpInDatagrams",
        "UdpInErrors",
        "UdpInCsumErrors",
        "UdpRcvbufErrors",
        "IpExtInNoECTPkts",
    ),
    *("IcmpInMsgs", "IcmpOutMsgs", "UdpNoPorts"),
)


def receive(fast: bool, gro: bool, offload: bool) -> tuple[list[object], dict[str, int], int]:
    """Send every shape to a host; what its socket read, what was counted, and the frames."""
    options = {"addr": f"{HOST}/24", "fast_path": fast, "offload": offload}
    with fresh_netns(), netstack.up("tap0", **options) as host, host.socket() as sock:
        host.config["net.core.rmem_max"] = 8 << 20
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.setsockopt(SOL_UDP, UDP_GRO, gro)
        sock.bind((HOST, 9000))
        sock.settimeout(5)
        read: list[object] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
            kernel.bind((PEER, 4000))
            kernel.sendto(b"first", (HOST, 9000))
            read.append(sock.recvmsg(100, 100))
            for size, length in SHAPES:
                kernel.setsockopt(SOL_UDP, UDP_SEGMENT, size)
                kernel.sendto(PAYLOAD[:length], (HOST, 9000))
                left = length
                while left:
                    row = sock.recvmsg(65535, 100)
                    left -= len(row[0])
                    read.append(row)
        host.settle()
        account = ledger(host)
        assert account.balanced
        counters = nstat(host.net)
        return read, {name: counters.get(name, 0) for name in COUNTERS}, account.delivered


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
def test_single_datagrams_are_the_same_with_offload_and_without(fast: bool) -> None:
    without = receive(fast, gro=False, offload=False)
    assert receive(fast, gro=False, offload=True) == without
    assert len(without[0]) == without[2]


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
def test_with_udp_gro_the_same_bytes_and_frames_arrive(fast: bool) -> None:
    without, _, delivered = receive(fast, gro=False, offload=False)
    whole, _, frames = receive(fast, gro=True, offload=True)
    assert frames == delivered
    assert b"".join(row[0] for row in whole) == b"".join(row[0] for row in without)
    sizes = [(len(row[0]), [struct.unpack("i", anc[2])[0] for anc in row[1]]) for row in whole]
    assert sizes == [(5, [])] + [(length, [size]) for size, length in SHAPES]


def test_a_kernel_socket_with_udp_gro_behaves_the_same() -> None:
    """The same datagrams over a veth that carries them whole, to a socket of the kernel."""
    ours, _, _ = receive(True, gro=True, offload=True)
    with fresh_netns(), second_netns() as other:
        command = f"ip link add v0 mtu 1500 type veth peer name v1 mtu 1500 netns /proc/self/fd/{other}"
        subprocess.run(command.split(), check=True, pass_fds=[other])
        subprocess.run(f"ip addr add {PEER}/24 dev v0".split(), check=True)
        link_up("v0")
        with inside(other):
            subprocess.run(f"ip addr add {HOST}/24 dev v1".split(), check=True)
            link_up("v1")
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            sock.bind((HOST, 9000))
            sock.settimeout(5)
        with sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
            kernel.bind((PEER, 4000))
            kernel.sendto(b"first", (HOST, 9000))
            theirs = [sock.recvmsg(100, 100)]
            for size, length in SHAPES:
                kernel.setsockopt(SOL_UDP, UDP_SEGMENT, size)
                kernel.sendto(PAYLOAD[:length], (HOST, 9000))
                theirs.append(sock.recvmsg(65535, 100))
    assert ours == theirs


@pytest.mark.parametrize("gro", [0, 1])
def test_what_we_send_whole_arrives_as_the_kernel_s_sender_would_send_it(gro: int) -> None:
    with fresh_netns(), netstack.up("tap0", addr=f"{HOST}/24", offload=True) as host:
        with (
            host.socket() as sock,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel,
        ):
            kernel.bind((PEER, 4000))
            kernel.settimeout(5)
            kernel.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
            kernel.setsockopt(SOL_UDP, UDP_GRO, gro)
            sock.bind((HOST, 9000))
            for size, length in SHAPES:
                sock.setsockopt(SOL_UDP, UDP_SEGMENT, size)
                assert sock.sendto(PAYLOAD[:length], (PEER, 4000)) == length
                got: list[bytes] = []
                while sum(map(len, got)) < length:
                    got.append(kernel.recv(65535))
                assert b"".join(got) == PAYLOAD[:length]
                assert len(got) == (1 if gro else -(-length // size))
        host.settle()
        assert ledger(host).balanced


def test_ping_and_one_datagram_after_the_other_go_on() -> None:
    with fresh_netns(), netstack.up("tap0", addr=f"{HOST}/24", offload=True) as host:
        for size in ("8", "1472", "4000"):
            subprocess.run(
                ["ping", "-c", "2", "-i", "0.01", "-s", size, HOST],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        host.settle()
        assert ledger(host).balanced


def test_what_ethtool_switches_off_the_kernel_no_longer_does() -> None:
    with fresh_netns(), netstack.up("tap0", addr=f"{HOST}/24", offload=True) as host:
        nic = host.devices[1].nic
        with (
            host.socket() as sock,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel,
        ):
            sock.bind((HOST, 9000))
            sock.settimeout(5)
            kernel.setsockopt(SOL_UDP, UDP_SEGMENT, 100)
            for features, packets in ((0, 1), (128, 10), (1, 10)):
                nic.features &= ~features
                host.settle()
                before = nic.stats()["rx_queue_0_packets"]
                kernel.sendto(PAYLOAD[:1000], (HOST, 9000))
                assert b"".join(sock.recv(2000) for _ in range(10)) == PAYLOAD[:1000]
                arps = nic.stats()["rx_queue_0_packets"] - before - packets
                assert 0 <= arps <= 2
            assert not nic.features & 128, "nothing is coalesced without rx-checksumming"
        host.settle()
        assert ledger(host).dropped == {}
