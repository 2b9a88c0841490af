"""missed: read how many packets the kernel dropped because a TAP's queue was full.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       an interface index                device/tap.py
Out      tx_dropped since the first read   the NIC's missed-packets register, device/missed_frames.py
Context  process; Python, about once a second
Kernel   rtnl_stats_get(), net/core/rtnetlink.c; tc_dump_qdisc(), net/sched/sch_api.c
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from types import TracebackType
from typing import Self

# include/uapi/linux/{netlink,rtnetlink,if_link}.h
NLMSG_ERROR, NLMSG_DONE, RTM_GETQDISC, RTM_GETSTATS = 2, 3, 38, 94
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
IFLA_STATS_LINK_64 = 1
NLMSGHDR, IF_STATS_MSG, TCMSG, NLATTR = "IHHII", "BBHII", "BBHiIII", "HH"
TX_DROPPED = 7  # struct rtnl_link_stats64, in 64-bit words
TC_H_ROOT = 0xFFFFFFFF
# include/uapi/linux/{rtnetlink,gen_stats}.h
TCA_STATS2, TCA_STATS_BASIC, TCA_STATS_PKT64 = 7, 1, 8


def _attributes(reply: bytes, at: int) -> dict[int, bytes]:
    """Take netlink attributes apart, from ``at`` to the end."""
    found = {}
    while at + 4 <= len(reply):
        size, kind = struct.unpack_from(NLATTR, reply, at)
        found[kind] = reply[at + 4 : at + size]
        at += max(size + 3 & ~3, 4)
    return found


class DropCounter:
    """The packets that did not fit into the queue of interface `index`, since this was made.

    A message that a sender's GSO left whole is one packet, as everywhere in the kernel's counters.
    One netlink message each way: 64-bit, of this interface only, and of the network namespace
    the counter was made in, whichever thread reads it. /proc/net/dev prints every interface of
    the reader's namespace, and /sys shows the namespace that mounted it.
    """

    def __init__(self, index: int) -> None:
        header = struct.pack(NLMSGHDR, 28, RTM_GETSTATS, NLM_F_REQUEST | NLM_F_ACK, 0, 0)
        what = struct.pack(IF_STATS_MSG, 0, 0, 0, index, 1 << (IFLA_STATS_LINK_64 - 1))
        self._request = header + what
        header = struct.pack(NLMSGHDR, 36, RTM_GETQDISC, NLM_F_REQUEST | NLM_F_DUMP, 0, 0)
        self._ask_qdiscs = header + struct.pack(TCMSG, 0, 0, 0, index, 0, 0, 0)
        self._index = index
        self._lock = threading.Lock()
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._last = 0
        try:
            self._base = self._tx_dropped()
        except OSError:
            self._socket.close()
            raise

    def read(self) -> int:
        """Return the packets dropped so far; the last known number after the interface's end."""
        with self._lock:
            if self._socket.fileno() >= 0:
                try:
                    self._last = self._tx_dropped() - self._base
                except OSError as error:
                    if error.errno != errno.ENODEV:
                        raise
            return self._last

    def passed(self) -> int | None:
        """Return the frames that the root qdisc has handed to the interface: a message of n segments is n.

        Since the qdisc was made. None where there is none, and after the interface's end.
        """
        with self._lock:
            if self._socket.fileno() < 0:
                return None
            stats = self._root_qdisc()
        if TCA_STATS_PKT64 in stats:  # there once 32 bits don't hold it
            return int(struct.unpack_from("Q", stats[TCA_STATS_PKT64])[0])
        if TCA_STATS_BASIC in stats:
            return int(struct.unpack_from("QI", stats[TCA_STATS_BASIC])[1])
        return None

    def close(self) -> None:
        """Read a last time, and release the descriptor."""
        try:
            self.read()
        finally:
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _root_qdisc(self) -> dict[int, bytes]:
        """Give the statistics of the root qdisc. The kernel names its default one in a dump of all only."""
        found: dict[int, bytes] = {}
        for body in self._ask(self._ask_qdiscs):
            *_, index, _, parent, _ = struct.unpack_from(TCMSG, body)
            if (index, parent) == (self._index, TC_H_ROOT):
                attributes = _attributes(body, struct.calcsize(TCMSG))
                found = _attributes(attributes.get(TCA_STATS2, b""), 0)
        return found

    def _tx_dropped(self) -> int:
        (body,) = self._ask(self._request)
        stats = _attributes(body, struct.calcsize(IF_STATS_MSG))[IFLA_STATS_LINK_64]
        return int(struct.unpack_from("Q", stats, 8 * TX_DROPPED)[0])

    def _ask(self, request: bytes) -> list[bytes]:
        """Send a request, and give the answers without their headers; all are read, whatever they say."""
        self._socket.send(request)
        found: list[bytes] = []
        while True:
            reply = self._socket.recv(16384)
            at = 0
            while at < len(reply):
                size, kind = struct.unpack_from(NLMSGHDR, reply, at)[:2]
                body = reply[at + struct.calcsize(NLMSGHDR) : at + size]
                if kind == NLMSG_ERROR and (number := -struct.unpack_from("i", body)[0]):
                    raise OSError(number, os.strerror(number))
                if kind in {NLMSG_ERROR, NLMSG_DONE}:
                    return found
                found.append(body)
                at += max(size + 3 & ~3, 16)
