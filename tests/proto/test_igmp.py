"""IGMP: what is reported when, in each version, and what is made of bad messages (RFC 3376, 2236, 1112)."""

from __future__ import annotations

import errno
import socket as std
import struct
from collections.abc import Iterator

import pytest

from netstack import procfs
from netstack._counters import mib
from tests.memory_host import MemoryHost, memory_host
from tests.proto import igmp_frames as f
from tests.proto.igmp_frames import ALL_V3, GROUP, LOCAL, OTHER, read

IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = 1, 2, 3, 4, 5, 6
ANY = "0.0.0.0"


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request: pytest.FixtureRequest) -> Iterator[MemoryHost]:
    with memory_host(fast_path=request.param) as it:
        yield it


def mreq(group: str, address: str = "10.0.0.2") -> bytes:
    return std.inet_aton(group) + std.inet_aton(address)


def join(it: MemoryHost, *groups: str) -> std.socket:
    sock = it.socket()
    for group in groups:
        sock.setsockopt(std.IPPROTO_IP, std.IP_ADD_MEMBERSHIP, mreq(group))
    return sock


def leave(sock: std.socket, group: str) -> None:
    sock.setsockopt(std.IPPROTO_IP, std.IP_DROP_MEMBERSHIP, mreq(group))


def wait(it: MemoryHost, seconds: float) -> list[tuple[str, int, object]]:
    """Let time pass, timer by timer; give the reports."""
    end = it.host.now() + int(seconds * 1e9)
    out = it.sent()
    while (due := it.host.kworker.next_deadline()) and due <= end:
        out += it.advance(max(0, due - it.host.now()) / 1e9)
    out += it.advance((end - it.host.now()) / 1e9)
    return [read(frame) for frame in out if frame[23] == 2]


def v3(*records: tuple[int, str, list[str]]) -> tuple[str, int, object]:
    return ALL_V3, f.V3_REPORT, list(records)


# ---- version 3


def test_joining_is_reported_as_often_as_the_robustness_variable_says(it):
    join(it, GROUP)
    assert wait(it, 5) == [v3((TO_EX, GROUP, []))] * 2
    it.host.config["net.ipv4.igmp_qrv"] = 4
    it.put(f.query(3, qrv=4))
    wait(it, 5)
    join(it, OTHER)
    assert wait(it, 10) == [v3((TO_EX, OTHER, []))] * 4


def test_the_first_report_leaves_within_10_ms_and_the_second_within_a_second(it):
    join(it, GROUP)
    assert len(wait(it, 0.010)) == 1
    assert len(wait(it, 1.010)) == 1


def test_leaving_is_reported_after_the_last_socket_has_left(it):
    one, two = join(it, GROUP), join(it, GROUP)
    wait(it, 5)
    assert it.host.memberships(2) == [(GROUP, 2), ("224.0.0.1", 1)]
    leave(one, GROUP)
    assert wait(it, 5) == []
    two.close()
    assert wait(it, 5) == [v3((TO_IN, GROUP, []))] * 2
    assert it.host.memberships(2) == [("224.0.0.1", 1)]


def test_a_group_joined_again_before_its_leaving_was_reported_is_not_reported_as_left(it):
    sock = join(it, GROUP)
    wait(it, 5)
    leave(sock, GROUP)
    join(it, GROUP)
    assert wait(it, 5) == [v3((TO_EX, GROUP, []))] * 2


def test_all_hosts_is_never_reported_and_its_neighbours_are_if_wanted(it):
    join(it, "224.0.0.1", LOCAL)
    assert wait(it, 5) == [v3((TO_EX, LOCAL, []))] * 2
    it.host.config["net.ipv4.igmp_link_local_mcast_reports"] = 0
    join(it, "224.0.0.252")
    it.put(f.query(3))
    assert wait(it, 5) == []


def test_a_general_query_is_answered_once_within_its_maximum_response_time(it):
    join(it, GROUP, OTHER)
    wait(it, 5)
    it.put(*[f.query(3, code=50)] * 3)
    assert wait(it, 5.01) == [v3((IS_EX, OTHER, []), (IS_EX, GROUP, []))]
    assert wait(it, 60) == []


def test_a_group_query_is_answered_for_that_group(it):
    join(it, GROUP, OTHER)
    wait(it, 5)
    it.put(f.query(3, GROUP, code=10))
    assert wait(it, 1.01) == [v3((IS_EX, GROUP, []))]
    it.put(f.query(3, "239.9.9.9"))
    assert wait(it, 5) == []


