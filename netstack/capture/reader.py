"""Read capture files: pcapng and classic pcap, micro- and nanoseconds, both byte orders.

Works on any buffered binary file, a pipe too, and gives what is there until the file ends or
proves broken; then :class:`CaptureFileError` says where. Memory is bounded by the largest block
allowed, whatever the file says.

Source: draft-ietf-opsawg-pcapng; draft-ietf-opsawg-pcap; pcap-savefile(5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from netstack.capture import DLT_EN10MB, SNAPLEN, Direction, Record
from netstack.capture import pcapng as ng
from netstack.errors import UsageError

__all__ = ["CaptureFileError", "Reader"]

BLOCK_PACKET, BLOCK_SIMPLE = 2, 3  # obsolete, and the one without time
BLOCK_MAX = 16 << 20  # libpcap's own limit for one block
_NG_BLOCK_MIN = 12
_TSOFFSET = 14
_NS = 10**9

_CLASSIC = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}  # magic: nanoseconds a tick


class CaptureFileError(UsageError):
    """Say that a capture file is broken, or none at all; what was read before it stands."""


@dataclass(slots=True)
class _Interface:
    """Keep what an interface description block said."""

    linktype: int
    snaplen: int
    ifname: str = ""
    stage: str = ""
    ticks: int = 10**6  # a second
    offset_s: int = 0

    def ns(self, timestamp: int) -> int:
        """Return nanoseconds since 1970 for a timestamp in the interface's own ticks."""
        return self.offset_s * _NS + timestamp * _NS // self.ticks


