"""A capture in a program: ``host.capture(stage="gro", filter="udp port 53")``."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from netstack.capture import SNAPLEN, Record, Stats
from netstack.capture.stages import masks, programs, to_record

if TYPE_CHECKING:
    from netstack.host import Host


class Capture:
    """Records of what passes a stage of a host, in order of time. A context manager.

    ``read`` gives what there is; iterating waits for more, until the capture is closed by another
    thread. Copies stand in a ring of bounded size: what finds no room is counted in ``stats``, and
    the next record's ``dropped`` says how many there were.
    """

    def __init__(
        self,
        host: Host,
        stage: str | Iterable[str] = "",
        ifname: str = "any",
        filter: str = "",
        snaplen: int = SNAPLEN,
    ) -> None:
        """Begin; UsageError for a stage, an interface or a filter that there is not."""
        stages = (stage,) if isinstance(stage, str) else tuple(stage)
        devices = masks([(ifname, each) for each in stages], host.devices)
        program, raw = programs(filter, stages, snaplen)
        self._tap = host.packet_tap(
            program.function if program else 0,
            program.address if program else 0,
            snaplen,
            keep=(program, raw),
            raw=raw.address if raw else 0,
            devices=devices,
        )
        self._names = {device.ifindex: device.name for device in host.devices}
        self._epoch = time.time_ns() - host.now() if host.clock is None else 0
        self._lost = 0
        self.closed = False

    def fileno(self) -> int:
        """Return an fd that becomes readable when records come after ``read`` gave none."""
        return self._tap.fileno()

    def stats(self) -> Stats:
        """Count what the filter accepted, and what of that found no room."""
        return Stats(*self._tap.stats)

    def read(self, most: int = 256) -> list[Record]:
        """Take up to ``most`` records; none is there if the list is empty. Never waits."""
        out: list[Record] = []
        for row in self._tap.drain(most):
            lost = 0
            if not out:
                total = self.stats().dropped
                lost, self._lost = total - self._lost, total
            out.append(to_record(row, self._names.get(row[2], ""), self._epoch, lost))
        return out

    def __iter__(self) -> Iterator[Record]:
        """Give records as they come."""
        while not self.closed:
            records = self.read()
            yield from records
            if not records and not self.closed:
                # A while, not for ever: another thread may close.
                with suppress(OSError, ValueError):
                    select.select([self], [], [], 0.2)
                    os.eventfd_read(self.fileno())

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self.closed = True
        self._tap.close()

    def __enter__(self) -> Self:
        """Give the capture; it ends with the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.close()
