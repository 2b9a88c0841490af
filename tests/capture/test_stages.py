"""Capture at a stage: one packet's whole trip, on the compiled road and on Python's."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections import defaultdict

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import ARP, Ether

from netstack.capture import Direction, Record
from netstack.capture.pcapng import Writer
from netstack.capture.stages import LINKTYPE_RAW, STAGES, places, programs
from netstack.device._memory import MemoryWire
from netstack.errors import UsageError
from tests.frames import PEER_IP, arp_reply, ip, udp
from tests.memory_host import memory_host

IN = ("nic", "gro", "prerouting", "input", "socket")
ALL = tuple(STAGES)


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request):
    """Give a host that knows its peer, on either road."""
    with memory_host(fast_path=request.param) as it:
        it.meet()
        yield it


def seen(capture) -> list[Record]:
    """Take all that was captured."""
    out = []
    while records := capture.read():
        out += records
    return out


def stages(records: list[Record]) -> list[str]:
    """Name the stages in the order in which the packet came by."""
    return [record.stage for record in records]


def test_a_datagram_has_the_same_id_at_every_stage(it):
    it.socket("", 5000)
    frame = udp(dport=5000)
    with it.host.capture(ALL) as capture:
        it.put(frame)
        records = seen(capture)
    assert tuple(stages(records)) == IN
    assert len({record.frame_id for record in records}) == 1
    assert records[0].frame_id
    assert all(record.data == frame for record in records)
    assert all(record.direction == Direction.IN for record in records)
    assert {record.interface for record in records} == {f"tap0@{stage}" for stage in IN}


def test_what_we_send_is_raw_ip_at_output_and_postrouting(it):
    sock = it.socket("", 5000)
    with it.host.capture(("", *ALL)) as capture:
        sock.sendto(b"hello", (PEER_IP, 9))
        it.host.run()
        records = seen(capture)
    assert stages(records) == ["output", "postrouting", ""]
    assert [record.linktype for record in records] == [LINKTYPE_RAW, LINKTYPE_RAW, 1]
    assert records[0].data == records[1].data == records[2].data[14:]
    assert {record.direction for record in records} == {Direction.OUT}


@pytest.mark.parametrize(
    ("spoil", "last", "reason"),
    [
        (lambda f: f[:24] + bytes([f[24] ^ 1]) + f[25:], "gro", "IP_CSUM"),
        (lambda f: f, "input", "NO_SOCKET"),
        (lambda f: f[:50] + bytes([f[50] ^ 1]) + f[51:], "input", "UDP_CSUM"),
    ],
    ids=["IP_CSUM", "NO_SOCKET", "UDP_CSUM"],
)
def test_a_dropped_packet_s_last_stage_is_where_it_died(it, spoil, last, reason):
    if reason == "UDP_CSUM":
        it.socket("", 4000)
    with it.host.capture(ALL) as capture:
        it.put(spoil(udp(dport=4000, payload=bytes(range(30)))))
        records = [record for record in seen(capture) if record.frame_id]
    assert stages(records)[-2:] == [last, "drop"]
    assert records[-1].comment == reason
    assert records[-1].data == records[0].data
    assert len({record.frame_id for record in records}) == 1


def test_a_full_socket_is_seen_at_the_socket_and_then_dropped(it):
    sock = it.socket("", 5000)
    sock.setsockopt(1, 8, 1)
    with it.host.capture(("socket", "drop")) as capture:
        it.put(*(udp(dport=5000) for _ in range(10)))
        counts = defaultdict(int)
        for record in seen(capture):
            counts[record.stage, record.comment] += 1
    assert counts["socket", None] == 10
    assert counts["drop", "SOCKET_RCVBUFF"] == it.drops()["SOCKET_RCVBUFF"] > 0


def test_a_rule_drops_behind_prerouting(it):
    it.socket("", 5000)
    it.host.nft.command("add rule ip filter input udp dport 5000 drop")
    with it.host.capture(ALL) as capture:
        it.put(udp(dport=5000))
        records = seen(capture)
    assert stages(records) == ["nic", "gro", "prerouting", "input", "drop"]
    assert records[-1].comment == "NETFILTER_DROP"


@pytest.mark.parametrize("stage", IN)
def test_a_filter_holds_at_each_stage(it, stage):
    it.socket("", 5000)
    it.socket("", 5001)
    with it.host.capture(stage, filter="udp port 5001") as capture:
        it.put(udp(dport=5000), udp(dport=5001), udp(dport=5000))
        records = seen(capture)
        assert capture.stats().received == 1
    assert [record.data for record in records] == [udp(dport=5001)]


@pytest.mark.parametrize("stage", ["output", "postrouting"])
def test_a_filter_holds_on_the_way_out(it, stage):
    sock = it.socket("", 5000)
    with it.host.capture(stage, filter="udp dst port 9") as capture:
        for port in (8, 9, 10):
            sock.sendto(b"x", (PEER_IP, port))
        it.host.run()
        (record,) = seen(capture)
    assert record.data[22:24] == (9).to_bytes(2)


def test_a_filter_holds_at_the_drop_with_and_without_an_ethernet_header(it):
    sock = it.socket("", 5000)
    it.host.nft.command("add rule ip filter output udp dport 1-10 drop")
    with it.host.capture("drop", filter="udp port 9") as capture:
        for port in (8, 9):
            with pytest.raises(PermissionError):
                sock.sendto(b"x", (PEER_IP, port))
            it.put(udp(dport=port))
        records = seen(capture)
    ways = [(record.linktype, record.comment) for record in records]
    assert (1, "NO_SOCKET") in ways
    assert (LINKTYPE_RAW, "NETFILTER_DROP") in ways
    assert all((9).to_bytes(2) in record.data for record in records)


def test_what_gro_merged_is_whole_and_names_its_first_frame(it):
    sock = it.socket("", 5000)
    sock.setsockopt(17, 104, 1)
    with it.host.capture(("nic", "gro", "socket")) as capture:
        it.put(*(udp(dport=5000, payload=bytes(100)) for _ in range(4)))
        records = seen(capture)
    assert stages(records) == ["nic"] * 4 + ["gro", "socket"]
    for merged in records[4:]:
        assert merged.frame_id == records[0].frame_id
        assert merged.comment == f"4 frames, the first is {records[0].frame_id}"
        assert merged.wire_len == len(merged.data) == 42 + 400


def test_forwarded_frames_pass_forward_and_postrouting(it):
    it.host.config["net.ipv4.ip_forward"] = 1
    it.put(arp_reply())
    with it.host.capture(ALL) as capture:
        it.put(bytes(ip(src="10.0.0.7", dst="10.0.0.1") / UDP(dport=9)))
        records = seen(capture)
    trip = [record for record in records if record.frame_id]
    assert stages(trip) == ["nic", "gro", "prerouting", "forward", "postrouting"]
    assert len({record.frame_id for record in trip}) == 1


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "python"])
def test_a_packet_passed_on_is_the_first_device_s_until_it_leaves_by_the_other(fast):
    with memory_host(fast_path=fast) as it:
        ours, theirs = MemoryWire.pair(10)
        it.host.add_nic(ours, "tap1", addr="10.1.0.2/24")
        it.meet()
        it.host.config["net.ipv4.ip_forward"] = 1
        asks = ARP(op=1, hwsrc="02:00:00:00:01:01", psrc="10.1.0.1", pdst="10.1.0.2")
        theirs.send(bytes(Ether(src=asks.hwsrc, dst="ff:ff:ff:ff:ff:ff") / asks))
        it.host.run()
        assert len(list(iter(theirs.recv, None))) == 1
        with it.host.capture(("", *ALL)) as capture:
            it.put(bytes(ip(src=PEER_IP, dst="10.1.0.1", ttl=9) / UDP(dport=9)))
            records = seen(capture)
        (sent,) = iter(theirs.recv, None)
    trip = [record.interface for record in records]
    here = [f"tap0{place}" for place in ("@nic", "", "@gro", "@prerouting", "@forward")]
    assert trip == [*here, "tap1@postrouting", "tap1"]
    assert len({record.frame_id for record in records}) == 1
    assert [record.direction for record in records] == [Direction.IN] * 5 + [Direction.OUT] * 2
    assert records[-1].data == sent
    assert records[-2].data == sent[14:]
    assert records[-2].data[8] == 8, "a hop older"


def test_what_a_closed_socket_had_is_shown_as_dropped(it):
    sock = it.socket("", 5000)
    frame = udp(dport=5000)
    it.put(frame)
    with it.host.capture("drop") as capture:
        sock.close()
        (record,) = seen(capture)
    assert (record.data, record.comment) == (frame, "SOCKET_CLOSE")


def test_an_interface_is_chosen(it):
    it.socket("", 5000)
    with it.host.capture("gro", "lo") as lo, it.host.capture("gro", "tap0") as tap0:
        it.put(udp(dport=5000))
        assert (len(seen(lo)), len(seen(tap0))) == (0, 1)


@pytest.mark.parametrize("stage", ["gor", "@gro", "NIC"])
def test_a_wrong_stage_is_refused_with_the_list(it, stage):
    with pytest.raises(UsageError, match="there is no place") as refused:
        it.host.capture(stage)
    for name, _ in places(it.host.devices):
        assert f"-i {name}" in refused.value.hint
    with pytest.raises(UsageError):
        it.host.capture("gro", "tap7")


def test_nothing_is_left_when_nobody_captures(it):
    it.socket("", 5000)
    before = it.host.net.nf_rules
    with it.host.capture(ALL):
        assert it.host.net.nf_rules != before
        with it.host.capture("gro"):
            pass
        assert it.host.net.nf_rules != before, "one of two has left"
    assert it.host.net.nf_rules == before
    it.put(udp(dport=5000))


def test_what_does_not_fit_is_counted_and_told(it):
    it.socket("", 5000)
    with it.host.capture(("nic", "gro")) as capture:
        for _ in range(40):
            it.put(*(udp(dport=9, payload=bytes(1400)) for _ in range(50)))
        received, dropped = capture.stats().received, capture.stats().dropped
        records = seen(capture)
    assert received == 4000
    assert dropped > 0
    assert len(records) == received - dropped
    assert records[0].dropped == dropped


def test_an_ethernet_filter_matches_nothing_without_a_header():
    program, raw = programs("ether src 02:00:00:00:00:01", ("drop",))
    assert program is not None
    assert raw is not None
    assert raw.matches(bytes(60)) == 0
    with pytest.raises(UsageError):
        programs("ether src 02:00:00:00:00:01", ("output",))


def test_tshark_shows_one_packet_s_trip(it, tmp_path):
    if shutil.which("tshark") is None:
        pytest.skip("no tshark")
    sock = it.socket("", 5000)
    file = io.BytesIO()
    texts = dict(places(it.host.devices))
    with it.host.capture(ALL) as capture:
        it.put(udp(dport=5000), udp(dport=7777))
        sock.sendto(b"x", (PEER_IP, 9))
        it.host.run()
        writer = Writer(file, descriptions=texts)
        for record in seen(capture):
            writer.write(record)
        writer.close(capture.stats())
    path = tmp_path / "trip.pcapng"
    path.write_bytes(file.getvalue())
    fields = ["frame.packet_id", "frame.interface_name", "frame.interface_description"]
    fields += ["frame.comment", "udp.dstport"]
    words = [word for field in fields for word in ("-e", field)]
    out = subprocess.run(
        ["tshark", "-nr", str(path), "-T", "fields", *words],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    rows = [line.split("\t") for line in out.splitlines()]
    trip = [row for row in rows if row[4].startswith("5000")]
    assert [row[1] for row in trip] == [f"tap0@{stage}" for stage in IN]
    assert len({row[0] for row in trip}) == 1
    assert all(row[2] == texts[row[1]] for row in rows if row[1])
    assert [row[3] for row in rows if row[1] == "tap0@drop"] == ["NO_SOCKET"]
    assert {row[1] for row in rows if row[4] == "9"} == {"tap0@output", "tap0@postrouting"}


def test_places_are_what_the_option_takes(it):
    names = [name for name, _ in places(it.host.devices)]
    assert names[:2] == ["tap0", "lo"]
    assert "tap0@nic" in names
    assert "lo@nic" not in names
