"""aio: datagrams between a socket of a host and a protocol of asyncio.

A wake-up hands the protocol everything that is queued, up to a bound that keeps the loop fair: then
the other callbacks of the loop get their turn, and it goes on. What the protocol sends meanwhile is
collected and leaves in batches. Before it leaves, the loop's thread looks at the wires itself, as the
CPU: while datagrams keep coming, no other thread takes them off.

Any event loop will do that has add_reader, call_soon and create_future: asyncio's own, and uvloop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from asyncio.trsock import TransportSocket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from netstack.sock._socket import Socket

if TYPE_CHECKING:
    from netstack.host import Host

    Address = tuple[str, int]

logger = logging.getLogger("asyncio")

CHUNK = 64  # datagrams between two flushes of what the protocol sends
PER_WAKE_UP = 256  # datagrams before other callbacks of the loop get their turn
HIGH_WATER = 64 * 1024
WARN_AFTER = 5  # datagrams sent to a transport that is closed


class DatagramTransport(asyncio.DatagramTransport):
    """What `Host.create_datagram_endpoint` gives, beside the protocol."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: Socket,
        protocol: asyncio.DatagramProtocol,
        remote: Address | None,
        waiter: asyncio.Future[None],
    ) -> None:
        """Start to hand datagrams of a non-blocking socket to a protocol, which is told first."""
        super().__init__(
            {
                "socket": TransportSocket(sock),  # type: ignore[arg-type]
                "sockname": sock.getsockname(),
                "peername": remote,
            }
        )
        self._loop = loop
        self._sock: Socket | None = sock
        # A descriptor of our own: when the host closes the socket, this one tells, and its number
        # can't become another file's while the loop watches it.
        self._fd = os.dup(sock.fileno())
        self._remote = remote
        self._closing = False
        self._lost = 0
        self._reading = False
        self._polling = False
        self._rest: Iterator[tuple[bytes, Address]] = iter(())
        self._collect = False
        self._out: list[tuple[bytes, Address | None]] = []
        self._out_bytes = 0
        self._paused = False
        self.set_write_buffer_limits()
        self.set_protocol(protocol)
        loop.call_soon(protocol.connection_made, self)
        loop.call_soon(self._start)
        loop.call_soon(_set_result, waiter)

    def __repr__(self) -> str:
        """Name the socket and the state."""
        state = "closed" if self._sock is None else "closing" if self._closing else "open"
        return f"<{self.__class__.__name__} {state} {self._sock!r}>"

    def __del__(self) -> None:
        """Complain about a transport that nobody closed."""
        if getattr(self, "_sock", None) is not None:
            warnings.warn(
                f"unclosed transport {self!r}", ResourceWarning, stacklevel=1, source=self
            )
            self._release()

    # ---- receiving

    def _start(self) -> None:
        if not self._closing:
            self._loop.add_reader(self._fd, self._read_ready)
            self._reading = True

    def _read_ready(self) -> None:
        """Hand over what is queued. The descriptor stays readable while more is: we come again."""
        sock = self._sock
        if sock is None or self._lost:
            return
        try:
            self._deliver()
            for _ in range(PER_WAKE_UP // CHUNK):
                if self._closing:
                    return
                try:
                    batch = sock.recv_batch(CHUNK)
                except (BlockingIOError, InterruptedError):
                    self._polling = sock.poll_cpu()
                    if not self._polling:
                        return
                except OSError as error:
                    if sock.closed:  # by the host
                        self._force_close(error)
                        return
                    self._protocol.error_received(error)
                else:
                    self._rest = iter(batch)
                    self._deliver()
            if (
                self._polling
            ):  # the wires are ours: nobody else would tell of the next frame soon
                self._loop.call_soon(self._read_ready)
        except (
            BaseException
        ):  # KeyboardInterrupt: what the protocol did not get it gets next time
            self._loop.call_soon(self._read_ready)
            raise

    def _deliver(self) -> None:
        """Hand a batch to the protocol; what it sends meanwhile leaves afterwards."""
        self._collect = True
        try:
            if self._many is not None:
                rest = list(self._rest)
                if rest and not self._closing:
                    self._many(rest)
                return
            received = self._protocol.datagram_received
            for data, peer in self._rest:
                if self._closing:
                    return
                try:
                    received(data, peer)
                except Exception as error:
                    self._complain(error)
        except Exception as error:
            self._complain(error)
        finally:
            self._collect = False
            if self._out:
                self._flush()

    def _complain(self, error: Exception) -> None:
        """Report what the protocol raised; the transport goes on."""
        self._loop.call_exception_handler(
            {
                "message": f"Exception in callback {self._protocol!r}",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    # ---- sending

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram to `addr`, or to the remote address of the endpoint."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(
                f"data argument must be a bytes-like object, not {type(data).__name__!r}"
            )
        if self._remote is not None:
            if addr is not None and addr != self._remote:
                raise ValueError(f"Invalid address: must be None or {self._remote}")
            addr = None
        sock = self._sock
        if self._lost or sock is None:
            if self._lost >= WARN_AFTER:
                logger.warning("sendto() on a transport that is closed.")
            self._lost += 1
        elif self._collect:
            self._out.append((bytes(data), addr))
            self._out_bytes += len(data)
            if self._out_bytes > self._high and not self._paused:
                self._paused = True
                self._call(self._protocol.pause_writing)
            if len(self._out) >= CHUNK:
                self._flush()
        else:
            try:
                if addr is None:
                    sock.send(data)
                else:
                    sock.sendto(data, addr)
            except OSError as error:
                self._protocol.error_received(error)

    def _flush(self) -> None:
        """Send what was collected. A datagram that can't be sent is the protocol's to know."""
        out, self._out, self._out_bytes = self._out, [], 0
        sock = self._sock
        while out and sock is not None:
            try:
                done = sock.send_batch(out)
            except OSError as error:
                done = 1
                self._protocol.error_received(error)
            except (TypeError, ValueError, OverflowError) as error:
                done = 1
                self._complain(error)
            del out[:done]
        if self._paused and self._out_bytes <= self._low:
            self._paused = False
            self._call(self._protocol.resume_writing)

    def _call(self, callback: Any) -> None:
        try:
            callback()
        except Exception as error:
            self._complain(error)

    def get_write_buffer_size(self) -> int:
        """Give the bytes that are collected."""
        return self._out_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Give the marks below and above which the protocol is told: (low, high)."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks. As in asyncio: `high` 64 KiB or four times `low`, `low` a quarter of it."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low

    # ---- the rest

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand what comes from now on to another protocol."""
        self._protocol: Any = protocol
        self._many = getattr(protocol, "datagrams_received", None)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Give the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Tell whether close() or abort() was called."""
        return self._closing

    def close(self) -> None:
        """Stop receiving; connection_lost(None) follows once everything is sent."""
        if not self._closing:
            self._stop(None)

    def abort(self) -> None:
        """Close at once; what is collected is not sent."""
        self._force_close(None)

    def _force_close(self, error: Exception | None) -> None:
        self._out, self._out_bytes = [], 0
        if not self._closing:
            self._stop(error)

    def _stop(self, error: Exception | None) -> None:
        self._closing = True
        if self._reading:
            self._loop.remove_reader(self._fd)
        self._lost += not self._collect
        self._loop.call_soon(self._call_connection_lost, error)

    def _call_connection_lost(self, error: Exception | None) -> None:
        self._lost += 1
        try:
            self._protocol.connection_lost(error)
        finally:
            self._release()

    def _release(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            os.close(self._fd)
            sock.close()


def _set_result(waiter: asyncio.Future[None]) -> None:
    if not waiter.cancelled():
        waiter.set_result(None)


async def create_datagram_endpoint(
    host: Host,
    protocol_factory: Any,
    local_addr: Address | None,
    remote_addr: Address | None,
    *,
    family: int,
    proto: int,
    reuse_port: bool | None,
    allow_broadcast: bool | None,
    sock: Any,
    loop: asyncio.AbstractEventLoop | None,
) -> tuple[DatagramTransport, Any]:
    """Make socket, protocol and transport; see `Host.create_datagram_endpoint`."""
    from netstack import socket as ours

    loop = loop or asyncio.get_running_loop()
    if sock is not None:
        if not isinstance(sock, Socket):
            raise ValueError(f"a socket of a netstack host was expected, got {sock!r}")
        if local_addr or remote_addr or family or proto or reuse_port or allow_broadcast:
            raise ValueError("socket modifiers can not be used when sock is specified")
        remote = None
    else:
        if not (local_addr or remote_addr or family):
            raise ValueError("unexpected address family")
        sock = host.socket(family or ours.AF_INET, ours.SOCK_DGRAM, proto)
        remote = remote_addr
        try:
            if reuse_port:
                sock.setsockopt(ours.SOL_SOCKET, ours.SO_REUSEPORT, 1)
            if allow_broadcast:
                sock.setsockopt(ours.SOL_SOCKET, ours.SO_BROADCAST, 1)
            if local_addr:
                sock.bind(local_addr)
            if remote_addr:
                sock.connect(remote_addr)
                remote = sock.getpeername()
        except BaseException:
            sock.close()
            raise
    sock.setblocking(False)
    try:
        waiter = loop.create_future()
        protocol = protocol_factory()
        transport = DatagramTransport(loop, sock, protocol, remote, waiter)
    except BaseException:
        sock.close()
        raise
    try:
        await waiter
    except BaseException:
        transport.close()
        raise
    return transport, protocol
