"""Frames on their way from a tap of the host to a terminal that captures.

A chunk is a header (records in it, frames matched and lost so far) and that many records, each
a header and the frame's bytes. Both ends are of one installation, so the layout is private.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from netstack.capture import Record, Stats
from netstack.capture.stages import masks, places, to_record

if TYPE_CHECKING:
    from netstack.capture.bpf import Program
    from netstack.netif._tap import PacketTap

CHUNK = struct.Struct("<IQQI")  # bytes that follow, matched, dropped, records
# ns since 1970, id, ifindex, length on the wire, bytes, sent; stage, raw IP, frames, drop reason
RECORD = struct.Struct("<QQIII?B?II")
MOST = 256  # records of a chunk: some 400 KB


class TapStream:
    """Read a tap of ``host``; a `netstack.control.Stream`."""

    def __init__(
        self,
        host: Any,
        program: Program | None,
        snaplen: int,
        raw: Program | None = None,
        wanted: Iterable[tuple[str, str]] = (("any", ""),),
    ) -> None:
        """Begin to watch ``wanted``, with a program for frames and one for raw IP packets."""
        run, address = (program.function, program.address) if program else (0, 0)
        self._tap: PacketTap = host.packet_tap(
            run,
            address,
            snaplen,
            keep=(program, raw),
            raw=raw.address if raw else 0,
            devices=masks(wanted, host.devices),
        )
        # Records carry the host's clock, which is monotonic; files want the calendar's.
        self._epoch = time.time_ns() - host.net.now()
        # The first is what a capture names when nobody asked for one: a wire rather than lo.
        devices = sorted(host.devices, key=lambda device: device.name == "lo")
        names = {device.ifindex: device.name for device in devices}
        self.head = {"names": names, "places": places(devices)}

    def fileno(self) -> int:
        """Return the eventfd that is set when records come after ``read`` gave none."""
        return self._tap.fileno()

    def read(self) -> bytes:
        """Return up to MOST records as a chunk; empty when there are none."""
        records = self._tap.drain(MOST)
        if not records:
            with suppress(BlockingIOError):
                os.eventfd_read(self._tap.fileno())
            records = self._tap.drain(MOST)  # what came while the fd was being cleared
        if not records:
            return b""
        os.eventfd_write(self._tap.fileno(), 1)  # the tap sets it only after an empty drain
        parts = []
        for ns, frame, ifindex, sent, wire_len, data, *more in records:
            head = (ns + self._epoch, frame, ifindex, wire_len, len(data), sent)
            parts += [RECORD.pack(*head, *more), data]
        body = b"".join(parts)
        matched, dropped = self._tap.stats
        return CHUNK.pack(len(body), matched, dropped, len(records)) + body

    def close(self) -> None:
        """Stop watching."""
        self._tap.close()


class RemoteTap:
    """Give the records of a `TapStream` at the other end of a socket; a `capture.Source`.

    ``names`` maps the ifindex, as text, to the interface's name, ``known`` are the places there
    are, with descriptions. ``first`` is what was received already.
    """

    def __init__(
        self,
        sock: socket.socket,
        names: dict[str, str],
        first: bytes,
        known: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._sock = sock
        self._names = names
        self._known = known
        self._buffer = bytearray(first)
        self._stats = Stats()

    def stats(self) -> Stats:
        """Return the totals as of the last chunk."""
        return self._stats

    def places(self) -> list[tuple[str, str]]:
        """Return what can be captured from."""
        return [(name, text) for name, text in self._known]

    def __iter__(self) -> Iterator[Record | None]:
        """Give records as they come, None before each wait, and end with the host."""
        lost = 0
        while self._fill(CHUNK.size):
            size, matched, dropped, count = CHUNK.unpack_from(self._buffer)
            if not self._fill(CHUNK.size + size):
                return
            body = bytes(self._buffer[CHUNK.size : CHUNK.size + size])
            del self._buffer[: CHUNK.size + size]
            self._stats = Stats(matched, dropped)
            offset = 0
            for number in range(count):
                ns, frame, ifindex, wire_len, length, sent, *more = RECORD.unpack_from(
                    body, offset
                )
                offset += RECORD.size
                data = body[offset : offset + length]
                yield to_record(
                    (ns, frame, ifindex, sent, wire_len, data, *more),
                    self._names.get(str(ifindex), ""),
                    dropped=dropped - lost if number == 0 else 0,
                )
                offset += length
            lost = dropped
            if len(self._buffer) < CHUNK.size:
                yield None

    def _fill(self, size: int) -> bool:
        """Wait until ``size`` bytes are there; False when the host has ended."""
        while len(self._buffer) < size:
            try:
                data = self._sock.recv(1 << 18)
            except ConnectionError:
                return False
            if not data:
                return False
            self._buffer += data
        return True
