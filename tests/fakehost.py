"""A host that is only its answers: what the views read, without a packet moving.

The counters are those of a real ``Net``, so a test counts and then looks.
"""

from __future__ import annotations

import os
import threading
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


class FakeTap:
    """A ``PacketTap`` that has what ``put`` gave it, and its rule about the eventfd."""

    def __init__(self, records: list[tuple[int, int, int, bool, int, bytes]]) -> None:
        self._records = records
        self._asleep = False
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.stats = (len(records), 0)
        self.closed = threading.Event()

    def put(self, *records: tuple[int, int, int, bool, int, bytes], lost: int = 0) -> None:
        matched, dropped = self.stats
        self.stats = matched + len(records) + lost, dropped + lost
        self._records += records
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self._fd, 1)

    def drain(self, most: int = 256) -> list[tuple[Any, ...]]:
        taken, self._records[:] = self._records[:most], self._records[most:]
        self._asleep = not taken
        return [(*row, 0, False, 1, 0) for row in taken]

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.closed.set()


class FakeRps:
    """The masks and flow tables of one device."""

    def __init__(self) -> None:
        self.masks: dict[int, int] = {}
        self.flows: dict[int, int] = {}

    def rps_cpus(self, device: int, queue: int) -> int:
        return self.masks.get(queue, 0)

    def set_rps_cpus(self, device: int, queue: int, cpus: int) -> None:
        self.masks[queue] = cpus

    def rps_flow_cnt(self, device: int, queue: int) -> int:
        return self.flows.get(queue, 0)

    def set_rps_flow_cnt(self, device: int, queue: int, count: int) -> None:
        self.flows[queue] = count


class FakeNic:
    address = 0


class FakeDevice:
    name = "tap0"
    ifindex = 2
    mac = "02:00:00:00:00:02"
    mtu = 1500
    rx_queues = 2
    nic = FakeNic()

    def __init__(self) -> None:
        self.counts = dict.fromkeys(
            ("rx_bytes", "rx_packets", "rx_dropped", "tx_bytes", "tx_packets"), 0
        )

    def refresh(self) -> None:
        """Do nothing: the counts are always fresh."""

    def stats(self) -> dict[str, int]:
        return dict(self.counts)


class FakeHost:
    """What stats.py and procfs.py ask of a host."""

    def __init__(self, cpus: int = 1) -> None:
        self.net = FakeNet(cpus)
        self.config = Config(self.net)
        self.cpus = cpus
        self.devices = [FakeDevice()]
        self.rps = FakeRps()
        self.socks: list[dict[str, Any]] = []
        self.arp: list[dict[str, Any]] = []
        self.places: dict[str, int] = {}
        self.waiting: list[tuple[int, int, int, bool, int, bytes]] = []
        self.taps: list[FakeTap] = []

    def packet_tap(
        self, run: int = 0, program: int = 0, snaplen: int = 262144, **options: object
    ) -> FakeTap:
        self.taps.append(FakeTap(list(self.waiting)))
        return self.taps[-1]

    def handlers(self) -> list[tuple[str, str, str]]:
        return [("ALL", "tap0", "watch"), ("0800", "", "ip_rcv"), ("0806", "", "arp_rcv")]

    def groups(self, ifindex: int) -> list[dict[str, Any]]:
        all_hosts = {"group": "224.0.0.1", "users": 1, "timer": None, "reporter": False}
        return [all_hosts | {"querier": 3, "sources": []}]

    def group_addresses(self, ifindex: int) -> dict[bytes, int]:
        return {b"\1\0\x5e\0\0\1": 1}

    def fragments(self) -> tuple[int, int]:
        return 2, 4096

    def queued(self) -> dict[str, int]:
        return dict(self.places)

    def softnet(self) -> list[dict[str, int]]:
        names = ("processed", "dropped", "time_squeeze", "received_rps", "flow_limit_count")
        return [dict.fromkeys(names, cpu + 1) | {"cpu": cpu} for cpu in range(self.cpus)]

    def interrupts(self) -> list[dict[str, Any]]:
        counts = [7, *[0] * (self.cpus - 1)]
        return [
            {
                "irq": 25,
                "name": "tap0-TxRx-0",
                "chip": "PCI-MSIX",
                "hwirq": 1,
                "counts": counts,
                "smp_affinity": 1,
                "cpu": 0,
            }
        ]

    def softirqs(self) -> list[dict[str, int]]:
        return [dict.fromkeys(SOFTIRQS, 0) | {"NET_RX": 5} for _ in range(self.cpus)]

    def sockets(self) -> list[dict[str, Any]]:
        return self.socks

    def neighbours(self) -> list[dict[str, Any]]:
        return self.arp

    def routes(self) -> list[dict[str, Any]]:
        return [
            {"dst": "10.0.0.0/24", "dev": "tap0"},
            {"dst": "default", "dev": "tap0", "gateway": "10.0.0.1"},
        ]


def udp_socket(port: int = 5000, **more: Any) -> dict[str, Any]:
    """Return an entry of ``host.sockets()``."""
    row: dict[str, Any] = {
        "proto": "udp",
        "local": ("10.0.0.2", port),
        "peer": None,
        "rmem": 0,
        "rcvbuf": 212992,
        "sndbuf": 212992,
        "forward_alloc": 0,
        "drops": 0,
        "queued": 0,
        "inode": 1,
        "ifindex": 0,
    }
    return row | more
