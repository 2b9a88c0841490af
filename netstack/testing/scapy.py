"""scapy on a wire in memory: no TAP, no root, no namespace.

::

    ours, theirs = MemoryWire.pair()
    host.add_nic(ours, addr="10.0.0.2/24")
    with WireSocket(theirs) as wire:
        reply = wire.sr1(Ether(dst=mac) / ARP(pdst="10.0.0.2"), timeout=1)
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from scapy.config import conf
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from scapy.supersocket import SuperSocket

if TYPE_CHECKING:
    from netstack.device._memory import MemoryWire


class WireSocket(SuperSocket):  # type: ignore[misc]
    """The end of a MemoryWire as a scapy socket of whole Ethernet frames, for ``sr1``, ``sniff`` and ``sndrcv``."""

    desc = "read and write Ethernet frames on a wire in memory"

    def __init__(self, wire: MemoryWire) -> None:
        self.wire = wire
        self.ins = self.outs = wire
        self.iface = conf.loopback_name
        self.promisc = True

    def fileno(self) -> int:
        """Give the eventfd of the wire's end."""
        return self.wire.fileno()

    def send(self, x: Packet | bytes) -> int:
        """Put a frame on the wire."""
        frame = bytes(x)
        if isinstance(x, Packet):
            x.sent_time = time.time()
        self.wire.send(frame)
        return len(frame)

    def recv_raw(
        self, x: int = 65535
    ) -> tuple[type[Packet] | None, bytes | None, float | None]:
        """Take a frame, or three times None when there is none."""
        frame = self.wire.recv()
        return (Ether, frame, time.time()) if frame is not None else (None, None, None)

    def close(self) -> None:
        """Leave the wire as it is; it belongs to who made it."""
        self.closed = True

    @staticmethod
    def select(sockets: list[SuperSocket], remain: float | None = None) -> list[SuperSocket]:
        """Wait for frames; scapy calls it."""
        ready = [s for s in sockets if isinstance(s, WireSocket) and s.wire.waiting]
        return ready or SuperSocket.select(sockets, remain)
