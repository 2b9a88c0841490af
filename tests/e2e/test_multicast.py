"""Groups with the real kernel as sender, as member, and as a bridge that snoops."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

import netstack
from netstack import procfs
from tests.e2e.conftest import HOST, PEER, run
from tests.netns import fresh_netns, link_up

pytestmark = pytest.mark.tap

GROUP, PORT = "239.1.2.3", 5000
IP = socket.IPPROTO_IP


def mreq(address: str) -> bytes:
    return socket.inet_aton(GROUP) + socket.inet_aton(address)


def until(what: Callable[[], bool], seconds: float = 10) -> bool:
    """Ask again and again until it is so."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "slow"], indirect=True)
def test_datagrams_go_both_ways(live):
    with (
        live.socket() as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        for sock, address in ((ours, HOST), (theirs, PEER)):
            sock.bind(("", PORT))
            sock.settimeout(10)
            sock.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, mreq(address))
            sock.setsockopt(IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
            sock.setsockopt(IP, socket.IP_MULTICAST_LOOP, 0)
        for i in range(20):
            theirs.sendto(b"to ours %d" % i, (GROUP, PORT))
            assert ours.recvfrom(100) == (b"to ours %d" % i, (PEER, PORT))
            ours.sendto(b"to theirs %d" % i, (GROUP, PORT))
            assert theirs.recvfrom(100) == (b"to theirs %d" % i, (HOST, PORT))


def groups_on_the_bridge() -> set[str]:
    rows = json.loads(run("bridge", "-j", "mdb", "show", "dev", "br0").stdout)
    return {row["grp"] for row in rows[0]["mdb"] if row["port"] == "tap0"} if rows else set()


@pytest.fixture(params=[2, 3])
def bridged(request: pytest.FixtureRequest) -> Iterator[netstack.Host]:
    """Give a host on a port of a bridge that snoops and queries in a version of IGMP."""
    with fresh_netns():
        options = "mcast_snooping 1 mcast_querier 1 mcast_last_member_interval 10 "
        options += f"mcast_query_response_interval 50 mcast_igmp_version {request.param}"
        run("ip", "link", "add", "br0", "type", "bridge", *options.split())
        with netstack.up("tap0", addr=f"{HOST}/24", control=False) as host:
            run("ip", "link", "set", "tap0", "master", "br0")
            link_up("br0")
            version = f"V{request.param}"
            assert until(lambda: version in procfs.read(host, "net/igmp"))
            yield host


def test_a_bridge_that_snoops_sees_who_joins_and_who_leaves(bridged):
    with bridged.socket() as sock:
        sock.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, mreq(HOST))
        assert until(lambda: GROUP in groups_on_the_bridge())
    assert until(lambda: GROUP not in groups_on_the_bridge())
