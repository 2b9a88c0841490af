"""The same frames to the kernel's GRO and to ours: the same packets, to the byte.

The kernel completes what it holds when a jiffy ends between two writes, whatever the frames say. So
a difference counts only if it comes again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

from tests.napi.flows import CHANGES, Event, frames
from tests.napi.gro import (
    NETIF_F_GRO,
    NETIF_F_GRO_FRAGLIST,
    NETIF_F_GRO_UDP_FWD,
    SKB_GSO_FRAGLIST,
    UDP_GRO_ENABLED,
    UDP_GRO_HAS_SOCKET,
    Gro,
)
from tests.napi.gro_cases import CASES
from tools._oracle.gro_kernel import KernelGro, Seen
from tools._oracle.run import Report

ATTEMPTS = 100
LONGEST_RUN = 120


class Pair:
    """The kernel's GRO and ours, set up alike."""

    def __init__(self, kernel: KernelGro, name: str) -> None:
        self.kernel, self.name = kernel, name
        _names, self.features, self.sockets = SETTINGS[name]

    @classmethod
    @contextmanager
    def open(cls, name: str) -> Iterator[Pair]:
        """Set both up, with one of the settings."""
        features, _ours, sockets = SETTINGS[name]
        with KernelGro(*features, sockets=sockets) as kernel:
            yield cls(kernel, name)

    def ours(self, sent: list[bytes]) -> list[Seen]:
        gro = Gro()
        gro.bench.features(self.features)
        for port, udp_gro in self.sockets.items():
            answer = UDP_GRO_HAS_SOCKET | (UDP_GRO_ENABLED if udp_gro else 0)
            gro.bench.udp_socket(port, answer)
        packets = gro.feed(*sent).flushed()
        gro.check()
        return [
            listed(packet.parts, packet.size)
            if packet.type & SKB_GSO_FRAGLIST
            else Seen(packet.frame, packet.size)
            for packet in packets
        ]

    def ask(self, sent: list[bytes]) -> tuple[list[Seen], list[Seen]]:
        """Give what ours and what the kernel's passes up; they are equal if they are in one of many attempts."""
        ours = [self.comparable(packet) for packet in self.ours(sent)]
        for _ in range(ATTEMPTS):
            theirs = [self.comparable(packet) for packet in self.kernel.up(sent)]
            if ours == theirs:
                break
        return ours, theirs

    def comparable(self, packet: Seen) -> Seen:
        """Leave out what differs here in a list of whole packets: the first one's lengths."""
        if not self.features & NETIF_F_GRO_FRAGLIST or not packet.size:
            return packet
        frame = packet.frame
        return Seen(frame[:16] + frame[18:24] + frame[26:38] + frame[40:], packet.size)


def listed(parts: list[bytes], size: int) -> Seen:
    """Show a list of whole packets as the kernel shows it: one header, then all payload."""
    header = 34 + (8 if parts[0][23] == 17 else (parts[0][46] >> 4) * 4)
    return Seen(parts[0] + b"".join(part[header:] for part in parts[1:]), size)


SETTINGS: dict[str, tuple[list[str], int, dict[int, bool]]] = {
    "plain": ([], NETIF_F_GRO, {}),
    "sockets": ([], NETIF_F_GRO, {5000: True, 5001: False}),
    "forwarding": (["rx-udp-gro-forwarding"], NETIF_F_GRO | NETIF_F_GRO_UDP_FWD, {}),
    "forwarding and sockets": (
        ["rx-udp-gro-forwarding"],
        NETIF_F_GRO | NETIF_F_GRO_UDP_FWD,
        {5000: True, 5001: False},
    ),
    "list": (["rx-gro-list"], NETIF_F_GRO | NETIF_F_GRO_FRAGLIST, {}),
    "list and sockets": (
        ["rx-gro-list"],
        NETIF_F_GRO | NETIF_F_GRO_FRAGLIST,
        {5000: True, 5001: False},
    ),
}


def events(rng: Random) -> list[Event]:
    """Make a run of frames, as hypothesis does for the tests."""
    sizes = (100, 100, 100, 100, 99, 101, 0, 1400)
    return [
        (rng.randrange(12), rng.choice(sizes), rng.choice(CHANGES))
        for _ in range(rng.randrange(1, LONGEST_RUN))
    ]


def judge(report: Report, pair: Pair, where: str, sent: list[bytes]) -> None:
    """Compare one run of frames. One packet that differs makes all frames of its run differ."""
    ours, theirs = pair.ask(sent)
    report.frames += len(sent)
    if ours == theirs:
        return
    first = next(
        (n for n, both in enumerate(zip(ours, theirs, strict=False)) if both[0] != both[1]),
        min(len(ours), len(theirs)),
    )
    shape = [packet.segs for packet in ours], [packet.segs for packet in theirs]
    what = "bytes" if shape[0] == shape[1] else "packets merged"
    group = report.groups.setdefault(f"{pair.name}: {what}", {"frames": 0, "examples": []})
    group["frames"] += len(sent)
    example = {"where": f"{where}, packet {first}", "frame": "", "difference": shape}
    group["examples"].append(example)


def run_cases() -> Report:
    """Ask every case in every setting."""
    report = Report()
    for name in SETTINGS:
        with Pair.open(name) as pair:
            for case, packets in CASES.items():
                judge(report, pair, case, [packet.bytes() for packet in packets])
    return report


def run_fuzz(
    count: int, seed: int, tell: Callable[[Report], None] = lambda report: None
) -> Report:
    """Ask about runs of frames made at random, every setting in turn."""
    report = Report()
    for number, name in enumerate(SETTINGS):
        with Pair.open(name) as pair:
            turn = seed * 100_000
            while report.frames < count * (number + 1) // len(SETTINGS):
                sent = [packet.bytes() for packet in frames(events(Random(turn)))]
                judge(report, pair, f"{name}, seed {turn}", sent)
                turn += 1
                tell(report)
    return report
