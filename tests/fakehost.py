"""A host that is only its answers: what the views read, without a packet moving.

The counters are those of a real ``Net``, so a test counts and then looks.
"""

from __future__ import annotations

from typing import Any

from netstack._net import Net
from netstack.config import Config
from netstack.procfs import SOFTIRQS


class FakeNet:
    """A ``Net`` whose frames can be said to have ended; that is counted in C only."""

    def __init__(self, cpus: int) -> None:
        self._net = Net(cpus)
        self.fates: dict[int, int] = {}
        self.frames = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)

    def fate(self, which: int) -> int:
        return self.fates.get(which, 0)

    def rx_frames(self) -> int:
        return self.frames


class FakeDevice:
    name = "tap0"

    def __init__(self) -> None:
        self.counts = dict.fromkeys(
            ("rx_bytes", "rx_packets", "rx_dropped", "tx_bytes", "tx_packets"), 0
        )

    def stats(self) -> dict[str, int]:
        return dict(self.counts)


class FakeHost:
    """What stats.py and procfs.py ask of a host."""

    def __init__(self, cpus: int = 1) -> None:
        self.net = FakeNet(cpus)
        self.config = Config(self.net)
        self.cpus = cpus
        self.devices = [FakeDevice()]
        self.socks: list[dict[str, Any]] = []
        self.arp: list[dict[str, Any]] = []
        self.places: dict[str, int] = {}

    def queued(self) -> dict[str, int]:
        return dict(self.places)

    def softnet(self) -> list[dict[str, int]]:
        names = ("processed", "dropped", "time_squeeze", "received_rps", "flow_limit_count")
        return [dict.fromkeys(names, cpu + 1) | {"cpu": cpu} for cpu in range(self.cpus)]

    def interrupts(self) -> list[dict[str, Any]]:
        counts = [7, *[0] * (self.cpus - 1)]
        return [{"irq": 25, "name": "tap0-TxRx-0", "chip": "PCI-MSIX", "counts": counts}]

    def softirqs(self) -> list[dict[str, int]]:
        return [dict.fromkeys(SOFTIRQS, 0) | {"NET_RX": 5} for _ in range(self.cpus)]

    def sockets(self) -> list[dict[str, Any]]:
        return self.socks

    def neighbours(self) -> list[dict[str, Any]]:
        return self.arp

    def routes(self) -> list[dict[str, Any]]:
        return [
            {"dst": "10.0.0.0/24", "dev": "tap0", "gateway": None},
            {"dst": "0.0.0.0/0", "dev": "tap0", "gateway": "10.0.0.1"},
        ]


def udp_socket(port: int = 5000, **more: Any) -> dict[str, Any]:
    """Return an entry of ``host.sockets()``."""
    row: dict[str, Any] = {
        "proto": "udp",
        "local": ("10.0.0.2", port),
        "peer": None,
        "rmem": 0,
        "rcvbuf": 212992,
        "wmem": 0,
        "sndbuf": 212992,
        "drops": 0,
        "packets": 0,
        "qlen": 0,
        "inode": 1,
        "command": "python3",
        "pid": 4242,
        "fd": 5,
    }
    return row | more
