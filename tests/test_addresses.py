"""Names, addresses and sizes are refused with the words that mend them."""

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.addresses import (
    check_mtu,
    check_name,
    check_txqueuelen,
    default_mac,
    free_subnet,
    parse_addresses,
)
from netstack.errors import UsageError, hint_of


@pytest.mark.parametrize("name", ["tap0", "a", "x" * 15, "tap-0_1.2", "täp"])
def test_names_the_kernel_takes_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("", "'' has 0 bytes; 1 to 15", "netstack up tap0"),
        ("x" * 16, "has 16 bytes", f"netstack up {'x' * 15}"),
        ("ä" * 8, "has 16 bytes", "netstack up tap0"),
        ("tap/0", "contains '/'", "netstack up tap0"),
        ("tap 0", "contains ' '", "netstack up tap0"),
        ("tap%d", "contains '%'", "netstack up tapd"),
        ("eth0:1", "contains ':'", "netstack up eth01"),
        ("tap\n0", r"contains '\\n'", "netstack up tap0"),
        ("tap\0", r"contains '\\x00'", "netstack up tap"),
        ("..", "contains '..'", "netstack up tap0"),
    ],
)
def test_bad_name_is_refused_with_one_that_works(name: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_name(name)
    assert hint_of(caught.value) == hint
    check_name(hint.removeprefix("netstack up "))


@pytest.mark.parametrize("mtu", [68, 1500, 9216])
def test_mtu_in_range_is_taken(mtu: int) -> None:
    assert check_mtu(mtu) == mtu


@pytest.mark.parametrize(
    ("mtu", "hint"),
    [(67, "--mtu 1500"), (9217, "--mtu 9216"), (70000, "--mtu 9216"), (-1, "--mtu 1500")],
)
def test_mtu_out_of_range_names_the_range(mtu: int, hint: str) -> None:
    with pytest.raises(UsageError, match=f"mtu {mtu} is out of range; 68 to 9216") as caught:
        check_mtu(mtu)
    assert hint_of(caught.value) == hint


def test_queue_length_out_of_range_names_the_range() -> None:
    assert check_txqueuelen(1) == 1
    for frames in (0, -1, 65537):
        with pytest.raises(UsageError, match=f"{frames} is out of range; 1 to 65536"):
            check_txqueuelen(frames)


def test_default_mac_is_stable_local_unicast_and_differs_by_name_and_end() -> None:
    assert default_mac("tap0") == default_mac("tap0")
    macs = {default_mac(f"tap{i}", end) for i in range(100) for end in ("host", "kernel")}
    assert len(macs) == 200
    for mac in macs:
        assert re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", mac)
        assert int(mac[:2], 16) & 3 == 2  # locally administered, not multicast


@pytest.mark.parametrize(
    ("addr", "peer", "expected"),
    [
        ("10.0.0.2/24", None, "10.0.0.1/24"),
        ("10.0.0.1/24", None, "10.0.0.2/24"),
        ("10.0.0.5/30", None, "10.0.0.6/30"),
        ("10.0.0.2/31", None, "10.0.0.3/31"),
        ("1.0.0.1/7", None, "1.0.0.2/7"),
        ("2.0.0.1/1", None, "1.0.0.1/1"),
        ("10.0.0.3/31", None, "10.0.0.2/31"),
        ("10.0.0.2/24", "10.0.0.77", "10.0.0.77/24"),
        ("10.0.0.2/24", "10.0.0.77/24", "10.0.0.77/24"),
        ("10.0.0.2/255.255.255.0", "10.0.0.9", "10.0.0.9/24"),
        ("10.0.0.2/24", IPv4Address("10.0.0.3"), "10.0.0.3/24"),
        ("10.0.0.2/24", IPv4Interface("10.0.0.3/24"), "10.0.0.3/24"),
        (IPv4Interface("192.168.7.2/16"), None, "192.168.0.1/16"),
    ],
)
def test_addresses_and_default_peer(
    addr: str | IPv4Interface, peer: str | IPv4Address | IPv4Interface | None, expected: str
) -> None:
    host, other = parse_addresses(addr, peer)
    assert (host, other) == (IPv4Interface(addr), IPv4Interface(expected))


@pytest.mark.parametrize(
    ("addr", "peer", "message", "hint"),
    [
        ("10.0.0.2", None, "'10.0.0.2' has no prefix length", "--addr 10.0.0.2/24"),
        (
            "10.0.0.2/24",
            "10.0.0.2",
            "10.0.0.2 is given to both",
            "--addr 10.0.0.2/24 --peer 10.0.0.1",
        ),
        (
            "10.0.0.2/24",
            "10.0.1.1",
            "10.0.1.1 is not in 10.0.0.0/24",
            "--addr 10.0.0.2/24 --peer 10.0.0.1",
        ),
        (
            "10.0.0.2/24",
            "10.0.0.1/16",
            "disagree about the prefix",
            "--addr 10.0.0.2/24 --peer 10.0.0.1",
        ),
        (
            "10.0.0.1/24",
            "10.0.0.0",
            "is the network address",
            "--addr 10.0.0.1/24 --peer 10.0.0.2",
        ),
        (
            "10.0.0.2/24",
            "10.0.0.255",
            "is the broadcast address",
            "--addr 10.0.0.2/24 --peer 10.0.0.1",
        ),
        ("10.0.0.0/24", None, "is the network address of 10.0.0.0/24", "--addr 10.0.0.1/24"),
        ("10.0.0.255/24", None, "is the broadcast address", "--addr 10.0.0.1/24"),
        ("10.0.0.3/30", None, "is the broadcast address", "--addr 10.0.0.1/30"),
        ("10.0.0.2/32", None, "no room for a peer", "--addr 10.0.0.2/24"),
        ("10.0.0.0/32", None, "no room for a peer", "--addr 10.0.0.1/24"),
        ("10.0.0.2/0", None, "no room for a peer", "--addr 10.0.0.2/24"),
        ("10.0.0.2/33", None, "prefix '33'", "--addr 10.0.0.2/24"),
        ("10.0.0.2/", None, "prefix ''", "--addr 10.0.0.2/24"),
        ("10.0.0.2/x", None, "prefix 'x'", "--addr 10.0.0.2/24"),
        ("10.0.0.2/24", "10.0.0.1/x", "prefix 'x'", "--peer 10.0.0.1"),
        ("10.0.0/24", None, "'10.0.0' is no IPv4 address", "--addr 10.0.0.2/24"),
        ("10.0.0.256/24", None, "'10.0.0.256' is no IPv4", "--addr 10.0.0.2/24"),
        ("", None, "'' is no IPv4", "--addr 10.0.0.2/24"),
        ("fd00::2/64", None, "IPv6", "--addr 10.0.0.2/24"),
        ("fd00::2", None, "IPv6", "--addr 10.0.0.2/24"),
        ("10.0.0.2/24", "gateway", "'gateway' is no IPv4", "--peer 10.0.0.1"),
        ("127.0.0.2/8", None, "cannot be the address of a host", "--addr 10.0.0.2/24"),
        ("0.0.0.2/24", None, "cannot be the address of a host", "--addr 10.0.0.2/24"),
        ("224.0.0.2/24", None, "cannot be the address of a host", "--addr 10.0.0.2/24"),
        ("255.255.255.254/24", None, "cannot be the address of a host", "--addr 10.0.0.2/24"),
    ],
)
def test_bad_addresses_are_refused_with_ones_that_work(
    addr: str, peer: str | None, message: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_addresses(addr, peer)
    assert hint_of(caught.value) == hint
    words = dict(zip(hint.split()[::2], hint.split()[1::2], strict=True))
    parse_addresses(words.get("--addr", addr), words.get("--peer"))


@given(st.text("0123456789./:x ", max_size=20), st.none() | st.text(max_size=20))
def test_noise_gives_addresses_or_a_usage_error_with_a_hint(
    addr: str, peer: str | None
) -> None:
    try:
        host, other = parse_addresses(addr, peer)
        good = host.network == other.network
    except UsageError as error:
        good = bool(hint_of(error))
    assert good


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_every_hint_for_a_host_address_works(number: int, prefix: int) -> None:
    try:
        host, peer = parse_addresses(f"{IPv4Address(number)}/{prefix}")
    except UsageError as error:
        host, peer = parse_addresses(hint_of(error).removeprefix("--addr "))
    assert peer.ip in host.network
    assert peer.ip != host.ip


def test_free_subnet_overlaps_nothing_in_use() -> None:
    assert str(free_subnet([])) == "10.0.0.0/24"
    assert str(free_subnet([IPv4Network("10.0.0.0/23")])) == "10.0.2.0/24"
    assert str(free_subnet([IPv4Network("10.0.0.0/8")])) == "172.16.0.0/24"
    assert str(free_subnet([IPv4Network("0.0.0.0/0")])) == "198.18.0.0/24"
