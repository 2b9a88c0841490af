"""Datagrams that GRO merged: whole for a socket with UDP_GRO, one by one for every other."""

import socket as kernel
import struct

import pytest

import netstack
from netstack.device._memory import MemoryWire
from netstack.socket import UDP_GRO
from tests.sock.rig import MAC, OUR_IP, PEER_IP, udp_frame


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def host(request):
    with netstack.Host(
        clock=netstack.ManualClock(), threads=False, fast_path=request.param
    ) as made:
        wire, made.peer = MemoryWire.pair()
        made.add_nic(wire, "eth0", addr=f"{OUR_IP}/24", mac=MAC)
        made.kept = []
        yield made
        for sock in made.kept:
            sock.close()
    account = netstack.ledger(made)
    assert account.balanced, account
    assert account.frames == made.net.rx_frames()


def bound(host, port, gro):
    sock = host.socket()
    sock.setsockopt(kernel.IPPROTO_UDP, UDP_GRO, gro)
    sock.bind((OUR_IP, port))
    sock.setblocking(False)
    host.kept.append(sock)
    return sock


def give(host, *frames):
    for frame in frames:
        host.peer.send(frame)
    host.run()


def test_a_socket_with_udp_gro_reads_a_flow_at_once(host):
    sock = bound(host, 9000, 1)
    parts = [bytes([i]) * 100 for i in range(10)] + [b"end"]
    give(host, *[udp_frame(part) for part in parts])
    data, ancillary, flags, peer = sock.recvmsg(65535, 100)
    assert data == b"".join(parts)
    assert ancillary == [(kernel.IPPROTO_UDP, UDP_GRO, struct.pack("i", 100))]
    assert (flags, peer) == (0, (PEER_IP, 4000))
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    assert netstack.ledger(host).delivered == 11


def test_a_socket_without_it_gets_each_datagram(host):
    bound(host, 9001, 1)
    sock = bound(host, 9000, 0)
    parts = [bytes([i]) * 100 for i in range(10)] + [b"end"]
    give(host, *[udp_frame(part) for part in parts])
    assert [sock.recvfrom(1000) for _ in parts] == [(part, (PEER_IP, 4000)) for part in parts]
    assert netstack.ledger(host).delivered == 11


def test_when_the_option_goes_the_merging_goes(host):
    sock = bound(host, 9000, 1)
    sock.setsockopt(kernel.IPPROTO_UDP, UDP_GRO, 0)
    give(host, *[udp_frame(b"x" * 100)] * 3)
    assert [len(sock.recv(1000)) for _ in range(3)] == [100] * 3


def test_merged_datagrams_are_charged_as_what_they_take(host):
    sock = bound(host, 9000, 1)
    give(host, *[udp_frame(b"x" * 100)] * 8)
    assert sock.info["rmem"] >= 8 * 832
    assert sock.frames == 8
    sock.recv(65535)
    assert (sock.info["rmem"], sock.frames) == (0, 0)
