"""igmp_groups: the groups that a device is a member of, and from which sources.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       what sockets join and leave      proto/ip_sockglue.py
Out      what routing asks                proto/_mc.pyx
         addresses for the NIC's filter   driver/_igb.pyx
         changes to report                proto/igmp_report.py, proto/igmp.py
Context  process, under ``Multicast.rtnl``
Kernel   ____ip_mc_inc_group(), ip_mc_add_src(), ip_mc_del_src(), igmpv3_add_delrec(), net/ipv4/igmp.c

RFC 3376 section 3.2 says how the filters of all sockets become one of the device. What has changed is
kept until it has been reported often enough: a count for each group, and "tombs" for what is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from netstack.proto._mc import McTable
    from netstack.proto.igmp import Timer

MCAST_EXCLUDE, MCAST_INCLUDE = 0, 1
IGMP_ALL_HOSTS = 0xE0000001
ESRCH, EINVAL = 3, 22
MC_TOMB_MAX = 4096  # groups left whose reports are still due; older ones are forgotten
QUERY_INTERVAL_S, QUERY_RESPONSE_INTERVAL_S = 125, 10


class Source:
    """One source of a group: how many sockets include and exclude it. [struct ip_sf_list]"""

    __slots__ = ("addr", "count", "crcount", "gsresp", "oldin")

    def __init__(self, addr: int) -> None:
        self.addr = addr
        self.count = [0, 0]  # by MCAST_EXCLUDE, MCAST_INCLUDE
        self.crcount = 0  # reports of its change still to send
        self.gsresp = False  # a query asked for it
        self.oldin = False

    def copy(self) -> Source:
        """Give another like it."""
        other = Source(self.addr)
        other.count, other.crcount = list(self.count), self.crcount
        other.gsresp, other.oldin = self.gsresp, self.oldin
        return other


class Group:
    """A membership of a device. [struct ip_mc_list]"""

    __slots__ = (
        *("addr", "crcount", "gsquery", "loaded", "reporter", "sfcount", "sfmode", "sources"),
        *("timer", "tomb", "unsolicit_count", "users"),
    )

    def __init__(self, addr: int, mode: int, timer: Timer | None = None) -> None:
        self.addr = addr
        self.users = 1
        self.sfmode = mode
        self.sfcount = [0, 0]
        self.sfcount[mode] = 1
        self.sources: dict[int, Source] = {}
        self.tomb: list[Source] = []  # newest first
        self.timer = timer  # until the next report of this group
        self.reporter = False  # we were the last to report it
        self.unsolicit_count = 0
        self.crcount = 0  # reports of the filter mode's change still to send
        self.gsquery = False
        self.loaded = False  # in the NIC's filter

    def wants(self, source: Source) -> bool:
        """Tell whether the source belongs to the device's filter, as its mode is now."""
        if self.sfcount[MCAST_EXCLUDE]:
            return (
                source.count[MCAST_EXCLUDE] == self.sfcount[MCAST_EXCLUDE]
                and not source.count[MCAST_INCLUDE]
            )
        return source.count[MCAST_INCLUDE] != 0

    def markstate(self) -> None:
        """Remember which sources were in the filter. [sf_markstate()]"""
        for source in self.sources.values():
            source.oldin = self.wants(source)

    def setstate(self, qrv: int) -> bool:
        """Note what has to be reported of sources that came or went since markstate(). [sf_setstate()]"""
        changed = False
        for source in self.sources.values():
            new = self.wants(source)
            if new == source.oldin:
                continue
            changed = True
            dead = next((one for one in self.tomb if one.addr == source.addr), None)
            if new:
                if dead is not None:
                    self.tomb.remove(dead)
                source.crcount = qrv
                continue
            source.crcount = 0
            if dead is None:
                dead = source.copy()
                self.tomb.insert(0, dead)
            dead.crcount = qrv
        return changed

    def add_source(self, mode: int, addr: int) -> None:
        """Count a socket that names a source. [ip_mc_add1_src()]"""
        self.sources.setdefault(addr, Source(addr)).count[mode] += 1

    def clear_src(self) -> None:
        """Forget all sources. [ip_mc_clear_src()]"""
        self.tomb, self.sources = [], {}
        self.sfmode, self.sfcount = MCAST_EXCLUDE, [1, 0]


