"""Lines: the installed tcpdump judges each family of frames with each set of options."""

import functools
import os
import re
import struct
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.capture import Direction, Record
from netstack.capture.dissect import Style
from netstack.capture.printer import Printer
from netstack.errors import UsageError
from tests.capture import frames, frames_ip, frames_ip6, frames_tcp

FAMILIES = {
    "arp": frames.arp,
    "link": frames.link,
    "udp": frames_ip.udp,
    "ip": frames_ip.ip,
    "ip_options": frames_ip.ip_options,
    "icmp": frames_ip.icmp,
    "igmp": frames_ip.igmp,
    "tcp": frames_tcp.tcp,
    "ipv6": frames_ip6.ipv6,
    "icmp6": frames_ip6.icmp6,
}
OPTIONS = {
    "": Style(),
    "-e": Style(link=True),
    "-v": Style(verbose=1),
    "-vv": Style(verbose=2),
    "-ve": Style(verbose=1, link=True),
    "-q": Style(quiet=1),
    "-qq": Style(quiet=2),
    "-qve": Style(quiet=1, verbose=1, link=True),
    "-x": Style(hex=1),
    "-xx": Style(hex=2),
    "-X": Style(hex_ascii=1),
    "-XX": Style(hex_ascii=2),
    "-A": Style(ascii=1),
    "-AA": Style(ascii=2),
    "-vK": Style(verbose=1, no_checksums=True),
    "-S": Style(absolute=True),
}
TIMES = {
    "": Style(),
    "-t": Style(time=1),
    "-tt": Style(time=2),
    "-ttt": Style(time=3),
    "-tttt": Style(time=4),
    "-ttttt": Style(time=5),
    "-tt --nano": Style(time=2, nano=True),
    "-ttt --nano": Style(time=3, nano=True),
    "-#": Style(number=True),
}
START = 1_700_000_000_987_654_321
STEP = 1_234_567_891
TIMEZONE = "CET-1CEST"


@functools.cache
def family(name):
    """Return a family's frames as bytes."""
    return [bytes(packet) for packet in FAMILIES[name]()]


def records_of(datas, lengths=None):
    """Make records of frames, a little over a second apart."""
    lengths = lengths or [len(data) for data in datas]
    return [
        Record(START + n * STEP, data, length)
        for n, (data, length) in enumerate(zip(datas, lengths, strict=True))
    ]


@pytest.fixture(autouse=True)
def timezone(monkeypatch):
    """Print local time in one zone, wherever the test runs."""
    monkeypatch.setenv("TZ", TIMEZONE)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def tcpdump(tmp_path):
    """Return what runs tcpdump on records and returns its lines."""

    def run(records, options):
        path = tmp_path / "frames.pcap"
        with path.open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
            for r in records:
                seconds, ns = divmod(r.ts_ns, 10**9)
                file.write(struct.pack("<IIII", seconds, ns, len(r.data), r.wire_len) + r.data)
        command = ["tcpdump", "-nr", str(path), *options.split()]
        environment = {**os.environ, "TZ": TIMEZONE}
        result = subprocess.run(command, capture_output=True, check=True, env=environment)
        return result.stdout.decode("latin-1").splitlines()

    return run


def ours(records, style):
    """Return our lines."""
    printer = Printer(style)
    return "".join(printer(record) + "\n" for record in records).splitlines()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_lines_are_tcpdumps(name, options, tcpdump):
    records = records_of(family(name))
    assert ours(records, OPTIONS[options]) == tcpdump(records, options)


@pytest.mark.parametrize("options", ["", "-e", "-q", "-x"])
def test_lines_with_ipv6_options_are_tcpdumps(options, tcpdump):
    records = records_of([bytes(packet) for packet in frames_ip6.ip6_options()])
    assert ours(records, OPTIONS[options]) == tcpdump(records, options)


@pytest.mark.parametrize("options", TIMES)
def test_times_are_tcpdumps(options, tcpdump):
    records = records_of(family("udp"))
    records[3].ts_ns -= 10 * STEP  # time may go back
    records[4].ts_ns += 86_400 * 10**9
    assert ours(records, TIMES[options]) == tcpdump(records, options)


@pytest.mark.parametrize("options", ["", "-vv", "-X"])
@pytest.mark.parametrize("name", ["arp", "udp", "icmp", "igmp", "tcp"])
def test_frames_cut_by_the_snapshot_length_are_described_as_far_as_they_go(
    name, options, tcpdump
):
    # All of the IPv4 header: what is said of less of it differs between tcpdump's versions.
    whole = family(name)
    cut = [(data[:size], len(data)) for data in whole for size in range(34, 60, 3)]
    records = [r for r in records_of(*zip(*cut, strict=True)) if r.data[12:14] != b"\x86\xdd"]
    assert ours(records, OPTIONS[options]) == tcpdump(records, options)


def test_lengths_that_cannot_be_are_tcpdumps(tcpdump):
    records = records_of([b"", b"abc", b"abc"], [60, 2, 0])
    assert ours(records, Style()) == tcpdump(records, "")


