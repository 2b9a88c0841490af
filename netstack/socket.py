"""Sockets of a host, with the names, values, results and errors of the standard library's module.

The one difference is that a socket belongs to a host: `host.socket()` makes one, or
`socket(host)`. Instances are accepted wherever a socket's `fileno()` is all that counts: `select`,
`selectors`, asyncio (`add_reader`, `sock_recvfrom`, `create_datagram_endpoint(sock=...)`), trio.

Here are sockets of IPv4 (UDP, ping, raw), and AF_PACKET for whole frames. Names are not looked up: an
address is four numbers, `"localhost"`, `""` for any address, or `"<broadcast>"`.
"""

from __future__ import annotations

import errno as _errno
import os as _os
import socket as _stdlib
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, SupportsIndex

from netstack.errors import oserror
from netstack.sock._socket import Socket

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import SupportsIndex

    from _typeshed import ReadableBuffer, WriteableBuffer

    from netstack.host import Host

    class socket(_stdlib.socket):
        """What ``Host.socket`` gives, to type checkers: a socket of the standard library that has batches too."""

        def recv_batch(
            self, n: int, bufsize: int = 65535, flags: int = 0
        ) -> list[tuple[bytes, tuple[str, int]]]:
            """Wait for one datagram, take up to ``n`` of what is there."""

        def recv_batch_into(
            self, buffer: WriteableBuffer, packets: WriteableBuffer, flags: int = 0
        ) -> int:
            """Fill a buffer with data and one with records of 16 bytes; how many."""

        def send_batch(
            self,
            messages: Iterable[tuple[ReadableBuffer, tuple[str, int] | None]],
            flags: int = 0,
        ) -> int:
            """Send many; how many were sent."""

        def send_batch_from(
            self,
            buffer: ReadableBuffer,
            packets: ReadableBuffer,
            n: SupportsIndex | None = None,
            flags: int = 0,
        ) -> int:
            """Send what ``recv_batch_into`` left, back to whom it came from; how many."""


# Every constant, exception and enumeration of the standard library's module, with its value.
from socket import *  # type: ignore[assignment]  # noqa: F403
from socket import AddressInfo as AddressInfo
from socket import MsgFlag as MsgFlag

# Constants that Linux has and Python's module does not name.
SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
SO_RXQ_OVFL = 40
SO_TIMESTAMP = SO_TIMESTAMP_OLD = SCM_TIMESTAMP = 29
SO_TIMESTAMPNS = SO_TIMESTAMPNS_OLD = SCM_TIMESTAMPNS = 35
SO_TIMESTAMPING = SO_TIMESTAMPING_OLD = SCM_TIMESTAMPING = 37
SO_TIMESTAMP_NEW = 63
SO_TIMESTAMPNS_NEW = 64
SO_TIMESTAMPING_NEW = 65
SOF_TIMESTAMPING_RX_SOFTWARE = 8
SOF_TIMESTAMPING_SOFTWARE = 16
SO_PEEK_OFF = 42
SO_NOFCS = 43
SO_LOCK_FILTER = 44
SO_INCOMING_NAPI_ID = 56
SO_BUF_LOCK = 72
SO_RCVMARK = 75
SO_RCVPRIORITY = 82
SO_BUSY_POLL = 46
SO_MEMINFO = 55
SO_COOKIE = 57
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32
SO_NO_CHECK = 11
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IP_RECVERR = 11
IP_RECVTTL = 12
IP_MTU = 14
SOL_RAW = 255
ICMP_FILTER = 1
IP_RECVORIGDSTADDR = 20
IP_FREEBIND = 15
IP_MINTTL = 21
IP_UNICAST_IF = 50
IP_LOCAL_PORT_RANGE = 51
UDP_CORK = 1
UDP_NO_CHECK6_TX = 101
UDP_NO_CHECK6_RX = 102
UDP_SEGMENT = 103
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_DROP_MEMBERSHIP = 2
PACKET_STATISTICS = 6
PACKET_IGNORE_OUTGOING = 23
PACKET_MR_MULTICAST = 0
PACKET_MR_PROMISC = 1
PACKET_MR_ALLMULTI = 2
UDP_GRO = 104
IP_UNBLOCK_SOURCE = 37
IP_BLOCK_SOURCE = 38
IP_ADD_SOURCE_MEMBERSHIP = 39
IP_DROP_SOURCE_MEMBERSHIP = 40
IP_MSFILTER = 41
MCAST_JOIN_GROUP = 42
MCAST_BLOCK_SOURCE = 43
MCAST_UNBLOCK_SOURCE = 44
MCAST_LEAVE_GROUP = 45
MCAST_JOIN_SOURCE_GROUP = 46
MCAST_LEAVE_SOURCE_GROUP = 47
MCAST_MSFILTER = 48
IP_MULTICAST_ALL = 49
MCAST_EXCLUDE = 0
MCAST_INCLUDE = 1


