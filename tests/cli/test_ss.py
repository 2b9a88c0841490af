"""``ss``: which sockets, which columns, beside iproute2's own output."""

import os
import re

import pytest

from tests.fakehost import udp_socket


@pytest.fixture
def two(host):
    host.socks = [
        udp_socket(5000, rmem=832, drops=3, queued=1, inode=7),
        udp_socket(45272, peer=("10.0.0.1", 53), inode=8),
    ]
    return host


def test_unconnected_sockets_need_a_or_l(two, good):
    assert [row["local"]["port"] for row in good("ss", "-u", "--json")] == [45272]
    assert [row["local"]["port"] for row in good("ss", "-ul", "--json")] == [5000]
    assert [row["local"]["port"] for row in good("ss", "-ua", "--json")] == [5000, 45272]
    assert [row["netid"] for row in good("ss", "-a", "--json")] == ["udp", "udp"]


def test_columns_are_iproute2s(two, good):
    assert good("ss", "-uan") == (
        "State  Recv-Q Send-Q Local Address:Port  Peer Address:Port Process\n"
        "UNCONN 832    0           10.0.0.2:5000       0.0.0.0:*\n"
        "ESTAB  0      0           10.0.0.2:45272     10.0.0.1:53\n"
    )


def test_netid_is_shown_when_no_kind_is_asked_for(two, good):
    head, *lines = good("ss", "-an").splitlines()
    assert head.startswith("Netid State ")
    assert lines[0].split() == ["udp", "UNCONN", "832", "0", "10.0.0.2:5000", "0.0.0.0:*"]


def test_memory_stands_below_as_skmem(two, good):
    lines = good("ss", "-uanmH").splitlines()
    assert lines[1] == "\t skmem:(r832,rb212992,t0,tb212992,f0,w0,o0,bl0,d3)"
    assert len(lines) == 4
    (line, _) = good("ss", "-uanmHO").splitlines()
    assert line.endswith("0.0.0.0:* skmem:(r832,rb212992,t0,tb212992,f0,w0,o0,bl0,d3)")


def test_ports_have_names_unless_numeric(two, good):
    assert ":domain" in good("ss", "-u")
    assert ":53" in good("ss", "-un")


def test_extended_process_and_info(two, good):
    (first, below, *_) = good("ss", "-uanepiH").splitlines()
    assert re.search(rf'users:\(\("[^"]+",pid={os.getpid()}\)\)', first)
    assert "ino:7 sk:7 <->" in first
    assert below == "\t queued:1 drops:3"


def test_no_socket_is_only_the_heading(host, good):
    assert good("ss", "-uan") == (
        "State Recv-Q Send-Q Local Address:Port Peer Address:Port Process\n"
    )
    assert good("ss", "-uanH") == ""


def test_json_is_a_list_of_objects(two, good):
    row = good("ss", "-ula", "--json")[0]
    assert row["local"] == {"address": "10.0.0.2", "port": 5000}
    assert row["skmem"]["rcv_buf"] == 212992
    assert row["skmem"]["drops"] == 3


def test_a_kind_can_be_asked_for(host, good):
    host.socks = [udp_socket(9) | {"proto": kind} for kind in ("udp", "raw", "icmp", "packet")]

    def shown(*flags):
        return [row["netid"] for row in good("ss", "-a", "--json", *flags)]

    assert shown() == ["udp", "raw", "icmp", "packet"]
    assert shown("-u") == ["udp"]
    assert shown("-w") == ["raw", "icmp"]
    assert shown("-u", "--packet") == ["udp", "packet"]
