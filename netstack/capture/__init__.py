"""Look at frames as tcpdump does: filter, print, write pcapng that Wireshark reads live.

Everything here works on :class:`Record`, one frame seen at one place. Where records come from
is the business of the caller: the compiled tap of a running host, or a file (``reader.py``).

::

    bpf.py       filter text -> BPF program, by libpcap
    pcapng.py    records -> a pcapng stream
    reader.py    pcap and pcapng files -> records
    printer.py   records -> tcpdump's lines; print_*.py have one protocol family each
    options.py   tcpdump's command line
    outputs.py   lines, JSON, pcapng
    run.py       the loop that drives the above
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

__all__ = ["DLT_EN10MB", "SNAPLEN", "Direction", "Record", "Source", "Stats"]

DLT_EN10MB = 1
SNAPLEN = 262144  # tcpdump's default: longer than any frame, so nothing is cut


class Direction(IntEnum):
    """Tell which way a frame went, in the numbers of pcapng's ``epb_flags``."""

    UNKNOWN = 0
    IN = 1
    OUT = 2


@dataclass(slots=True)
class Record:
    """Hold one frame as it was at one place of its path.

    ``frame_id`` is the same wherever the same frame is seen, and becomes ``frame.packet_id`` in
    Wireshark. ``data`` may be shorter than ``wire_len`` (snapshot length). ``dropped`` counts
    the records lost between the one before and this one. ``linktype`` is a LINKTYPE_ number of
    the pcap format.
    """

    ts_ns: int
    data: bytes
    wire_len: int
    frame_id: int | None = None
    ifname: str = ""
    stage: str = ""
    direction: Direction = Direction.UNKNOWN
    comment: str | None = None
    queue: int | None = None
    dropped: int = 0
    linktype: int = DLT_EN10MB

    @property
    def interface(self) -> str:
        """Name the place: ``tap0`` for the wire, ``tap0@gro`` for a stage behind it."""
        return f"{self.ifname}@{self.stage}" if self.stage else self.ifname


@dataclass(slots=True)
class Stats:
    """Count what the filter accepted, and what of that found no room on the way here."""

    received: int = 0
    dropped: int = 0


class Source(Protocol):
    """Describe what :func:`netstack.capture.run.run` reads from.

    The iterator gives records in order of time. It gives ``None`` each time it has nothing more
    to give for now and is about to wait: what was written so far is flushed then, so that a
    reader at the other end of a pipe sees it.
    """

    def __iter__(self) -> Iterator[Record | None]:
        """Give records, and None before each wait."""

    def stats(self) -> Stats:
        """Return the totals since the capture began."""

    def places(self) -> Sequence[tuple[str, str]]:
        """Return what can be captured from: names as ``-i`` takes them, and descriptions."""
