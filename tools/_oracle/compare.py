"""One frame to the kernel and to netstack, by the short cut and through Python: what each made of it.

A frame's outcome is everything that can be seen from outside: the frames sent, what each socket got
(bytes, sender, control messages, pending error), the change of every SNMP and netstat counter, and
the reasons of the drops. Two outcomes agree when every field is the same.
"""

from __future__ import annotations

import socket as stdlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.proto.stack import ADDR, PEER
from tools._oracle.kernel import Kernel
from tools._oracle.ours import Ours
from tools._oracle.trace import UNSAID, DropReasons

ETHERTYPE, ARP = slice(12, 14), b"\x08\x06"
IP_ID, IP_CSUM, ICMP_CSUM, TS_TIMES = slice(18, 20), slice(24, 26), slice(36, 38), slice(46, 54)
IPOPT_TS = 0x44
IP_PKTINFO, IP_RECVTTL, IP_RECVTOS = 8, 12, 13
# One name there, one here, or none: docs/kernel-map.md says why.
SAME_REASON = {"IPV6DISABLED": "UNHANDLED_PROTO"}
# What Linux ends without kfree_skb() though nobody got it: consume_skb() in ARP, fragments of a datagram that is given
# up, and what a TAP does not take.
OURS_ONLY = {"ARP_NOT_FOR_US", "ARP_UNSOLICITED", "FRAG_OVERLAP", "PKT_TOO_BIG", "NIC_DROP_RUC"}

# Sockets by port: where they are bound, and to whom they are connected.
SOCKETS: list[tuple[int, str, str]] = [
    (7, "0.0.0.0", ""),
    (8, ADDR, ""),
    (9, "10.0.0.255", ""),
    (10, "0.0.0.0", PEER),
    (11, ADDR, "10.0.0.9"),
    (12, "255.255.255.255", ""),
    (13, "0.0.0.0", ""),
    (13, ADDR, ""),
    (12, "0.0.0.0", ""),
]
PEER_PORT = 1000
# By a socket's place above: option, group, source. IP_ADD_MEMBERSHIP, IP_BLOCK_SOURCE, IP_ADD_SOURCE_MEMBERSHIP.
MEMBERSHIPS = [
    (0, 35, "239.1.2.3", ""),
    (6, 35, "239.1.2.3", ""),
    (6, 38, "239.1.2.3", "10.0.0.44"),
    (0, 39, "239.1.2.4", "10.0.0.33"),
]
IP_MULTICAST_ALL = 49


@dataclass
class Outcome:
    """What a host made of one frame."""

    replies: list[bytes] = field(default_factory=list)
    deliveries: list[Any] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    def differs(self, other: Outcome) -> dict[str, Any]:
        """Give the fields that differ, ours and theirs; the counters one by one."""
        found: dict[str, Any] = {}
        for name in ("replies", "deliveries"):
            if getattr(self, name) != getattr(other, name):
                found[name] = shown(getattr(self, name)), shown(getattr(other, name))
        if not same_reasons(self.reasons, other.reasons):
            found["reasons"] = shown(self.reasons), shown(other.reasons)
        for name in sorted(self.counters.keys() | other.counters.keys()):
            ours, theirs = self.counters.get(name, 0), other.counters.get(name, 0)
            if ours != theirs:
                found[name] = ours, theirs
        return found


def same_reasons(ours: Counter[str], theirs: Counter[str]) -> bool:
    """Tell whether each names what the other names.

    Linux counts packets, our ledger frames, so how often is left out. Where Linux frees without a
    reason, ours may have any, and must have one.
    """
    named = theirs.keys() - {UNSAID}
    more = ours.keys() - named
    if not named <= ours.keys() or (UNSAID in theirs and not ours):
        return False
    return not more or UNSAID in theirs or more <= OURS_ONLY


def shown(value: Any) -> Any:
    """Make a field fit for JSON."""
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, Counter):
        return dict(sorted(value.items()))
    return [shown(one) for one in value] if isinstance(value, (list, tuple)) else value


