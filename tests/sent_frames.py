"""Every frame that a host sends in the session is recorded, and judged by tshark at its end.

What is recorded: the frames out of each TAP in a `fresh_netns()` (the namespace's kernel sees
them, as `tcpdump -Q in` would), and what a test takes off a memory wire through `MemoryHost` or
`Stack`. Equal frames are kept once. tshark must find none malformed and no checksum wrong; the
session fails with those it finds, each with the test that caused it.

Left out: tests marked `odd_frames` (the test hands over bytes that are wrong on purpose) and
`bench`. A flood is recorded until the socket's 16 MB are full; the summary tells how many frames
came later. The checksums of datagrams in fragments are the peer's to judge: it counts
errors, and tests/peer_errors.py looks there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
KEPT = Path(os.environ.get("NETSTACK_FRAMES_SENT", ROOT / "build" / "frames_sent.pcap"))

ETH_P_ALL = 0x0003
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
SOL_PACKET, PACKET_STATISTICS, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 6, 15, 23
VNET_HDR = struct.Struct(
    "=BBHHHH"
)  # flags, gso type, header, gso size, csum_start, csum_offset
VIRTIO_NET_HDR_F_NEEDS_CSUM = 1
BUFFER = 16 << 20

# ld hatype; jeq ARPHRD_ETHER; ret all: what comes in by an interface with Ethernet frames.
_ETHERNET = [
    (0x20, 0, 0, 0xFFFFF000 + 28),
    (0x15, 0, 1, 1),
    (0x06, 0, 0, 0x40000),
    (0x06, 0, 0, 0),
]

PCAP_HEADER = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0x40000, 1)
# What an ICMP error quotes is the peer's, and may be as wrong as it likes. Linux gives an echo
# reply of nothing but zeros the checksum 0, and so do we; it has to be 0xffff. A TCP segment of the peer's that
# we pass on has 0xffff where its checksum is 0: Linux makes no difference between TCP and UDP there.
QUOTES = "icmp.type in {3, 4, 5, 11, 12}"
ZEROS = "icmp.type#1 == 0 && icmp.checksum#1 == 0"
BAD = (
    f"ip.checksum.status#1 == 0 || (icmp.checksum.status#1 == 0 && !({ZEROS})) || (!({QUOTES}) && ("
    "_ws.malformed || udp.checksum.status == 0 || igmp.checksum.status == 0 || "
    "(tcp.checksum.status == 0 && tcp.checksum != 0xffff)))"
)


class Recording:
    """Frames in a pcap file, each with the test that it belongs to."""

    def __init__(self) -> None:
        self.test: str | None = None  # None: what is sent now is not recorded
        self.frames: dict[bytes, str] = {}
        self.late = 0
        self.seconds = 0.0

    def add(self, frames: list[bytes], vnet_hdr: bool = False) -> None:
        """Keep frames, in front of each a virtio header if there is one."""
        if self.test is None:
            return
        for frame in frames:
            self.frames.setdefault(finished(frame) if vnet_hdr else bytes(frame), self.test)

    @contextlib.contextmanager
    def taps(self) -> Iterator[None]:
        """Record what comes out of the TAPs of this thread's network namespace."""
        if self.test is None:
            yield
            return
        with listen() as sock:
            try:
                yield
            finally:
                began = time.perf_counter()
                self._drain(sock)
                self.seconds += time.perf_counter() - began

    def _drain(self, sock: socket.socket) -> None:
        frames = []
        while True:
            try:
                frames.append(sock.recv(0x40000))
            except BlockingIOError:
                break
            except OSError:  # an offload that this kernel has no virtio header for
                self.late += 1
        self.add(frames, vnet_hdr=True)
        statistics = sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.late += struct.unpack("=II", statistics)[1]

    def write(self, path: Path) -> list[str]:
        """Write the pcap file; give the tests in the order of the frames."""
        with path.open("wb") as file:
            file.write(PCAP_HEADER)
            for frame in self.frames:
                file.write(struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame)
        return list(self.frames.values())


