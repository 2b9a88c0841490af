"""Text files: line by line what Linux prints, read back by tools and parsers made for Linux."""

import os
import re
import subprocess

import pytest

from netstack import procfs
from netstack._counters import mib
from netstack.errors import UsageError, hint_of
from tests.fakehost import FakeHost, udp_socket


@pytest.fixture
def host():
    return FakeHost()


def linux(path):
    with open(f"/proc/{path}") as file:
        return file.read()


def table(text):
    """Parse two-row groups as node_exporter does."""
    lines = text.splitlines()
    groups = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        group, _, rest = names.partition(":")
        assert values.startswith(group + ":")
        groups[group] = dict(zip(rest.split(), values.split()[1:], strict=True))
    return groups


def test_snmp_has_the_kernels_names_in_its_order(host):
    """An older kernel lacks some of ours and a newer one has more; the order is one."""
    ours, theirs = table(procfs.net_snmp(host)), table(linux("net/snmp"))
    assert {"Ip", "Icmp", "Tcp", "Udp"} <= set(theirs)
    for group in ("Ip", "Icmp", "Udp", "Tcp"):
        common = set(ours[group]) & set(theirs[group])
        assert len(common) > 5
        assert [n for n in ours[group] if n in common] == [
            n for n in theirs[group] if n in common
        ], group


def test_snmp_prints_icmp_messages_before_tcp_and_only_those_seen(host):
    assert "IcmpMsg" not in procfs.net_snmp(host)
    host.net.count(int(mib.IcmpMsgInType) + 3)
    lines = procfs.net_snmp(host).splitlines()
    assert lines[4:6] == ["IcmpMsg: InType3", "IcmpMsg: 1"]
    assert lines[6].startswith("Tcp: ")


def test_netstat_names_are_a_part_of_the_kernels(host):
    ours, theirs = table(procfs.net_netstat(host)), table(linux("net/netstat"))
    for group, names in ours.items():
        assert set(names) <= set(theirs[group]), group


def test_softnet_stat_has_fifteen_hex_columns_a_cpu():
    lines = procfs.net_softnet_stat(FakeHost(cpus=2)).splitlines()
    assert len(lines) == 2
    for cpu, line in enumerate(lines):
        assert re.fullmatch(r"([0-9a-f]{8} ){14}[0-9a-f]{8}", line)
        columns = [int(c, 16) for c in line.split()]
        assert columns[12] == cpu
        assert columns[:3] == [cpu + 1] * 3
        assert len(columns) == len(linux("net/softnet_stat").splitlines()[0].split())


def test_softnet_stat_wraps_at_32_bits_as_the_kernel_does(host, monkeypatch):
    row = host.softnet()[0] | {"processed": 2**32 + 5}
    monkeypatch.setattr(host, "softnet", lambda: [row])
    assert procfs.net_softnet_stat(host).startswith("00000005 ")


def test_dev_has_the_kernels_heading_and_widths(host):
    ours, theirs = procfs.net_dev(host).splitlines(), linux("net/dev").splitlines()
    assert ours[:2] == theirs[:2]
    line = next(line for line in theirs if line.startswith("    lo:"))
    widths = (
        7,
        7,
        4,
        4,
        4,
        5,
        10,
        9,
        8,
        7,
        4,
        4,
        4,
        5,
        7,
        10,
    )  # a number that is longer moves the rest on
    longer = sum(
        max(0, len(n) - width) for n, width in zip(line.split()[1:], widths, strict=True)
    )
    assert len(ours[2]) == len(line) - longer
    assert ours[2].split()[0] == "tap0:"


def test_dev_adds_missed_frames_to_drop_and_fifo_as_igb_does(host):
    host.devices[0].counts |= {"rx_dropped": 2, "rx_missed_errors": 5, "rx_fifo_errors": 5}
    columns = procfs.net_dev(host).splitlines()[2].split()
    assert columns[4:6] == ["7", "5"]


def test_udp_lines_are_as_the_kernels(host):
    host.socks = [
        udp_socket(5000, rmem=832, drops=3, inode=37421),
        udp_socket(45272, peer=("10.0.0.1", 5000), inode=2),
    ]
    head, one, two = procfs.net_udp(host).splitlines()
    assert head == linux("net/udp").splitlines()[0]
    assert {len(line) for line in (head, one, two)} == {127}
    assert re.sub(" +", " ", one).strip() == (
        "5000: 0200000A:1388 00000000:0000 07 00000000:00000340 00:00000000 00000000 0 0"
        " 37421 2 0000000000000000 3"
    )
    assert two.split()[2:4] == ["0100000A:1388", "01"]


def test_raw_heading_is_the_kernels(host):
    assert procfs.net_raw(host).splitlines()[0] == linux("net/raw").splitlines()[0]


