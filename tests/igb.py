"""Frames, and a machine with one igb, for the tests of device/ and driver/."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from netstack import _fastpath
from netstack._counters import skb_drop_reason
from netstack._net import ManualClock, Net
from netstack.config import Config
from netstack.device._memory import MemoryWire
from netstack.driver._igb import Igb
from netstack.driver._testing import Sender, Sink
from netstack.irq._cpu import Cpu
from netstack.netif._backlog import Seam
from tests.datagram import datagram

MAC = "02:00:00:00:00:01"
PEER = "02:00:00:00:00:02"
MAC_BYTES = bytes.fromhex(MAC.replace(":", ""))
SECOND = 1_000_000_000
COUNT = bytes(i % 251 for i in range(65536))  # what datagrams carry


def frame(*layers: Any, dst: str = MAC, src: str = PEER, vlan: int | None = None) -> bytes:
    """Build an Ethernet frame with scapy, which fills in lengths and checksums."""
    packet = Ether(dst=dst, src=src)
    if vlan is not None:
        packet /= Dot1Q(vlan=vlan & 0xFFF, prio=vlan >> 13)
    for layer in layers:
        packet /= layer
    return bytes(packet)


def udp(size: int = 18, *, sport: int = 1000, dport: int = 2000, **more: Any) -> bytes:
    """Build a UDP datagram of ``size`` bytes of payload to the machine."""
    if not more:
        return datagram(PEER, MAC, "10.0.0.1", "10.0.0.2", sport, dport, COUNT[:size])
    ip = IP(src="10.0.0.1", dst="10.0.0.2", **more.pop("ip", {}))
    return frame(ip, UDP(sport=sport, dport=dport, **more.pop("udp", {})), pay(size), **more)


def tcp(size: int = 18, **more: Any) -> bytes:
    return frame(IP(src="10.0.0.1", dst="10.0.0.2"), TCP(), pay(size), **more)


def ping(size: int = 18, **more: Any) -> bytes:
    return frame(IP(src="10.0.0.1", dst="10.0.0.2"), ICMP(), pay(size), **more)


def pay(size: int) -> Raw:
    return Raw(COUNT[:size])


class Machine:
    """One CPU without a thread, an igb on a memory wire, and a sink above GRO."""

    def __init__(self, pool: int = 4096, open_it: bool = True, **options: Any) -> None:
        self.clock = ManualClock()
        self.net = Net(1, self.clock)
        self.config = Config(self.net)
        self.cpu = Cpu(self.net, 0, (pool, pool, pool))
        self.seam = Seam(self.net)
        _fastpath.connect(self.net, [self.cpu.address])
        self.sink = Sink(self.net, self.cpu)
        self.near, self.far = MemoryWire.pair(size=1 << 22)
        self.igb = Igb(self.net, self.cpu, self.near, "eth0", MAC_BYTES, **options)
        if open_it:
            self.igb.open()
        self.sender = Sender(self.net, self.igb.address)

    def receive(self, *frames: bytes) -> list[tuple[bytes, dict[str, Any]]]:
        """Put frames on the wire, run the machine until it is quiet, give what came out."""
        for each in frames:
            assert self.far.send(each)
        return self.run()

    def run(self) -> list[tuple[bytes, dict[str, Any]]]:
        out = []
        for _ in range(100):
            self.cpu.run()
            out += self.sink.take()
            if not self.cpu.deadline():
                break
            self.clock.advance(0.001)
        return out

    def fate(self, name: str) -> int:
        return self.net.fate(skb_drop_reason[name])

    def free(self) -> list[int]:
        """Free elements of the CPU's pool, by class."""
        return [free for _, free, _ in self.cpu.pool()]

    def ledger(self) -> tuple[int, int]:
        """Frames off the wire; frames that have ended or stand in the NIC."""
        ends = sum(self.net.fate(reason) for reason in range(skb_drop_reason.SKB_FATE_NR))
        return self.net.rx_frames(), ends + self.igb.queued()
