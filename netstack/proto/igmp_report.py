"""igmp_report: the messages that tell routers what we are members of.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       groups and their sources         proto/igmp_groups.py
Out      IP packets with protocol 2       proto/_route_mc.pyx
Context  process, under ``Multicast.rtnl``
Kernel   igmpv3_send_report(), igmpv3_send_cr(), add_grec(), igmp_send_report(), net/ipv4/igmp.c

RFC 3376 section 4.2 has the report of version 3, section 5 which records it holds; RFC 2236 and RFC
1112 have versions 2 and 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

from netstack._checksum import internet_checksum
from netstack._net import Net, sysctl
from netstack.proto._route_mc import device_mtu, igmp_xmit
from netstack.proto.igmp_groups import (
    IGMP_ALL_HOSTS,
    MCAST_EXCLUDE,
    MCAST_INCLUDE,
    Group,
    InDevice,
    Source,
)

IGMP_HOST_MEMBERSHIP_REPORT, IGMPV2_HOST_MEMBERSHIP_REPORT = 0x12, 0x16
IGMP_HOST_LEAVE_MESSAGE, IGMPV3_HOST_MEMBERSHIP_REPORT = 0x17, 0x22
IGMP_ALL_ROUTER, IGMPV3_ALL_MCR = 0xE0000002, 0xE0000016
IP_HEADER = 24  # with the router alert option
REPORT_HEADER, RECORD_HEADER, IPV4_MIN_MTU = 8, 8, 68


class Record(IntEnum):
    """Types of group records (RFC 3376 section 4.2.12)."""

    MODE_IS_INCLUDE = 1
    MODE_IS_EXCLUDE = 2
    CHANGE_TO_INCLUDE = 3
    CHANGE_TO_EXCLUDE = 4
    ALLOW_NEW_SOURCES = 5
    BLOCK_OLD_SOURCES = 6


QUERIED = (Record.MODE_IS_INCLUDE, Record.MODE_IS_EXCLUDE)
CHANGED = (Record.ALLOW_NEW_SOURCES, Record.BLOCK_OLD_SOURCES)
TRUNCATED = (Record.MODE_IS_EXCLUDE, Record.CHANGE_TO_EXCLUDE)


def is_reported(net: Net, group: int) -> bool:
    """Tell whether a group is ever reported: 224.0.0.1 is not, its neighbours are if wanted."""
    if group == IGMP_ALL_HOSTS:
        return False
    return group >> 8 != 0xE00000 or bool(net.get(sysctl.igmp_link_local_mcast_reports))


def with_checksum(message: bytes) -> bytes:
    """Give an IGMP message with its checksum, whose place holds 0."""
    return message[:2] + internet_checksum(message).to_bytes(2) + message[4:]


def igmp_send_report(net: Net, dev: InDevice, group: Group, type_: int) -> int:
    """Send a report or a leave of versions 1 and 2; 0 or an errno."""
    if not is_reported(net, group.addr):
        return 0
    message = with_checksum(struct.pack("!BBHI", type_, 0, 0, group.addr))
    leave = type_ == IGMP_HOST_LEAVE_MESSAGE
    return igmp_xmit(net, message, IGMP_ALL_ROUTER if leave else group.addr, dev.ifindex)


class Report:
    """A report of version 3 while it is written: as many packets as it takes."""

    def __init__(self, net: Net, dev: InDevice) -> None:
        self.net, self.dev = net, dev
        self.mtu = device_mtu(net, dev.ifindex)
        self.room = self.mtu - IP_HEADER - REPORT_HEADER  # bytes of records in a packet
        self.open = False
        self.data = bytearray()
        self.records = 0
        self.head = 0  # where the record being written begins
        self.count = 0  # of its sources

    @property
    def available(self) -> int:
        """Bytes left in the packet; 0 while there is none."""
        return self.room - len(self.data) if self.open else 0

    def newpack(self) -> None:
        """Send what is written, and begin another packet. [igmpv3_newpack()]"""
        self.send()
        self.open = True

    def send(self) -> None:
        """Send the packet, if one was begun. [igmpv3_sendpack()]"""
        if self.open:
            self.end_record()
            head = struct.pack("!BBHHH", IGMPV3_HOST_MEMBERSHIP_REPORT, 0, 0, 0, self.records)
            message = with_checksum(head + self.data)
            igmp_xmit(self.net, message, IGMPV3_ALL_MCR, self.dev.ifindex, True)
        self.open, self.records, self.data = False, 0, bytearray()

    def begin_record(self, type_: int, group: int) -> None:
        """Begin a record, in a new packet if there is none. [add_grhead()]"""
        self.open = True
        self.head, self.count = len(self.data), 0
        self.data += struct.pack("!BBHI", type_, 0, 0, group)
        self.records += 1

    def end_record(self) -> None:
        """Write how many sources the record has."""
        if self.count:
            struct.pack_into("!H", self.data, self.head + 2, self.count)
        self.count = 0

    def add_source(self, addr: int) -> None:
        """Write one source."""
        self.data += addr.to_bytes(4)
        self.count += 1

    # ---- records

    def add(self, group: Group, type_: Record, gdel: bool = False, sdel: bool = False) -> None:
        """Write the record of a type, if the group has something to say in it. [add_grec()]

        ``gdel``: the group was left; ``sdel``: the record is about sources that are gone.
        """
        if not is_reported(self.net, group.addr) or self.mtu < IPV4_MIN_MTU:
            return
        members = list(group.tomb if sdel else group.sources.values())
        told = [s for s in members if is_in(group, s, type_, gdel, sdel)]
        if (
            members
            and type_ in TRUNCATED
            and self.records
            and self.available < RECORD_HEADER + 4 * len(told)
        ):
            self.newpack()
        written = self._sources(group, type_, told, gdel, sdel)
        if not written and type_ not in CHANGED and (group.crcount or type_ in QUERIED):
            if self.open and self.available < RECORD_HEADER:
                self.send()
            self.begin_record(type_, group.addr)
        self.end_record()
        if type_ in QUERIED:
            group.gsquery = False

    def _sources(
        self, group: Group, type_: Record, told: list[Source], gdel: bool, sdel: bool
    ) -> int:
        """Write the sources of a record, and what does not fit into another packet. How many."""
        first = True
        written = 0
        whole_mode = group.sfmode == MCAST_EXCLUDE if gdel else group.crcount != 0
        for source in told:
            # A change of the filter mode says it all (RFC 3376 section 5.1).
            if not (whole_mode and type_ in CHANGED and source.crcount):
                if type_ in QUERIED:
                    source.gsresp = False
                if self.available < 4 + first * RECORD_HEADER:
                    if type_ in TRUNCATED and not first:
                        break
                    self.end_record()
                    self.newpack()
                    first = True
                if first:
                    self.begin_record(type_, group.addr)
                    first = False
                self.add_source(source.addr)
                written += 1
            if type_ in CHANGED and source.crcount:
                source.crcount -= 1
                if (sdel or gdel) and not source.crcount:
                    forget(group, source, sdel)
        return written


def is_in(group: Group, source: Source, type_: Record, gdel: bool, sdel: bool) -> bool:
    """Tell whether a source belongs into a record."""
    included = source.count[MCAST_INCLUDE] != 0
    excluded = group.sfcount[MCAST_EXCLUDE] == source.count[MCAST_EXCLUDE]
    if type_ in QUERIED:
        if gdel or sdel or (group.gsquery and not source.gsresp):
            return False
        if group.sfmode == MCAST_INCLUDE:
            return True
        return type_ == Record.MODE_IS_INCLUDE if included else excluded
    if type_ == Record.CHANGE_TO_INCLUDE:
        return not gdel and not sdel and included
    if type_ == Record.CHANGE_TO_EXCLUDE:
        if gdel or sdel or not group.sfcount[MCAST_EXCLUDE] or included:
            return False
        return excluded
    changing = source.crcount != 0
    if type_ == Record.ALLOW_NEW_SOURCES:
        return not gdel and changing and (group.sfmode == MCAST_INCLUDE) != sdel
    if group.sfmode == MCAST_INCLUDE:
        return gdel or (changing and sdel)
    return changing and not gdel and not sdel


def forget(group: Group, source: Source, sdel: bool) -> None:
    """Drop a source whose end has been reported often enough."""
    if sdel:
        group.tomb.remove(source)
    else:
        del group.sources[source.addr]


def igmpv3_send_report(net: Net, dev: InDevice, group: Group | None = None) -> None:
    """Say how things are, of one group or of all: the answer to a query."""
    report = Report(net, dev)
    for one in [group] if group is not None else newest_first(dev):
        exclude = one.sfcount[MCAST_EXCLUDE]
        report.add(one, Record.MODE_IS_EXCLUDE if exclude else Record.MODE_IS_INCLUDE)
    report.send()


def igmpv3_send_cr(net: Net, dev: InDevice) -> None:
    """Say what has changed: groups left, sources that came and went, filter modes."""
    report = Report(net, dev)
    for gone in list(dev.mc_tomb):
        if gone.sfmode == MCAST_INCLUDE:
            report.add(gone, Record.BLOCK_OLD_SOURCES, gdel=True)
            report.add(gone, Record.BLOCK_OLD_SOURCES, gdel=True, sdel=True)
        if gone.crcount:
            if gone.sfmode == MCAST_EXCLUDE:
                report.add(gone, Record.CHANGE_TO_INCLUDE, gdel=True)
            gone.crcount -= 1
            if not gone.crcount:
                gone.tomb = [s for s in gone.tomb if s.crcount]
                gone.sources = {a: s for a, s in gone.sources.items() if s.crcount}
    dev.mc_tomb = [gone for gone in dev.mc_tomb if gone.crcount or gone.tomb or gone.sources]
    for group in newest_first(dev):
        new, old = Record.ALLOW_NEW_SOURCES, Record.BLOCK_OLD_SOURCES
        if group.sfcount[MCAST_EXCLUDE]:
            new, old = old, new
        report.add(group, new)
        report.add(group, old, sdel=True)
        if group.crcount:
            exclude = group.sfmode == MCAST_EXCLUDE
            report.add(group, Record.CHANGE_TO_EXCLUDE if exclude else Record.CHANGE_TO_INCLUDE)
            group.crcount -= 1
    report.send()


def newest_first(dev: InDevice) -> Iterator[Group]:
    """Go through the groups as the kernel's list has them."""
    return reversed(dev.groups.values())
