"""Datagrams that GRO merged: whole for a socket with UDP_GRO, one by one for every other."""

import socket as kernel
import struct

import pytest

import netstack
from netstack._counters import mib
from netstack.device._memory import MemoryWire
from netstack.socket import UDP_GRO
from tests.sock.rig import MAC, OUR_IP, PEER_IP, udp_frame

RECORD = struct.Struct("=IIIHH")


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


def test_batch_calls_take_a_merged_packet_apart(host):
    sock = bound(host, 9000, 1)
    parts = [bytes([i]) * 100 for i in range(10)] + [b"end"]
    give(host, *[udp_frame(part) for part in parts])
    assert sock.recv_batch(99) == [(part, (PEER_IP, 4000)) for part in parts]
    assert netstack.ledger(host).delivered == 11
    assert host.net.mib(mib["UdpInDatagrams"]) == 11
    assert (sock.info["rmem"], sock.frames) == (0, 0)


@pytest.mark.parametrize("n", [1, 3, 10])
def test_a_batch_may_end_within_a_merged_packet(host, n):
    sock = bound(host, 9000, 1)
    parts = [bytes([i]) * 100 for i in range(10)] + [b"end"]
    give(host, *[udp_frame(part) for part in parts])
    buffer, records = bytearray(100 * n), bytearray(16 * 99)
    got = []
    while len(got) < len(parts):
        got += [data for data, _ in sock.recv_batch(n)]
        if len(got) < len(parts):
            count = sock.recv_batch_into(buffer, records)
            ends = [RECORD.unpack_from(records, 16 * i)[:2] for i in range(count)]
            got += [bytes(buffer[at : at + size]) for at, size in ends]
    assert got == parts
    assert (sock.info["rmem"], sock.frames) == (0, 0)


def test_what_a_batch_left_of_a_merged_packet_is_read_by_the_other_calls(host):
    sock = bound(host, 9000, 1)
    for call in ("recvfrom", "recvmsg", "recv_into"):
        give(host, *[udp_frame(bytes([i]) * 100) for i in range(10)])
        assert len(sock.recv_batch(4)) == 4
        rest = b"".join(bytes([i]) * 100 for i in range(4, 10))
        if call == "recv_into":
            buffer = bytearray(1000)
            assert sock.recv_into(buffer) == 600
            assert buffer[:600] == rest
        else:
            assert getattr(sock, call)(1000)[0] == rest
        assert sock.frames == 0
