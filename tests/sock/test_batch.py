"""Many datagrams a call, by the rules of recvfrom and sendto, and of recvmmsg and sendmmsg."""

import errno
import ipaddress
import struct
import threading
from array import array

import pytest

from netstack.socket import (
    AF_INET,
    MSG_DONTWAIT,
    MSG_PEEK,
    MSG_TRUNC,
    SHUT_RD,
    SO_RCVBUF,
    SOCK_RAW,
    SOL_SOCKET,
    socket,
)
from tests.frames import OUR_IP, arp_reply
from tests.memory_host import memory_host
from tests.sock.rig import PEER_IP, rig, udp_frame

RECORD = struct.Struct("=IIIHH")
PEER = (PEER_IP, 4000)


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def it(request):
    with rig(request.param) as made:
        yield made


def numbered(count: int, size: int = 4, **fields: int) -> list[bytes]:
    return [udp_frame(i.to_bytes(size), **fields) for i in range(count)]


def bound(it, port: int = 9000):
    sock = it.socket("", port)
    sock.setblocking(False)
    return sock


def test_recv_batch_gives_what_is_queued_in_order(it):
    sock = bound(it)
    it.receive(*numbered(200))
    assert sock.recv_batch(150) == [(i.to_bytes(4), PEER) for i in range(150)]
    assert it.count("UdpInDatagrams") == 150
    assert sock.recv_batch(1000) == [(i.to_bytes(4), PEER) for i in range(150, 200)]
    assert it.count("UdpInDatagrams") == it.fate("SKB_DELIVERED") == 200
    assert sock.info["rmem"] == 0


@pytest.mark.parametrize("n", [1, 31, 32, 33, 63, 64, 65, 128])
def test_recv_batch_gives_no_more_than_n(it, n):
    sock = bound(it)
    it.receive(*numbered(130))
    got = []
    while len(got) < 130:
        part = sock.recv_batch(n)
        assert len(part) == min(n, 130 - len(got))
        got += part
    assert [int.from_bytes(data) for data, _ in got] == list(range(130))


def test_recv_batch_keeps_the_tuple_of_a_peer(it):
    sock = bound(it)
    it.receive(*numbered(3))
    (_, first), (_, second), (_, third) = sock.recv_batch(3)
    assert first is second is third


def test_recv_batch_tells_peers_apart(it):
    sock = bound(it)
    it.receive(*[udp_frame(b"", sport=4000 + i) for i in range(100)])
    assert [port for _, (_, port) in sock.recv_batch(100)] == list(range(4000, 4100))


def test_recv_batch_cuts_each_to_bufsize(it):
    sock = bound(it)
    it.receive(udp_frame(b"abcdef"), udp_frame(b"xy"))
    assert [data for data, _ in sock.recv_batch(9, 3)] == [b"abc", b"xy"]
    it.receive(udp_frame(b"abcdef"))
    assert sock.recv_batch(9, 0) == [(b"", PEER)]


def test_a_bad_checksum_within_a_batch_is_dropped(it):
    sock = bound(it)
    bad = udp_frame(b"bad", check=1)
    it.receive(udp_frame(b"1"), bad, bad, udp_frame(b"2"), bad)
    assert [data for data, _ in sock.recv_batch(9)] == [b"1", b"2"]
    assert it.count("UdpInCsumErrors") == 3
    assert it.count("UdpInDatagrams") == 2


def test_an_empty_queue_is_that_of_recvfrom(it):
    sock = bound(it)
    buffer, records = bytearray(100), bytearray(160)
    with pytest.raises(BlockingIOError):
        sock.recv_batch(9)
    with pytest.raises(BlockingIOError):
        sock.recv_batch_into(buffer, records)
    sock.settimeout(0.01)
    with pytest.raises(TimeoutError, match="timed out"):
        sock.recv_batch(9)
    with pytest.raises(TimeoutError, match="timed out"):
        sock.recv_batch_into(buffer, records)
    sock.settimeout(None)
    with pytest.raises(BlockingIOError):
        sock.recv_batch(9, flags=MSG_DONTWAIT)


def test_after_shutdown_no_more_comes(it):
    sock = it.socket("", 9000)
    sock.connect(PEER)
    sock.shutdown(SHUT_RD)
    assert sock.recv_batch(9) == []
    assert sock.recv_batch_into(bytearray(9), bytearray(16)) == 0


def test_a_blocked_batch_takes_what_the_first_frame_brings():
    with rig() as it:
        sock = it.socket("", 9000)
        sock.settimeout(60)
        got = []
        reader = threading.Thread(target=lambda: got.extend(sock.recv_batch(9)))
        reader.start()
        while not sock.info["sleeping"]:
            pass
        it.receive(udp_frame(b"hello"))
        reader.join()
        assert got == [(b"hello", PEER)]


