"""Packets for many: which address of ours their sender knows. Linux 6.18 was asked for each row."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from netstack.proto import _route_mc
from netstack.proto.route import RTN, Route
from tests.proto.stack import ADDR, ETH0, Stack, number

MORE = ["10.0.0.3/24", "20.0.0.5/16", "10.0.0.130/25"]
ROUTES = [
    Route(IPv4Network("30.0.0.0/8"), RTN.UNICAST, ETH0, IPv4Address("20.0.0.1")),
    Route(
        IPv4Network("31.0.0.0/8"),
        RTN.UNICAST,
        ETH0,
        IPv4Address("10.0.0.1"),
        IPv4Address("10.0.0.3"),
    ),
    Route(IPv4Network("32.0.0.0/8"), RTN.UNREACHABLE, ETH0),
    Route(IPv4Network("0.0.0.0/0"), RTN.UNICAST, ETH0, IPv4Address("20.0.0.1")),
]
KNOWN = {  # to whom came from there
    "10.0.0.1": ADDR,
    "10.0.0.200": "10.0.0.130",
    "20.0.7.7": "20.0.0.5",
    "30.1.1.1": "20.0.0.5",
    "31.1.1.1": "10.0.0.3",
    "32.1.1.1": ADDR,
    "8.8.8.8": "20.0.0.5",
}


@pytest.fixture
def host() -> Stack:
    """Give a host with four addresses in three subnets."""
    host = Stack()
    for address in MORE:
        host.inet.routes.add_address(ETH0, address)
    host.inet.routes.add_routes(ROUTES)
    return host


def spec_dst(host: Stack, dst: str, src: str) -> str:
    return str(IPv4Address(_route_mc.spec_dst(host.net, number(dst), number(src), ETH0)))


@pytest.mark.parametrize("dst", ["255.255.255.255", "239.1.1.1", "10.0.0.255", "20.0.255.255"])
def test_a_sender_to_many_knows_the_address_that_we_would_answer_from(
    host: Stack, dst: str
) -> None:
    assert {src: spec_dst(host, dst, src) for src in KNOWN} == KNOWN


@pytest.mark.parametrize("dst", [ADDR, "10.0.0.3", "10.0.0.130"])
def test_a_sender_to_us_knows_the_address_that_he_wrote_to(host: Stack, dst: str) -> None:
    assert {src: spec_dst(host, dst, src) for src in KNOWN} == dict.fromkeys(KNOWN, dst)


def test_who_has_no_address_knows_the_devices_first(host: Stack) -> None:
    for dst in ("255.255.255.255", "0.0.0.0"):
        assert spec_dst(host, dst, "0.0.0.0") == ADDR


def test_a_sender_in_127_knows_ours_of_there(host: Stack) -> None:
    assert spec_dst(host, "255.255.255.255", "127.86.0.1") == "127.0.0.1"