def listen() -> socket.socket:
    """Open a socket for what comes in here by any Ethernet interface, present or future."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *op) for op in _ETHERNET))
    program = struct.pack("HxxxxxxP", len(_ETHERNET), ctypes.addressof(code))
    sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    sock.setblocking(False)
    return sock


def finished(record: bytes) -> bytes:
    """Take the virtio header off a frame, and do what it asks for: the checksum."""
    flags, _, _, _, start, offset = VNET_HDR.unpack_from(record)
    frame = record[VNET_HDR.size :]
    if not flags & VIRTIO_NET_HDR_F_NEEDS_CSUM or start + offset + 2 > len(frame):
        return frame
    covered = frame[start:] + bytes(len(frame) - start & 1)
    total = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    at = start + offset
    return frame[:at] + struct.pack("!H", ~total & 0xFFFF or 0xFFFF) + frame[at + 2 :]


def judge(path: Path) -> list[tuple[int, str]]:
    """Give the number and tshark's line of each frame that is not as it should be."""
    options = ["-o", "ip.defragment:FALSE", "-o", "ip.check_checksum:TRUE"]
    for name in ("udp", "tcp"):
        # What a datagram carries is the sender's, whatever its port is used for elsewhere.
        options += ["-o", f"{name}.check_checksum:TRUE", "-d", f"{name}.port==0-65535,data"]
    options += [
        "-T",
        "fields",
        "-e",
        "frame.number",
        "-e",
        "_ws.col.Info",
        "-e",
        "_ws.expert.message",
    ]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), *options, "-Y", BAD],
        capture_output=True,
        text=True,
        timeout=100,
    )
    if done.returncode:
        return [(0, f"tshark: {done.stderr.strip()}")]
    rows = (line.split("\t", 1) for line in done.stdout.splitlines())
    return [(int(number), words) for number, words in rows]


RECORDING = Recording()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Say whose frames are recorded."""
    left_out = item.get_closest_marker("odd_frames") or item.get_closest_marker("bench")
    RECORDING.test = None if left_out else item.nodeid
    try:
        return (yield)
    finally:
        RECORDING.test = None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let tshark look at all frames; what it finds fails the session."""
    worker = getattr(session.config, "workerinput", {}).get("workerid", "")
    kept = KEPT.with_name(KEPT.name + worker)
    lines, failed = verdict(kept) if RECORDING.frames else ([], False)
    if worker:  # a process of pytest-xdist: what its session prints and returns is nobody's
        session.config.workeroutput["sent_frames"] = lines, failed  # type: ignore[attr-defined]
        return
    collected = session.config.stash.setdefault(LINES, [])
    collected += lines
    if failed or session.config.stash.get(FAILED, False):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take over what one of several processes found."""
    lines, failed = getattr(node, "workeroutput", {}).get("sent_frames", ([], False))
    stash = node.config.stash
    stash.setdefault(LINES, []).extend(lines)
    stash[FAILED] = stash.get(FAILED, False) or failed


def verdict(kept: Path) -> tuple[list[str], bool]:
    """Give what there is to say about the frames, and whether any is bad: then they are in `kept`."""
    if not shutil.which("tshark"):
        return ["tshark is missing: frames that hosts sent were not looked at"], False
    began = time.perf_counter()
    handle, name = tempfile.mkstemp(suffix=".pcap", prefix="frames_sent")
    os.close(handle)
    path = Path(name)
    tests = RECORDING.write(path)
    bad = judge(path)
    took = time.perf_counter() - began + RECORDING.seconds
    lines = [
        f"tshark looked at {len(tests)} different frames that hosts sent: {len(bad)} bad"
        f" ({took:.1f} s; {RECORDING.late} of floods were not recorded)"
    ]
    if not bad:
        path.unlink()
        return lines, False
    kept.parent.mkdir(exist_ok=True)
    shutil.move(path, kept)
    lines += [f"  frame {n}: {words}  [{tests[n - 1]}]" for n, words in bad[:50]]
    lines.append(f"  all frames: {kept}")
    return lines, True


FAILED: pytest.StashKey[bool] = pytest.StashKey()
LINES: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what tshark found."""
    for line in config.stash.get(LINES, []):
        terminalreporter.write_line(line, red=": 0 bad" not in line)
