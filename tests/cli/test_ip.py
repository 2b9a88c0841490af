"""``link``, ``addr``, ``route``, ``neigh``: what ip prints for the same configuration, and does."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.frames import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, ping, udp, who_has
from tests.memory_host import memory_host
from tests.netns import fresh_netns


@pytest.fixture
def it(serve):
    with memory_host() as it:
        serve(it.host)
        yield it


# The same lines for both. %s is the device; in the namespace a veth stands for the NIC.
SETUP = """
addr add 10.0.0.3/24 brd + dev %s
addr add 10.1.0.3/32 dev %s
route add 192.168.0.0/16 via 10.0.0.1
route add default via 10.0.0.1 metric 5
route add 172.16.0.0/12 dev %s
route add 9.9.9.9 via 10.0.0.1 src 10.0.0.3 metric 7
route add blackhole 1.2.3.0/24
route add unreachable 1.2.4.0/24
route add prohibit 1.2.5.0/24
route add 10.66.0.0/16 via 10.0.0.1
route replace 10.66.0.0/16 via 10.0.0.9
route change 10.66.0.0/16 via 10.0.0.8
route add 10.67.0.0/16 via 10.0.0.1
route del 10.67.0.0/16
route add 10.68.0.0/16 via 10.0.0.1 proto static
route add 10.69.0.0/16 dev %s proto static scope global
neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev %s nud permanent
neigh replace 10.0.0.1 lladdr 02:00:00:00:00:07 dev %s nud permanent
neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev %s nud stale
link set %s mtu 1400
"""
SHOWN = (
    "link show dev %s", "-br link show dev %s", "addr show dev %s", "-br addr show dev %s",
    "route", "route show table local", "route get 10.0.0.7", "route get 192.168.1.1",
    "route get 127.0.0.1", "route show default", "route show dev %s", "neigh",
    "neigh show 10.0.0.9", "neigh show dev %s nud permanent", "neigh show dev %s nud all",
    "route show table all", "route show type local table all", "route show proto static",
    "route show proto kernel scope link", "route show proto boot", "route show scope global",
    "route show scope link dev %s", "route get 10.0.0.255", "route get 10.0.0.2",
    "route get 10.0.0.7 from 10.0.0.3", "route get 10.0.0.2 from 10.0.0.3",
    "route get 9.9.9.9 oif %s",
    "route get 10.0.0.2 from 10.0.0.7 iif %s", "route get 10.0.0.255 from 10.0.0.7 iif %s",
    "link show dev %s up", "addr show dev %s up",
)  # fmt: skip


def normal(text: str) -> list[str]:
    """Take out what the two can't share: number and peer of the veth; neigh has no order."""
    text = re.sub(r"^\d+: ", "2: ", re.sub(r"@\w+", "", text), flags=re.MULTILINE)
    return sorted(re.sub(r"(?<=\S)\s+", " ", line).rstrip() for line in text.splitlines())


def plain(rows: list[dict]) -> list[dict]:
    rows = [{k: v for k, v in row.items() if k not in ("link", "link_index")} for row in rows]
    for row in rows:
        if "ifindex" in row:
            row["ifindex"] = 2
    return sorted(rows, key=lambda row: json.dumps(row.get("dst", "")))


def ours(words: str) -> list[str]:
    """Put options behind the command: netstack has one command where ip has an object."""
    parts = words.split()
    return [*parts[1:2], parts[0], *parts[2:]] if parts[0].startswith("-") else parts


