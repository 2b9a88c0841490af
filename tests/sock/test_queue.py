"""The receive queue: what fits, what is charged, what is given back, and how each datagram ends."""

import ctypes
import gc
import os
import socket
import struct
import sys

import pytest

from netstack.socket import SO_MEMINFO, SO_RCVBUFFORCE, SO_RXQ_OVFL
from tests.sock.rig import OUR_IP, PEER_IP, udp_frame

SOL_SOCKET, SO_RCVBUF = socket.SOL_SOCKET, socket.SO_RCVBUF


def fill(it, size, count=400):
    frame = udp_frame(bytes(size))
    it.receive(*[frame] * count)


# Measured on Linux 6.18 with a TAP and the default SO_RCVBUF.
@pytest.mark.parametrize(
    ("size", "held"), [(1, 256), (18, 256), (100, 256), (500, 166), (1000, 92), (1472, 92)]
)
def test_default_rcvbuf_holds_as_many_datagrams_as_linux(it, size, held):
    sock = it.socket(OUR_IP, 9000)
    fill(it, size)
    assert sock.info["queued"] == held
    assert sock.info["drops"] == 400 - held
    assert it.count("UdpRcvbufErrors") == it.count("UdpInErrors") == 400 - held
    assert it.fate("SKB_DROP_REASON_SOCKET_RCVBUFF") == 400 - held


def test_a_datagram_larger_than_rcvbuf_fits_into_an_empty_queue(it):
    sock = it.socket(OUR_IP, 9000)
    sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 0)
    assert sock.getsockopt(SOL_SOCKET, SO_RCVBUF) == 2304
    fill(it, 1472, 3)
    assert (sock.info["queued"], sock.info["drops"]) == (1, 2)
    assert sock.recv(2000) == bytes(1472)
    fill(it, 1472, 1)
    assert sock.info["queued"] == 1


def test_room_comes_back_while_the_queue_is_read(it):
    sock = it.socket(OUR_IP, 9000)
    fill(it, 18, 256)
    for _ in range(255):
        sock.recv(100)
    fill(it, 18, 200)
    assert sock.info["drops"] == 0
    for _ in range(201):
        sock.recv(100)
    assert sock.info["rmem"] == 0


def test_what_is_read_is_delivered_at_the_latest_when_the_queue_is_empty(it):
    sock = it.socket(OUR_IP, 9000)
    fill(it, 18, 100)
    for left in range(99, -1, -1):
        sock.recv(100)
        assert it.count("UdpInDatagrams") == 100 - left
        assert it.fate("SKB_DELIVERED") + sock.frames == 100
        assert sock.info["queued"] == left
    assert it.fate("SKB_DELIVERED") == 100
    assert (sock.info["rmem"], it.bench.pool_in_use()) == (0, 0)


def test_peek_leaves_the_datagram_and_counts_nothing(it):
    sock = it.socket(OUR_IP, 9000)
    it.receive(udp_frame(b"one"), udp_frame(b"two"))
    assert sock.recv(100, socket.MSG_PEEK) == b"one"
    assert sock.recvfrom(2, socket.MSG_PEEK) == (b"on", (PEER_IP, 4000))
    assert (it.count("UdpInDatagrams"), sock.info["queued"]) == (0, 2)
    assert [sock.recv(100), sock.recv(100)] == [b"one", b"two"]


def test_closing_drops_what_nobody_has_read(it):
    sock = it.socket(OUR_IP, 9000)
    fill(it, 18, 10)
    sock.recv(100)
    sock.close()
    assert it.fate("SKB_DROP_REASON_SOCKET_CLOSE") == 9
    assert it.fate("SKB_DELIVERED") == 1


def test_protocol_memory_is_taken_in_pages_and_given_back(it):
    sock = it.socket(OUR_IP, 9000)
    it.config["net.ipv4.udp_mem"] = (5, 5, 5)  # pages: 20480 bytes, 24 datagrams
    fill(it, 18, 100)
    assert sock.info["queued"] == 24
    assert it.count("UdpMemErrors") == it.count("UdpInErrors") == 76
    assert it.count("UdpRcvbufErrors") == 0
    assert it.fate("SKB_DROP_REASON_PROTO_MEM") == 76
    for _ in range(24):
        sock.recv(100)
    fill(it, 18, 24)
    assert sock.info["drops"] == 76


def test_a_socket_under_udp_rmem_min_may_exceed_the_first_limit_of_udp_mem(it):
    greedy, modest = it.socket(OUR_IP, 9000), it.socket(OUR_IP, 9001)
    it.config["net.ipv4.udp_mem"] = (1, 4, 4)
    fill(it, 18, 100)
    it.receive(*[udp_frame(b"", dport=9001)] * 100)
    assert greedy.info["queued"] > 0
    assert modest.info["queued"] > 0
    assert modest.info["rmem"] <= 2 * 4096, "udp_rmem_min, and what is left of its last page"


def test_drops_are_told_with_the_next_datagram(it):
    sock = it.socket(OUR_IP, 9000)
    sock.setsockopt(SOL_SOCKET, SO_RXQ_OVFL, 1)
    fill(it, 18, 300)
    for _ in range(256):
        assert sock.recvmsg(100, 100)[1] == []
    it.receive(udp_frame(b"next"))
    assert sock.recvmsg(100, 100)[1] == [(SOL_SOCKET, SO_RXQ_OVFL, struct.pack("I", 44))]


def test_meminfo_says_what_ss_shows(it):
    sock = it.socket(OUR_IP, 9000)
    sock.setsockopt(SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
    fill(it, 18, 3)
    rmem, rcvbuf, *_, drops = struct.unpack("9I", sock.getsockopt(SOL_SOCKET, SO_MEMINFO, 36))
    assert (rmem, rcvbuf, drops) == (3 * 832, 2 << 20, 0)


def test_datagrams_come_in_the_order_in_which_they_were_queued(it):
    sock = it.socket(OUR_IP, 9000)
    sent = [i.to_bytes(2) for i in range(200)]
    got = []
    for i, data in enumerate(sent):
        it.receive(udp_frame(data))
        if i % 3 == 0:
            got.append(sock.recv(10))
    got += [sock.recv(10) for _ in range(sock.info["queued"])]
    assert got == sent


class mallinfo2(ctypes.Structure):
    """What the C library has handed out. [<malloc.h>]"""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keep"),
        )
    )


def test_an_idle_socket_takes_no_fd_and_less_than_two_kib(it):
    look = ctypes.CDLL(None).mallinfo2
    look.restype = mallinfo2
    gc.collect()
    fds, before = len(os.listdir("/proc/self/fd")), look().uordblks
    sockets = [it.socket("", 0) for _ in range(20000)]
    memory = (look().uordblks - before) / len(sockets)
    assert memory + sys.getsizeof(sockets[0]) < 2048
    assert len(os.listdir("/proc/self/fd")) <= fds
