"""The kernel as a host on a TAP: the same address, MAC and neighbour as ours, asked the same.

A frame written to a TAP has passed all of the kernel's steps when the write returns, and what
the kernel sent is there to be read. Lives in the network namespace of the thread that makes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from scapy.layers.l2 import Ether

from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
NUD_PERMANENT = 0x80
NAME = "tap0"
# Frames that may wait for a reader. The default, 1000, is what a storm of replies can exceed.
QUEUE = 10_000
REPORTED_S = 0.06  # until no report of a new group is due: three times two ticks and a half
GAUGES = ("IpForwarding", "IpDefaultTTL", "TcpRto", "TcpMaxConn")

# What makes the kernel's answer depend on the time of day or on dice. Ours has a clock that stands.
NO_TIME = {
    f"net.ipv4.neigh.{NAME}.retrans_time_ms": 600_000,
    f"net.ipv4.neigh.{NAME}.base_reachable_time_ms": 600_000_000,
    f"net.ipv4.neigh.{NAME}.delay_first_probe_time": 600,
    f"net.ipv4.neigh.{NAME}.gc_stale_time": 600_000,
    f"net.ipv4.neigh.{NAME}.locktime": 100_000,
    f"net.ipv4.conf.{NAME}.igmpv3_unsolicited_report_interval": 1,
    "net.ipv4.ipfrag_time": 600,
    "net.ipv4.icmp_ratemask": 0,
}


class Kernel:
    """The kernel's IPv4 in the caller's network namespace, behind a TAP of its own."""

    def __init__(self, known: bool = True) -> None:
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = struct.pack("16sH22x", NAME.encode(), IFF_TAP | IFF_NO_PI)
        fcntl.ioctl(self.fd, TUNSETIFF, flags)
        with IPRoute() as ipr:
            self.index = ipr.link_lookup(ifname=NAME)[0]
            ipr.link("set", index=self.index, address=MAC, txqlen=QUEUE, state="up")
            ipr.addr("add", index=self.index, address=ADDR, prefixlen=24)
            if known:
                ipr.neigh(
                    "replace",
                    dst=PEER,
                    lladdr=PEER_MAC,
                    ifindex=self.index,
                    state=NUD_PERMANENT,
                )
        for name in ("all", "default", NAME):
            Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
        net = Path("/proc/thread-self/net")
        self.snmp = os.open(net / "snmp", os.O_RDONLY | os.O_CLOEXEC)
        self.netstat = os.open(net / "netstat", os.O_RDONLY | os.O_CLOEXEC)
        self.lines: dict[bytes, tuple[bytes, dict[str, int]]] = {}
        self.take()

    def sysctl(self, key: str, value: int) -> None:
        """Set a tunable of the namespace."""
        Path("/proc/sys", *key.split(".")).write_text(str(value))

    def stop_time(self) -> None:
        """Let no timer run out, and no limit be random."""
        for key, value in NO_TIME.items():
            self.sysctl(key, value)

    def give(self, *frames: Any) -> list[Ether]:
        """Receive frames; give what the kernel sent."""
        return [Ether(reply) for frame in frames for reply in self.put(bytes(frame))]

    def put(self, frame: bytes) -> list[bytes]:
        """Receive one frame; give what the kernel sent. One that is no frame is refused."""
        with contextlib.suppress(OSError):
            os.write(self.fd, frame)
        return self.take()

    def take(self) -> list[bytes]:
        """Take the frames that left."""
        frames = []
        while True:
            try:
                frames.append(os.read(self.fd, 65536))
            except BlockingIOError:
                return frames

    def reported(self) -> None:
        """Wait until the kernel has reported its groups, which it does twice."""
        time.sleep(REPORTED_S)
        self.take()

    def counters(self) -> dict[str, int]:
        """Give every SNMP and netstat counter that is not 0, under nstat's names."""
        found: dict[str, int] = {}
        for fd in (self.snmp, self.netstat):
            lines = os.pread(fd, 65536, 0).splitlines()
            for names, values in zip(lines[::2], lines[1::2], strict=True):
                found |= self._row(names, values)
        return found

    def _row(self, names: bytes, values: bytes) -> dict[str, int]:
        """Read two lines, or remember what they said when they were read last."""
        old = self.lines.get(names)
        if old is not None and old[0] == values:
            return old[1]
        group = names.split(b":")[0].decode()
        row = {
            group + name.decode(): int(value)
            for name, value in zip(names.split()[1:], values.split()[1:], strict=True)
            if value != b"0"
        }
        row = {name: value for name, value in row.items() if not name.startswith(GAUGES)}
        self.lines[names] = values, row
        return row

    def close(self) -> None:
        """Give the TAP back."""
        for fd in (self.snmp, self.netstat, self.fd):
            os.close(fd)
