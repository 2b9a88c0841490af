"""igb: the driver's timer, every two seconds.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       the host's clock                 kworker.py
Out      EICS, the state of the link      driver/_igb_main.pyx
Context  process context
Kernel   igb_watchdog(), igb_watchdog_task(), drivers/net/ethernet/intel/igb/igb_main.c
"""

from __future__ import annotations

from typing import Protocol

PERIOD_NS = 2_000_000_000


class Nic(Protocol):
    """Describe what is looked after."""

    def watchdog(self) -> None:
        """Do what is due."""


class Watchdog:
    """What the kworker asks: when the driver wants to look at its device again, and to see to it."""

    def __init__(self, nic: Nic, now: int) -> None:
        """Look after a device from now on."""
        self.nic = nic
        self.due = now + PERIOD_NS

    def next_deadline(self) -> int:
        """When the next look is due, ns on the host's clock."""
        return self.due

    def run_timers(self, now: int) -> None:
        """Look. What came too late is not made up for."""
        self.due = now + PERIOD_NS
        self.nic.watchdog()