class socket(Socket):  # type: ignore[no-redef]
    """A socket of `host`."""

    __slots__ = ("_host",)

    def __init__(
        self,
        host: Host,
        family: int = _stdlib.AF_INET,
        type: int = _stdlib.SOCK_DGRAM,
        proto: int = 0,
    ) -> None:
        """Make a socket. `type` may carry SOCK_NONBLOCK, as in Linux."""
        super().__init__(host.net, family, type, proto)
        self._host = host  # whose CPUs are asked when the socket is closed

    def __enter__(self) -> Self:
        """Give the socket; it is closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Say what the standard library's socket says of itself, but for the fd."""
        closed = self.closed
        text = f"<{self.__class__.__module__}.{self.__class__.__qualname__}"
        text += " [closed]" if closed else ""
        text += f" family={int(self.family)}, type={int(self.type)}, proto={self.proto}"
        if not closed:
            text += f", laddr={self.getsockname()}"
            with suppress(OSError):
                text += f", raddr={self.getpeername()}"
        return text + ">"

    @property
    def family(self) -> _stdlib.AddressFamily:
        """AF_INET or AF_PACKET."""
        return _stdlib.AddressFamily(super().family)

    @property
    def type(self) -> _stdlib.SocketKind:
        """SOCK_DGRAM or SOCK_RAW."""
        return _stdlib.SocketKind(super().type)

    def listen(self, backlog: int = 0, /) -> NoReturn:
        """Refuse, as the kernel does for datagrams: EOPNOTSUPP."""
        self.getsockname()  # EBADF when closed
        raise oserror(_errno.EOPNOTSUPP, _os.strerror(_errno.EOPNOTSUPP))

    def accept(self) -> NoReturn:
        """Refuse, as the kernel does for datagrams: EOPNOTSUPP."""
        self.listen()

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds, None for none."""
        return self.gettimeout()

    def get_inheritable(self) -> bool:
        """Tell whether the fd of `fileno()` stays open in programs that are executed."""
        return _os.get_inheritable(self.fileno())

    def set_inheritable(self, inheritable: bool, /) -> None:
        """Let the fd of `fileno()`, which only signals, stay open in programs that are executed."""
        _os.set_inheritable(self.fileno(), inheritable)

    def sendfile(self, file: object, offset: int = 0, count: int | None = None) -> NoReturn:
        """Refuse, as the standard library does for datagrams."""
        raise ValueError("only SOCK_STREAM type sockets are supported")

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError(f"cannot pickle {self.__class__.__name__!r} object")

    def dup(self) -> NoReturn:
        """Refuse, as detach() does."""
        self.getsockname()  # EBADF when closed
        raise oserror(
            _errno.EOPNOTSUPP,
            "a netstack socket can't be duplicated: its fd only signals, its methods have the data",
        )

    def detach(self) -> NoReturn:
        """Refuse: the fd signals, but the socket is not in it."""
        raise oserror(
            _errno.EOPNOTSUPP,
            "a netstack socket can't be detached: its fd only signals, its methods have the data",
        )