def test_arp_lines_have_the_kernels_columns(host):
    host.arp = [
        {"dst": "10.0.0.1", "lladdr": "02:00:00:00:00:01", "dev": "tap0", "state": "REACHABLE"},
        {"dst": "10.0.0.9", "lladdr": None, "dev": "tap0", "state": "INCOMPLETE"},
    ]
    head, known, asked = procfs.net_arp(host).splitlines()
    assert head == linux("net/arp").splitlines()[0]
    assert known == (
        "10.0.0.1         0x1         0x2         02:00:00:00:00:01     *        tap0"
    )
    assert asked.split()[2:4] == ["0x0", "00:00:00:00:00:00"]


def test_route_lines_have_the_kernels_columns(host):
    head, net, default = procfs.net_route(host).splitlines()
    assert head == linux("net/route").splitlines()[0]
    assert net.rstrip() == "tap0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"
    assert default.rstrip() == "tap0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0"
    assert len(net) == 127


def test_interrupts_line_up_under_their_cpu():
    head, line = procfs.interrupts(FakeHost(cpus=2)).splitlines()
    assert head == "           CPU0       CPU1       "
    assert line == " 25:          7          0 PCI-MSIX   1-edge      tap0-TxRx-0"


def test_softirqs_have_the_kernels_names_and_heading():
    ours = procfs.softirqs(FakeHost(cpus=2)).splitlines()
    theirs = linux("softirqs").splitlines()
    assert ours[0] == "                    CPU0       CPU1       "
    assert [line.split(":")[0] for line in ours[1:]] == [
        line.split(":")[0] for line in theirs[1:]
    ]
    assert len(ours[1]) == 13 + 2 * 11


def test_sockstat_has_the_kernels_lines(host):
    host.socks = [udp_socket(rmem=8192)]
    ours, theirs = procfs.net_sockstat(host).splitlines(), linux("net/sockstat").splitlines()
    assert [re.sub(r"-?\d+", "N", line) for line in ours] == [
        re.sub(r"-?\d+", "N", line) for line in theirs
    ]
    assert "UDP: inuse 1 mem 2" in ours


def test_sysctls_are_files_too(host):
    assert procfs.read(host, "sys/net/core/netdev_budget") == "300\n"
    assert procfs.read(host, "/proc/sys/net/ipv4/ip_local_port_range") == "32768\t60999\n"


def test_every_listed_file_can_be_read(host):
    listed = procfs.names(host)
    assert "net/snmp" in listed
    for name in listed:
        assert procfs.read(host, name).endswith("\n")


def test_an_unknown_file_gets_the_nearest(host):
    with pytest.raises(UsageError, match="no file 'net/smnp'") as info:
        procfs.read(host, "net/smnp")
    assert hint_of(info.value) == "netstack proc net/snmp"


def test_iproute2s_nstat_reads_the_tree(host, tmp_path):
    host.net.count(mib.UdpNoPorts, 7)
    files = {name: procfs.read(host, name) for name in procfs.names(host)}
    procfs.write_tree(files, tmp_path)
    history = str(tmp_path / "history")
    environment = os.environ | {"PROC_ROOT": str(tmp_path), "NSTAT_HISTORY": history}
    result = subprocess.run(
        ["nstat", "-a", "-s"], env=environment, capture_output=True, text=True, check=True
    )
    assert ["UdpNoPorts", "7", "0.0"] in [line.split() for line in result.stdout.splitlines()]


def test_iproute2s_ss_reads_the_tree(host, tmp_path):
    host.socks = [udp_socket(5000), udp_socket(53, peer=("10.0.0.1", 99), rmem=832)]
    files = {name: procfs.read(host, name) for name in procfs.names(host)}
    procfs.write_tree(files, tmp_path)
    result = subprocess.run(
        ["ss", "-u", "-a", "-n"],
        env=os.environ | {"PROC_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    assert ["UNCONN", "0", "0", "10.0.0.2:5000", "0.0.0.0:*"] in rows
    assert ["ESTAB", "832", "0", "10.0.0.2:53", "10.0.0.1:99"] in rows


def test_netstat_has_the_columns_of_the_kernel_in_its_order(host):
    kernel = [line.split()[0] for line in linux("net/netstat").splitlines()[::2]]
    host.net.count(mib.IpExtInOctets, 7)
    ours = procfs.read(host, "net/netstat")
    assert [line.split()[0] for line in ours.splitlines()[::2]] == kernel
    assert table(ours)["IpExt"]["InOctets"] == "7"


def test_igmp_and_ptype_have_the_kernels_columns(host):
    assert procfs.read(host, "net/igmp") == (
        "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"
        "2\ttap0      :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n"
    )
    heads = [procfs.read(host, f"net/{name}").splitlines()[0] for name in ("igmp", "ptype")]
    assert heads == [linux(f"net/{name}").splitlines()[0] for name in ("igmp", "ptype")]
    assert "0800          ip_rcv\n" in linux("net/ptype")
    assert procfs.read(host, "net/ptype").splitlines()[1:] == [
        "ALL  tap0     watch", "0800          ip_rcv", "0806          arp_rcv",
    ]  # fmt: skip
