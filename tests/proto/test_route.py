"""Which way a packet goes: longest prefix, sources, and the addresses that can't be."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack._counters import mib, skb_drop_reason
from netstack._net import Net
from netstack.driver._loopback import Loopback
from netstack.proto._fib import Fib
from netstack.proto.route import RTCF_BROADCAST, RTCF_LOCAL, RTCF_MULTICAST, RTN, Route
from tests.proto.stack import ADDR, ETH0, PEER, Stack, number, ping

ENETUNREACH, EHOSTUNREACH, EINVAL, EACCES = 101, 113, 22, 13
REASON = skb_drop_reason


@pytest.fixture
def host() -> Stack:
    """Give a host; which road it takes does not matter."""
    return Stack()


def add(host: Stack, prefix: str, gateway: str = "0.0.0.0", rtype: RTN = RTN.UNICAST) -> None:
    """Add a route through eth0."""
    host.inet.routes.add_route(Route(IPv4Network(prefix), rtype, ETH0, IPv4Address(gateway)))


def way(host: Stack, dst: str, src: str = "0.0.0.0") -> tuple[int, str, str]:
    """Give errno, next hop and source."""
    route = host.inet.routes.ip_route_output(number(dst), number(src))
    return route.error, str(IPv4Address(route.gateway)), str(IPv4Address(route.saddr))


# ---- output


def test_the_subnet_is_on_the_link(host: Stack) -> None:
    assert way(host, PEER) == (0, PEER, ADDR)


def test_without_a_route_the_network_is_unreachable(host: Stack) -> None:
    assert way(host, "8.8.8.8")[0] == ENETUNREACH


def test_a_default_route_takes_the_rest_to_the_gateway(host: Stack) -> None:
    add(host, "0.0.0.0/0", PEER)
    assert way(host, "8.8.8.8") == (0, PEER, ADDR)
    assert way(host, "10.0.0.7") == (0, "10.0.0.7", ADDR)


def test_the_longest_prefix_wins(host: Stack) -> None:
    for prefix, gateway in (
        ("0.0.0.0/0", "10.0.0.10"),
        ("20.0.0.0/8", "10.0.0.11"),
        ("20.1.0.0/16", "10.0.0.12"),
        ("20.1.1.1/32", "10.0.0.13"),
    ):
        add(host, prefix, gateway)
    hops = {dst: way(host, dst)[1] for dst in ("20.1.1.1", "20.1.1.2", "20.2.0.0", "21.0.0.0")}
    assert list(hops.values()) == ["10.0.0.13", "10.0.0.12", "10.0.0.11", "10.0.0.10"]


def test_our_own_address_goes_through_the_loopback(host: Stack) -> None:
    route = host.inet.routes.ip_route_output(number(ADDR))
    assert (route.type, route.flags, route.ifindex) == (RTN.LOCAL, RTCF_LOCAL, 1)
    assert route.mtu == 65536


def test_all_of_net_127_is_ours(host: Stack) -> None:
    assert host.inet.routes.ip_route_output(number("127.9.9.9")).type == RTN.LOCAL


def test_the_last_address_of_the_subnet_is_for_all(host: Stack) -> None:
    route = host.inet.routes.ip_route_output(number("10.0.0.255"))
    assert (route.type, route.flags) == (RTN.BROADCAST, RTCF_BROADCAST | RTCF_LOCAL)


def test_the_lowest_address_is_a_host(host: Stack) -> None:
    assert host.inet.routes.ip_route_output(number("10.0.0.0")).type == RTN.UNICAST


def test_limited_broadcast_needs_a_route_or_a_source(host: Stack) -> None:
    assert way(host, "255.255.255.255")[0] == ENETUNREACH
    route = host.inet.routes.ip_route_output(number("255.255.255.255"), number(ADDR))
    assert (route.error, route.type, route.ifindex) == (0, RTN.BROADCAST, ETH0)


def test_a_group_goes_out_of_the_source_s_device(host: Stack) -> None:
    route = host.inet.routes.ip_route_output(number("239.1.1.1"), number(ADDR))
    assert (route.type, route.flags, route.ifindex) == (RTN.MULTICAST, RTCF_MULTICAST, ETH0)


@pytest.mark.parametrize(
    ("src", "error"),
    [("10.0.0.77", ENETUNREACH), ("224.0.0.1", EINVAL), ("255.255.255.255", EINVAL)],
)
def test_a_source_that_is_not_ours_is_refused(host: Stack, src: str, error: int) -> None:
    assert way(host, PEER, src)[0] == error


def test_loopback_is_no_source_outside(host: Stack) -> None:
    assert way(host, PEER, "127.0.0.1")[0] == EINVAL


@pytest.mark.parametrize(
    ("rtype", "error"),
    [(RTN.BLACKHOLE, EINVAL), (RTN.UNREACHABLE, EHOSTUNREACH), (RTN.PROHIBIT, EACCES)],
)
def test_a_route_may_refuse(host: Stack, rtype: RTN, error: int) -> None:
    add(host, "30.0.0.0/8", rtype=rtype)
    assert way(host, "30.1.2.3")[0] == error


# ---- changes


def test_a_gateway_must_be_on_the_link(host: Stack) -> None:
    with pytest.raises(OSError, match=r"11\.0\.0\.1 is in no subnet") as caught:
        add(host, "0.0.0.0/0", "11.0.0.1")
    assert caught.value.errno == ENETUNREACH


def test_a_prefix_has_one_route(host: Stack) -> None:
    add(host, "30.0.0.0/8")
    with pytest.raises(FileExistsError):
        add(host, "30.0.0.0/8")


def test_a_removed_route_is_gone(host: Stack) -> None:
    add(host, "30.0.0.0/8")
    host.inet.routes.remove_route(IPv4Network("30.0.0.0/8"))
    assert way(host, "30.1.2.3")[0] == ENETUNREACH
    with pytest.raises(ProcessLookupError):
        host.inet.routes.remove_route(IPv4Network("30.0.0.0/8"))


def test_an_address_goes_with_its_routes(host: Stack) -> None:
    host.inet.routes.remove_address(ETH0, f"{ADDR}/24")
    assert way(host, PEER)[0] == ENETUNREACH
    assert way(host, ADDR)[0] == ENETUNREACH


def test_an_address_is_given_once(host: Stack) -> None:
    with pytest.raises(FileExistsError):
        host.inet.routes.add_address(ETH0, f"{ADDR}/16")


def test_an_address_that_is_not_there_can_not_go(host: Stack) -> None:
    with pytest.raises(OSError, match="does not have"):
        host.inet.routes.remove_address(ETH0, "10.0.0.99/24")


def test_a_second_subnet_speaks_with_its_own_address(host: Stack) -> None:
    host.inet.routes.add_address(ETH0, "192.168.1.5/24")
    assert way(host, "192.168.1.77") == (0, "192.168.1.77", "192.168.1.5")
    assert way(host, PEER) == (0, PEER, ADDR)


def test_our_address_comes_before_a_route_to_it(host: Stack) -> None:
    add(host, f"{ADDR}/32", PEER)
    assert host.inet.routes.ip_route_output(number(ADDR)).type == RTN.LOCAL


def test_one_host_has_one_table(host: Stack) -> None:
    with pytest.raises(RuntimeError, match="already"):
        Fib(host.net)


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=40))
def test_the_hash_finds_what_a_search_finds(rows: list[tuple[int, int]]) -> None:
    net = Net(1)
    keep = Loopback(net)
    fib = Fib(net)
    nets = [IPv4Network((prefix, size), strict=False) for prefix, size in rows]
    unique = list(dict.fromkeys(nets))
    fib.publish(
        (int(n.network_address), n.prefixlen, 1, 1, i + 1, 9) for i, n in enumerate(unique)
    )
    probes = [int(n.network_address) for n in nets] + [int(n.broadcast_address) for n in nets]
    for probe in (*probes, 0x01020304):
        if probe >> 28 == 14 or probe in (0, 2**32 - 1):
            continue
        covering = [n for n in unique if IPv4Address(probe) in n]
        error, _daddr, _saddr, gateway, *_rest = fib.route_output(probe)
        if not covering:
            assert error == ENETUNREACH
        else:
            best = max(covering, key=lambda n: n.prefixlen)
            assert (error, gateway) == (0, unique.index(best) + 1)
    assert keep.name == "lo"


# ---- input


@pytest.mark.parametrize(
    ("src", "dst", "reason"),
    [
        ("224.0.0.1", ADDR, REASON.SKB_DROP_REASON_IP_INVALID_SOURCE),
        ("255.255.255.255", ADDR, REASON.SKB_DROP_REASON_IP_INVALID_SOURCE),
        ("0.0.0.0", ADDR, REASON.SKB_DROP_REASON_IP_INVALID_SOURCE),
        ("127.0.0.1", ADDR, REASON.SKB_DROP_REASON_IP_LOCALNET),
        (PEER, "127.0.0.1", REASON.SKB_DROP_REASON_IP_LOCALNET),
        (PEER, "0.0.0.0", REASON.SKB_DROP_REASON_IP_INVALID_DEST),
        (ADDR, ADDR, REASON.SKB_DROP_REASON_IP_LOCAL_SOURCE),
        (ADDR, "10.0.0.255", REASON.SKB_DROP_REASON_IP_LOCAL_SOURCE),
        (PEER, "239.1.1.1", REASON.SKB_DROP_REASON_IP_INVALID_DEST),
        (PEER, ADDR, 0),
        ("0.0.0.0", "255.255.255.255", 0),
        ("0.0.0.0", "0.0.0.0", 0),
    ],
)
def test_a_martian_is_refused(host: Stack, src: str, dst: str, reason: int) -> None:
    assert host.inet.routes.ip_route_input(number(dst), number(src), ETH0).reason == reason


@pytest.mark.parametrize("mode", [1, 2])
def test_rp_filter_wants_a_way_back(stack: Stack, mode: int) -> None:
    stack.config["net.ipv4.conf.all.rp_filter"] = mode
    assert stack.give(ping(src="9.9.9.9")) == []
    assert stack.fates() == {"IP_RPFILTER": 1}
    assert stack.net.mib(mib.TcpExtIPReversePathFilter) == 1


def test_rp_filter_lets_the_subnet_in(stack: Stack) -> None:
    stack.config["net.ipv4.conf.all.rp_filter"] = 1
    assert len(stack.give(ping())) == 1


def test_what_is_for_others_is_refused_while_forwarding_is_off(stack: Stack) -> None:
    assert stack.give(ping(dst="10.0.0.77")) == []
    assert stack.fates() == {"IP_INADDRERRORS": 1}
    assert stack.net.mib(mib.IpInAddrErrors) == 1


def test_the_table_is_shown_in_iproute2_words(host: Stack) -> None:
    add(host, "0.0.0.0/0", PEER)
    kernel = {"protocol": "kernel", "scope": "link", "prefsrc": ADDR, "flags": []}
    assert host.inet.route_rows() == [
        {"dst": "default", "gateway": PEER, "ifindex": ETH0, "flags": []},
        {"dst": "10.0.0.0/24", "ifindex": ETH0} | kernel,
    ]
