"""The layers of one host without threads, wires or sockets: what is handed in has passed all steps.

`Stack` is what the layers need of a host. Its device is `netstack.proto._testing.Bench`; frames
are bytes, built and read with scapy. With `fast=False` every packet goes through Python.
"""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Ether

from netstack._counters import mib, skb_drop_reason
from netstack._net import ManualClock, Net, sysctl
from netstack._skb import ProcessPool, SkBuff
from netstack.config import Config
from netstack.driver._loopback import Loopback
from netstack.proto._neigh import nud
from netstack.proto._testing import Bench
from netstack.proto.af_inet import Inet
from netstack.proto.arp import arp_rcv
from netstack.proto.ip import ip_rcv
from tests.sent_frames import RECORDING

MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
ADDR, PEER = "10.0.0.2", "10.0.0.1"
ETH0 = 2
FATES = [reason for reason in skb_drop_reason if reason.name != "SKB_FATE_NR"]
TYPES = ((mib.IcmpMsgInType, "IcmpMsgInType"), (mib.IcmpMsgOutType, "IcmpMsgOutType"))
COUNTERS = [(row.name, row) for row in mib if row < mib.IcmpMsgInType] + [
    (f"{name}{n}", first + n) for first, name in TYPES for n in range(256)
]


def number(address: str) -> int:
    """Give an address as the layers keep it."""
    a, b, c, d = map(int, address.split("."))
    return a << 24 | b << 16 | c << 8 | d


class Stack:
    """A host at 10.0.0.2/24, whose peer 10.0.0.1 is in the neighbour table unless told."""

    def __init__(self, fast: bool = True, known: bool = True, mtu: int = 1500) -> None:
        self.fast = fast
        self.clock = ManualClock(1_000_000_000_000)
        self.net = Net(1, self.clock)
        self.pool = ProcessPool(self.net, (512, 256, 256))
        self.config = Config(self.net)
        self.lo = Loopback(self.net)
        self.bench = Bench(self.net, bytes.fromhex(MAC.replace(":", "")), mtu)
        self.inet = Inet(self, seed=7)
        self.inet.add_device(1, ["127.0.0.1/8"])
        self.inet.add_device(ETH0, [f"{ADDR}/24"])
        self.config.add_device("eth0", ETH0)
        self.handlers = {0x0800: ip_rcv, 0x0806: arp_rcv}
        self.kept: list[SkBuff] = []
        if known:
            self.neighbour(PEER, PEER_MAC)

    def now(self) -> int:
        """Nanoseconds on the clock that stands still."""
        return self.net.now()

    def neighbour(self, address: str, mac: str, state: int = nud.NUD_PERMANENT) -> None:
        """Write a neighbour into the table."""
        ha = bytes.fromhex(mac.replace(":", ""))
        self.inet.neigh.update(
            ETH0, number(address), ha, state, override=True, admin=True, create=True
        )

    def entry(self, address: str) -> tuple[nud, str] | None:
        """Give state and hardware address of a neighbour."""
        row = self.inet.neigh.lookup(ETH0, number(address))
        return None if row is None else (nud(row[3]), row[2].hex(":"))

    # ---- moving it

    def give(self, *frames: Any) -> list[Ether]:
        """Receive frames, one after the other; give what was sent meanwhile."""
        for frame in frames:
            self._handle(self.bench.receive(bytes(frame), self.fast))
            self.settle()
        return self.sent()

    def settle(self) -> None:
        """Receive what was sent to ourselves, and pass on what waits for Python."""
        busy = True
        while busy:
            busy, skb = self.bench.next_looped(self.fast)
            self._handle(skb)
            while (skb := self.bench.next_seam()) is not None:
                busy = True
                self._handle(skb)

    def _handle(self, skb: SkBuff | None) -> None:
        if skb is not None:
            self.handlers[skb.protocol](self, skb)

    def sent(self) -> list[Ether]:
        """Take the frames that left."""
        frames = self.bench.sent()
        RECORDING.add(frames)
        return [Ether(frame) for frame in frames]

    def advance(self, seconds: float) -> list[Ether]:
        """Let time pass, and every timer run out at its time; give what was sent."""
        end = self.now() + int(seconds * 1e9)
        while (due := self.inet.next_deadline()) and due <= end:
            self.clock.advance(max(0, due - self.now()) / 1e9)
            before = self.inet.next_deadline()
            self.inet.run_timers(self.now())
            assert self.inet.next_deadline() != before, "a timer that is due must move on"
            self.settle()
        self.clock.advance((end - self.now()) / 1e9)
        return self.sent()

    # ---- what was counted

    def counters(self) -> dict[str, int]:
        """Give every counter that is not 0."""
        return {name: value for name, row in COUNTERS if (value := self.net.mib(row))}

    def fates(self) -> dict[str, int]:
        """Give how frames ended, without the common beginning of the names."""
        return {
            reason.name.removeprefix("SKB_").removeprefix("DROP_REASON_"): count
            for reason in FATES
            if (count := self.net.fate(reason))
        }

    def check_ledger(self) -> None:
        """Compare frames in with frames ended and frames that still wait."""
        ended = sum(self.net.fate(reason) for reason in FATES)
        waiting = sum(self.inet.queued().values()) + len(self.kept)
        assert self.net.rx_frames() == ended + waiting
        assert "NOT_SPECIFIED" not in self.fates()


def eth(**kwargs: Any) -> Ether:
    """Begin a frame from the peer to us."""
    return Ether(**{"dst": MAC, "src": PEER_MAC} | kwargs)


def ip(**kwargs: Any) -> IP:
    """Begin a packet from the peer to us."""
    return IP(**{"src": PEER, "dst": ADDR} | kwargs)


def who_has(tip: str = ADDR, **kwargs: Any) -> Ether:
    """Ask for an address, as the peer."""
    fields = {"op": 1, "hwsrc": PEER_MAC, "psrc": PEER, "pdst": tip} | kwargs
    return Ether(dst="ff:ff:ff:ff:ff:ff", src=fields["hwsrc"]) / ARP(**fields)


def ping(size: int = 56, **kwargs: Any) -> Ether:
    """Send an echo request with `size` bytes of data."""
    data = bytes(i & 0xFF for i in range(size))
    return eth() / ip(**kwargs) / ICMP(id=7, seq=1) / data


__all__ = ["ICMP", "IP", "Stack", "eth", "ip", "ping", "sysctl", "who_has"]
