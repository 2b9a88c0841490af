"""Where captured records go: lines, JSON objects, a pcapng file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol, TextIO

from netstack.capture import Record, Stats
from netstack.capture.pcapng import Writer
from netstack.capture.printer import Printer

__all__ = ["JsonOutput", "LineOutput", "Output", "PcapngOutput"]


class Output(Protocol):
    """Take records; flushed when there are none for now, closed at the end of the capture."""

    def put(self, record: Record) -> None:
        """Take one record."""

    def flush(self) -> None:
        """Let a reader see what was put so far."""

    def close(self) -> None:
        """Write what belongs at the end, and flush."""


class LineOutput:
    """Print records; with ``line_buffered`` each is flushed at once (-l)."""

    def __init__(self, out: TextIO, printer: Printer, line_buffered: bool = False) -> None:
        """Print to a text stream, which is the caller's."""
        self._out = out
        self._printer = printer
        self._line_buffered = line_buffered
        self.flush = self.close = out.flush

    def put(self, record: Record) -> None:
        """Print one record."""
        self._out.write(self._printer(record) + "\n")
        if self._line_buffered:
            self._out.flush()


class JsonOutput(LineOutput):
    """Print a JSON object for each record, one a line.

    Keys without a value are left out. ``time_ns`` counts from 1970, ``length`` is the frame's
    on the wire, ``summary`` is what would have been printed, and ``data`` the captured bytes in
    hex.
    """

    def put(self, record: Record) -> None:
        """Print one record."""
        fields = {
            "time_ns": record.ts_ns,
            "packet_id": record.frame_id,
            "interface": record.interface or None,
            "direction": record.direction.name.lower() if record.direction else None,
            "queue": record.queue,
            "dropped": record.dropped or None,
            "length": record.wire_len,
            "captured": len(record.data),
            "comment": record.comment,
            "summary": self._printer(record),
            "data": record.data.hex(),
        }
        present = {key: value for key, value in fields.items() if value is not None}
        self._out.write(json.dumps(present) + "\n")
        if self._line_buffered:
            self._out.flush()


class PcapngOutput:
    """Write records as pcapng; at the end the totals, where they are known."""

    def __init__(self, writer: Writer, stats: Callable[[], Stats] | None) -> None:
        """Write through a writer whose file is the caller's."""
        self._writer = writer
        self._stats = stats
        self.put = writer.write
        self.flush = writer.flush

    def close(self) -> None:
        """Write the totals."""
        self._writer.close(self._stats() if self._stats is not None else None)
