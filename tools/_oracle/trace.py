"""Why the kernel dropped a packet: the tracepoint skb:kfree_skb, read from tracefs.

An instance of its own, with the events of this thread only. An event counts only for a packet that
came off the TAP: the first that net:netif_receive_skb tells of after a write. What comes later this
host has sent to itself.

What interrupts this thread frees packets of others: the queues of sockets that are closed, when RCU
lets go of them, and what other TAPs do not take. The memory may be that of a packet of ours that has
ended without an event. So what an interrupt frees does not count: a frame's steps are not one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

NAME = b"tap0\0"  # of the device
TRACING = Path("/sys/kernel/tracing")
EVENTS = ("skb/kfree_skb", "skb/consume_skb", "net/netif_receive_skb")
PADDING, TIME_EXTEND, TIME_STAMP = 29, 30, 31
# Linux frees these packets without a word why. Ours have a reason each.
UNSAID = "NOT_SPECIFIED"
FLAGS, INTERRUPT = 2, 0x08 | 0x10  # common_flags: in a hard interrupt, in a softirq


def mount() -> str:
    """Mount tracefs if it is not; give why it can't be had, or nothing."""
    if not (TRACING / "instances").exists():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"tracefs", str(TRACING).encode(), b"tracefs", 0, None):
            return f"tracefs can't be mounted: {os.strerror(ctypes.get_errno())}"
    for event in EVENTS:
        if not (TRACING / "events" / event / "format").exists():
            return f"the kernel has no tracepoint {event}"
    return ""


def sweep() -> None:
    """Take away the instances of runs that were killed: they trace every packet of the machine."""
    for path in (TRACING / "instances").glob("netstack-*"):
        if not Path("/proc", path.name.rpartition("-")[2]).exists():
            with contextlib.suppress(OSError):  # in use, by a thread of another PID namespace
                path.rmdir()


class DropReasons:
    """The reasons of this thread's drops; the thread must stay on one CPU."""

    def __init__(self) -> None:
        (cpu,) = os.sched_getaffinity(0)
        sweep()
        self.path = TRACING / "instances" / f"netstack-{threading.get_native_id()}"
        self.path.mkdir(exist_ok=True)
        (self.path / "tracing_on").write_text("0")
        (self.path / "buffer_size_kb").write_text("1024")
        events = self.path / "events"
        text = (events / "skb/kfree_skb/format").read_text()
        names = text[text.index("__print_symbolic") :]
        self.names = {int(n): s for n, s in re.findall(r"\{ (\d+), \"(\w+)\" \}", names)}
        self.drop, self.drop_skb = event_id(text), offset(text, "skbaddr")
        self.reason = offset(text, "reason")
        text = (events / "net/netif_receive_skb/format").read_text()
        self.come, self.come_skb = event_id(text), offset(text, "skbaddr")
        text = (events / "skb/consume_skb/format").read_text()
        self.used, self.used_skb = event_id(text), offset(text, "skbaddr")
        raw = self.path / f"per_cpu/cpu{cpu}/trace_pipe_raw"
        self.fd = os.open(raw, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        (self.path / "tracing_on").write_text("1")
        (self.path / "set_event_pid").write_text(str(self.own_pid()))
        for event in EVENTS:
            (events / event / "enable").write_text("1")
        self.alive: set[int] = set()

    def own_pid(self) -> int:
        """Ask the kernel what it calls this thread: in a container it has another number than here."""
        (self.path / "trace_marker").write_bytes(b"netstack")
        for data in records(os.read(self.fd, 4096)):
            if b"netstack" in data:
                return int(struct.unpack_from("<i", data, 4)[0])  # common_pid
        return threading.get_native_id()

    def take(self) -> Counter[str]:
        """Give the reasons of what was dropped since the last call; one frame was written meanwhile."""
        found: Counter[str] = Counter()
        first = True
        while True:
            try:
                page = os.read(self.fd, 4096)
            except BlockingIOError:
                return found
            if not page:
                return found
            for data in records(page):
                (kind,) = struct.unpack_from("<H", data)
                interrupt = data[FLAGS] & INTERRUPT
                if kind == self.come:
                    (skb,) = struct.unpack_from("<Q", data, self.come_skb)
                    ours = first and not interrupt and NAME in data
                    (self.alive.add if ours else self.alive.discard)(skb)
                    first = first and not ours
                elif kind == self.used:
                    self.alive.discard(*struct.unpack_from("<Q", data, self.used_skb))
                elif kind == self.drop:
                    (skb,) = struct.unpack_from("<Q", data, self.drop_skb)
                    (reason,) = struct.unpack_from("<I", data, self.reason)
                    if skb in self.alive and not interrupt:
                        found[self.names[reason]] += 1
                    self.alive.discard(skb)

    def close(self) -> None:
        """Take the instance away again."""
        os.close(self.fd)
        with contextlib.suppress(OSError):
            self.path.rmdir()


def event_id(text: str) -> int:
    """Read an event's number in its format file."""
    return int(re.search(r"^ID: (\d+)", text, re.MULTILINE)[1])  # type: ignore[index]


def offset(text: str, field: str) -> int:
    """Read where a field of an event stands."""
    return int(re.search(rf"\b{field};\s*offset:(\d+)", text)[1])  # type: ignore[index]


def records(page: bytes) -> Iterator[bytes]:
    """Give the events of a page of the ring buffer. [include/linux/ring_buffer.h]"""
    (commit,) = struct.unpack_from("<Q", page, 8)
    at, end = 16, 16 + (commit & 0xFFFFF)
    while at + 4 <= end:
        (head,) = struct.unpack_from("<I", page, at)
        kind = head & 31
        if kind == PADDING:
            if not head >> 5:  # the rest of the page is empty
                return
            at += 4 + struct.unpack_from("<I", page, at + 4)[0]
        elif kind in (TIME_EXTEND, TIME_STAMP):
            at += 8
        elif kind:
            yield page[at + 4 : at + 4 + kind * 4]
            at += 4 + kind * 4
        else:
            (length,) = struct.unpack_from("<I", page, at + 4)
            yield page[at + 8 : at + 4 + length]
            at += 4 + length
