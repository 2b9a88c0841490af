"""The kernel as a host on a TAP: the same address, MAC and neighbour as `Stack`, asked the same.

A frame written to a TAP has passed all of the kernel's steps when the write returns, and what
the kernel sent is there to be read.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from scapy.layers.l2 import Ether

from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
NUD_PERMANENT = 0x80
NAME = "tap0"


class Kernel:
    """The kernel's IPv4 in the caller's network namespace, behind a TAP of its own."""

    def __init__(self, known: bool = True) -> None:
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = struct.pack("16sH22x", NAME.encode(), IFF_TAP | IFF_NO_PI)
        fcntl.ioctl(self.fd, TUNSETIFF, flags)
        with IPRoute() as ipr:
            index = ipr.link_lookup(ifname=NAME)[0]
            ipr.link("set", index=index, address=MAC, state="up")
            ipr.addr("add", index=index, address=ADDR, prefixlen=24)
            if known:
                ipr.neigh(
                    "replace", dst=PEER, lladdr=PEER_MAC, ifindex=index, state=NUD_PERMANENT
                )
        for name in ("all", "default", NAME):
            Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
        self.sent()

    def sysctl(self, key: str, value: int) -> None:
        """Set a tunable of the namespace."""
        Path("/proc/sys", *key.split(".")).write_text(str(value))

    def give(self, *frames: Any) -> list[Ether]:
        """Receive frames; give what the kernel sent."""
        replies = []
        for frame in frames:
            os.write(self.fd, bytes(frame))
            replies += self.sent()
        return replies

    def sent(self) -> list[Ether]:
        """Take the frames that left."""
        frames = []
        while True:
            try:
                frames.append(Ether(os.read(self.fd, 65536)))
            except BlockingIOError:
                return frames

    def counters(self) -> dict[str, int]:
        """Give every SNMP and netstat counter that is not 0, under nstat's names."""
        found = {}
        for file in ("snmp", "netstat"):
            lines = Path("/proc/thread-self/net", file).read_text().splitlines()
            for names, values in zip(lines[::2], lines[1::2], strict=True):
                group = names.split(":")[0]
                for name, value in zip(names.split()[1:], values.split()[1:], strict=True):
                    found[group + name] = int(value)
        return found

    def close(self) -> None:
        """Give the TAP back."""
        os.close(self.fd)
