"""Tunables that belong to no stage's file change what their names say."""

from __future__ import annotations

import re
import socket
import struct

import pytest

from netstack.config import TUNABLES
from netstack.errors import UsageError, hint_of
from netstack.socket import SO_RCVBUFFORCE, SO_TIMESTAMPNS
from tests.frames import udp
from tests.memory_host import memory_host

SOL_SOCKET = socket.SOL_SOCKET


@pytest.mark.parametrize("row", TUNABLES, ids=lambda row: row.key)
def test_what_is_out_of_range_is_refused_by_a_host_and_changes_nothing(row: object) -> None:
    with memory_host() as it:
        before = dict(it.host.config)
        for value in (row.low - 1, row.high + 1, "nonsense", ()):  # type: ignore[attr-defined]
            wrong = (value,) * len(row.fields)  # type: ignore[attr-defined]
            with pytest.raises(UsageError, match=re.escape("allowed")) as info:
                it.host.config[row.key] = wrong if value != () else ()  # type: ignore[attr-defined]
            assert hint_of(info.value).startswith("netstack sysctl ")
            assert dict(it.host.config) == before


def test_tstamp_prequeue_says_which_moment_counts() -> None:
    for prequeue in (1, 0):
        with memory_host() as it:
            it.host.config["net.core.netdev_tstamp_prequeue"] = prequeue
            receiver, sender = it.socket("127.0.0.1", 9000), it.socket()
            receiver.setsockopt(SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sender.sendto(b"x", ("127.0.0.1", 9000))
            queued = it.clock.ns
            it.clock.advance(1)
            it.host.run()
            ((_level, _kind, data),) = receiver.recvmsg(10, 100)[1]
            seconds, ns = struct.unpack("qq", data)
            stamped = seconds * 1_000_000_000 + ns
            assert stamped == queued if prequeue else stamped >= queued + 1_000_000_000


def test_without_the_fast_path_packets_go_through_the_seam() -> None:
    for fast in (1, 0):
        with memory_host() as it:
            it.meet()
            it.host.config["netstack.fast_path"] = fast
            before = it.host.seam.counters[0]
            receiver = it.socket("", 9000)
            it.put(udp(b"x"))
            assert receiver.recv(10) == b"x"
            assert it.host.seam.counters[0] - before == 1 - fast


def test_rmem_default_is_the_rcvbuf_of_a_new_socket() -> None:
    with memory_host() as it:
        it.host.config["net.core.rmem_default"] = 5000
        it.host.config["net.core.wmem_default"] = 6000
        sock = it.socket("", 9000)
        assert sock.getsockopt(SOL_SOCKET, socket.SO_RCVBUF) == 5000
        assert sock.getsockopt(SOL_SOCKET, socket.SO_SNDBUF) == 6000
        it.meet()
        it.put(*[udp(b"x")] * 10)
        assert sock.info["drops"] == 10 - 5000 // 832


def test_rmem_max_and_wmem_max_bound_what_is_asked_for() -> None:
    with memory_host() as it:
        it.host.config["net.core.rmem_max"] = 10_000
        it.host.config["net.core.wmem_max"] = 20_000
        sock = it.socket()
        for name in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(SOL_SOCKET, name, 1_000_000)
        assert sock.getsockopt(SOL_SOCKET, socket.SO_RCVBUF) == 20_000
        assert sock.getsockopt(SOL_SOCKET, socket.SO_SNDBUF) == 40_000
        sock.setsockopt(SOL_SOCKET, SO_RCVBUFFORCE, 1_000_000)
        assert sock.getsockopt(SOL_SOCKET, socket.SO_RCVBUF) == 2_000_000


def test_ipfrag_low_thresh_stays_below_high_thresh() -> None:
    """Linux too does nothing else with it."""
    with memory_host() as it:
        it.host.config["net.ipv4.ipfrag_low_thresh"] = 1000
        with pytest.raises(UsageError, match="above"):
            it.host.config["net.ipv4.ipfrag_high_thresh"] = 999
        it.host.config["net.ipv4.ipfrag_high_thresh"] = 1000