def test_a_pending_error_comes_first_and_once(it):
    sock = it.socket("", 9000)
    sock.setblocking(False)
    sock.connect(("127.0.0.1", 9))
    sock.send(b"nobody listens there")
    it.settle()
    with pytest.raises(ConnectionRefusedError):
        sock.recv_batch(9)
    with pytest.raises(BlockingIOError):
        sock.recv_batch(9)


def test_what_a_batch_can_not_do_is_said(it):
    sock = bound(it)
    for n in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            sock.recv_batch(n)
    with pytest.raises(ValueError, match="at least 1"):
        sock.recv_batch_into(bytearray(9), bytearray(15))
    with pytest.raises(ValueError, match="negative"):
        sock.recv_batch(1, -1)
    with pytest.raises(ValueError, match="multiple of 4"):
        sock.recv_batch_into(bytearray(9), memoryview(bytearray(33))[1:])
    with pytest.raises(OSError, match="not supported") as caught:
        sock.recv_batch(1, flags=MSG_PEEK)
    assert caught.value.errno == errno.EOPNOTSUPP
    for buffers in ((b"", bytearray(16)), (bytearray(9), b"")):
        with pytest.raises((TypeError, BufferError)):
            sock.recv_batch_into(*buffers)
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.recv_batch(1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.send_batch([])


# ---- into buffers


def test_records_say_where_each_datagram_lies_and_who_sent_it(it):
    sock = bound(it)
    it.receive(udp_frame(b"one"), udp_frame(b"", sport=5), udp_frame(b"three"))
    buffer, records = bytearray(100), bytearray(10 * RECORD.size)
    assert sock.recv_batch_into(buffer, records) == 3
    assert buffer[:8] == b"onethree"
    peer = int(ipaddress.IPv4Address(PEER_IP))
    assert list(RECORD.iter_unpack(records[:48])) == [
        (0, 3, peer, 4000, 0),
        (3, 0, peer, 5, 0),
        (3, 5, peer, 4000, 0),
    ]
    assert records[48:] == bytes(7 * 16)
    assert it.count("UdpInDatagrams") == it.fate("SKB_DELIVERED") == 3


def test_an_array_of_numbers_takes_the_records(it):
    sock = bound(it)
    it.receive(*numbered(3))
    records = array("I", bytes(16 * 3))
    assert sock.recv_batch_into(bytearray(100), records) == 3
    assert records[0::4].tolist() == [0, 4, 8]
    assert records[1::4].tolist() == [4, 4, 4]


def test_a_batch_ends_where_the_buffer_does(it):
    sock = bound(it)
    it.receive(*numbered(5))
    buffer, records = bytearray(10), bytearray(16 * 9)
    assert [sock.recv_batch_into(buffer, records) for _ in range(3)] == [2, 2, 1]
    assert int.from_bytes(buffer[:4]) == 4


def test_a_batch_ends_where_the_records_do(it):
    sock = bound(it)
    it.receive(*numbered(5))
    records = bytearray(16 * 3 + 15)
    assert [sock.recv_batch_into(bytearray(100), records) for _ in range(2)] == [3, 2]


def test_a_datagram_that_no_buffer_holds_is_cut_and_marked(it):
    sock = bound(it)
    it.receive(udp_frame(b"too long"), udp_frame(b"short"))
    buffer, records = bytearray(5), bytearray(16 * 9)
    assert sock.recv_batch_into(buffer, records) == 1
    assert buffer == b"too l"
    assert RECORD.unpack_from(records)[1::3] == (5, MSG_TRUNC)
    assert sock.recv_batch_into(buffer, records) == 1
    assert (buffer, RECORD.unpack_from(records)[4]) == (b"short", 0)


def test_memory_is_given_back_within_a_long_batch():
    """A reader of a thousand at once leaves no more charged than one that takes them singly."""
    with memory_host() as it:
        sock = it.socket(OUR_IP, 9000)
        sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 1 << 20)
        it.put(*[udp_frame(b"x")] * 600)
        assert len(sock.recv_batch(600)) == 600
        assert sock.info["rmem"] == 0
        assert sock.frames == 0


# ---- sending


def open_pair(it):
    """Give a bound receiver and a sender, both at 127.0.0.1."""
    receiver, sender = it.socket("127.0.0.1", 9000), it.socket("127.0.0.1", 9001)
    receiver.setblocking(False)
    return receiver, sender