# What tcpdump 4.99.3 (Debian 12) and 4.99.4 (Ubuntu 24.04) say; 4.99.5 has changed the words.
BROKEN = {
    "45000021000100004011 6ad9": "IP truncated-ip - 1 bytes missing! "
    "1.2.3.4.4 > 5.6.7.8.5: UDP, length 4",
    "45000000000100004011 6ad9": "IP bad-len 0",
    "45000013000100004011 6ad9": "IP bad-len 19",
    "4f000020000100004011 6ad9": "IP bad-len 32",
    "44000020000100004011 6ad9": "IP bad-hlen 16",
    "40000020000100004011 6ad9": "IP bad-hlen 0",
    "55000020000100004011 6ad9": "IP5 (invalid)",
    "65000020000100004011 6ad9": "IP6, wrong link-layer encapsulation (invalid)",
}


@pytest.mark.parametrize("start", BROKEN)
def test_broken_ip_headers(start):
    rest = bytes.fromhex("0102030405060708 00040005000c0000 61626364")
    frame = bytes(frames.LINK)[:12] + b"\x08\0" + bytes.fromhex(start) + rest
    assert ours(records_of([frame]), Style(time=1)) == [BROKEN[start]]


def test_ipv6_headers_that_are_broken():
    whole = bytes(frames.NET6 / frames_ip6.PORTS / b"abc")
    line = "IP6 fe80::1.4 > 2001:db8::2.5: UDP, length 3"
    assert ours(records_of([whole]), Style(time=1)) == [line]
    cases = {
        frames.patched(whole, {14: 0x40}): "IP6 version error: 4 != 6",
        frames.patched(whole, {19: 12}): line.replace(
            "IP6 ", "IP6 truncated-ip6 - 1 bytes missing!"
        ),
        whole[:53]: "truncated-ip6 39",
    }
    assert ours(records_of(list(cases)), Style(time=1)) == [
        "IP6 version error: 4 != 6",
        "IP6 truncated-ip6 - 1 bytes missing!fe80::1.4 > 2001:db8::2.5: UDP, length 3",
        " [|ip6]",
    ]


def test_verbose_ipv6_options():
    packet, *_ = frames_ip6.ip6_options()
    (line,) = ours(records_of([bytes(packet)]), Style(time=1, verbose=1))
    assert line.startswith(
        "IP6 (hlim 64, next-header Options (0) payload length: 624) fe80::1 > 2001:db8::2: "
        "HBH (rtalert: 0x0000) (padn) [icmp6 sum ok] ICMP6, multicast listener report v2, "
        "8 group record(s) [gaddr ff02::5  [v2-report-#0], 0 source(s)] [gaddr ff02::5 is_in"
    )


def test_a_comment_stands_behind_the_line_and_before_the_dump():
    (record,) = records_of([family("udp")[0]])
    record.comment = "NO_SOCKET\nport 9"
    first, second, *_ = ours([record], Style(time=1, hex=1))
    line = "IP 10.9.0.1.40000 > 10.9.0.2.40001: UDP, length 0"
    assert first == f"{line} [NO_SOCKET port 9]"
    assert second.startswith("\t0x0000:  4500")


def test_the_place_stands_before_the_line_when_there_are_several():
    data = family("udp")[0]
    printer = Printer(Style(time=1, place=True))
    lines = [
        printer(Record(0, data, len(data), ifname="tap0", direction=Direction.IN)),
        printer(Record(0, data, len(data), ifname="tap0", stage="gro")),
    ]
    assert [re.match(r"(.*?)IP ", line).group(1) for line in lines] == [
        "tap0  In  ",
        "tap0@gro ?   ",
    ]


def test_a_link_type_without_printer_is_refused():
    with pytest.raises(UsageError, match="link type 105"):
        Printer(Style(), linktype=105)


@pytest.mark.parametrize(("linktype", "size"), [(101, 0), (12, 0), (228, 0)])
def test_raw_ip_frames(linktype, size):
    data = family("udp")[0][14:]
    line = Printer(Style(time=1), linktype)(Record(0, data, len(data), linktype=linktype))
    assert line == "IP 10.9.0.1.40000 > 10.9.0.2.40001: UDP, length 0"


def test_conversations_do_not_grow_without_end(monkeypatch):
    monkeypatch.setattr("netstack.capture.print_tcp.CONVERSATIONS_MAX", 8)
    printer = Printer(Style())
    segment = bytearray(family("tcp")[2])
    for port in range(100):
        segment[34:36] = port.to_bytes(2, "big")
        printer(Record(0, bytes(segment), len(segment)))
    assert len(printer._conversations) == 8


@given(
    st.sampled_from(sorted(FAMILIES)),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(12, 90), st.integers(0, 255)), max_size=8),
    st.integers(0, 200),
    st.sampled_from(sorted(OPTIONS)),
)
def test_no_frame_stops_the_printer(name, which, changes, size, options):
    whole = family(name)
    data = bytearray(whole[which % len(whole)])
    for where, value in changes:
        if where < len(data):
            data[where] = value
    line = Printer(OPTIONS[options])(Record(0, bytes(data[:size]), len(data)))
    assert line


@given(st.binary(max_size=120), st.sampled_from(sorted(OPTIONS)))
def test_noise_does_not_stop_the_printer(noise, options):
    for start in (b"\x08\0\x45", b"\x86\xdd\x60", b"\x08\x06", b""):
        data = bytes(12) + start + noise
        assert Printer(OPTIONS[options])(Record(0, data, len(data)))
