"""Counters as dicts, and the ledger that says where every frame is.

Names come from the enums of ``_counters.pxd``: ``IpInReceives`` is the counter InReceives of
the group Ip. There is no second list. The kernel's own text forms of these are in
``procfs.py``, and what a drop reason means in ``drops.py``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Protocol

from netstack._counters import mib, skb_drop_reason
from netstack._net import sysctl

ICMP_TYPES = 256
GROUPS = ("Ip", "Icmp", "IcmpMsg", "Udp", "TcpExt", "IpExt")
NOT_DROPS = ("SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "SKB_FORWARDED", "SKB_DELIVERED")


class Counters(Protocol):
    """Describe what is read here of ``netstack._net.Net``."""

    def mib(self, which: int) -> int:
        """Return the counter ``which`` of all CPUs together."""

    def fate(self, which: int) -> int:
        """Return how many frames ended as ``which``."""

    def rx_frames(self) -> int:
        """Return how many frames came off the wires."""

    def get(self, which: int) -> int:
        """Return the tunable ``which``."""


class CountedHost(Protocol):
    """Describe what is read here of a host: its counters, and what stands in its queues."""

    @property
    def net(self) -> Any:
        """The host's ``Net``; see ``Counters``."""

    def queued(self) -> dict[str, int]:
        """Return the frames that stand still, by the name of the place."""


def split_name(name: str) -> tuple[str, str]:
    """Return group and name of a counter: IpExtInOctets gives IpExt, InOctets."""
    group = max((g for g in GROUPS if name.startswith(g)), key=len)
    return group, name.removeprefix(group)


def _grouped() -> dict[str, dict[str, int]]:
    """Map group and name to the number of the counter, in the order of the enum."""
    groups: dict[str, dict[str, int]] = {group: {} for group in GROUPS}
    for name, which in mib.__members__.items():
        if name == "MIB_NR" or name.startswith("IcmpMsg"):
            continue
        group, short = split_name(name)
        groups[group][short] = int(which)
    return groups


_COUNTERS = _grouped()


def counters(net: Counters, group: str) -> dict[str, int]:
    """Return the counters of one group. ``IcmpMsg`` has only those that have counted."""
    if group == "IcmpMsg":
        return _icmp_msg(net)
    return {name: net.mib(which) for name, which in _COUNTERS[group].items()}


def _icmp_msg(net: Counters) -> dict[str, int]:
    """Return the messages by type and way, as icmpmsg_put() does."""
    found = {}
    for way, first in (("InType", mib.IcmpMsgInType), ("OutType", mib.IcmpMsgOutType)):
        for kind in range(ICMP_TYPES):
            if value := net.mib(int(first) + kind):
                found[f"{way}{kind}"] = value
    return found


def snmp(net: Counters) -> dict[str, dict[str, int]]:
    """Return what /proc/net/snmp holds of the protocols that are here."""
    forwarding = 1 if net.get(sysctl.ip_forward) else 2
    gauges = {"Forwarding": forwarding, "DefaultTTL": net.get(sysctl.ip_default_ttl)}
    return {
        "Ip": gauges | counters(net, "Ip"),
        "Icmp": counters(net, "Icmp"),
        "IcmpMsg": counters(net, "IcmpMsg"),
        "Udp": counters(net, "Udp"),
    }


def netstat(net: Counters) -> dict[str, dict[str, int]]:
    """Return what /proc/net/netstat holds of the counters that are here."""
    return {group: counters(net, group) for group in ("TcpExt", "IpExt")}


def nstat(net: Counters) -> dict[str, int]:
    """Return all counters, without the gauges, under nstat's names."""
    return {
        group + name: value for group in GROUPS for name, value in counters(net, group).items()
    }


def matching(names: list[str], patterns: list[str]) -> list[str]:
    """Return the names that one of the shell patterns matches; all if there is no pattern."""
    if not patterns:
        return names
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]


def fates(net: Counters) -> dict[str, int]:
    """Return the frames by how they ended, under the names of the enum, those of 0 left out."""
    found = {}
    for name, which in skb_drop_reason.__members__.items():
        if name != "SKB_FATE_NR" and (count := net.fate(int(which))):
            found[name] = count
    return found


def reason_name(name: str) -> str:
    """Return a drop reason as the kernel's tools print it: NO_SOCKET."""
    return name.removeprefix("SKB_DROP_REASON_")


@dataclass(frozen=True, slots=True)
class Ledger:
    """Say where every frame is that came off the wires.

    ``difference`` is frames that are nowhere: 0 while the host is quiet. While it runs, frames
    in flight between two places show here for a moment.
    """

    frames: int
    delivered: int
    consumed: int
    forwarded: int
    dropped: dict[str, int] = field(default_factory=dict)
    queued: dict[str, int] = field(default_factory=dict)

    @property
    def difference(self) -> int:
        """Frames off the wires less all that is known of them."""
        ended = self.delivered + self.consumed + self.forwarded + sum(self.dropped.values())
        return self.frames - ended - sum(self.queued.values())

    @property
    def balanced(self) -> bool:
        """Whether every frame is accounted for."""
        return self.difference == 0

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return asdict(self) | {"difference": self.difference, "balanced": self.balanced}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ledger:
        """Make it again of what ``as_dict`` gave; anything else in it is left alone."""
        return cls(**{each.name: data[each.name] for each in fields(cls)})

    def text(self) -> str:
        """Return the account as lines for people."""
        rows = [("frames off the wire", self.frames), ("delivered to sockets", self.delivered)]
        rows.append(("consumed by protocols", self.consumed))
        if self.forwarded:
            rows.append(("forwarded", self.forwarded))
        rows.append(("dropped", sum(self.dropped.values())))
        rows += [(f"  {reason}", count) for reason, count in by_count(self.dropped)]
        rows.append(("queued", sum(self.queued.values())))
        rows += [(f"  {place}", count) for place, count in by_count(self.queued)]
        width = max(len(name) for name, _ in rows) + 2
        lines = [f"{name:<{width}}{count:>14,}" for name, count in rows]
        verdict = "balanced" if self.balanced else f"off by {self.difference:,} frames"
        return "\n".join([*lines, f"{'ledger':<{width}}{verdict:>14}"])


def by_count(table: dict[str, int]) -> list[tuple[str, int]]:
    """Return the entries that are not 0, the largest first."""
    return sorted(((k, v) for k, v in table.items() if v), key=lambda kv: (-kv[1], kv[0]))


def ledger(host: CountedHost) -> Ledger:
    """Draw up the account of a host.

    The wire is read first: what arrives meanwhile can then only make the difference negative,
    never hide a frame that is lost.
    """
    frames = host.net.rx_frames()
    queued = dict(host.queued())
    ends = fates(host.net)
    return Ledger(
        frames=frames,
        delivered=ends.get("SKB_DELIVERED", 0),
        consumed=ends.get("SKB_CONSUMED", 0),
        forwarded=ends.get("SKB_FORWARDED", 0),
        dropped={reason_name(k): v for k, v in ends.items() if k not in NOT_DROPS},
        queued=queued,
    )
