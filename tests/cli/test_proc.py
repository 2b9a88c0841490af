"""``proc``, ``sys`` and ``sysctl``."""

import os
import subprocess

import psutil
import pytest

from netstack import procfs, sysfs
from netstack.errors import hint_of
from tests.frames import OUR_IP, PEER_IP, ping, udp
from tests.memory_host import memory_host


def test_proc_prints_files_and_lists_them(host, good):
    assert good("proc", "net/snmp") == procfs.net_snmp(host)
    assert good("proc", "/proc/net/dev", "softirqs") == (
        procfs.net_dev(host) + procfs.softirqs(host)
    )
    assert good("proc").splitlines() == procfs.names(host)
    assert good("proc", "--json") == procfs.names(host)
    (row,) = good("proc", "net/udp", "--json")
    assert row["file"] == "net/udp"


def test_proc_writes_a_tree(host, good, tmp_path):
    good("proc", "--root", tmp_path / "p")
    assert (tmp_path / "p/net/snmp").read_text() == procfs.net_snmp(host)
    assert (tmp_path / "p/sys/net/core/netdev_budget").read_text() == "300\n"


def test_tools_made_for_linux_read_the_tree_of_a_host(serve, good, tmp_path, monkeypatch):
    """iproute2's nstat and ss, and psutil with all that is built on it."""
    with memory_host() as it:
        serve(it.host)
        it.meet()
        it.socket(OUR_IP, 9000).connect((PEER_IP, 4000))
        it.put(ping(), udp(b"read by nobody"), udp(dport=5))
        before = psutil.net_io_counters(pernic=True, nowrap=False).keys()
        good("proc", "--root", tmp_path)
        stats = it.device.stats()
    root = os.environ | {"PROC_ROOT": str(tmp_path), "NSTAT_HISTORY": str(tmp_path / "h")}

    def told(*words):
        done = subprocess.run(words, env=root, capture_output=True, text=True, check=True)
        return [line.split() for line in done.stdout.splitlines()]

    assert ["UdpNoPorts", "1", "0.0"] in told("nstat", "-as")
    assert ["ESTAB", "832", "0", f"{OUR_IP}:9000", f"{PEER_IP}:4000"] in told("ss", "-una")

    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    row = psutil.net_io_counters(pernic=True, nowrap=False)["tap0"]
    assert "tap0" not in before
    assert (row.packets_recv, row.bytes_recv) == (stats["rx_packets"], stats["rx_bytes"])
    assert (row.packets_sent, row.bytes_sent) == (stats["tx_packets"], stats["tx_bytes"])
    (sock,) = psutil.net_connections("udp4")
    assert (sock.laddr, sock.raddr) == ((OUR_IP, 9000), (PEER_IP, 4000))


def test_an_unknown_file_and_an_unwritable_place_are_refused(host, refused, tmp_path):
    assert "try: netstack proc net/snmp" in refused("proc", "net/snmpp")
    (tmp_path / "file").write_text("")
    assert "can't be written" in refused("proc", "--root", tmp_path / "file")


def test_what_can_only_be_read_says_what_sets_it(host, refused):
    error = refused("proc", "sys/net/core/netdev_budget=50")
    assert "try: netstack sysctl net.core.netdev_budget=300" in error
    assert "smp_affinity can" in refused("proc", "net/snmp=1")
    with memory_host() as it:
        with pytest.raises(PermissionError) as refusal:
            sysfs.write(it.host, "class/net/tap0/mtu", "900")
        assert hint_of(refusal.value) == "netstack link set tap0 mtu ..."


def test_files_are_written_all_or_none(serve, good, refused):
    with memory_host(cpus=2) as it:
        serve(it.host)
        line = "irq/24/smp_affinity"
        before = good("proc", line)
        for wrong in ("irq/25/smp_affinity=0", "irq/25/smp_affinity=4", "net/snmp=1"):
            refused("proc", f"{line}={3 - int(before)}", wrong)
            assert good("proc", line) == before


def test_sysctl_shows_and_sets(host, good):
    assert good("sysctl", "net.core.netdev_budget") == "net.core.netdev_budget = 300\n"
    assert good("sysctl", "netdev_budget=50") == "net.core.netdev_budget = 50\n"
    assert host.config.netdev_budget == 50
    assert good("sysctl", "-n", "netdev_budget") == "50\n"
    assert good("sysctl", "ip_local_port_range=40000 50000") == (
        "net.ipv4.ip_local_port_range = 40000\t50000\n"
    )


def test_sysctl_lists_all(host, good):
    lines = good("sysctl", "-a").splitlines()
    assert len(lines) == len(host.config)
    assert "netstack.fast_path = 1" in lines
    rows = good("sysctl", "-a", "--json")
    assert {row["name"] for row in rows} == set(host.config)


def test_sysctl_explains(host, good):
    text = good("sysctl", "-v", "fast_path")
    assert "compiled short cut" in text
    assert "allowed: 0 to 1; default 1" in text


def test_a_refused_value_changes_none_of_them(host, refused):
    error = refused("sysctl", "netdev_budget=7", "ip_default_ttl=0")
    assert "net.ipv4.ip_default_ttl = 0 is refused; allowed: 1 to 255" in error
    assert host.config.netdev_budget == 300


def test_wrong_words_are_refused(host, refused):
    assert "try: netstack sysctl -a" in refused("sysctl")
    assert "has no value" in refused("sysctl", "-w", "netdev_budget")
    assert "try: netstack sysctl net.core.netdev_budget" in refused("sysctl", "netdev_bugdet")


def test_sys_shows_sets_and_lists(host, good, tmp_path):
    path = "class/net/tap0/queues/rx-1/rps_cpus"
    assert good("sys", path) == "0\n"
    assert good("sys", f"{path}=1") == "1\n"
    assert host.rps.masks == {1: 1}
    assert good("sys").splitlines() == sysfs.names(host)
    (row,) = good("sys", path, "--json")
    assert row == {"file": path, "text": "1\n"}
    good("sys", "--root", tmp_path)
    assert (tmp_path / path).read_text() == "1\n"


def test_sys_refuses_and_changes_nothing(host, refused):
    path = "class/net/tap0/queues/rx-0/"
    error = refused("sys", f"{path}rps_flow_cnt=8", f"{path}rps_cpus=zz")
    assert "allowed: hexadecimal digits" in error
    assert f"try: netstack sys {path}rps_cpus=1" in error
    assert host.rps.flows == {0: 0}
