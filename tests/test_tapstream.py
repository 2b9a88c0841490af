"""Frames on their way to a terminal: nothing is lost, reordered, or forgotten while idle."""

import os
import select
import socket
import time

import pytest

from netstack.capture import Direction, Stats
from netstack.tapstream import MOST, RemoteTap, TapStream
from tests.fakehost import FakeHost


def frame(number, sent=False, size=60):
    """Return a record as ``PacketTap.drain`` gives it."""
    return (1000 + number, number, 2, sent, size, bytes([number % 256]) * size)


@pytest.fixture
def host():
    return FakeHost()


@pytest.fixture
def stream(host):
    stream = TapStream(host, None, 262144)
    yield stream
    stream.close()


def readable(stream):
    return bool(select.select([stream.fileno()], [], [], 0)[0])


def everything(stream):
    parts = []
    while chunk := stream.read():
        parts.append(chunk)
    return b"".join(parts)


def received(data, names=None):
    """Decode bytes as the other end does."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        tap = RemoteTap(theirs, names or {"2": "tap0"}, b"")
        return [record for record in tap if record is not None], tap.stats()


def test_records_arrive_as_they_were(host, stream):
    host.taps[0].put(frame(1), frame(2, sent=True, size=1514))
    (first, second), stats = received(everything(stream))
    assert (first.data, first.wire_len, first.frame_id) == (bytes([1]) * 60, 60, 1)
    assert (first.ifname, first.direction) == ("tap0", Direction.IN)
    assert (second.direction, len(second.data)) == (Direction.OUT, 1514)
    assert stats == Stats(2, 0)


def test_time_is_the_calendars(host, stream):
    now = host.net.now()
    host.taps[0].put((now, 1, 2, False, 4, b"data"))
    ((record,), _) = received(everything(stream))
    assert abs(record.ts_ns - time.time_ns()) < 5e9


def test_more_than_a_chunk_comes_in_order(host, stream):
    host.taps[0].put(*(frame(n) for n in range(3 * MOST + 7)))
    records, _ = received(everything(stream))
    assert [record.frame_id or 0 for record in records] == list(range(3 * MOST + 7))


def test_losses_are_told_with_the_next_record(host, stream):
    host.taps[0].put(frame(1))
    data = everything(stream)
    host.taps[0].put(frame(2), lost=5)
    records, stats = received(data + everything(stream))
    assert [record.dropped for record in records] == [0, 5]
    assert stats == Stats(7, 5)


def test_the_fd_sleeps_when_there_is_nothing_and_wakes_with_the_next(host, stream):
    assert stream.read() == b""
    assert not readable(stream)
    host.taps[0].put(frame(1))
    assert readable(stream)
    assert stream.read()
    assert readable(stream), "only an empty read may put it to sleep"
    assert stream.read() == b""
    assert not readable(stream)
    host.taps[0].put(frame(2))
    assert readable(stream)


def test_what_comes_while_the_fd_is_cleared_is_not_forgotten(host, stream, monkeypatch):
    assert stream.read() == b""
    clear = os.eventfd_read

    def late(fd):
        try:
            return clear(fd)
        finally:
            host.taps[0].put(frame(1))

    host.taps[0].put()
    monkeypatch.setattr(os, "eventfd_read", late)
    assert stream.read()
    monkeypatch.setattr(os, "eventfd_read", clear)
    host.taps[0].put(frame(2))
    assert readable(stream)


def test_the_reader_flushes_before_it_waits():
    ours, theirs = socket.socketpair()
    host = FakeHost()
    stream = TapStream(host, None, 100)
    with ours, theirs:
        host.taps[0].put(frame(1), frame(2))
        ours.sendall(everything(stream))
        records = iter(RemoteTap(theirs, {"2": "tap0"}, b""))
        assert next(records).frame_id == 1
        assert next(records).frame_id == 2
        assert next(records) is None
    stream.close()


def test_what_was_received_with_the_answer_comes_first(host, stream):
    host.taps[0].put(frame(1))
    data = everything(stream)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data[10:])
        ours.close()
        records = [r for r in RemoteTap(theirs, {}, data[:10]) if r is not None]
    assert [record.frame_id for record in records] == [1]


def test_a_host_that_ends_in_a_chunk_ends_the_stream(host, stream):
    host.taps[0].put(frame(1))
    records, _ = received(everything(stream)[:-1])
    assert records == []