def test_long_response_times_have_an_exponent(it):
    join(it, GROUP)
    wait(it, 5)
    it.put(f.query(3, code=0xFF))  # (15 + 16) << 10 tenths of a second
    due = it.host.kworker.next_deadline()
    assert wait(it, 3174.5) == [v3((IS_EX, GROUP, []))]
    assert due > 0


def sources(it: MemoryHost, option: int, *names: str) -> std.socket:
    sock = it.socket()
    for name in names:
        value = std.inet_aton(GROUP) + std.inet_aton("10.0.0.2") + std.inet_aton(name)
        sock.setsockopt(std.IPPROTO_IP, option, value)
    return sock


def test_sources_are_reported_as_they_come_and_go(it):
    sock = sources(it, 39, "10.1.0.1", "10.1.0.2")
    assert wait(it, 5) == [v3((ALLOW, GROUP, ["10.1.0.1", "10.1.0.2"]))] * 2
    value = std.inet_aton(GROUP) + std.inet_aton("10.0.0.2") + std.inet_aton("10.1.0.1")
    sock.setsockopt(std.IPPROTO_IP, 40, value)
    assert wait(it, 5) == [v3((BLOCK, GROUP, ["10.1.0.1"]))] * 2
    sock.close()
    assert wait(it, 5) == [v3((BLOCK, GROUP, ["10.1.0.2"]))] * 2


def test_a_query_for_sources_is_answered_with_those(it):
    sources(it, 39, "10.1.0.1", "10.1.0.2")
    wait(it, 5)
    it.put(f.query(3, GROUP, sources=("10.1.0.2", "10.9.9.9")))
    assert wait(it, 5) == [v3((IS_IN, GROUP, ["10.1.0.2"]))]
    it.put(f.query(3, GROUP, sources=("10.9.9.9",)))
    assert wait(it, 5) == []


def test_a_change_of_the_filter_mode_says_it_all(it):
    sock = join(it, GROUP)
    wait(it, 5)
    value = std.inet_aton(GROUP) + std.inet_aton("10.0.0.2") + struct.pack("=II", 1, 1)
    sock.setsockopt(std.IPPROTO_IP, 41, value + std.inet_aton("10.1.0.1"))
    assert wait(it, 5) == [v3((TO_IN, GROUP, ["10.1.0.1"]))] * 2


def test_what_does_not_fit_into_a_packet_goes_into_the_next(it):
    it.host.config["net.ipv4.igmp_max_memberships"] = 500
    join(it, *[f"239.2.{i // 250}.{i % 250}" for i in range(400)])
    reports = wait(it, 0.01)
    assert [len(records) for _dst, _type, records in reports] == [183, 183, 34]
    assert len({group for _, _, records in reports for _, group, _ in records}) == 400


# ---- versions 2 and 1


def test_a_querier_of_version_2_is_spoken_to_in_version_2(it):
    sock = join(it, GROUP)
    wait(it, 5)
    it.put(f.query(2, code=100))
    assert wait(it, 10.01) == [(GROUP, f.V2_REPORT, GROUP)]
    assert "V2" in procfs.read(it.host, "net/igmp")
    leave(sock, GROUP)
    assert wait(it, 5) == [("224.0.0.2", f.LEAVE, GROUP)]
    join(it, OTHER)
    assert wait(it, 60) == [(OTHER, f.V2_REPORT, OTHER)] * 2


def test_a_querier_of_version_1_is_spoken_to_in_version_1_and_no_leaving_is_told(it):
    sock = join(it, GROUP)
    wait(it, 5)
    it.put(f.query(1))
    assert wait(it, 10.01) == [(GROUP, f.V1_REPORT, GROUP)]
    leave(sock, GROUP)
    assert wait(it, 60) == []


def test_older_versions_are_forgotten_when_their_querier_is_silent(it):
    join(it, GROUP)
    it.put(f.query(1), f.query(2))
    shown = []
    for _ in range(3):
        shown.append(procfs.read(it.host, "net/igmp").splitlines()[3].split()[-1])
        wait(it, 259.9)
        wait(it, 0.2)
        it.put(f.query(2)) if len(shown) == 1 else None
    assert shown == ["V1", "V2", "V3"]


def test_a_report_that_another_sends_is_not_sent_again_nor_its_leaving(it):
    sock = join(it, GROUP)
    wait(it, 5)
    it.put(f.query(2, code=255), f.report(GROUP))
    assert wait(it, 60) == []
    leave(sock, GROUP)
    assert wait(it, 5) == []


@pytest.mark.parametrize("key", ["all", "tap0"])
def test_the_version_can_be_forced(it, key):
    it.host.config[f"net.ipv4.conf.{key}.force_igmp_version"] = 2
    join(it, GROUP)
    assert wait(it, 60) == [(GROUP, f.V2_REPORT, GROUP)] * 2
    assert it.host.config[f"net.ipv4.conf.{key}.force_igmp_version"] == 2


