"""``netstack route``: files of changes, words of ip-route, and how they are refused."""

from __future__ import annotations

import pytest

from netstack._counters import mib
from netstack.proto.route import RTN
from tests.memory_host import memory_host


@pytest.fixture
def it(serve):
    with memory_host() as it:
        serve(it.host)
        yield it


def test_a_file_of_changes_is_made_as_ip_does(it, good, tmp_path):
    file = tmp_path / "routes"
    file.write_text(
        "# two ways to say it\n"
        "route add 10.9.0.0/16 via 10.0.0.1\n\n"
        "add 10.8.0.0/16 via 10.0.0.1 metric 7\n"
        "ro replace 10.8.0.0/16 via 10.0.0.9 metric 7\n"
        "add 99.0.0.1 dev tap0\n"
        "add 98.0.0.0/8 via 99.0.0.1   # on the link by the line before\n"
        "del 10.9.0.0/16\n"
    )
    good("route", "-batch", str(file))
    rows = {row["dst"]: row for row in good("route", "--json")}
    assert set(rows) == {"10.0.0.0/24", "10.8.0.0/16", "99.0.0.1", "98.0.0.0/8"}
    assert rows["10.8.0.0/16"]["gateway"] == "10.0.0.9"
    assert good("route", "get", "98.1.1.1", "--json")[0]["gateway"] == "99.0.0.1"


@pytest.mark.parametrize(
    "wrong", ["add 1.0.0.0/8 via 77.7.7.7", "add 1.0.0.0/8 via", "add x dev tap0"]
)
def test_a_wrong_line_ends_it_and_says_where(it, netstack, good, tmp_path, wrong):
    file = tmp_path / "routes"
    file.write_text(f"add 10.9.0.0/16 via 10.0.0.1\n{wrong}\nadd 10.7.0.0/16 via 10.0.0.1\n")
    status, _, err = netstack("route", "-batch", str(file))
    assert status == 2
    assert f"Command failed {file}:2" in err
    assert [row["dst"] for row in good("route", "--json")] == ["10.0.0.0/24", "10.9.0.0/16"]


def test_with_force_it_goes_on(it, netstack, good, tmp_path):
    file = tmp_path / "routes"
    file.write_text("add 1.0.0.0/8 via 77.7.7.7\nadd 1 2 3\nadd 10.7.0.0/16 via 10.0.0.1\n")
    status, _, err = netstack("route", "-force", "-batch", str(file))
    assert status == 2
    assert err.count("Command failed") == 2
    assert len(good("route", "--json")) == 2


def test_many_routes_are_found_and_gone_again(it, netstack, tmp_path):
    file = tmp_path / "routes"
    nets = [f"20.{i >> 8}.{i & 255}.0/24" for i in range(20_000)]
    file.write_text("".join(f"add {net} via 10.0.0.1\n" for net in nets))
    assert netstack("route", "-batch", str(file))[0] == 0
    routes = it.host.inet.routes
    assert routes.ip_route_output(20 << 24 | 5 << 16 | 6 << 8 | 7).gateway == 10 << 24 | 1
    assert netstack("route", "flush", "via", "10.0.0.1")[0] == 0
    assert routes.ip_route_output(20 << 24 | 5 << 16 | 6 << 8 | 7).error == 101


def test_flush_takes_what_it_was_asked_to(it, good):
    good("route", "add", "10.9.0.0/16", "via", "10.0.0.1", "proto", "static")
    good("route", "add", "10.8.0.0/16", "dev", "tap0", "scope", "global")
    good("route", "add", "10.7.0.0/16", "via", "10.0.0.1", "metric", "5")
    good("route", "flush", "proto", "static")
    assert [row["dst"] for row in good("route", "show", "scope", "global", "--json")] == [
        "10.7.0.0/16",
        "10.8.0.0/16",
    ]
    good("route", "flush", "scope", "link")
    assert len(good("route", "--json")) == 3
    good("route", "flush", "scope", "global")
    assert [row["dst"] for row in good("route", "--json")] == ["10.0.0.0/24"]


def test_onlink_believes_that_a_router_is_there(it, netstack, good):
    status, _, err = netstack("route", "add", "default", "via", "77.0.0.1", "dev", "tap0")
    assert status == 2
    assert "Nexthop has invalid gateway" in err
    good("route", "add", "default", "via", "77.0.0.1", "dev", "tap0", "onlink")
    assert good("route", "--json")[0]["flags"] == ["onlink"]


def test_proto_and_scope_are_kept(it, good):
    good("route", "add", "10.9.0.0/16", "via", "10.0.0.1", "proto", "static")
    good("route", "add", "10.8.0.0/16", "dev", "tap0", "scope", "global")
    rows = {row["dst"]: row for row in good("route", "--json")}
    assert rows["10.9.0.0/16"]["protocol"] == "static"
    assert "scope" not in rows["10.8.0.0/16"]


def test_get_asks_for_what_came_in(it, netstack, good):
    it.host.config["net.ipv4.ip_forward"] = 1
    good("route", "add", "20.0.0.0/8", "via", "10.0.0.1")
    (row,) = good("route", "get", "20.1.1.1", "from", "10.0.0.7", "iif", "tap0", "--json")
    assert (row["gateway"], row["dev"], row["iif"]) == ("10.0.0.1", "tap0", "tap0")
    assert netstack("route", "get", "99.9.9.9", "from", "10.0.0.7", "iif", "tap0")[0] == 2
    assert it.host.net.mib(mib.IpForwDatagrams) == 0


