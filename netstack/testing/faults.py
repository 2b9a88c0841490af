"""Make the hardware fail, with a seed: does the host recover, and is every frame accounted for?

    with Faults(device, seed=7, lost_interrupt=0.1, bad_descriptor=0.01) as faults:
        ...
    assert faults.counts["lost_interrupt"]

Each fault has a chance from 0 to 1, and those that last have a time in seconds:

lost_interrupt      the cause of an interrupt is forgotten; the driver's watchdog rings again
late_interrupt      the message arrives `late` seconds after it was sent
stuck_throttle      the interrupt throttle holds the vectors back for `stuck` seconds
bad_descriptor      an error bit is set in a written-back descriptor
late_writeback      a descriptor is written back `behind` seconds after the ones that follow it
failed_allocation   the CPU's packet pool gives nothing new for `starved` seconds
affinity_moved      a queue's vector goes to another CPU while frames of its flows are on their way

Without Faults a NIC costs nothing more: they stand in the place of its functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from netstack.errors import UsageError
from netstack.testing._faults import NAMES, Injector

if TYPE_CHECKING:
    from netstack.netdev import NetDevice


class Faults:
    """Faults in the NIC of one device, until ``remove()`` or the end of the block."""

    def __init__(
        self,
        device: NetDevice,
        *,
        seed: int = 0,
        late: float = 0.001,
        stuck: float = 0.1,
        behind: float = 0.0005,
        starved: float = 0.01,
        **chances: float,
    ) -> None:
        """Let them begin."""
        for name, chance in chances.items():
            if name not in NAMES:
                raise UsageError(f"there is no fault {name!r}", hint=", ".join(NAMES))
            if not 0 <= chance <= 1:
                raise UsageError(
                    f"{name}={chance}: a chance is 0 (never) to 1 (always)", hint=f"{name}=0.1"
                )
        seconds = {
            "late_interrupt": late,
            "stuck_throttle": stuck,
            "late_writeback": behind,
            "failed_allocation": starved,
        }
        for name, time in seconds.items():
            if not 0 < time <= 3600:
                raise UsageError(
                    f"{name} for {time} s: more than 0, at most 3600", hint=f"{name} of 0.001"
                )
        self._injector = Injector(device.nic, seed, chances, seconds)

    @property
    def counts(self) -> dict[str, int]:
        """How often each has happened."""
        return self._injector.counts()

    def remove(self) -> None:
        """Mend the hardware; what it held back goes on. Idempotent."""
        self._injector.remove()

    def __enter__(self) -> Self:
        """Give the faults; the hardware is mended at the end of the block."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Mend the hardware."""
        self.remove()
