"""The stages at which packets can be captured: their names, and what a tap's records say of them.

A place is ``tap0``, the device's side of the device core where Linux has its taps, or
``tap0@gro``, a stage of the receive path behind the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from netstack._counters import skb_drop_reason
from netstack._net import tap_stage
from netstack.capture import DLT_EN10MB, SNAPLEN, Direction, Record
from netstack.capture.bpf import Program, compile_filter
from netstack.errors import UsageError
from netstack.stats import reason_name

__all__ = ["LINKTYPE_RAW", "RAW_ONLY", "STAGES", "masks", "places", "programs", "to_record"]

LINKTYPE_RAW = 101  # packets that begin with their IP header
ALL = 0xFFFFFFFF  # devices: every one, and what has none
WIRE_TEXT = "both directions"

STAGES: Mapping[str, tuple[tap_stage, str]] = {
    "nic": (tap_stage.STAGE_NIC, "as the driver takes it off the ring, before GRO"),
    "gro": (tap_stage.STAGE_GRO, "as GRO passes it up, merged packets whole"),
    "prerouting": (tap_stage.STAGE_PREROUTING, "IP header found good, not routed yet"),
    "input": (tap_stage.STAGE_INPUT, "routed to this host, defragmented"),
    "forward": (tap_stage.STAGE_FORWARD, "routed to another host"),
    "output": (tap_stage.STAGE_OUTPUT, "made by this host, raw IP"),
    "postrouting": (tap_stage.STAGE_POSTROUTING, "about to leave, raw IP"),
    "socket": (tap_stage.STAGE_SOCKET, "handed to a UDP, raw or ping socket"),
    "drop": (tap_stage.STAGE_DROP, "at the moment it is dropped, with the reason"),
}
_NAMES = {int(number): name for name, (number, _) in STAGES.items()} | {0: ""}
RAW_ONLY = frozenset(("output", "postrouting"))  # nothing there has an Ethernet header
_RET_0 = bytes.fromhex(
    "0600000000000000"
)  # a filter that means nothing without an Ethernet header


class Device(Protocol):
    """Describe what is read of a device."""

    @property
    def name(self) -> str:
        """Return the interface's name."""

    @property
    def ifindex(self) -> int:
        """Return its number."""


def places(devices: Iterable[Device]) -> list[tuple[str, str]]:
    """List what ``-i`` takes: interfaces, those with a wire first, then each with its stages."""
    names = sorted((device.name for device in devices), key=lambda name: name == "lo")
    rows = [(name, WIRE_TEXT) for name in names]
    for name in names:
        rows += [
            (f"{name}@{stage}", text)
            for stage, (_, text) in STAGES.items()
            if (name, stage) != ("lo", "nic")
        ]
    return rows


def masks(wanted: Iterable[tuple[str, str]], devices: Sequence[Device]) -> list[int]:
    """Give, for a tap, the devices of each stage that is wanted: a list of bit masks.

    ``wanted`` are pairs of an interface and a stage, "" for the wire; "any" is every one of either.
    Raises UsageError with the list for what there is not.
    """
    numbers = {device.name: 1 << (device.ifindex - 1) for device in devices} | {"any": ALL}
    found = [0] * tap_stage.STAGE_NR
    for ifname, stage in wanted:
        if ifname not in numbers or stage not in (*STAGES, "", "any"):
            known = [name for name, _ in places(devices)]
            place = f"{ifname}@{stage}" if stage else ifname
            raise UsageError(
                f"there is no place {place} to capture at",
                hint="\n".join(f"netstack capture -i {name}" for name in known),
            )
        for name in STAGES if stage == "any" else (stage,):
            found[STAGES[name][0] if name else 0] |= numbers[ifname]
    return found


def programs(
    text: str, stages: Iterable[str], snaplen: int = SNAPLEN, *, optimize: bool = True
) -> tuple[Program | None, Program | None]:
    """Compile a filter for frames and for packets without an Ethernet header; None: all match.

    A filter that only an Ethernet header can answer matches no packet that has none. Raises UsageError
    when it is no filter, or is asked for at stages where no packet has one.
    """
    if not text:
        return None, None
    program = compile_filter(text, DLT_EN10MB, snaplen, optimize=optimize)
    stages = set(stages)
    if stages <= {"", "nic", "gro"}:
        return program, None
    try:
        return program, compile_filter(text, LINKTYPE_RAW, snaplen, optimize=optimize)
    except UsageError:
        if stages & RAW_ONLY:
            raise
        return program, Program(_RET_0, text)


def to_record(row: Sequence[Any], ifname: str, epoch: int = 0, dropped: int = 0) -> Record:
    """Make a record of what ``PacketTap.drain`` gives; ``epoch`` is added to its time."""
    ns, frame, _, sent, wire_len, data, stage, raw, frames, reason = row
    notes = []
    if reason:
        notes.append(reason_name(skb_drop_reason(reason).name))
    if frames > 1:
        notes.append(f"{frames} frames, the first is {frame}")
    return Record(
        ns + epoch,
        data,
        wire_len,
        frame_id=frame or None,
        ifname=ifname,
        stage=_NAMES[stage],
        direction=Direction.OUT if sent else Direction.IN,
        comment=", ".join(notes) or None,
        dropped=dropped,
        linktype=LINKTYPE_RAW if raw else DLT_EN10MB,
    )
