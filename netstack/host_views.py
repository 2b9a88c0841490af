"""host_views: what a host shows: CPUs, interrupts, sockets, neighbours, routes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from netstack.irq._affinity import lines, set_affinity
from netstack.netif.core import ETH_P_ALL
from netstack.sock._calls import sockets as open_sockets

if TYPE_CHECKING:
    from netstack._net import Net
    from netstack.irq._cpu import Cpu
    from netstack.netdev import NetDevice
    from netstack.netif.core import PacketTypes
    from netstack.proto.af_inet import Inet

SOFTIRQS = (
    *("HI", "TIMER", "NET_TX", "NET_RX", "BLOCK"),
    *("IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"),
)


PTYPE_HASH_SIZE = 16
QUEUE_VECTOR = re.compile(r"-TxRx-(\d+)$")


class HostViews:
    """The half of ``Host`` that looks, and says where interrupts go."""

    net: Net
    cpus: list[Cpu]
    devices: list[NetDevice]
    inet: Inet
    packet_types: PacketTypes

    def softnet(self) -> list[dict[str, Any]]:
        """Give the counters of each CPU's softnet_data."""
        return [cpu.counters() for cpu in self.cpus]

    def softirqs(self) -> list[dict[str, int]]:
        """Give how often each CPU ran each softirq, in the kernel's order."""
        return [dict(zip(SOFTIRQS, cpu.softirqs(), strict=True)) for cpu in self.cpus]

    def interrupts(self) -> list[dict[str, Any]]:
        """Give every interrupt line: number, name, count on each CPU, where it may go and goes.

        ``hwirq`` is its vector's number in its device.
        """
        return [
            {
                "irq": irq,
                "name": name,
                "hwirq": int(queue[1]) + 1 if (queue := QUEUE_VECTOR.search(name)) else 0,
                "chip": "PCI-MSIX",
                "counts": counts,
                "smp_affinity": mask,
                "cpu": cpu,
            }
            for irq, name, counts, mask, cpu in lines(self.net)
        ]

    def set_smp_affinity(self, irq: int, cpus: Iterable[int]) -> None:
        """Let an interrupt line go to one of ``cpus``, and its queue's packets with it.

        It stays where it is if that is one of them, else the first is taken. No frame is lost, and
        none overtakes another of its flow. OSError EINVAL when none of them is there, ENOENT when
        there is no such line.
        """
        set_affinity(self.net, irq, sum(1 << cpu for cpu in set(cpus) if 0 <= cpu < 64))

    def sockets(self) -> list[dict[str, Any]]:
        """Give a row for each open socket."""
        return [dict(sock.info) for sock in open_sockets(self.net)]

    def neighbours(self) -> list[dict[str, Any]]:
        """Give the neighbour table, as ``ip -j neigh`` does."""
        return self._with_names(self.inet.neighbours())

    def _with_names(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Put the device's name into rows that have its index."""
        names = {device.ifindex: device.name for device in self.devices}
        return [
            {
                "dev" if k == "ifindex" else k: names[v] if k == "ifindex" else v
                for k, v in row.items()
            }
            for row in rows
        ]

    def routes(self, table: str = "main") -> list[dict[str, Any]]:
        """Give a routing table (main, local), as ``ip -j route`` does."""
        return self._with_names(self.inet.route_rows(table))

    def handlers(self) -> list[tuple[str, str, str]]:
        """Give type, device and function of each packet handler, as and in the order /proc/net/ptype does.

        The devices' own, those of every device, sockets of one type, then the protocols; of equal ones
        the latest first. A socket of one type and one device is not shown, as in Linux.
        """
        names = {device.ifindex: device.name for device in self.devices}
        types = self.packet_types
        sockets = list(self._packet_sockets())
        every = [(names.get(i or 0, ""), fn.__name__) for fn, i in reversed(types.ptype_all)]
        every += [(name, "packet_rcv") for name, kind in sockets if kind == ETH_P_ALL]
        rows = [
            ("ALL", *row) for name in [*names.values(), ""] for row in every if row[0] == name
        ]
        for name, kind in sockets:
            if kind not in (0, ETH_P_ALL) and not name:
                rows.append((f"{kind:04x}", "", "packet_rcv"))
        base = sorted(types.ptype_base.items(), key=lambda row: row[0] % PTYPE_HASH_SIZE)
        return rows + [(f"{kind:04x}", "", fn.__name__) for kind, fn in base]

    def _packet_sockets(self) -> Iterator[tuple[str, int]]:
        """Give device and EtherType of each packet socket, the latest first."""
        for sock in open_sockets(self.net):
            if sock.info["proto"] == "packet":
                with contextlib.suppress(OSError):  # it was closed meanwhile
                    name, kind = sock.getsockname()[:2]
                    yield name, kind

    def memberships(self, ifindex: int) -> list[tuple[str, int]]:
        """Give the groups that a device is a member of, and how many users each has; the latest first."""
        return [(row["group"], row["users"]) for row in self.groups(ifindex)]

    def groups(self, ifindex: int) -> list[dict[str, Any]]:
        """Give the groups of a device with their users, filters and timers; the latest first."""
        return self.inet.igmp.rows(ifindex)

    def group_addresses(self, ifindex: int) -> dict[bytes, int]:
        """Give the group addresses in a device's filter, and how many groups share each."""
        return self.inet.igmp.devices[ifindex].addresses()

    def fragments(self) -> tuple[int, int]:
        """Count the datagrams that wait for fragments, and their memory in bytes."""
        return len(self.inet.frags.queues), self.inet.frags.memory
