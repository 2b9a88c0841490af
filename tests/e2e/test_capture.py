"""A live capture of ``netstack up``, read by tshark and on the terminal."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import netstack
from netstack import runtime
from netstack.capture.stages import STAGES
from netstack.control_client import Control, hosts
from tests.e2e.conftest import HOST, PEER
from tests.e2e.load import PATIENCE, balanced, pings, wait_until
from tests.netns import fresh_netns

pytestmark = pytest.mark.tap

ROOT = Path(__file__).resolve().parents[2]
NETSTACK = (sys.executable, "-m", "netstack")


@contextmanager
def started(*words: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """Run ``netstack`` in a process of its own, ended with the block."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    with subprocess.Popen([*NETSTACK, *words], cwd=ROOT, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def name() -> Iterator[str]:
    """Give the name of a running host that the kernel knows; its ledger balances at the end."""
    name = f"t{secrets.token_hex(4)}"
    directory = runtime.runtime_dir()
    with fresh_netns(), started("up", name) as process:
        wait_until(lambda: name in hosts(directory) or process.poll() is not None)
        with Control.find(directory, name) as control:
            control.request("info")  # answered once the host is there
        assert pings() == 1
        yield name
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, "")
        assert out.endswith("balanced\n")


def test_tshark_reads_a_live_capture(name):
    fields = ["frame.packet_id", "ip.src", "icmp.type", "icmp.seq", "frame.interface_name"]
    words = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-l", "-n", "-i", "-", "-T", "fields", *words]
    with (
        started("capture", "-i", name, "-w", "-", "icmp", text=False) as capture,
        subprocess.Popen(
            command, stdin=capture.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        ) as tshark,
    ):  # fmt: skip
        assert b"listening on" in capture.stderr.readline()
        assert pings(3) == 3
        # Read while the capture runs: tshark has printed them before anybody has left.
        rows = [tshark.stdout.readline().rstrip("\n").split("\t") for _ in range(6)]
        assert capture.poll() is None
        capture.send_signal(signal.SIGINT)
        assert capture.wait(PATIENCE) == 0
        assert tshark.wait(PATIENCE) == 0
    assert [row[1:] for row in rows] == [
        [address, kind, str(seq), name]
        for seq in (1, 2, 3)
        for address, kind in ((PEER, "8"), (HOST, "0"))
    ]
    assert [row[0] for row in rows[1::2]] == [""] * 3, "what we make ourselves has no frame id"
    ids = [int(row[0]) for row in rows[::2]]
    assert ids == sorted(set(ids)), "each frame off the wire has its own"


def test_five_lines_as_tcpdump_prints_them(name):
    with started("capture", "-i", name, "-c", "5", "-n", "icmp") as capture:
        assert "verbose output suppressed" in capture.stderr.readline()
        assert "listening on" in capture.stderr.readline()
        assert pings(3) == 3
        out, err = capture.communicate(timeout=PATIENCE)
    assert capture.returncode == 0
    assert "5 packets captured" in err
    lines = [line.partition(" IP ")[2].split(", ") for line in out.splitlines()]
    there, back = f"{PEER} > {HOST}: ICMP echo request", f"{HOST} > {PEER}: ICMP echo reply"
    assert [(line[0], line[2], line[3]) for line in lines] == [
        (way, f"seq {seq}", "length 64")
        for way, seq in ((there, 1), (back, 1), (there, 2), (back, 2), (there, 3))
    ]


def test_json_has_the_frame_id(name):
    with started("capture", "-i", name, "-c", "2", "--json", "icmp") as capture:
        while "listening on" not in capture.stderr.readline():
            assert capture.poll() is None
        assert pings() == 1
        out, _ = capture.communicate(timeout=PATIENCE)
    request, reply = map(json.loads, out.splitlines())
    assert (request["direction"], reply["direction"]) == ("in", "out")
    assert request["packet_id"] > 0


def test_a_reader_that_leaves_ends_the_capture_and_not_the_host(name):
    readable, writable = os.pipe()
    with started("capture", "-i", name, "-U", "-w", "-", stdout=writable) as capture:
        os.close(writable)
        assert "listening on" in capture.stderr.readline()
        os.close(readable)
        assert pings() == 1
        assert capture.wait(PATIENCE) == 128 + signal.SIGPIPE
    assert pings() == 1


def test_tshark_reads_a_live_capture_of_two_stages(name):
    fields = ["frame.packet_id", "frame.interface_name", "frame.comment", "udp.dstport"]
    words = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-l", "-n", "-i", "-", "-T", "fields", *words]
    places = ["-i", f"{name}@nic", "-i", f"{name}@drop", "-w", "-"]
    with (
        started("capture", *places, "udp", "port", "4000", text=False) as capture,
        subprocess.Popen(
            command, stdin=capture.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        ) as tshark,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):  # fmt: skip
        assert b"listening on" in capture.stderr.readline()
        sock.sendto(b"x", (HOST, 4000))
        rows = [tshark.stdout.readline().rstrip("\n").split("\t") for _ in range(2)]
        assert capture.poll() is None
        capture.send_signal(signal.SIGINT)
        assert capture.wait(PATIENCE) == 0
        assert tshark.wait(PATIENCE) == 0
    assert [row[1] for row in rows] == [f"{name}@nic", f"{name}@drop"]
    assert rows[0][0] == rows[1][0] != ""
    assert [row[2] for row in rows] == ["", "NO_SOCKET"]


# An error may come back when the client that it is for has closed.
@pytest.mark.peer_errors("IcmpInErrors")
def test_captures_come_and_go_under_load(fast_path):
    enough = threading.Event()
    with fresh_netns(), netstack.up("tap0", fast_path=fast_path, control=False) as host:
        assert pings() == 1
        server = host.socket()
        server.bind(("", 5000))
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

        def send() -> None:
            with client:
                while not enough.is_set():
                    client.sendto(bytes(100), (HOST, 5000))
                    client.sendto(bytes(100), (HOST, 5001))

        sender = threading.Thread(target=send)
        sender.start()
        kept = received = rounds = 0
        try:
            while rounds < 10 or not kept:
                with (
                    host.capture(tuple(STAGES), filter="udp") as all_stages,
                    host.capture("drop"),
                ):
                    for _ in range(20):
                        records = all_stages.read()
                        kept += len(records)
                        assert all(len(r.data) in (142, 128) for r in records)
                    received += all_stages.stats().received
                rounds += 1
        finally:
            enough.set()
            sender.join()
        server.close()
        assert host.net.nf_rules == 0
        assert 0 < kept <= received
        assert pings() == 1
        balanced(host)
