"""igmp: what routers ask, what neighbours report, and when we report ourselves.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       IP packets with protocol 2       proto/ip.py
         groups joined and left           proto/igmp_groups.py
Out      reports                          proto/igmp_report.py
Context  process (the kworker, or who joins), under ``Igmp.rtnl``
Kernel   igmp_rcv(), igmp_heard_query(), igmp_timer_expire(), igmp_ifc_event(), net/ipv4/igmp.c

RFC 3376 has version 3, section 7 of it how a host speaks with older queriers; RFC 2236 and RFC 1112
have versions 2 and 1. Delays are random, counted in the kernel's ticks of 4 ms.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from netstack._checksum import internet_checksum
from netstack._counters import skb_drop_reason
from netstack._net import devconf, devconf_numbers, sysctl
from netstack.proto._mc import McTable
from netstack.proto._route_mc import kick
from netstack.proto.igmp_groups import MCAST_EXCLUDE, MCAST_INCLUDE, Events, Group, InDevice
from netstack.proto.igmp_report import (
    IGMP_HOST_LEAVE_MESSAGE,
    IGMP_HOST_MEMBERSHIP_REPORT,
    IGMPV2_HOST_MEMBERSHIP_REPORT,
    igmp_send_report,
    igmpv3_send_cr,
    igmpv3_send_report,
    is_reported,
)

if TYPE_CHECKING:
    from netstack._net import Net
    from netstack._skb import SkBuff
    from netstack.proto.af_inet import InetHost

IPPROTO_IGMP = 2
IGMP_HOST_MEMBERSHIP_QUERY = 0x11
IGMP_HLEN, IGMPV3_QUERY_HLEN = 8, 12
PACKET_BROADCAST, PACKET_MULTICAST = 1, 2
HZ, NS_PER_S = 250, 1_000_000_000
JIFFY = NS_PER_S // HZ
TENTH = HZ // 10  # what a maximum response code counts (RFC 3376 section 4.1.1)
V1_MAX_DELAY = 10 * HZ


class Timer:
    """A call that can be put off and taken back; it keeps its place among those of one host."""

    __slots__ = ("call", "due", "wheel")

    def __init__(self, wheel: Wheel, call: Callable[[], object]) -> None:
        self.wheel, self.call, self.due = wheel, call, 0

    @property
    def running(self) -> bool:
        """True while it is going to run out."""
        return self.due != 0

    def start(self, due: int) -> None:
        """Let it run out at a time of the host's clock, ns. [mod_timer()]"""
        self.wheel.active += not self.due
        self.due = due
        self.wheel.push(self)

    def stop(self) -> None:
        """Take it back. [del_timer()]"""
        self.wheel.active -= self.due != 0
        self.due = 0


