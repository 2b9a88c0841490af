"""A host without threads on a wire in memory: what a test puts in is all that moves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import netstack
import netstack.socket
from netstack.device._memory import MemoryWire
from netstack.stats import ledger
from tests.frames import OUR_IP, OUR_MAC, arp_reply, who_has
from tests.sent_frames import RECORDING


class MemoryHost:
    """A host at 10.0.0.2 and the far end of its wire."""

    def __init__(self, *, fast_path: bool = True, queue: int = 1000, **options: object) -> None:
        ring = options.pop("ring", 256)
        mtu = options.pop("mtu", 1500)
        self.vnet_hdr = bool(options.pop("vnet_hdr", False))
        self.clock = netstack.ManualClock()
        self.sockets: list[netstack.socket.socket] = []
        ours, self.wire = MemoryWire.pair(queue, vnet_hdr=self.vnet_hdr)
        self.host = netstack.Host(
            clock=self.clock, threads=False, fast_path=fast_path, **options
        )
        self.device = self.host.add_nic(
            ours, "tap0", addr=f"{OUR_IP}/24", mac=OUR_MAC, ring=ring, mtu=mtu
        )

    def socket(self, *address: object) -> netstack.socket.socket:
        """Open a non-blocking UDP socket, bound to ``address`` if given; closed with the host."""
        sock = self.host.socket()
        sock.setblocking(False)
        if address:
            sock.bind(address)
        self.sockets.append(sock)
        return sock

    def close(self) -> None:
        """Close the host, and then its sockets' objects."""
        self.host.close()
        for sock in self.sockets:
            sock.close()

    def put(self, *frames: bytes) -> list[bytes]:
        """Let the frames arrive, run the host until it is quiet, give what it sent."""
        for frame in frames:
            self.wire.send(frame)
        self.host.run()
        return self.sent()

    def sent(self) -> list[bytes]:
        """Take what the host has put on the wire."""
        out = []
        while (frame := self.wire.recv()) is not None:
            out.append(frame)
        RECORDING.add(out, self.vnet_hdr)
        return out

    def advance(self, seconds: float) -> list[bytes]:
        """Move the clock, run what is due, give what the host sent."""
        self.clock.advance(seconds)
        self.host.run()
        return self.sent()

    def meet(self) -> None:
        """Let the host and the peer know each other's MAC address."""
        head = bytes(10) if self.vnet_hdr else b""
        self.put(head + who_has(), head + arp_reply())

    def drops(self) -> dict[str, int]:
        """Frames by drop reason, kernel's name without prefix."""
        return {
            row.removeprefix("SKB_DROP_REASON_"): n
            for row, n in ledger(self.host).dropped.items()
        }


@contextmanager
def memory_host(**options: object) -> Iterator[MemoryHost]:
    """Give a MemoryHost; its ledger balances and no frame was dropped without a reason."""
    it = MemoryHost(**options)
    try:
        yield it
        it.host.run()
        balance(it.host)
    finally:
        it.close()
    balance(it.host)


def balance(host: netstack.Host) -> None:
    """Fail unless every frame is accounted for, with a name."""
    account = ledger(host)
    assert account.balanced, account
    assert not account.dropped.get("NOT_SPECIFIED"), account