@pytest.fixture
def various(it, good):
    """Give a host four routes that differ in what ip-route can be asked for."""
    for line in (
        "10.1.0.0/16 via 10.0.0.1",
        "10.2.0.0/16 via 10.0.0.1 proto static",
        "10.3.0.0/16 dev tap0 proto static metric 5 src 10.0.0.2",
        "blackhole 10.4.0.0/16 proto static",
    ):
        good("route", "add", *line.split())
    return it


def test_of_several_hosts_the_one_whose_device_is_named_is_meant(it, serve, good, refused):
    serve(it.host, "tap1")
    assert "NIC statistics" in good("ethtool", "-S", "tap0")
    good("route", "add", "10.9.0.0/16", "dev", "tap0")
    assert "2 hosts are running" in refused("route")
    assert "2 hosts are running" in refused("neigh", "show", "tap1", "dev", "tap0")


CHOICES = {  # as iproute2 6.1 chooses among the same routes on Linux 6.18
    "proto static": ["10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16"],
    "proto boot": ["10.1.0.0/16"],
    "scope link": ["10.3.0.0/16"],
    "scope global": ["10.1.0.0/16", "10.2.0.0/16", "10.4.0.0/16"],
    "metric 5": ["10.3.0.0/16"],
    "src 10.0.0.2": ["10.3.0.0/16"],
    "via 10.0.0.1": ["10.1.0.0/16", "10.2.0.0/16"],
    "type blackhole": ["10.4.0.0/16"],
    "type unicast": ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"],
}


@pytest.mark.parametrize("words", CHOICES)
def test_what_describes_routes_chooses_among_them(various, good, words):
    rows = good("route", "show", *words.split(), "--json")
    assert [row["dst"] for row in rows if row.get("protocol") != "kernel"] == CHOICES[words]
    good("route", "flush", *words.split())
    left = {row["dst"] for row in good("route", "--json")}
    assert left == {f"10.{n}.0.0/16" for n in range(1, 5)} - {*CHOICES[words]} | {"10.0.0.0/24"}


@pytest.mark.parametrize("words", ["proto boot", "scope link", "src 10.0.0.9", "metric 3"])
def test_a_route_is_deleted_only_as_it_is(various, good, refused, words):
    assert "No such process" in refused("route", "del", "10.2.0.0/16", *words.split())
    good("route", "del", "10.2.0.0/16", "proto", "static")


def test_get_asks_for_what_has_to_leave_through_a_device(it, netstack, good):
    assert netstack("route", "get", "20.1.1.1")[0] == 2
    (row,) = good("route", "get", "20.1.1.1", "oif", "tap0", "--json")
    assert (row["dev"], row["prefsrc"], row.get("gateway")) == ("tap0", "10.0.0.2", None)
    assert good("route", "get", "20.1.1.1", "oif", "tap0") == (
        "20.1.1.1 dev tap0 src 10.0.0.2 uid 0 \n    cache \n"
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("add blackhole 10.0.0.0/8 via 10.0.0.1", "can not be specified for this route type"),
        ("add prohibit 10.0.0.0/8 dev tap0", "can not be specified for this route type"),
        ("show via foo", "any valid address is expected"),
        ("show proto foo", "proto"),
        ("add 1.0.0.0/8 via 10.0.0.2", "invalid gateway"),
        ("add 1.0.0.0/8 via 10.0.0.255", "invalid gateway"),
        ("add 1.0.0.0/8 via 77.0.0.1 onlink", "Device is required for onlink"),
        ("add 1.0.0.0/8 via 10.0.0.1 scope link", "invalid scope"),
        ("add 1.0.0.0/8 dev tap0 scope x", "scope"),
        ("add 1.0.0.0/8 dev tap0 proto 256", "proto"),
        ("add 1.0.0.0/8 dev tap0 metric 4294967296", "metric"),
        ("add 1.0.0.0/8 dev nosuch", "Cannot find device"),
        ("add 1.0.0.0/8 dev tap0 nexthop via 10.0.0.1", "garbage"),
        ("get 1.1.1.1 iif nosuch", "Cannot find device"),
        ("get 1.1.1.1 oif nosuch", "Cannot find device"),
    ],
)
def test_what_ip_refuses_is_refused(it, netstack, good, line, why):
    before = good("route", "--json")
    status, _, err = netstack("route", *line.split())
    assert status == 2
    assert why in err
    assert good("route", "--json") == before


def test_the_best_metric_counts_and_the_next_takes_over(it, good):
    for metric, gateway in ((20, "10.0.0.8"), (10, "10.0.0.9"), (30, "10.0.0.7")):
        good("route", "add", "20.0.0.0/8", "via", gateway, "metric", str(metric))
    for gateway in ("10.0.0.9", "10.0.0.8", "10.0.0.7"):
        assert good("route", "get", "20.1.1.1", "--json")[0]["gateway"] == gateway
        good("route", "del", "20.0.0.0/8", "via", gateway)
    assert it.host.inet.routes.ip_route_output(20 << 24).type == RTN.UNREACHABLE
