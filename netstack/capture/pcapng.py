"""Write records as a pcapng stream that Wireshark can read while it grows.

One interface description for each place that frames are seen at (``tap0``, ``tap0@gro``, ...),
written when the first record from there arrives. The same frame keeps its ``epb_packetid`` at
all of them, so in Wireshark ``frame.packet_id == 17`` is one frame's whole trip, and
``frame.comment contains "NO_SOCKET"`` finds drops.

Source: draft-ietf-opsawg-pcapng, sections 4.1 (SHB), 4.2 (IDB), 4.3 (EPB), 4.6 (ISB).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import BinaryIO

from netstack.capture import DLT_EN10MB, SNAPLEN, Record, Stats

__all__ = [
    "BLOCK_EPB",
    "BLOCK_IDB",
    "BLOCK_ISB",
    "BLOCK_SHB",
    "BYTE_ORDER_MAGIC",
    "Writer",
]

BLOCK_IDB = 1
BLOCK_ISB = 5
BLOCK_EPB = 6
BLOCK_SHB = 0x0A0D0D0A
BYTE_ORDER_MAGIC = 0x1A2B3C4D

OPT_ENDOFOPT, OPT_COMMENT = 0, 1
SHB_OS, SHB_USERAPPL = 3, 4
IF_NAME, IF_DESCRIPTION, IF_MACADDR, IF_TSRESOL, IF_FILTER = 2, 3, 6, 9, 11
EPB_FLAGS, EPB_DROPCOUNT, EPB_PACKETID, EPB_QUEUE = 2, 4, 5, 6
ISB_STARTTIME, ISB_ENDTIME, ISB_IFRECV, ISB_IFDROP = 2, 3, 4, 5

_TSRESOL_NS = b"\x09"  # negative power of ten
_U32_MAX = 0xFFFFFFFF
_COMMENT_MAX = 0xFFF0  # an option's length has 16 bits, with room for the padding
_SECTION_LENGTH_UNKNOWN = -1


class Writer:
    """Write one section: header, interfaces, packets and, at :meth:`close`, the totals.

    The file is the caller's: never closed here. With ``unbuffered`` every packet is flushed at
    once (-U). Errors are the file's own (BrokenPipeError when the reader went away, ENOSPC).
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        snaplen: int = SNAPLEN,
        filter_text: str = "",
        application: str = "netstack",
        unbuffered: bool = False,
        descriptions: Mapping[str, str] = MappingProxyType({}),
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Write the section header, and flush it: a reader on a pipe waits for it.

        ``descriptions`` are those of interfaces, by the name of the place.
        """
        self._descriptions = descriptions
        self._file = file
        self._snaplen = snaplen
        self._filter = filter_text
        self._unbuffered = unbuffered
        self._clock_ns = clock_ns
        self._started_ns = clock_ns()
        self._ids: dict[tuple[str, str, int], int] = {}
        body = struct.pack("=IHHq", BYTE_ORDER_MAGIC, 1, 0, _SECTION_LENGTH_UNKNOWN)
        options = _option(SHB_USERAPPL, application.encode()) + _END
        file.write(_block(BLOCK_SHB, body + options))
        file.flush()

    def add_interface(
        self,
        ifname: str,
        stage: str = "",
        description: str = "",
        *,
        linktype: int = DLT_EN10MB,
        mac: bytes | None = None,
    ) -> int:
        """Describe a place frames come from, once, and return its number.

        Called by :meth:`write` for places it meets first; call it before to give a description.
        """
        key = (ifname, stage, linktype)
        if key in self._ids:
            return self._ids[key]
        name = f"{ifname}@{stage}" if stage else ifname
        options = [_option(IF_NAME, name.encode())] if name else []
        if description:
            options.append(_option(IF_DESCRIPTION, description.encode()))
        if mac is not None:
            options.append(_option(IF_MACADDR, mac))
        options.append(_option(IF_TSRESOL, _TSRESOL_NS))
        if self._filter:
            # the first byte says how the filter is written: 0 = as text for libpcap
            options.append(_option(IF_FILTER, b"\0" + _clipped(self._filter)))
        head = struct.pack("=HHI", linktype, 0, self._snaplen)
        self._file.write(_block(BLOCK_IDB, head + b"".join(options) + _END))
        number = self._ids[key] = len(self._ids)
        return number

    def write(self, record: Record) -> None:
        """Write one frame, cut to the snapshot length."""
        key = (record.ifname, record.stage, record.linktype)
        number = self._ids.get(key)
        if number is None:
            number = self.add_interface(
                record.ifname,
                record.stage,
                self._descriptions.get(record.interface, ""),
                linktype=record.linktype,
            )
        data = record.data[: self._snaplen]
        head = struct.pack(
            "=IIIII",
            number,
            record.ts_ns >> 32 & _U32_MAX,
            record.ts_ns & _U32_MAX,
            len(data),
            record.wire_len,
        )
        self._file.write(_block(BLOCK_EPB, head + _padded(data) + _packet_options(record)))
        if self._unbuffered:
            self._file.flush()

    def flush(self) -> None:
        """Push what was written to the reader."""
        self._file.flush()

    def close(self, stats: Stats | None = None) -> None:
        """Write the totals of the capture and flush; the file itself stays open.

        The totals are the capture's, so they are given once, at the first interface: a reader
        that adds up the interfaces gets the right sum.
        """
        if stats is not None and self._ids:
            options = b"".join(
                (
                    _option(ISB_STARTTIME, _timestamp(self._started_ns)),
                    _option(ISB_ENDTIME, _timestamp(self._clock_ns())),
                    _option(ISB_IFRECV, struct.pack("=Q", stats.received)),
                    _option(ISB_IFDROP, struct.pack("=Q", stats.dropped)),
                    _END,
                )
            )
            head = struct.pack("=I", 0) + _timestamp(self._clock_ns())
            self._file.write(_block(BLOCK_ISB, head + options))
        self._file.flush()


def _packet_options(record: Record) -> bytes:
    """Return the options of an enhanced packet block, ended, or nothing when there are none."""
    options = []
    if record.comment:
        options.append(_option(OPT_COMMENT, _clipped(record.comment)))
    if record.direction:
        options.append(_option(EPB_FLAGS, struct.pack("=I", record.direction)))
    if record.dropped:
        options.append(_option(EPB_DROPCOUNT, struct.pack("=Q", record.dropped)))
    if record.frame_id is not None:
        options.append(_option(EPB_PACKETID, struct.pack("=Q", record.frame_id)))
    if record.queue is not None:
        options.append(_option(EPB_QUEUE, struct.pack("=I", record.queue)))
    return b"".join(options) + _END if options else b""


def _block(kind: int, body: bytes) -> bytes:
    """Return a block: its length stands at both ends, so that a file can be read backwards."""
    total = 12 + len(body)
    return struct.pack("=II", kind, total) + body + struct.pack("=I", total)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


_END = struct.pack("=HH", OPT_ENDOFOPT, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _timestamp(ns: int) -> bytes:
    """Return a time as pcapng has it: the high 32 bits first, in either byte order."""
    return struct.pack("=II", ns >> 32 & _U32_MAX, ns & _U32_MAX)


def _clipped(text: str) -> bytes:
    """Return UTF-8 that fits an option, never cut inside a character."""
    raw = text.encode("utf-8", "replace")
    return (
        raw if len(raw) <= _COMMENT_MAX else raw[:_COMMENT_MAX].decode(errors="ignore").encode()
    )