class InDevice:
    """The memberships of one device, and how its queriers want to be spoken to. [struct in_device]

    What it does about reports (igmp.py) is in ``events``; None while the device is not wired yet.
    """

    def __init__(self, ifindex: int, table: McTable, igmp: Events, qrv: int) -> None:
        self.ifindex = ifindex
        self.table = table
        self.igmp = igmp
        self.up = False
        self.groups: dict[int, Group] = {}  # oldest first
        self.mc_tomb: list[Group] = []  # left, and still to be reported; newest first
        self.set_filter: Callable[[bytes], object] | None = None
        self.mr_v1_seen = self.mr_v2_seen = 0  # until when older queriers count, ns
        self.mr_ifc_count = 0
        self.mr_maxdelay = 0
        self.gq_timer = igmp.timer(lambda: igmp.gq_timer_expire(self))
        self.ifc_timer = igmp.timer(lambda: igmp.ifc_timer_expire(self))
        self.reset(qrv)

    def reset(self, qrv: int) -> None:
        """Forget what queriers said. [ip_mc_reset()]"""
        self.mr_qi, self.mr_qri = QUERY_INTERVAL_S, QUERY_RESPONSE_INTERVAL_S
        self.mr_qrv = qrv

    # ---- groups

    def inc_group(self, addr: int, mode: int = MCAST_EXCLUDE) -> None:
        """Count a socket that joins. [____ip_mc_inc_group()]"""
        group = self.groups.get(addr)
        if group is not None:
            group.users += 1
            self.add_src(addr, mode, (), delta=False)
            return
        group = Group(addr, mode)
        group.timer = self.igmp.timer(lambda: self.igmp.timer_expire(self, group))
        self.groups[addr] = group
        self.publish(group)
        self.del_delrec(group)
        self.group_added(group)

    def dec_group(self, addr: int) -> None:
        """Count a socket that leaves; after the last the device does. [__ip_mc_dec_group()]"""
        group = self.groups.get(addr)
        if group is None:
            return
        group.users -= 1
        if group.users == 0:
            del self.groups[addr]
            self.table.remove(self.ifindex, addr)
            self.group_dropped(group)
            group.clear_src()

    def group_added(self, group: Group) -> None:
        """Let the NIC take its frames, and begin to report it. [igmp_group_added()]"""
        if not group.loaded:
            group.loaded = True
            self.update_filter()
        self.igmp.group_added(self, group)

    def group_dropped(self, group: Group) -> None:
        """Take it from the NIC's filter, and report that it is left. [__igmp_group_dropped()]"""
        if group.loaded:
            group.loaded = False
            self.update_filter()
        self.igmp.group_dropped(self, group)

    def addresses(self) -> dict[bytes, int]:
        """Give the NIC's group addresses, and how many groups have each: 32 share one (RFC 1112 6.4)."""
        found: dict[bytes, int] = {}
        for group in self.groups.values():
            if group.loaded:
                mac = b"\x01\x00\x5e" + (group.addr & 0x7FFFFF).to_bytes(3)
                found[mac] = found.get(mac, 0) + 1
        return found

    def update_filter(self) -> None:
        """Write the NIC's filter anew. [dev_mc_add(), dev_mc_del()]"""
        if self.set_filter is not None:
            self.set_filter(b"".join(self.addresses()))

    def publish(self, group: Group) -> None:
        """Tell routing what a membership lets in."""
        rows = [
            (s.addr, s.count[MCAST_INCLUDE], s.count[MCAST_EXCLUDE])
            for s in group.sources.values()
        ]
        self.table.set(self.ifindex, group.addr, group.sfcount[MCAST_EXCLUDE], rows)

    # ---- the device

    def mc_up(self, qrv: int) -> None:
        """Join 224.0.0.1, and report what is still joined. [ip_mc_up()]"""
        if self.up:
            return
        self.up = True
        self.reset(qrv)
        self.inc_group(IGMP_ALL_HOSTS)
        for group in list(reversed(self.groups.values())):
            self.del_delrec(group)
            self.group_added(group)

    def mc_down(self) -> None:
        """Be silent while the device is down; memberships stay. [ip_mc_down()]"""
        if not self.up:
            return
        self.up = False
        for group in reversed(self.groups.values()):
            self.group_dropped(group)
        self.mr_ifc_count = 0
        self.ifc_timer.stop()
        self.gq_timer.stop()
        self.dec_group(IGMP_ALL_HOSTS)

    # ---- sources

    def add_src(self, addr: int, mode: int, sources: Iterable[int], *, delta: bool) -> int:
        """Merge a socket's filter into the device's; ``delta``: the socket's mode is counted. [ip_mc_add_src()]"""
        group = self.groups.get(addr)
        if group is None:
            return ESRCH
        group.markstate()
        was_exclude = group.sfmode == MCAST_EXCLUDE
        if not delta:
            group.sfcount[mode] += 1
        for source in sources:
            group.add_source(mode, source)
        if was_exclude != (group.sfcount[MCAST_EXCLUDE] != 0):
            if group.sfcount[MCAST_EXCLUDE]:
                group.sfmode = MCAST_EXCLUDE
            elif group.sfcount[MCAST_INCLUDE]:
                group.sfmode = MCAST_INCLUDE
            self.mode_changed(group)
        elif group.setstate(self.mr_qrv):
            self.igmp.ifc_event(self)
        self.publish(group)
        return 0

    def del_src(self, addr: int, mode: int, sources: Iterable[int], *, delta: bool) -> int:
        """Take a socket's filter out of the device's. [ip_mc_del_src()]"""
        group = self.groups.get(addr)
        if group is None:
            return ESRCH
        group.markstate()
        if not delta:
            if not group.sfcount[mode]:
                return EINVAL
            group.sfcount[mode] -= 1
        changed = False
        err = 0
        for source in sources:
            gone = self.del1_src(group, mode, source)
            changed |= gone > 0
            err = err or max(0, -gone)
        if (
            group.sfmode == MCAST_EXCLUDE
            and not group.sfcount[MCAST_EXCLUDE]
            and group.sfcount[MCAST_INCLUDE]
        ):
            group.sfmode = MCAST_INCLUDE
            self.mode_changed(group)
        elif group.setstate(self.mr_qrv) or changed:
            self.igmp.ifc_event(self)
        self.publish(group)
        return err

    def mode_changed(self, group: Group) -> None:
        """Report the new filter mode instead of single sources."""
        group.crcount = self.mr_qrv
        self.mr_ifc_count = group.crcount
        for source in group.sources.values():
            source.crcount = 0
        self.igmp.ifc_event(self)

    def del1_src(self, group: Group, mode: int, addr: int) -> int:
        """Count one source down: 1 when its end is to be reported, or -ESRCH. [ip_mc_del1_src()]"""
        source = group.sources.get(addr)
        if source is None or not source.count[mode]:
            return -ESRCH
        source.count[mode] -= 1
        if any(source.count):
            return 0
        del group.sources[addr]
        if not source.oldin or self.igmp.version(self) < 3:
            return 0
        source.crcount = self.mr_qrv
        group.tomb.insert(0, source)
        return 1

    # ---- what was left, until it has been reported

    def add_delrec(self, group: Group) -> None:
        """Remember a group that was left. [igmpv3_add_delrec()]"""
        gone = Group(group.addr, group.sfmode)
        gone.crcount = self.mr_qrv
        if gone.sfmode == MCAST_INCLUDE:
            gone.tomb, gone.sources = group.tomb, group.sources
            group.tomb, group.sources = [], {}
            for source in gone.sources.values():
                source.crcount = gone.crcount
        self.mc_tomb.insert(0, gone)
        del self.mc_tomb[MC_TOMB_MAX:]

    def del_delrec(self, group: Group) -> None:
        """Take it back: the group is joined again. [igmpv3_del_delrec()]"""
        gone = next((one for one in self.mc_tomb if one.addr == group.addr), None)
        if gone is None:
            return
        self.mc_tomb.remove(gone)
        if group.sfmode != MCAST_INCLUDE:
            group.crcount = self.mr_qrv
            return
        group.tomb, group.sources = gone.tomb, gone.sources
        for source in group.sources.values():
            source.crcount = self.mr_qrv
        self.publish(group)

    def clear_delrec(self) -> None:
        """Forget all that is gone: an older querier does not want to hear of it. [igmpv3_clear_delrec()]"""
        self.mc_tomb.clear()
        for group in self.groups.values():
            group.tomb = []


class Events(Protocol):
    """What a device's memberships call when something has to be reported: igmp.py."""

    def timer(self, call: Callable[[], object]) -> Timer:
        """Make a timer."""

    def version(self, dev: InDevice) -> int:
        """Give the version of IGMP that is spoken: 1, 2 or 3."""

    def ifc_event(self, dev: InDevice) -> None:
        """Report a change of state soon."""

    def group_added(self, dev: InDevice, group: Group) -> None:
        """Report a group that was joined."""

    def group_dropped(self, dev: InDevice, group: Group) -> None:
        """Report a group that was left."""

    def gq_timer_expire(self, dev: InDevice) -> None:
        """Answer a general query."""

    def ifc_timer_expire(self, dev: InDevice) -> None:
        """Send a state-change report."""

    def timer_expire(self, dev: InDevice, group: Group) -> None:
        """Report one group."""
