"""kworker: the one Python thread of a host, for slow packets and timers.

It drains the seam (``netif/_backlog``) in batches, gives each packet to its handler, and runs timers on the host's
clock. A CPU never waits for it. A host without threads runs the same steps from ``Host.run``.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from netstack._counters import skb_drop_reason

if TYPE_CHECKING:
    from netstack._skb import SkBuff
    from netstack.host import Host
    from netstack.nf.hooks import Hooks

log = logging.getLogger("netstack")

BATCH = 64
YIELD = 0.0001  # seconds that those who read get while sockets lose most of a batch


class Timer:
    """A call that is due at a time of the host's clock; ``cancel`` takes it back."""

    __slots__ = ("call", "due")

    def __init__(self, due: int, call: Callable[[], object]) -> None:
        self.due = due
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Take the call back. Idempotent."""
        self.call = None


class KWorker:
    """Packets for Python, timers, and the thread that sees to both."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.errors = 0
        self.handled = 0  # packets that handlers have had
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._stop = False
        self._thread: threading.Thread | None = None

    def call_at(self, due: int, call: Callable[[], object]) -> Timer:
        """Call back once the host's clock reaches ``due`` (ns). From any thread."""
        timer = Timer(due, call)
        with self._lock:
            first = not self._timers or due < self._timers[0][0]
            heapq.heappush(self._timers, (due, next(self._order), timer))
        if first and threading.current_thread() is not self._thread:
            self.host.seam.wake()
        return timer

    def next_deadline(self) -> int | None:
        """When the first timer is due, ns on the host's clock."""
        with self._lock:
            while self._timers and self._timers[0][2].call is None:
                heapq.heappop(self._timers)
            due = self._timers[0][0] if self._timers else None
        for source in self.host.timer_sources:
            other = source.next_deadline()
            if other and (due is None or other < due):
                due = other
        return due

    def step(self) -> int:
        """Handle what waits: one batch of packets, and the timers that are due. How many frames and timers it was."""
        done = self._run_timers()
        batch = self.host.seam.drain(BATCH)
        if batch:
            done += self.host.seam.drained
            hooks = self.host.inet.hooks
            hooks.gather(True)
            try:
                self._receive(batch, hooks)
            finally:
                hooks.gather(False)
        return done

    def _receive(self, batch: list[SkBuff], hooks: Hooks) -> None:
        """Give packets to their handlers, and what hooks want to see together to those."""
        receive = self.host.packet_types.netif_receive_skb
        waiting = 0
        while batch:
            before = hooks.held()
            # The list must not keep the handle: whoever owns it last ends the packet.
            self._try("a packet handler", receive, batch.pop(0))
            self.handled += 1
            if hooks.held() == before:
                self.host.seam.ended()
            else:
                waiting += 1
        while hooks.gathered:
            passed = self._try("a hook", hooks.ask_batch) or []
            while passed:
                self._try("a packet handler", hooks.go_on, passed.pop(0))
        for _ in range(waiting):
            self.host.seam.ended()

    def _try(self, what: str, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except Exception:
            self._report(what)

    def _run_timers(self) -> int:
        now = self.host.net.now()
        done = 0
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > now:
                    break
                call = heapq.heappop(self._timers)[2].call
            if call is not None:
                done += 1
                try:
                    call()
                except Exception:
                    self._report("a timer")
        for source in self.host.timer_sources:
            due = source.next_deadline()
            if due and due <= now:
                source.run_timers(now)
                done += 1
        return done

    def _report(self, what: str) -> None:
        """Say what went wrong in a user's handler; the host goes on, the packet is dropped."""
        self.errors += 1
        log.exception("netstack: %s of host %r failed", what, self.host.name)

    def _lost(self) -> int:
        return self.host.net.fate(skb_drop_reason.SKB_DROP_REASON_SOCKET_RCVBUFF)

    def _main(self) -> None:
        host = self.host
        lost = self._lost()
        while not self._stop:
            if done := self.step():
                before, lost = lost, self._lost()
                if (lost - before) * 2 > done:
                    # Readers need the GIL, which whoever runs may keep for 5 ms: their queues stay full till then.
                    time.sleep(YIELD)
                host.seam.let_readers_in()
                continue
            due = self.next_deadline()
            host.seam.wait(None if due is None else max(0.0, (due - host.net.now()) / 1e9))

    def start(self) -> None:
        """Start the thread."""
        self._stop = False
        self._thread = threading.Thread(
            target=self._main, name=f"kworker/{self.host.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the batch it is in."""
        thread = self._thread
        if thread is None:
            return
        self._stop = True
        self.host.seam.wake()
        if thread is not threading.current_thread():
            thread.join()
        self._thread = None
