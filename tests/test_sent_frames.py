"""What judges the frames that hosts send can fail: tests/sent_frames.py and tests/peer_errors.py."""

from __future__ import annotations

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

import netstack
from tests import peer_errors, sent_frames
from tests.frames import OUR_IP, PEER_IP, ether, ping, udp
from tests.netns import fresh_netns
from tests.peer_errors import PEERS

ROOT = Path(__file__).resolve().parent.parent
tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")

# A segment whose urgent pointer makes its checksum 0.
TO_ZERO = IP(bytes(IP() / TCP()))[TCP].chksum
QUOTED = bytes(IP(src=PEER_IP, dst=OUR_IP, ttl=9) / UDP(dport=9, chksum=5) / b"wrong")
GOOD = {
    "udp": udp(b"x" * 9),
    "no checksum": udp(b"x", chksum=0),
    "to a port of DNS": udp(b"no DNS", dport=53),
    "echo": ping(b"12345"),
    "arp": bytes(Ether() / ARP(op=2)),
    "a wrong quotation": bytes(ether() / IP() / ICMP(type=3, code=3) / QUOTED),
    "zeros, as Linux": bytes(ether() / IP() / ICMP(type=0, id=0, seq=0, chksum=0)),
    "TCP, as Linux": bytes(ether() / IP() / TCP(urgptr=TO_ZERO, chksum=0xFFFF)),
}
BAD = {
    "IP checksum": bytes(ether() / IP(chksum=1) / UDP()),
    "UDP checksum": udp(b"x", chksum=1),
    "TCP checksum": bytes(ether() / IP() / TCP(chksum=1)),
    "ICMP checksum": bytes(ether() / IP() / ICMP(chksum=1)),
    "checksum of an error": bytes(ether() / IP() / ICMP(type=3, code=3, chksum=1) / QUOTED),
    "UDP length": udp(b"x", len=500),
    "cut short": bytes(Ether() / ARP(op=2))[:30],
}


def recording(*frames: bytes) -> sent_frames.Recording:
    it = sent_frames.Recording()
    it.test = "test"
    it.add(list(frames))
    return it


@tshark
def test_each_fault_is_found_and_nothing_else(tmp_path):
    it = recording(*GOOD.values(), *BAD.values())
    it.write(tmp_path / "frames")
    found = [number for number, _ in sent_frames.judge(tmp_path / "frames")]
    names = [*GOOD, *BAD]
    assert [names[number - 1] for number in found] == list(BAD)


@tshark
@pytest.mark.parametrize("payload", [b"", b"odd", b"even"])
def test_a_checksum_that_was_left_to_the_other_side_is_put_in(tmp_path, payload):
    frame = udp(payload)
    pseudo = 0x0A00 + 0x0002 + 0x0A00 + 0x0001 + 17 + 8 + len(payload)
    unfinished = frame[:40] + struct.pack("!H", pseudo) + frame[42:]
    it = recording()
    it.add([struct.pack("=BBHHHH", 1, 0, 0, 0, 34, 6) + unfinished, bytes(10) + frame], True)
    assert list(it.frames) == [frame]


def test_a_frame_is_kept_once_and_belongs_to_its_first_test():
    it = recording(udp(), udp())
    it.test = "another"
    it.add([udp(), ping()])
    it.test = None
    it.add([udp(b"nobody's")])
    assert it.frames == {udp(): "test", ping(): "another"}


@tshark
@pytest.mark.parametrize("processes", [0, 2])
def test_a_session_with_a_bad_frame_fails_and_names_the_test(tmp_path, processes):
    source = """
from tests.sent_frames import RECORDING
import pytest
def test_good(): RECORDING.add([bytes.fromhex("{good}")])
def test_bad(): RECORDING.add([bytes.fromhex("{bad}")])
@pytest.mark.odd_frames
def test_odd(): RECORDING.add([bytes.fromhex("{odd}")])
"""
    file = tmp_path / "test_it.py"
    odd = udp(b"odd", chksum=1)
    file.write_text(source.format(good=udp().hex(), bad=udp(chksum=1).hex(), odd=odd.hex()))
    command = [sys.executable, "-m", "pytest", "-p", "tests.sent_frames", "-c", os.devnull]
    command += [f"-n{processes}"]
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, file],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NETSTACK_FRAMES_SENT": str(tmp_path / "kept"),
        },
    )
    assert done.returncode == 1, done.stdout
    looked = re.findall(r"tshark looked at (\d) different frames .*: (\d) bad", done.stdout)
    assert [sum(map(int, column)) for column in zip(*looked, strict=True)] == [2, 1]
    (found,) = (line for line in done.stdout.splitlines() if line.startswith("  frame "))
    assert "Bad checksum" in found
    assert found.endswith("::test_bad]")
    (kept,) = tmp_path.glob("kept*")
    assert kept.stat().st_size > 0


@pytest.mark.tap
@pytest.mark.odd_frames
@pytest.mark.peer_errors("UdpInErrors", "UdpInCsumErrors")
def test_the_peer_s_errors_are_seen():
    with (
        fresh_netns(),
        netstack.up("tap0", addr=f"{OUR_IP}/24", control=False) as host,
        host.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire,
    ):
        frame = (
            Ether(dst="ff:ff:ff:ff:ff:ff") / IP(src=OUR_IP, dst="10.0.0.255") / UDP(chksum=1)
        )
        wire.bind(("tap0", 0))
        wire.send(bytes(frame))
        host.settle()
        assert peer_errors.counters()["UdpInCsumErrors"] == 1
    assert PEERS.errors == {"UdpInErrors": 1, "UdpInCsumErrors": 1}


def test_a_full_socket_is_no_error_of_the_other_side():
    counted = {"UdpInErrors": 7, "UdpRcvbufErrors": 4, "UdpMemErrors": 3, "IpInReceives": 9}
    assert peer_errors.errors(counted) == {}
    assert peer_errors.errors(counted | {"UdpInErrors": 8}) == {"UdpInErrors": 1}
