"""missed: read how many frames the kernel dropped because a TAP's queue was full.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       an interface index                device/tap.py
Out      tx_dropped since the first read   the NIC's missed-packets register
Context  process; Python, about once a second
Kernel   rtnl_stats_get(), net/core/rtnetlink.c
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from types import TracebackType
from typing import Self

from netstack.errors import oserror

# include/uapi/linux/{netlink,rtnetlink,if_link}.h
NLMSG_ERROR, RTM_NEWSTATS, RTM_GETSTATS = 2, 92, 94
NLM_F_REQUEST = 0x1
IFLA_STATS_LINK_64 = 1
NLMSGHDR, IF_STATS_MSG, NLATTR = "IHHII", "BBHII", "HH"
TX_DROPPED = 7  # struct rtnl_link_stats64, in 64-bit words


class DropCounter:
    """The frames that did not fit into the queue of interface `index`, since this was made.

    One netlink message each way: 64-bit, of this interface only, and of the network namespace
    the counter was made in, whichever thread reads it. /proc/net/dev prints every interface of
    the reader's namespace, and /sys shows the namespace that mounted it.
    """

    def __init__(self, index: int) -> None:
        header = struct.pack(NLMSGHDR, 28, RTM_GETSTATS, NLM_F_REQUEST, 0, 0)
        what = struct.pack(IF_STATS_MSG, 0, 0, 0, index, 1 << (IFLA_STATS_LINK_64 - 1))
        self._request = header + what
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
        """Return the frames dropped so far; the last known number after the interface's end."""
        with self._lock:
            if self._socket.fileno() >= 0:
                try:
                    self._last = self._tx_dropped() - self._base
                except OSError as error:
                    if error.errno != errno.ENODEV:
                        raise
            return self._last

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

    def _tx_dropped(self) -> int:
        self._socket.send(self._request)
        reply = self._socket.recv(4096)
        kind = struct.unpack_from(NLMSGHDR, reply)[1]
        at = struct.calcsize(NLMSGHDR)
        if kind == NLMSG_ERROR:
            number = -struct.unpack_from("i", reply, at)[0]
            raise OSError(number, os.strerror(number))
        at += struct.calcsize(IF_STATS_MSG)
        while kind == RTM_NEWSTATS and at + 4 <= len(reply):
            size, attribute = struct.unpack_from(NLATTR, reply, at)
            if attribute == IFLA_STATS_LINK_64:
                return int(struct.unpack_from("Q", reply, at + 4 + 8 * TX_DROPPED)[0])
            at += max(size + 3 & ~3, 4)
        raise oserror(errno.EPROTO, f"the kernel's answer to RTM_GETSTATS is of type {kind}")
