"""The kernel's own GRO: a TAP whose writes go through NAPI, and a packet socket that looks on.

With IFF_NAPI each write is one poll. `gro_flush_timeout` lets packets be held from one poll to
the next, until the timer flushes them all. A packet socket with PACKET_VNET_HDR sees what GRO
passed up, with the segment size. [drivers/net/tun.c]
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from netstack.lab import another_network
from tests.netns import link_up

IFF_TAP, IFF_NO_PI, IFF_NAPI, IFF_VNET_HDR = 0x0002, 0x1000, 0x0010, 0x4000
TUNSETIFF = 0x400454CA
SOL_PACKET, PACKET_VNET_HDR = 263, 15
UDP_GRO = 104
SO_RCVBUFFORCE = 33
PACKET_OUTGOING = 4
FLUSH_TIMEOUT_NS = 3_000_000
NAME = "gro0"


@dataclass(frozen=True)
class Seen:
    """A packet that went up: its bytes, and the size of its segments, 0 for one as it came."""

    frame: bytes
    size: int

    @property
    def segs(self) -> int:
        """How many frames it carries."""
        if not self.size:
            return 1
        header = 34 + (8 if self.frame[23] == 17 else (self.frame[46] >> 4) * 4)
        return -(-(len(self.frame) - header) // self.size)


class KernelGro:
    """A TAP in a network namespace of its own; a context manager, of one thread.

    ``features`` are switched on, ``sockets`` are UDP ports and whether they have UDP_GRO. With ``vnet_hdr``
    a virtio header is in front of each frame that is written.
    """

    def __init__(
        self, *features: str, sockets: dict[int, bool] | None = None, vnet_hdr: bool = False
    ) -> None:
        self.features = features
        self.wanted = sockets or {}
        self.vnet_hdr = vnet_hdr
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(another_network())
            self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, self.tap)
            flags = IFF_TAP | IFF_NO_PI | IFF_NAPI | (IFF_VNET_HDR if self.vnet_hdr else 0)
            fcntl.ioctl(self.tap, TUNSETIFF, struct.pack("16sH22x", NAME.encode(), flags))
            set_in_sysfs("gro_flush_timeout", FLUSH_TIMEOUT_NS)
            set_in_sysfs("napi_defer_hard_irqs", 1)
            self.control = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for name in self.features:
                self.switch(name, True)
            link_up(NAME)
            for port, udp_gro in self.wanted.items():
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.bind(("0.0.0.0", port))
                sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, udp_gro)
                self.sockets.append(sock)
            self.looker = stack.enter_context(
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
            )
            self.looker.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            self.looker.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
            self.looker.bind((NAME, 0x0800))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def up(self, frames: list[bytes]) -> list[Seen]:
        """Write frames, one a poll, and give what goes up until all of them have."""
        for frame in frames:
            os.write(self.tap, frame)
        seen: list[Seen] = []
        while sum(packet.segs for packet in seen) < len(frames):
            ready, _, _ = select.select([self.looker], [], [], 2)
            assert ready, f"of {len(frames)} frames the kernel passed up only {seen}"
            data, _, _, sender = self.looker.recvmsg(70_000)
            if sender[2] != PACKET_OUTGOING:
                (size,) = struct.unpack_from("<4xH", data)
                seen.append(Seen(data[10:], size))
        return seen

    def switch(self, feature: str, on: bool) -> None:
        """Do `ethtool -K gro0 FEATURE on` or `off`, from any namespace."""
        siocethtool, gssetinfo, gstrings, sfeatures, features_set = 0x8946, 0x37, 0x1B, 0x3B, 4

        def ask(request: bytes, room: int = 0) -> bytes:
            buffer = ctypes.create_string_buffer(request, len(request) + room)
            pointer = struct.pack("16sP16x", NAME.encode(), ctypes.addressof(buffer))
            fcntl.ioctl(self.control, siocethtool, pointer)
            return buffer.raw

        (count,) = struct.unpack_from(
            "<16xI", ask(struct.pack("<IIQI", gssetinfo, 0, 1 << 4, 0))
        )
        raw = ask(struct.pack("<III", gstrings, features_set, count), count * 32)[12:]
        names = [raw[i * 32 : i * 32 + 32].split(b"\0")[0].decode() for i in range(count)]
        bit = names.index(feature)
        blocks = [[0, 0] for _ in range((count + 31) // 32)]
        blocks[bit // 32] = [1 << bit % 32, on << bit % 32]
        packed = b"".join(struct.pack("<II", *block) for block in blocks)
        ask(struct.pack("<II", sfeatures, len(blocks)) + packed)


def set_in_sysfs(attribute: str, value: int) -> None:
    """Write an attribute of the TAP, in a /sys of this namespace."""
    script = f'mount -t sysfs sysfs /mnt && echo {value} > "/mnt/class/net/{NAME}/{attribute}"'
    subprocess.run(["unshare", "--mount", "sh", "-c", script], check=True)