def test_a_device_has_settings_of_its_own(it):
    it.host.config["net.ipv4.conf.lo.force_igmp_version"] = 1
    join(it, GROUP)
    assert wait(it, 5) == [v3((TO_EX, GROUP, []))] * 2
    with pytest.raises(ValueError, match="tap9"):
        it.host.config["net.ipv4.conf.tap9.force_igmp_version"] = 1


# ---- bad messages


@pytest.mark.parametrize(
    ("frame", "fate"),
    [
        (f.igmp(GROUP, f.message(f.QUERY, 10, GROUP)[:7]), "PKT_TOO_SMALL"),
        (f.igmp(GROUP, b"\x11\x0a\x12\x34" + bytes(4)), "IGMP_CSUM"),
        (f.igmp(GROUP, f.message(f.QUERY, 10, GROUP, b"abc")), "PKT_TOO_SMALL"),
        (f.igmp(GROUP, f.message(f.QUERY, 10, GROUP, b"\x02\x7d\0\x02abcd")), "PKT_TOO_SMALL"),
        (f.igmp(GROUP, f.message(f.LEAVE, 0, GROUP)), "IGMP_IGNORED"),
        (f.igmp(GROUP, f.message(0x99, 0, GROUP)), "IGMP_IGNORED"),
        (f.igmp("224.0.0.22", f.message(f.V3_REPORT)), "NIC_DROP_FILTER"),
    ],
)
def test_a_bad_message_changes_nothing_and_ends_with_a_reason(it, frame, fate):
    join(it, GROUP)
    wait(it, 5)
    before = procfs.read(it.host, "net/igmp")
    it.put(frame)
    assert it.drops() == {fate: 1}
    assert wait(it, 60) == []
    assert procfs.read(it.host, "net/igmp") == before


def test_storms_leave_nothing_behind(it):
    join(it, GROUP, OTHER)
    wait(it, 5)
    for _ in range(500):
        it.put(f.query(3, GROUP, code=255), f.query(2, code=200), f.report(GROUP))
    igmp = it.host.inet.igmp
    assert len(igmp.wheel.heap) < 100
    assert len(wait(it, 40)) <= 2
    assert it.host.net.mib(mib.IpInDelivers) >= 1500


def test_ten_thousand_joins_are_refused_at_the_limit(it):
    sock = it.socket()
    errors = []
    for i in range(10_000):
        try:
            sock.setsockopt(
                std.IPPROTO_IP, std.IP_ADD_MEMBERSHIP, mreq(f"239.3.{i >> 8}.{i & 255}")
            )
        except OSError as error:
            errors.append(error.errno)
    assert errors == [errno.ENOBUFS] * 9980
    assert len(it.host.memberships(2)) == 21


# ---- the device


def test_a_device_that_was_down_reports_again(it):
    from netstack import rtnl

    join(it, GROUP)
    wait(it, 5)
    rtnl.link_set(it.host, "tap0", {"up": False})
    assert it.host.memberships(2) == [(GROUP, 1)]
    assert wait(it, 5) == []
    rtnl.link_set(it.host, "tap0", {"up": True})
    assert wait(it, 5) == [v3((TO_EX, GROUP, []))] * 2


def test_groups_are_in_the_nic_s_filter_while_they_are_joined(it):
    sock = join(it, GROUP)
    it.put(f.datagram(OTHER), f.datagram(GROUP))
    assert it.drops() == {"NIC_DROP_FILTER": 1, "NO_SOCKET": 1}
    assert procfs.read(it.host, "net/dev_mcast") == (
        "2    tap0            1     0     01005e000001\n"
        "2    tap0            1     0     01005e010203\n"
    )
    leave(sock, GROUP)
    it.put(f.datagram(GROUP))
    assert it.drops() == {"NIC_DROP_FILTER": 2, "NO_SOCKET": 1}


def test_the_texts_show_groups_timers_and_sources(it):
    sources(it, 39, "10.1.0.1")
    wait(it, 5)
    it.put(f.query(2, code=100))
    lines = procfs.read(it.host, "net/igmp").splitlines()
    assert lines[3] == "2\ttap0      :     2      V2"
    head, timer, reporter = lines[4].rsplit(None, 2)
    assert (head, reporter) == ("\t\t\t\t030201EF     1", "0")
    assert timer[:2] == "1:"
    assert 0 < int(timer[2:], 16) <= 1001
    assert procfs.read(it.host, "net/mcfilter").splitlines()[1] == (
        "  2   tap0 0xef010203 0x0a010001      1      0"
    )