class Side:
    """A host, its sockets, and what was counted before the frame."""

    def __init__(self, host: Kernel | Ours, reasons: DropReasons | None = None) -> None:
        self.host, self.trace = host, reasons
        make = host.it.host.socket if isinstance(host, Ours) else plain_socket
        self.sockets = [self.open(make(), *one) for one in SOCKETS]
        for place, option, group, source in MEMBERSHIPS:
            value = b"".join(stdlib.inet_aton(one) for one in (group, ADDR, source) if one)
            self.sockets[place].setsockopt(stdlib.IPPROTO_IP, option, value)
        self.sockets[3].setsockopt(stdlib.IPPROTO_IP, IP_MULTICAST_ALL, 0)
        self.host.reported()
        self.before = host.counters()
        self.reasons()

    def open(self, sock: Any, port: int, address: str, peer: str) -> Any:
        """Set a socket up."""
        sock.setblocking(False)
        sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_BROADCAST, 1)
        for option in (IP_PKTINFO, IP_RECVTTL, IP_RECVTOS):
            sock.setsockopt(stdlib.IPPROTO_IP, option, 1)
        sock.bind((address, port))
        if peer:
            sock.connect((peer, PEER_PORT))
        return sock

    def reasons(self) -> Counter[str]:
        """Give the reasons of the drops since the last call, under the kernel's names."""
        if isinstance(self.host, Ours):
            found = self.host.reasons()
        else:
            found = self.trace.take() if self.trace else Counter()
        return Counter({SAME_REASON.get(name, name): count for name, count in found.items()})

    def outcome(self, frame: bytes) -> Outcome:
        """Receive one frame."""
        replies = [comparable(reply) for reply in self.host.put(frame)]
        after = self.host.counters()
        deliveries = []
        if after.get("IpInDelivers") != self.before.get("IpInDelivers"):
            deliveries = self.received()
            after = self.host.counters()
        counters = after
        if after != self.before:
            counters = {
                name: value - self.before.get(name, 0)
                for name, value in after.items()
                if value != self.before.get(name, 0)
            }
        else:
            counters = {}
        self.before = after
        return Outcome(replies, deliveries, counters, self.reasons())

    def received(self) -> list[Any]:
        """Read every socket until it is empty: (port's place, data, control, flags, sender) or errno."""
        found: list[Any] = []
        for place, sock in enumerate(self.sockets):
            while True:
                try:
                    data, control, flags, sender = sock.recvmsg(65536, 256)
                except BlockingIOError:
                    break
                except OSError as error:
                    found.append((place, error.errno))
                    continue
                found.append((place, data, self.control(control), flags, sender))
        return found

    def control(self, messages: Iterable[tuple[int, int, bytes]]) -> list[Any]:
        """Give the control messages; which number the device has does not matter."""
        found = []
        for level, kind, data in messages:
            if (level, kind) == (stdlib.IPPROTO_IP, IP_PKTINFO):
                index = int.from_bytes(data[:4], "little")
                data = bytes([index == self.host.index]) + data[4:]
            found.append((level, kind, bytes(data)))
        return sorted(found)

    def close(self) -> None:
        """Close sockets and host."""
        for sock in self.sockets:
            sock.close()
        self.host.close()


def plain_socket() -> stdlib.socket:
    """Make a socket of the kernel."""
    return stdlib.socket(stdlib.AF_INET, stdlib.SOCK_DGRAM)


def comparable(frame: bytes) -> bytes:
    """Give a reply without what no two hosts share: IP ids and the time of day."""
    data = bytearray(frame)
    if data[ETHERTYPE] == b"\x08\x00":
        data[IP_ID] = data[IP_CSUM] = b"\0\0"
        if data[23] == 1 and data[34:35] == b"\x0e":
            data[ICMP_CSUM] = b"\0\0"
            data[TS_TIMES] = bytes(8)
        if data[14] & 15 > 5 and IPOPT_TS in data[34:74]:
            data[34:] = bytes(len(data) - 34)
    return bytes(data)


class Oracle:
    """The kernel, netstack by the short cut, and netstack through Python: a context manager.

    It takes the network namespace that the thread is in.
    """

    def __init__(self, reasons: DropReasons | None = None) -> None:
        kernel = Kernel()
        kernel.stop_time()
        self.kernel = Side(kernel, reasons)
        self.roads = {"fast": Side(Ours(fast=True)), "python": Side(Ours(fast=False))}
        self.with_reasons = reasons is not None

    def ask(self, frame: bytes) -> dict[str, dict[str, Any]]:
        """Give one frame to all; the differences from the kernel's outcome by road, or nothing."""
        theirs = self.kernel.outcome(frame)
        found = {}
        for road, side in self.roads.items():
            ours = side.outcome(frame)
            if not self.with_reasons:
                ours.reasons.clear()
            if difference := ours.differs(theirs):
                found[road] = difference
        return found

    def show(self, frame: bytes) -> dict[str, Any]:
        """Give one frame to all, and tell everything that each made of it."""
        theirs = self.kernel.outcome(frame)
        sides = {"kernel": theirs} | {
            road: side.outcome(frame) for road, side in self.roads.items()
        }
        return {
            "frame": frame.hex(),
            "difference": {
                road: sides[road].differs(theirs)
                for road in self.roads
                if sides[road].differs(theirs)
            },
            **{
                name: {f: shown(v) for f, v in vars(one).items()} for name, one in sides.items()
            },
        }

    def close(self) -> None:
        """Close them all."""
        for side in (self.kernel, *self.roads.values()):
            side.close()
