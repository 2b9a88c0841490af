"""GRO as the tests see it: frames in, what went up out, with nothing left in the pools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from netstack._counters import skb_drop_reason
from netstack._gso import gro_split
from netstack._net import Net
from netstack._skb import SkBuff
from netstack.napi._testing import GroBench, gso
from tests.napi.frames import Ip

NETIF_F_GRO, NETIF_F_GRO_FRAGLIST, NETIF_F_GRO_UDP_FWD = 4, 16, 32
CHECKSUM_NONE, CHECKSUM_UNNECESSARY, CHECKSUM_COMPLETE, CHECKSUM_PARTIAL = range(4)
SKB_GSO_TCPV4, SKB_GSO_UDP_L4, SKB_GSO_FRAGLIST = 1, 2, 4
UDP_GRO_HAS_SOCKET, UDP_GRO_ENABLED = 1, 2


@dataclass(frozen=True)
class Packet:
    """One packet that went up: its bytes, how it was merged, and the frames it splits into."""

    frame: bytes
    type: int
    size: int
    segs: int
    ip_summed: int
    csum: int
    truesize: int
    frames: int
    ids: list[int]
    parts: list[bytes]


class Gro:
    """A bench and its ledger."""

    def __init__(self) -> None:
        self.net = Net()
        self.bench = GroBench(self.net)
        self.sent: list[bytes] = []

    def feed(self, *frames: Ip | bytes, **how: int) -> Gro:
        """Give frames to GRO, in one poll; ``how`` is hash, ip_summed, vlan, dev."""
        for frame in frames:
            data = frame if isinstance(frame, bytes) else frame.bytes()
            self.sent.append(data)
            assert self.bench.receive(data, **how)
        return self

    def batches(self) -> list[list[Packet]]:
        """Take what has gone up until now, a list a batch."""
        return [[self.end(packet) for packet in batch] for batch in self.bench.take()]

    def up(self) -> list[Packet]:
        """Take what has gone up until now."""
        return [packet for batch in self.batches() for packet in batch]

    def flushed(self) -> list[Packet]:
        """End the poll, and take all that went up."""
        self.bench.flush()
        return self.up()

    def sizes(self, frames: Iterable[Ip | bytes], **how: int) -> list[int]:
        """Feed, flush, and give how many frames each packet carries."""
        self.feed(*frames, **how)
        return [packet.frames for packet in self.flushed()]

    def end(self, skb: SkBuff) -> Packet:
        """Read a packet, split it, and end its frames as consumed."""
        frame = skb.frame
        facts = gso(skb)
        parts = gro_split(skb, self.net)
        packet = Packet(
            frame,
            **facts,
            ids=[part.id for part in parts],
            parts=[part.frame for part in parts],
        )
        for part in parts:
            part.consume()
        return packet

    def check(self) -> None:
        """Assert that the ledger balances and that every buffer is back."""
        names = [fate for fate in skb_drop_reason if fate != skb_drop_reason.SKB_FATE_NR]
        ends = {fate.name: self.net.fate(fate) for fate in names}
        assert self.net.rx_frames() == sum(ends.values()), ends
        assert self.bench.packets_in_use == 0