@pytest.mark.tap
def test_ip_prints_the_same_for_the_same_configuration(it, good):
    def ip(words, *options):
        return subprocess.run(
            ["ip", *options, *words.split()], check=True, capture_output=True, text=True
        ).stdout

    texts, data = {}, {}
    with fresh_netns():
        for which in ("all", "default"):
            with open(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6", "w") as file:
                file.write("1")
        for words in (
            "link set lo up", "link add tap0 type veth peer name peer",
            f"link set tap0 address {OUR_MAC}", "link set tap0 up", "link set peer up",
            f"addr add {OUR_IP}/24 dev tap0",
        ):  # fmt: skip
            ip(words)
        for line in SETUP.strip().splitlines():
            ip(line.replace("%s", "tap0"))
        for line in SHOWN:
            words = line.replace("%s", "tap0")
            texts[words], data[words] = ip(words), json.loads(ip(words, "-j") or "[]")
    for line in SETUP.strip().splitlines():
        assert good(*line.replace("%s", "tap0").split()) == ""
    for words, text in texts.items():
        assert normal(good(*ours(words))) == normal(text), words
        rows = plain(good(*ours(words), "--json"))
        assert rows == plain(data[words]), words
        theirs = [list(row) for row in plain(data[words])]
        assert [list(row) for row in rows] == theirs, words


def test_an_address_answers_from_the_moment_it_is_there(it, good):
    it.meet()
    assert it.put(who_has("10.0.0.9")) == []
    good("addr", "add", "10.0.0.9/24", "dev", "tap0")
    assert len(it.put(who_has("10.0.0.9"))) == 1
    good("addr", "del", "10.0.0.9/24", "dev", "tap0")
    assert it.put(who_has("10.0.0.9")) == []


def test_the_last_primary_address_takes_its_secondary_ones_along(it, good):
    good("addr", "add", "10.0.0.3/24", "dev", "tap0")
    good("addr", "add", "10.5.0.3/24", "dev", "tap0")
    good("addr", "del", OUR_IP, "dev", "tap0")
    (row,) = good("addr", "show", "tap0", "--json")
    assert [info["local"] for info in row["addr_info"]] == ["10.5.0.3"]
    assert [str(each) for each in it.device.addresses] == ["10.5.0.3/24"]
    good("addr", "flush", "dev", "tap0")
    assert good("addr", "show", "tap0", "--json")[0]["addr_info"] == []


def test_a_device_that_is_down_neither_receives_nor_has_routes(it, good):
    it.meet()
    good("route", "add", "default", "via", PEER_IP)
    good("link", "set", "tap0", "down")
    (row,) = good("link", "show", "tap0", "--json")
    assert (row["operstate"], row["flags"]) == ("DOWN", ["BROADCAST", "MULTICAST"])
    assert good("route", "--json") == []
    assert good("neigh", "--json") == []
    with pytest.raises(OSError, match="unreachable"):
        it.socket().sendto(b"x", (PEER_IP, 9))
    good("link", "set", "tap0", "up")
    assert [row["dst"] for row in good("route", "--json")] == ["10.0.0.0/24"]
    it.meet()
    assert len(it.put(ping())) == 1


def test_the_address_of_a_device(it, good):
    it.meet()
    good("link", "set", "dev", "tap0", "address", "02:00:00:00:00:77")
    it.put(udp(b"to the old one"))
    assert it.drops() == {"NIC_DROP_FILTER": 1}
    (answer,) = it.put(who_has())
    assert answer[6:12].hex(":") == "02:00:00:00:00:77"
    assert good("link", "show", "tap0", "--json")[0]["address"] == "02:00:00:00:00:77"
    good("link", "set", "tap0", "down")
    good("link", "set", "tap0", "up")
    assert len(it.put(who_has())) == 1  # after a reset too


def test_promiscuous_mode(it, good):
    other = bytes.fromhex("020000000099") + udp(b"x")[6:]
    it.put(other)
    assert it.drops() == {"NIC_DROP_FILTER": 1}
    good("link", "set", "tap0", "promisc", "on")
    it.put(other)
    assert it.drops() == {"NIC_DROP_FILTER": 1, "OTHERHOST": 1}
    assert "PROMISC" in good("link", "show", "tap0")
    good("link", "set", "tap0", "promisc", "off")
    assert "PROMISC" not in good("link", "show", "tap0")


def test_counters(it, good):
    it.meet()
    text = good("link", "-s", "show", "tap0")
    assert re.search(r"RX:\s+bytes packets errors dropped\s+missed\s+mcast", text)
    stats = good("link", "-s", "show", "tap0", "--json")[0]["stats64"]
    assert (stats["rx"]["packets"], stats["tx"]["packets"]) == (2, 1)


def test_the_lowest_metric_is_taken(it, good):
    good("route", "add", "10.9.0.0/16", "via", "10.0.0.8", "metric", "10")
    good("route", "add", "10.9.0.0/16", "via", "10.0.0.9", "metric", "5")
    assert good("route", "get", "10.9.1.1", "--json")[0]["gateway"] == "10.0.0.9"
    good("route", "del", "10.9.0.0/16", "metric", "5")
    assert good("route", "get", "10.9.1.1", "--json")[0]["gateway"] == "10.0.0.8"
    good("route", "flush", "via", "10.0.0.8")
    assert len(good("route", "--json")) == 1


def test_neighbours_are_forgotten_but_permanent_ones(it, good):
    it.meet()
    good("neigh", "add", "10.0.0.9", "lladdr", PEER_MAC, "dev", "tap0")
    assert re.search(r" used \d+/\d+/\d+probes 0 REACHABLE", good("neigh", "-s"))
    good("neigh", "flush", "dev", "tap0")
    assert [row["dst"] for row in good("neigh", "--json")] == ["10.0.0.9"]
    good("neigh", "del", "10.0.0.9", "dev", "tap0")
    assert good("neigh", "--json") == []


REFUSED = """
link set tap0 mtu 5 | mtu less than device minimum
link set tap0 mtu 10000 | mtu greater than device maximum
link set tap0 mtu x | invalid mtu
link set nope up | Cannot find device
link set lo down | Operation not supported
link set tap0 promisc maybe | must be "on" or "off"
link set tap0 txqueuelen 5 | no queueing discipline
link set tap0 address 01:00:00:00:00:01 | Cannot assign requested address
link set tap0 bogus | either "dev" is duplicate, or "bogus" is a garbage
link set tap0 | Not enough of information
link shout | Command "shout" is unknown
addr add 10.0.0.2/24 dev tap0 | Address already assigned
addr del 10.7.7.7/24 dev tap0 | Address not found
addr change 10.7.7.7/24 dev tap0 | Address not found
addr add 300.1.1.1 dev tap0 | any valid prefix is expected
addr add 0.0.0.0/0 dev tap0 | it means no address
addr add 1.1.1.1/24 dev nope | Cannot find device
addr add 1.1.1.1/24 | "dev" argument and the address are required
addr add 1.1.1.1/24 dev tap0 brd 9.9.9.9 | the broadcast address of
addr flush | Flush requires arguments
route add 10.0.0.0/24 dev tap0 | File exists
route add 4.4.4.0/24 via 99.9.9.9 | Nexthop has invalid gateway
route add 4.4.4.0/24 | wants via ADDRESS or dev DEVICE
route del 77.0.0.0/8 | No such process
route del 10.0.0.0/24 | No such process
route add 10.0.0.1/24 dev tap0 | Invalid prefix for given prefix length
route add 1.0.0.0/8 dev tap0 src 9.9.9.9 | Invalid prefsrc
route add local 1.0.0.0/8 dev tap0 | follows from addresses
route add 1.0.0.0/8 dev tap0 metric x | metric value is invalid
route change 44.0.0.0/8 dev tap0 | No such file or directory
route get 99.99.99.99 | Network is unreachable
route get x | any valid address is expected
route get | need at least a destination
route show table 7 | table id value is invalid
route flush | requires arguments
route add 1.0.0.0/8 via | wants a value
neigh del 10.0.0.77 dev tap0 | No such file or directory
neigh change 10.0.0.55 lladdr 02:02:02:02:02:02 dev tap0 | No such file or directory
neigh add 10.0.0.55 dev tap0 | wants lladdr MAC
neigh add 10.0.0.55 lladdr x dev tap0 | Cannot assign requested address
neigh add 10.0.0.55 lladdr 02:02:02:02:02:02 dev tap0 nud probe | can't be set
neigh show nud sleeping | nud state is bad
neigh flush | Flush requires arguments
neigh add 10.0.0.55 | Device and destination are required
"""


@pytest.mark.parametrize("line", REFUSED.strip().splitlines())
def test_what_can_not_be_is_refused_and_changes_nothing(it, good, refused, line):
    words, message = line.split(" | ")
    before = [good(what, "show", "--json") for what in ("link", "addr", "route", "neigh")]
    assert message in refused(*words.split())
    after = [good(what, "show", "--json") for what in ("link", "addr", "route", "neigh")]
    assert after == before