class Reader:
    """Iterate over the records of a capture file.

    ``linktype`` and ``snaplen`` are those of the file (of its first interface); both are known
    as soon as the reader exists. The file is the caller's: never closed here.
    """

    def __init__(self, file: BinaryIO, name: str = "the capture") -> None:
        """Read the file's header; CaptureFileError when it is not a capture."""
        self._file = file
        self._name = name
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self._frames = 0
        self.linktype = DLT_EN10MB
        self.snaplen = SNAPLEN
        magic = file.read(4)
        if len(magic) < 4:
            raise CaptureFileError(f"{name} is no capture: it has {len(magic)} bytes")
        self._records = self._open_classic(magic) or self._open_ng(magic)

    def __iter__(self) -> Iterator[Record]:
        """Give the records that are left, in the order of the file."""
        return self._records

    def _read(self, count: int, what: str) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise CaptureFileError(
                f"{self._name} is cut off: {what} needs {count} bytes and {len(data)} are left "
                f"(after {self._frames} frames)"
            )
        return data

    def _unpack(self, form: str, data: bytes, offset: int = 0) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self._order + form, data, offset)
        except struct.error:
            raise self._broken("a block is shorter than its own fields") from None

    def _broken(self, why: str) -> CaptureFileError:
        return CaptureFileError(f"{self._name} is broken: {why} (after {self._frames} frames)")

    # classic pcap

    def _open_classic(self, magic: bytes) -> Iterator[Record] | None:
        for order in "<>":
            tick_ns = _CLASSIC.get(struct.unpack(order + "I", magic)[0])
            if tick_ns is not None:
                self._order = order
                _, _, _, _, snaplen, network = self._unpack(
                    "HHiIII", self._read(20, "the header")
                )
                self.snaplen = snaplen or SNAPLEN
                self.linktype = network & 0xFFFF  # above it: the frame check sequence
                return self._classic(tick_ns)
        return None

    def _classic(self, tick_ns: int) -> Iterator[Record]:
        while head := self._file.read(16):
            head += self._read(16 - len(head), "a packet header") if len(head) < 16 else b""
            seconds, ticks, captured, wire_len = self._unpack("IIII", head)
            if captured > BLOCK_MAX:
                raise self._broken(f"a packet of {captured} bytes")
            data = self._read(captured, "a packet")
            self._frames += 1
            ts_ns = seconds * _NS + ticks * tick_ns
            yield Record(ts_ns, data, wire_len, linktype=self.linktype)

    # pcapng

    def _open_ng(self, magic: bytes) -> Iterator[Record]:
        if magic != struct.pack("<I", ng.BLOCK_SHB):  # the same in both byte orders
            raise CaptureFileError(
                f"{self._name} is no capture: it begins with {magic.hex()}, "
                "and neither pcapng nor pcap does"
            )
        self._section()
        # The link type is in the first interface block; reading on to a packet would wait on a
        # live pipe.
        while not self._interfaces and (block := self._block()) is not None:
            self._take(*block)
        if self._interfaces:
            self.linktype = self._interfaces[0].linktype
            self.snaplen = self._interfaces[0].snaplen
        return self._ng()

    def _ng(self) -> Iterator[Record]:
        while (block := self._block()) is not None:
            record = self._take(*block)
            if record is not None:
                self._frames += 1
                yield record

    def _block(self) -> tuple[int, bytes] | None:
        """Read the next block that is not a section header; None at the end of the file."""
        while head := self._file.read(4):
            head += self._read(4 - len(head), "a block") if len(head) < 4 else b""
            if head != struct.pack("<I", ng.BLOCK_SHB):
                return self._unpack("I", head)[0], self._body()
            self._section()
        return None

    def _take(self, kind: int, body: bytes) -> Record | None:
        """Make a record of a packet, remember an interface, leave out what else there is."""
        if kind in (ng.BLOCK_EPB, BLOCK_PACKET, BLOCK_SIMPLE):
            return self._packet(kind, body)
        if kind == ng.BLOCK_IDB:
            self._interfaces.append(self._interface(body))
        return None

    def _section(self) -> None:
        """Read a section header behind its type: it sets byte order, forgets interfaces."""
        raw_length, magic = self._read(4, "a section"), self._read(4, "a section")
        for order in "<>":
            if struct.unpack(order + "I", magic)[0] == ng.BYTE_ORDER_MAGIC:
                self._order = order
                break
        else:
            raise self._broken(f"byte-order magic {magic.hex()}")
        total = self._checked_length(raw_length)
        if total < 28:
            raise self._broken(f"a section header of {total} bytes")
        body = self._read(total - 12, "a section")
        major = self._unpack("H", body)[0]
        if major != 1:
            raise self._broken(f"pcapng version {major}; version 1 can be read")
        self._interfaces.clear()

    def _body(self) -> bytes:
        """Read the rest of a block behind its type; give what is between its two lengths."""
        raw_length = self._read(4, "a block")
        total = self._checked_length(raw_length)
        rest = self._read(total - 8, "a block")
        if rest[-4:] != raw_length:
            raise self._broken("a block's two lengths differ")
        return rest[:-4]

    def _checked_length(self, raw: bytes) -> int:
        total = self._unpack("I", raw)[0]
        if not _NG_BLOCK_MIN <= total <= BLOCK_MAX or total % 4:
            raise self._broken(f"a block of {total} bytes")
        return total

    def _interface(self, body: bytes) -> _Interface:
        linktype, _, snaplen = self._unpack("HHI", body)
        interface = _Interface(linktype, snaplen or SNAPLEN)
        for code, value in self._options(body, 8):
            if code == ng.IF_NAME:
                name, _, stage = value.decode(errors="replace").partition("@")
                interface.ifname, interface.stage = name, stage
            elif code == ng.IF_TSRESOL and value:
                power = value[0] & 0x7F
                interface.ticks = 2**power if value[0] & 0x80 else 10**power
            elif code == _TSOFFSET and len(value) == 8:
                interface.offset_s = self._unpack("q", value)[0]
        return interface

    def _packet(self, kind: int, body: bytes) -> Record:
        if kind == BLOCK_SIMPLE:
            wire_len = self._unpack("I", body)[0]
            interface = self._nth(0)
            captured = min(wire_len, interface.snaplen, len(body) - 4)
            return self._record(interface, 0, body[4 : 4 + captured], wire_len)
        if kind == BLOCK_PACKET:
            number, dropped, high, low, captured, wire_len = self._unpack("HHIIII", body)
        else:
            number, high, low, captured, wire_len = self._unpack("IIIII", body)
            dropped = 0
        if captured > len(body) - 20:
            raise self._broken(f"a packet of {captured} bytes in a block of {len(body)}")
        interface = self._nth(number)
        data = body[20 : 20 + captured]
        record = self._record(interface, interface.ns(high << 32 | low), data, wire_len)
        record.dropped = 0 if dropped == 0xFFFF else dropped  # all ones: not known
        for code, value in self._options(body, 20 + captured + -captured % 4):
            self._note(record, code, value)
        return record

    def _record(self, interface: _Interface, ts_ns: int, data: bytes, wire_len: int) -> Record:
        return Record(
            ts_ns,
            data,
            wire_len,
            ifname=interface.ifname,
            stage=interface.stage,
            linktype=interface.linktype,
        )

    def _note(self, record: Record, code: int, value: bytes) -> None:
        """Put one option of a packet where it belongs; leave out one of a wrong size."""
        if code == ng.OPT_COMMENT:
            text = value.decode(errors="replace")
            record.comment = text if record.comment is None else f"{record.comment}\n{text}"
        elif code == ng.EPB_FLAGS and len(value) == 4:
            way = self._unpack("I", value)[0] & 3
            record.direction = Direction(way) if way < 3 else Direction.UNKNOWN
        elif code == ng.EPB_DROPCOUNT and len(value) == 8:
            record.dropped = self._unpack("Q", value)[0]
        elif code == ng.EPB_PACKETID and len(value) == 8:
            record.frame_id = self._unpack("Q", value)[0]
        elif code == ng.EPB_QUEUE and len(value) == 4:
            record.queue = self._unpack("I", value)[0]

    def _nth(self, number: int) -> _Interface:
        if number >= len(self._interfaces):
            raise self._broken(
                f"a packet of interface {number}, and {len(self._interfaces)} are described"
            )
        return self._interfaces[number]

    def _options(self, body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
        while offset + 4 <= len(body):
            code, length = self._unpack("HH", body, offset)
            offset += 4
            if code == ng.OPT_ENDOFOPT:
                return
            if offset + length > len(body):
                raise self._broken(
                    f"an option of {length} bytes with {len(body) - offset} left"
                )
            yield code, body[offset : offset + length]
            offset += length + -length % 4
