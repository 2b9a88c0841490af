"""Tunables: every number has a row, the kernel's defaults hold, wrong values change nothing."""

from pathlib import Path

import pytest

from netstack._net import Net, sysctl
from netstack.config import PAGE_SIZE, TUNABLES, Config, find
from netstack.errors import UsageError, hint_of


@pytest.fixture
def config():
    return Config(Net(1), udp_memory=64 << 20)


def members():
    return {m for name, m in sysctl.__members__.items() if name != "SYSCTL_NR"}


def test_every_number_of_struct_net_has_exactly_one_row():
    fields = [field for row in TUNABLES for field in row.fields if field in members()]
    assert sorted(fields) == sorted(members())


def test_no_two_rows_share_a_key_or_a_last_part():
    assert len({row.key for row in TUNABLES}) == len(TUNABLES)
    names = [row.name for row in TUNABLES if ".conf." not in row.key]
    assert len(set(names)) == len(names)


def test_a_device_has_settings_of_its_own(config):
    config.add_device("eth0.5", 1)
    assert "net.ipv4.conf.eth0.5.rp_filter" in list(config)
    assert config.find("net/ipv4/conf/eth0.5/rp_filter").high == 2


@pytest.mark.parametrize("row", TUNABLES, ids=lambda row: row.key)
def test_default_is_inside_the_range_and_is_explained(row):
    assert all(row.low <= value <= row.high for value in row.default)
    assert row.text
    assert not row.text.endswith(".")


def test_ipv4_names_are_those_of_the_running_kernel(config):
    """Names only: what the values are is up to who runs the machine."""
    keys = [key for key in config if key.startswith("net.ipv4.")]
    missing = [key for key in keys if not Path("/proc/sys", key.replace(".", "/")).exists()]
    assert missing == []


def test_defaults_are_those_of_linux_6_18(config):
    assert config["net.core.netdev_budget_usecs"] == 8000
    assert config["net.core.rmem_max"] == 4194304
    assert config["net.core.rmem_default"] == 256 * 832
    assert config["net.ipv4.icmp_ratemask"] == 1 << 3 | 1 << 4 | 1 << 11 | 1 << 12
    assert config["net.ipv4.ip_local_port_range"] == (32768, 60999)


def test_a_tunable_is_reached_by_every_spelling(config):
    config["net.core.netdev_budget"] = 50
    assert config.netdev_budget == 50
    config.netdev_budget = 60
    assert config["/proc/sys/net/core/netdev_budget"] == 60
    assert config["net/core/netdev_budget"] == 60
    config["/sys/class/net/tap0/gro_flush_timeout"] = "20000"
    assert config.gro_flush_timeout == 20000
    config.neigh_gc_thresh3 = 8192
    assert config["net.ipv4.neigh.default.gc_thresh3"] == 8192


def test_a_value_lands_in_struct_net():
    net = Net(1)
    Config(net).netdev_budget = 7
    assert net.get(sysctl.netdev_budget) == 7


def test_text_is_read_as_sysctl_reads_it(config):
    config["icmp_ratemask"] = "0x1818"
    assert config.icmp_ratemask == 6168
    config["ip_local_port_range"] = "40000\t50000"
    assert config["ip_local_port_range"] == (40000, 50000)
    assert config.text("ip_local_port_range") == "40000\t50000"


def test_udp_mem_is_in_pages_outside_and_in_bytes_inside(config):
    assert config.udp_mem_max == 64 << 20
    config["net.ipv4.udp_mem"] = 10, 20, 30
    assert config.udp_mem == (10, 20, 30)
    assert config.udp_mem_pressure == 20 * PAGE_SIZE


def test_a_refused_udp_mem_is_shown_one_that_leaves_the_host_its_memory(config):
    with pytest.raises(UsageError) as refused:
        config["net.ipv4.udp_mem"] = "1 2"
    low, pressure, high = config.udp_mem
    assert hint_of(refused.value).endswith(f"net.ipv4.udp_mem='{low} {pressure} {high}'")
    assert low


def test_a_devices_setting_that_is_not_there_is_shown_its_neighbours(config):
    config.add_device("tap0", 1)
    for name in ("net.ipv4.conf.tap0.forwardin", "net.ipv4.conf.tap9.forwarding"):
        with pytest.raises(UsageError, match="there is no tunable") as refused:
            config.find(name)
        assert "netstack sysctl net.ipv4.conf.tap0.forwarding" in hint_of(refused.value)


def test_udp_mem_of_a_host_without_memory_is_still_valid():
    low, pressure, high = Config(Net(1), udp_memory=0).udp_mem
    assert 0 <= low <= pressure <= high


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ip_default_ttl", 0),
        ("ip_default_ttl", 256),
        ("netdev_budget", 0),
        ("netdev_budget", -1),
        ("netdev_budget", "many"),
        ("netdev_budget", ""),
        ("netdev_budget", 1.5),
        ("netdev_budget", None),
        ("netdev_budget", (1, 2)),
        ("rmem_default", 2303),
        ("fast_path", 2),
        ("ip_local_port_range", (5000, 4000)),
        ("ip_local_port_range", (80, 90)),
        ("ip_local_port_range", 5000),
        ("ip_local_port_range", "5000"),
        ("udp_mem", (3, 2, 1)),
        ("ipfrag_low_thresh", 2**40),
        ("ipfrag_high_thresh", 100),
        ("gro_flush_timeout", 2**64),
    ],
)
def test_a_wrong_value_is_refused_and_changes_nothing(config, name, value):
    before = dict(config)
    with pytest.raises(UsageError) as info:
        config[name] = value
    assert find(name).key in str(info.value)
    assert hint_of(info.value).startswith("netstack sysctl ")
    assert dict(config) == before


def test_what_a_hint_says_to_type_is_accepted(config):
    for row in TUNABLES:
        with pytest.raises((UsageError, OSError)) as info:
            config[row.key] = "wrong"
        _, _, value = hint_of(info.value).partition("=")
        config[row.key] = value.strip("'")


def test_an_unknown_name_gets_the_nearest(config):
    with pytest.raises(UsageError, match="no tunable 'netdev_bugdet'") as info:
        config["netdev_bugdet"]
    assert "net.core.netdev_budget" in hint_of(info.value).split()
    with pytest.raises(UsageError) as info:
        config["icmp"]
    assert "net.ipv4.icmp_ratelimit" in hint_of(info.value)
    with pytest.raises(UsageError):
        config.nonsense = 1
    assert not hasattr(config, "nonsense")
    assert "nonsense" not in config


def test_one_of_several_values_is_not_set_alone(config):
    with pytest.raises(UsageError, match="with its others"):
        config.udp_mem_max = 1


def test_two_hosts_have_settings_of_their_own():
    one, two = Config(Net(1)), Config(Net(1))
    one.netdev_budget = 1
    assert two.netdev_budget == 300