class Wheel:
    """The timers of one host that run, the first on top; what was put off is thrown out when it comes up."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.heap: list[tuple[int, int, Timer]] = []
        self.active = 0
        self.order = itertools.count()

    def push(self, timer: Timer) -> None:
        """Put a timer in. Places of timers that have moved on are bounded by those of timers that run."""
        if len(self.heap) > 2 * self.active + 64:
            self.heap = [row for row in self.heap if row[2].due == row[0]]
            heapq.heapify(self.heap)
        heapq.heappush(self.heap, (timer.due, next(self.order), timer))
        if self.heap[0][2] is timer:
            kick(self.net)

    def first(self) -> Timer | None:
        """Give the timer that runs out first."""
        while self.heap and self.heap[0][2].due != self.heap[0][0]:
            heapq.heappop(self.heap)
        return self.heap[0][2] if self.heap else None

    def pop(self, now: int) -> Timer | None:
        """Take out a timer that has run out."""
        timer = self.first()
        if timer is None or timer.due > now:
            return None
        heapq.heappop(self.heap)
        timer.stop()
        return timer


class Igmp(Events):
    """IGMP of one host: its devices, its timers, its settings by device."""

    def __init__(self, net: Net, seed: int) -> None:
        """Know no device yet. ``seed`` makes the delays repeatable."""
        self.net = net
        self.rtnl = threading.RLock()  # of all that is joined, by sockets and by devices
        self.table = McTable(net)
        self.random = random.Random(seed)
        self.wheel = Wheel(net)
        self.devices: dict[int, InDevice] = {}

    def add_device(self, ifindex: int, set_filter: Callable[[bytes], object] | None) -> None:
        """Get a device, which is up; ``set_filter`` is given all its group addresses in one string."""
        with self.rtnl:
            if ifindex not in self.devices:
                self.devices[ifindex] = InDevice(ifindex, self.table, self, self._qrv)
            dev = self.devices[ifindex]
            dev.set_filter = set_filter or dev.set_filter
            dev.mc_up(self._qrv)
            dev.update_filter()

    def set_up(self, ifindex: int, *, up: bool) -> None:
        """Follow a device up or down."""
        with self.rtnl:
            if up:
                self.devices[ifindex].mc_up(self._qrv)
            else:
                self.devices[ifindex].mc_down()

    @property
    def _qrv(self) -> int:
        return self.net.get(sysctl.igmp_qrv)

    def conf(self, ifindex: int, which: devconf) -> int:
        """Give ``net.ipv4.conf.DEVICE.*``; 0: ``all``."""
        place = 1 + ifindex if ifindex else 0
        return self.net.get(devconf_numbers.DEVCONF_ALL + (place << 8) + which)

    def rows(self, ifindex: int) -> list[dict[str, Any]]:
        """Give a device's groups as /proc/net/igmp and mcfilter have them, the latest first."""
        with self.rtnl:
            dev = self.devices[ifindex]
            now, querier = self.net.now(), self.version(dev)
            return [self._row(group, now, querier) for group in reversed(dev.groups.values())]

    def _row(self, group: Group, now: int, querier: int) -> dict[str, Any]:
        timer = self._timer(group)
        return {
            "group": str(IPv4Address(group.addr)),
            "users": group.users,
            "mode": "include" if group.sfmode == MCAST_INCLUDE else "exclude",
            "timer": max(0, timer.due - now) / NS_PER_S if timer.running else None,
            "reporter": group.reporter,
            "querier": querier,
            "sources": [(str(IPv4Address(s.addr)), *s.count) for s in group.sources.values()],
        }

    # ---- timers

    def next_deadline(self) -> int:
        """When the first timer runs out, ns on the host's clock; 0 for none."""
        with self.rtnl:
            timer = self.wheel.first()
            return timer.due if timer is not None else 0

    def run_timers(self, now: int) -> None:
        """Run what is due."""
        with self.rtnl:
            while (timer := self.wheel.pop(now)) is not None:
                timer.call()

    def timer(self, call: Callable[[], object]) -> Timer:
        """Make a timer that stands still."""
        return Timer(self.wheel, call)

    def after(self, ticks: int) -> int:
        """Give the time of the tick within the next ``ticks``, by chance, and two."""
        return self.net.now() + (self.random.randrange(max(ticks, 1)) + 2) * JIFFY

    def version(self, dev: InDevice) -> int:
        """Give the version to speak: as it is forced, or as the oldest querier does. [IGMP_V1_SEEN()]"""
        forced = self.conf(0, devconf.CNF_FORCE_IGMP_VERSION)
        own = self.conf(dev.ifindex, devconf.CNF_FORCE_IGMP_VERSION)
        now = self.net.now()
        if 1 in (forced, own) or now < dev.mr_v1_seen:
            return 1
        if 2 in (forced, own) or now < dev.mr_v2_seen:
            return 2
        return 3

    def unsolicited_report_interval(self, dev: InDevice) -> int:
        """Give the ticks within which a report is repeated."""
        which = devconf.CNF_IGMPV3_UNSOLICITED_REPORT_INTERVAL
        if self.version(dev) < 3:
            which = devconf.CNF_IGMPV2_UNSOLICITED_REPORT_INTERVAL
        return max(1, -(-self.conf(dev.ifindex, which) * HZ // 1000))

    def ifc_event(self, dev: InDevice) -> None:
        """Report a change of state now, and again. [igmp_ifc_event()]"""
        if self.version(dev) < 3:
            return
        dev.mr_ifc_count = dev.mr_qrv
        dev.ifc_timer.start(self.after(1))

    def ifc_timer_expire(self, dev: InDevice) -> None:
        """Send what has changed. [igmp_ifc_timer_expire()]"""
        igmpv3_send_cr(self.net, dev)
        if dev.mr_ifc_count:
            dev.mr_ifc_count -= 1
            dev.ifc_timer.start(self.after(self.unsolicited_report_interval(dev)))

    def gq_timer_expire(self, dev: InDevice) -> None:
        """Answer a general query. [igmp_gq_timer_expire()]"""
        igmpv3_send_report(self.net, dev)

    def timer_expire(self, dev: InDevice, group: Group) -> None:
        """Report one group, as its querier or its being new demands. [igmp_timer_expire()]"""
        if group.unsolicit_count:
            group.unsolicit_count -= 1
            if group.unsolicit_count:
                self._timer(group).start(self.after(self.unsolicited_report_interval(dev)))
        group.reporter = True
        version = self.version(dev)
        if version == 3:
            igmpv3_send_report(self.net, dev, group)
            return
        kind = IGMPV2_HOST_MEMBERSHIP_REPORT if version == 2 else IGMP_HOST_MEMBERSHIP_REPORT
        igmp_send_report(self.net, dev, group, kind)

    @staticmethod
    def _timer(group: Group) -> Timer:
        assert group.timer is not None, "a group of a device has a timer"
        return group.timer

    # ---- joined and left

    def group_added(self, dev: InDevice, group: Group) -> None:
        """Begin to report a group. [igmp_group_added()]"""
        if not is_reported(self.net, group.addr):
            return
        group.unsolicit_count = self._qrv
        if self.version(dev) < 3:
            self._timer(group).start(self.after(1))
            return
        if group.sfmode == MCAST_EXCLUDE:
            group.crcount = dev.mr_qrv
        self.ifc_event(dev)

    def group_dropped(self, dev: InDevice, group: Group) -> None:
        """Say that a group was left, if the querier wants to know. [__igmp_group_dropped()]"""
        if not is_reported(self.net, group.addr):
            return
        reporter = group.reporter
        self.stop_timer(group)
        version = self.version(dev)
        if version == 2 and reporter:
            igmp_send_report(self.net, dev, group, IGMP_HOST_LEAVE_MESSAGE)
        if version == 3:
            dev.add_delrec(group)
            self.ifc_event(dev)

    def stop_timer(self, group: Group) -> None:
        """Leave the report to another. [igmp_stop_timer()]"""
        self._timer(group).stop()
        group.reporter = False
        group.unsolicit_count = 0

    # ---- heard

    def heard_report(self, dev: InDevice, addr: int) -> None:
        """Somebody else has reported the group: once is enough. [igmp_heard_report()]"""
        group = dev.groups.get(addr)
        if group is not None and is_reported(self.net, addr):
            self.stop_timer(group)

    def heard_query(self, dev: InDevice, message: bytes) -> bool:
        """Answer in time; False for a query that is none. [igmp_heard_query()]"""
        code, group = message[1], int.from_bytes(message[4:8])
        marked: list[int] = []
        older = self.net.now() + (dev.mr_qrv * dev.mr_qi + dev.mr_qri) * NS_PER_S
        if len(message) == IGMP_HLEN:
            if code == 0:
                max_delay, group = V1_MAX_DELAY, 0
                dev.mr_v1_seen = older
            else:
                max_delay = code * TENTH
                dev.mr_v2_seen = older
            dev.mr_ifc_count = 0
            dev.ifc_timer.stop()
            dev.clear_delrec()
        elif len(message) < IGMPV3_QUERY_HLEN:
            return False
        elif self.version(dev) == 1:
            max_delay, group = V1_MAX_DELAY, 0
        elif self.version(dev) == 2:
            max_delay = max(1, floating(code) * TENTH)
        else:
            sources = self.v3_query(dev, message)
            if sources is None or (sources and not group):
                return False
            max_delay = dev.mr_maxdelay
            if not group:
                self.gq_start_timer(dev)
                return True
            marked = sources
        groups = dev.groups.values() if not group else filter(None, [dev.groups.get(group)])
        for one in list(groups):
            if is_reported(self.net, one.addr):
                self.query_group(one, marked, max_delay)
        return True

    def v3_query(self, dev: InDevice, message: bytes) -> list[int] | None:
        """Take over what a querier of version 3 says of itself; the sources it asks for, None if cut short."""
        count = int.from_bytes(message[10:12])
        if len(message) < IGMPV3_QUERY_HLEN + 4 * count:
            return None
        dev.mr_maxdelay = max(1, floating(message[1]) * TENTH)
        dev.mr_qrv = message[8] & 7 or self._qrv
        dev.mr_qi = floating(message[9]) or 125
        if dev.mr_qri >= dev.mr_qi:
            dev.mr_qri = dev.mr_qi - 1
        at = range(IGMPV3_QUERY_HLEN, IGMPV3_QUERY_HLEN + 4 * count, 4)
        return [int.from_bytes(message[i : i + 4]) for i in at]

    def gq_start_timer(self, dev: InDevice) -> None:
        """Answer a general query, unless an answer is due before. [igmp_gq_start_timer()]"""
        due = self.after(dev.mr_maxdelay)
        if not dev.gq_timer.running or due < dev.gq_timer.due:
            dev.gq_timer.start(due)

    def query_group(self, group: Group, sources: list[int], max_delay: int) -> None:
        """Report a group within ``max_delay`` ticks, if the sources that are asked for concern it."""
        timer = self._timer(group)
        group.gsquery = bool(sources) and (group.gsquery or not timer.running)
        if group.gsquery and not marksources(group, sources):
            return
        group.unsolicit_count = 0
        if not timer.running or timer.due - self.net.now() >= max_delay * JIFFY:
            timer.start(self.after(max_delay))


def marksources(group: Group, sources: list[int]) -> bool:
    """Mark the sources that a query asks for; False when there is nothing to answer. [igmp_marksources()]"""
    if group.sfmode == MCAST_EXCLUDE:
        group.gsquery = False
        excluded = sum(
            not s.count[MCAST_INCLUDE]
            and s.count[MCAST_EXCLUDE] == group.sfcount[MCAST_EXCLUDE]
            and s.addr in sources
            for s in group.sources.values()
        )
        return excluded != len(sources)
    asked = [s for s in group.sources.values() if s.addr in sources]
    for source in asked[: len(sources)]:
        source.gsresp = True
    group.gsquery = bool(asked)
    return group.gsquery


def floating(code: int) -> int:
    """Read a code of version 3: from 128 on it has an exponent (RFC 3376 sections 4.1.1 and 4.1.7)."""
    return code if code < 128 else (code & 15 | 16) << ((code >> 4 & 7) + 3)


def igmp_rcv(host: InetHost, skb: SkBuff) -> None:
    """Take one message, data at its header. Consumes skb."""
    message = skb.data
    reasons = skb_drop_reason
    if len(message) < IGMP_HLEN:
        skb.drop(reasons.SKB_DROP_REASON_PKT_TOO_SMALL)
        return
    if internet_checksum(message):
        skb.drop(reasons.SKB_DROP_REASON_IGMP_CSUM)
        return
    igmp = host.inet.igmp
    with igmp.rtnl:
        dev = igmp.devices[skb.ifindex]
        if message[0] == IGMP_HOST_MEMBERSHIP_QUERY:
            if igmp.heard_query(dev, message):
                skb.consume()
            else:
                skb.drop(reasons.SKB_DROP_REASON_PKT_TOO_SMALL)
            return
        # Not our own that came back, and not one that routers may not have heard.
        heard = message[0] in (IGMP_HOST_MEMBERSHIP_REPORT, IGMPV2_HOST_MEMBERSHIP_REPORT)
        if heard and skb.pkt_type in (PACKET_BROADCAST, PACKET_MULTICAST):
            igmp.heard_report(dev, int.from_bytes(message[4:8]))
            skb.consume()
            return
    skb.drop(reasons.SKB_DROP_REASON_IGMP_IGNORED)