def test_send_batch_sends_each_to_its_address(it):
    receiver, sender = open_pair(it)
    other = it.socket("127.0.0.1", 9002)
    other.setblocking(False)
    to = [receiver.getsockname(), other.getsockname()]
    assert sender.send_batch((b"%d" % i, to[i // 3 & 1]) for i in range(12)) == 12
    it.settle()
    peer = sender.getsockname()
    assert receiver.recv_batch(99) == [(b"%d" % i, peer) for i in (0, 1, 2, 6, 7, 8)]
    assert other.recv_batch(99) == [(b"%d" % i, peer) for i in (3, 4, 5, 9, 10, 11)]
    assert it.count("UdpOutDatagrams") == 12


def test_send_batch_without_address_sends_to_the_peer(it):
    receiver, sender = open_pair(it)
    sender.connect(receiver.getsockname())
    assert sender.send_batch([(b"1", None), [bytearray(b"2"), None]] * 100) == 200
    it.settle()
    assert [data for data, _ in receiver.recv_batch(999)] == [b"1", b"2"] * 100


def test_a_batch_received_can_be_sent_back(it):
    receiver, sender = open_pair(it)
    for _ in range(3):
        sender.send_batch([(b"ping%d" % i, receiver.getsockname()) for i in range(9)])
        it.settle()
        assert receiver.send_batch(receiver.recv_batch(99)) == 9
        it.settle()
        assert [data for data, _ in sender.recv_batch(9)] == [b"ping%d" % i for i in range(9)]


def test_records_received_can_be_sent_back(it):
    receiver, sender = open_pair(it)
    sender.send_batch([(bytes([65 + i]) * i, receiver.getsockname()) for i in range(100)])
    it.settle()
    buffer, records = bytearray(10000), bytearray(16 * 128)
    n = receiver.recv_batch_into(buffer, records)
    assert n == 100
    assert receiver.send_batch_from(buffer, records, n) == 100
    it.settle()
    back = sender.recv_batch(999)
    assert back == [(bytes([65 + i]) * i, receiver.getsockname()) for i in range(100)]


def test_the_first_message_that_fails_raises_a_later_one_ends_the_batch(it):
    receiver, sender = open_pair(it)
    to = receiver.getsockname()
    messages = [(b"good", to), (bytes(65508), to), (b"after", to)]
    assert sender.send_batch(messages) == 1
    with pytest.raises(OSError, match="Message too long") as caught:
        sender.send_batch(messages[1:])
    assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(OSError, match="Destination address required"):
        sender.send_batch([(b"", None)])
    with pytest.raises(OSError, match="Invalid argument"):
        sender.send_batch([(b"", ("127.0.0.1", 0))])
    it.settle()
    assert receiver.recv_batch(9) == [(b"good", sender.getsockname())]


@pytest.mark.parametrize("wrong", [5, (b"",), (5, None), (b"", 5), (b"", ("127.0.0.1", 70000))])
def test_a_message_that_is_none_raises_when_it_is_first(it, wrong):
    receiver, sender = open_pair(it)
    good = (b"good", receiver.getsockname())
    assert sender.send_batch([good] * 70 + [wrong]) == 70
    with pytest.raises((TypeError, OverflowError)):
        sender.send_batch([wrong, good])
    it.settle()
    assert len(receiver.recv_batch(99)) == 70


def test_records_beyond_the_buffer_are_refused_before_anything_is_sent(it):
    receiver, sender = open_pair(it)
    to = int(ipaddress.IPv4Address("127.0.0.1")), 9000, 0
    records = RECORD.pack(0, 4, *to) + RECORD.pack(2, 3, *to)
    with pytest.raises(ValueError, match="record 1 says 3 bytes at 2, the buffer has 4"):
        sender.send_batch_from(b"data", records)
    with pytest.raises(ValueError, match="0 to 2"):
        sender.send_batch_from(b"data", records, 3)
    assert sender.send_batch_from(b"data", records, 0) == 0
    assert sender.send_batch_from(b"data", records, 1) == 1
    it.settle()
    assert receiver.recv_batch(9) == [(b"data", sender.getsockname())]


def test_record_without_address_goes_to_the_peer(it):
    receiver, sender = open_pair(it)
    sender.connect(receiver.getsockname())
    assert sender.send_batch_from(b"data", RECORD.pack(1, 2, 0, 0, 0)) == 1
    it.settle()
    assert receiver.recv(9) == b"at"


def test_a_batch_waits_for_the_neighbour_as_one_datagram_does():
    with memory_host() as it:
        sock = it.socket(OUR_IP, 9000)
        assert sock.send_batch([(b"%d" % i, (PEER_IP, 7)) for i in range(3)]) == 3
        (asked,) = it.put()
        assert asked[12:14] == b"\x08\x06"
        assert [frame[42:43] for frame in it.put(arp_reply())] == [b"0", b"1", b"2"]


def test_a_host_without_threads_is_not_polled_by_its_sockets(it):
    sock = bound(it)
    assert sock.poll_cpu() is False
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.poll_cpu()


def test_a_raw_socket_sends_batches_too(it):
    receiver = it.socket("127.0.0.1", 9000)
    receiver.setblocking(False)
    datagram = struct.pack("!4H", 5, 9000, 10, 0) + b"hi"
    with socket(it, AF_INET, SOCK_RAW, 17) as raw:
        assert raw.send_batch([(datagram, ("127.0.0.1", 0))] * 2) == 2
        it.settle()
    assert receiver.recv_batch(9) == [(b"hi", ("127.0.0.1", 5))] * 2
