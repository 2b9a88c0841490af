"""ip_sockglue: sockets join groups, leave them, and choose sources.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       options as bytes                 sock/_mcast.pyx
Out      memberships of devices           proto/igmp_groups.py
         filters of the socket            sock/_mcast.pyx
Context  process: the thread that calls setsockopt(), under ``Igmp.rtnl``
Kernel   do_ip_setsockopt(), net/ipv4/ip_sockglue.c; ip_mc_join_group(), ip_mc_source(), net/ipv4/igmp.c

What is refused is refused with the errno of Linux 6.18, in its order.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from netstack._net import sysctl
from netstack.proto.igmp_groups import MCAST_EXCLUDE, MCAST_INCLUDE, InDevice

if TYPE_CHECKING:
    from netstack.proto.igmp import Igmp
    from netstack.proto.route import Routes

ENODEV, EINVAL, ENOPROTOOPT, EADDRINUSE, EADDRNOTAVAIL, ENOBUFS = 19, 22, 92, 98, 99, 105
AF_INET = 2
OPTMEM_MAX = 131072  # net.core.optmem_max
IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP, IP_UNBLOCK_SOURCE, IP_BLOCK_SOURCE = 35, 36, 37, 38
IP_ADD_SOURCE_MEMBERSHIP, IP_DROP_SOURCE_MEMBERSHIP, IP_MSFILTER = 39, 40, 41
MCAST_JOIN_GROUP, MCAST_BLOCK_SOURCE, MCAST_UNBLOCK_SOURCE, MCAST_LEAVE_GROUP = 42, 43, 44, 45
MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_SOURCE_GROUP, MCAST_MSFILTER = 46, 47, 48

IP_MREQ, IP_MREQN, IP_MREQ_SOURCE = struct.Struct("!II"), 12, struct.Struct("!III")
IP_MSFILTER_HEAD = struct.Struct("=4s4sII")  # group, interface, mode, how many sources
STORAGE = 128  # sizeof(struct sockaddr_storage)
GROUP_REQ, GROUP_SOURCE_REQ, GROUP_FILTER_HEAD = 8 + STORAGE, 8 + 2 * STORAGE, 16 + STORAGE
SOURCES_MAX = 0x1FFFFFFC

# What each option does with a source: the mode of the filter that it belongs to, and whether it is added.
SOURCE_OPTIONS = {
    IP_BLOCK_SOURCE: (MCAST_EXCLUDE, True),
    IP_UNBLOCK_SOURCE: (MCAST_EXCLUDE, False),
    IP_ADD_SOURCE_MEMBERSHIP: (MCAST_INCLUDE, True),
    IP_DROP_SOURCE_MEMBERSHIP: (MCAST_INCLUDE, False),
    MCAST_BLOCK_SOURCE: (MCAST_EXCLUDE, True),
    MCAST_UNBLOCK_SOURCE: (MCAST_EXCLUDE, False),
    MCAST_JOIN_SOURCE_GROUP: (MCAST_INCLUDE, True),
    MCAST_LEAVE_SOURCE_GROUP: (MCAST_INCLUDE, False),
}


@dataclass(slots=True)
class Request:
    """A group, and the device by index, by address, or (both 0) by the route. [struct ip_mreqn]"""

    group: int
    address: int = 0
    ifindex: int = 0


@dataclass(slots=True)
class Membership:
    """What one socket has joined. [struct ip_mc_socklist]"""

    group: int
    address: int
    ifindex: int
    mode: int
    sources: list[int] = field(default_factory=list)
    has_list: bool = False  # a filter was set, be it empty by now


class Multicast:
    """The memberships of a host's sockets."""

    def __init__(self, igmp: Igmp, routes: Routes) -> None:
        self.igmp, self.routes, self.net = igmp, routes, igmp.net

    # ---- options: an errno, or 0

    def setsockopt(self, sock: Any, name: int, value: bytes) -> int:
        """Set an option, from the structure that <linux/in.h> has for it."""
        with self.igmp.rtnl:
            if name in (IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP):
                return self.membership(sock, name, value)
            if name in (MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP):
                return self.group_req(sock, name, value)
            if name == IP_MSFILTER:
                return self.set_ip_msfilter(sock, value)
            if name == MCAST_MSFILTER:
                return self.set_mcast_msfilter(sock, value)
            if name <= IP_DROP_SOURCE_MEMBERSHIP:
                return self.mreq_source(sock, name, value)
            return self.group_source_req(sock, name, value)

    def membership(self, sock: Any, name: int, value: bytes) -> int:
        """IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP: a struct ip_mreq or ip_mreqn."""
        if len(value) < IP_MREQ.size:
            return EINVAL
        request = Request(*IP_MREQ.unpack_from(value))
        if len(value) >= IP_MREQN:
            request.ifindex = native(value[8:12])
        if name == IP_ADD_MEMBERSHIP:
            return self.join_group(sock, request, MCAST_EXCLUDE)
        return self.leave_group(sock, request)

    def group_req(self, sock: Any, name: int, value: bytes) -> int:
        """MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP: a struct group_req."""
        if len(value) < GROUP_REQ:
            return EINVAL
        family, group = sockaddr(value, 8)
        if family != AF_INET:
            return EINVAL
        request = Request(group, 0, native(value[:4]))
        if name == MCAST_JOIN_GROUP:
            return self.join_group(sock, request, MCAST_EXCLUDE)
        return self.leave_group(sock, request)

    def mreq_source(self, sock: Any, name: int, value: bytes) -> int:
        """IP_BLOCK_SOURCE and its kin: a struct ip_mreq_source."""
        if len(value) != IP_MREQ_SOURCE.size:
            return EINVAL
        group, interface, source = IP_MREQ_SOURCE.unpack(value)
        return self.source_option(sock, name, Request(group, interface), source)

    def group_source_req(self, sock: Any, name: int, value: bytes) -> int:
        """MCAST_BLOCK_SOURCE and its kin: a struct group_source_req."""
        if len(value) < GROUP_SOURCE_REQ:
            return EINVAL
        family, group = sockaddr(value, 8)
        family2, source = sockaddr(value, 8 + STORAGE)
        if (family, family2) != (AF_INET, AF_INET):
            return EADDRNOTAVAIL
        return self.source_option(sock, name, Request(group, 0, native(value[:4])), source)

    def source_option(self, sock: Any, name: int, request: Request, source: int) -> int:
        """Add or take a source; the option that adds one joins as well."""
        mode, add = SOURCE_OPTIONS[name]
        if mode == MCAST_INCLUDE and add:
            err = self.join_group(sock, request, MCAST_INCLUDE)
            if err and err != EADDRINUSE:
                return err
        return self.source(sock, request, source, mode, add=add)

    def set_ip_msfilter(self, sock: Any, value: bytes) -> int:
        """IP_MSFILTER: a struct ip_msfilter."""
        size = IP_MSFILTER_HEAD.size
        if len(value) < size:
            return EINVAL
        group, interface, mode, count = IP_MSFILTER_HEAD.unpack_from(value)
        if len(value) > OPTMEM_MAX or self.too_many(count):
            return ENOBUFS
        if size + 4 * count > len(value):
            return EINVAL
        sources = list(struct.unpack_from(f"!{count}I", value, size))
        request = Request(int.from_bytes(group), int.from_bytes(interface))
        return self.msfilter(sock, request, mode, sources)

    def set_mcast_msfilter(self, sock: Any, value: bytes) -> int:
        """MCAST_MSFILTER: a struct group_filter."""
        if len(value) < GROUP_FILTER_HEAD:
            return EINVAL
        mode, count = struct.unpack_from("=II", value, 8 + STORAGE)
        if len(value) > OPTMEM_MAX or self.too_many(count):
            return ENOBUFS
        if GROUP_FILTER_HEAD + STORAGE * count > len(value):
            return EINVAL
        family, group = sockaddr(value, 8)
        rows = [sockaddr(value, GROUP_FILTER_HEAD + STORAGE * i) for i in range(count)]
        if any(each != AF_INET for each in (family, *(row[0] for row in rows))):
            return EADDRNOTAVAIL
        request = Request(group, 0, native(value[:4]))
        return self.msfilter(sock, request, mode, [row[1] for row in rows])

    def too_many(self, count: int) -> bool:
        """Compare with net.ipv4.igmp_max_msf."""
        return count >= SOURCES_MAX or count > self.net.get(sysctl.igmp_max_msf)

    def getsockopt(self, sock: Any, name: int, buffer: bytes) -> tuple[int, bytes]:
        """Give an errno, and the filter that the buffer asks for with as many sources as it has room for."""
        with self.igmp.rtnl:
            if name == IP_MSFILTER:
                return self.get_ip_msfilter(sock, buffer)
            if name == MCAST_MSFILTER:
                return self.get_mcast_msfilter(sock, buffer)
        return ENOPROTOOPT, b""

    def get_ip_msfilter(self, sock: Any, buffer: bytes) -> tuple[int, bytes]:
        if len(buffer) < IP_MSFILTER_HEAD.size:
            return EINVAL, b""
        group, interface, _mode, room = IP_MSFILTER_HEAD.unpack_from(buffer)
        request = Request(int.from_bytes(group), int.from_bytes(interface))
        if not is_multicast(request.group):
            return EINVAL, b""
        if self.find_dev(request) is None:
            return ENODEV, b""
        have = self.find(sock, request)
        if have is None:
            return EADDRNOTAVAIL, b""
        head = IP_MSFILTER_HEAD.pack(group, interface, have.mode, len(have.sources))
        return 0, head + b"".join(s.to_bytes(4) for s in have.sources[:room])

    def get_mcast_msfilter(self, sock: Any, buffer: bytes) -> tuple[int, bytes]:
        if len(buffer) < GROUP_FILTER_HEAD:
            return EINVAL, b""
        family, group = sockaddr(buffer, 8)
        room = native(buffer[12 + STORAGE : 16 + STORAGE])
        if family != AF_INET or not is_multicast(group):
            return EINVAL, b""
        have = self.find(sock, Request(group, 0, native(buffer[:4])))
        if have is None:
            return EADDRNOTAVAIL, b""
        head = buffer[: 8 + STORAGE] + struct.pack("=II", have.mode, len(have.sources))
        rows = [
            struct.pack("=HH", AF_INET, 0) + s.to_bytes(4) + bytes(STORAGE - 8)
            for s in have.sources[:room]
        ]
        return 0, b"".join([head, *rows])

    # ---- joined and left

    def find_dev(self, request: Request) -> InDevice | None:
        """Find the device that is meant, and write its index into the request. [ip_mc_find_dev()]"""
        if request.ifindex:
            return self.igmp.devices.get(request.ifindex)
        found = 0
        if request.address:
            for ifindex, addresses in self.routes.addresses.items():
                if any(int(have.ip) == request.address for have in addresses):
                    found = ifindex
        else:
            route = self.routes.ip_route_output(request.group)
            found = 0 if route.error else route.ifindex
        request.ifindex = found
        return self.igmp.devices.get(found)

    @staticmethod
    def find(sock: Any, request: Request) -> Membership | None:
        for have in sock.mc_list or ():
            if (have.group, have.ifindex) == (request.group, request.ifindex):
                return have  # type: ignore[no-any-return]
        return None

    def join_group(self, sock: Any, request: Request, mode: int) -> int:
        """Make a socket a member. [__ip_mc_join_group()]"""
        if not is_multicast(request.group):
            return EINVAL
        dev = self.find_dev(request)
        if dev is None:
            return ENODEV
        if self.find(sock, request) is not None:
            return EADDRINUSE
        have = sock.mc_list or []
        if len(have) >= self.net.get(sysctl.igmp_max_memberships):
            return ENOBUFS
        new = Membership(request.group, request.address, request.ifindex, mode)
        sock.mc_list = [new, *have]
        self.publish(sock)
        dev.inc_group(request.group, mode)
        return 0

    def leave_group(self, sock: Any, request: Request) -> int:
        """End a socket's membership. [ip_mc_leave_group()]"""
        dev = self.find_dev(request)
        if not request.ifindex and not request.address and dev is None:
            return ENODEV
        for have in sock.mc_list or ():
            if have.group != request.group:
                continue
            if request.ifindex:
                if have.ifindex != request.ifindex:
                    continue
            elif request.address not in (0, have.address):
                continue
            self._leave(sock, have)
            self.publish(sock)
            return 0
        return EADDRNOTAVAIL

    def _leave(self, sock: Any, have: Membership) -> None:
        sock.mc_list.remove(have)
        dev = self.igmp.devices.get(have.ifindex)
        if dev is not None:
            dev.del_src(have.group, have.mode, have.sources, delta=False)
            dev.dec_group(have.group)

    def drop_socket(self, sock: Any) -> None:
        """End all memberships of a socket that is closed. [ip_mc_drop_socket()]"""
        with self.igmp.rtnl:
            for have in list(sock.mc_list or ()):
                self._leave(sock, have)
            self.publish(sock)

    def publish(self, sock: Any) -> None:
        """Tell the data path what the socket's memberships are."""
        sock.set_memberships((m.group, m.ifindex, m.mode, m.sources) for m in sock.mc_list)

    # ---- sources

    def source(self, sock: Any, request: Request, source: int, mode: int, *, add: bool) -> int:
        """Add a source to a filter, or take it out; without the last included one it is left. [ip_mc_source()]"""
        if not is_multicast(request.group):
            return EINVAL
        dev = self.find_dev(request)
        if dev is None:
            return ENODEV
        have = self.find(sock, request)
        if have is None or (have.has_list and have.mode != mode):
            return EINVAL
        if have.mode != mode:
            dev.add_src(have.group, mode, (), delta=False)
            dev.del_src(have.group, have.mode, (), delta=False)
            have.mode = mode
        err = 0
        if not add:
            if source not in have.sources:
                err = EADDRNOTAVAIL
            elif len(have.sources) == 1 and mode == MCAST_INCLUDE:
                return self.leave_group(sock, request)
            else:
                dev.del_src(have.group, mode, (source,), delta=True)
                have.sources.remove(source)
        elif len(have.sources) >= self.net.get(sysctl.igmp_max_msf) and have.has_list:
            err = ENOBUFS
        elif source in have.sources:
            err = EADDRNOTAVAIL
        else:
            have.has_list = True
            have.sources.append(source)
            dev.add_src(have.group, mode, (source,), delta=True)
        self.publish(sock)
        return err

    def msfilter(self, sock: Any, request: Request, mode: int, sources: list[int]) -> int:
        """Replace a filter as a whole. [ip_mc_msfilter()]"""
        if not is_multicast(request.group) or mode not in (MCAST_INCLUDE, MCAST_EXCLUDE):
            return EINVAL
        dev = self.find_dev(request)
        if dev is None:
            return ENODEV
        if mode == MCAST_INCLUDE and not sources:
            return self.leave_group(sock, request)
        have = self.find(sock, request)
        if have is None:
            return EINVAL
        dev.add_src(have.group, mode, sources, delta=False)
        dev.del_src(have.group, have.mode, have.sources, delta=False)
        have.mode, have.sources, have.has_list = mode, sources, bool(sources)
        self.publish(sock)
        return 0


def is_multicast(addr: int) -> bool:
    """Tell whether an address is a group's."""
    return addr >> 28 == 0xE


def native(data: bytes) -> int:
    """Read a number in the machine's byte order."""
    return int.from_bytes(data, sys.byteorder)


def sockaddr(data: bytes, at: int) -> tuple[int, int]:
    """Read family and address of a struct sockaddr_in."""
    return native(data[at : at + 2]), int.from_bytes(data[at + 4 : at + 8])
