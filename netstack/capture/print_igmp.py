"""IGMP versions 1 to 3, as tcpdump prints them (RFC 2236, RFC 3376)."""

from __future__ import annotations

from netstack.capture.dissect import Dissection

__all__ = ["RECORD_TYPES", "duration", "igmp"]

RECORD_TYPES = {1: "is_in", 2: "is_ex", 3: "to_in", 4: "to_ex", 5: "allow", 6: "block"}
_UNITS = (("y", 31536000), ("w", 604800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_DEFAULT_RESPONSE = 100  # tenths of a second


def igmp(d: Dissection, at: int, length: int) -> None:
    """Describe a membership query, report or leave."""
    d.protocol = "igmp"
    if d.style.quiet:
        d.put("igmp")
        return
    kind = d.u8(at)
    if kind == 0x11:
        d.put("igmp query")
        _query(d, at, length)
    elif kind == 0x12:
        d.put(f"igmp v1 report {d.ip4(at + 4)}")
        if length != 8:
            d.put(f" [len {length}]")
    elif kind == 0x16:
        d.put(f"igmp v2 report {d.ip4(at + 4)}")
    elif kind == 0x17:
        d.put(f"igmp leave {d.ip4(at + 4)}")
    elif kind == 0x22:
        d.put("igmp v3 report")
        _v3_report(d, at, length)
    else:
        d.put(f"igmp-{kind}")
    if d.style.verbose and length >= 4 and d.have(at, length) and d.checksum(at, length):
        d.put(f" bad igmp cksum {d.u16(at + 2):x}!")


def duration(seconds: int) -> str:
    """Return a time as ``5m1s``."""
    parts = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _query(d: Dissection, at: int, length: int) -> None:
    if length >= 12:
        _v3_query(d, at, length)
        return
    response = d.u8(at + 1)
    d.put(" v2" if response else " v1")
    if response not in (0, _DEFAULT_RESPONSE):
        d.put(f" [max resp time {response}]")
    if d.u32(at + 4):
        d.put(f" [gaddr {d.ip4(at + 4)}]")
    if length != 8:
        d.put(f" [len {length}]")


def _v3_query(d: Dissection, at: int, length: int) -> None:
    d.put(" v3")
    if length & 3:
        d.put(f" [invalid len {length}]")
        return
    code = d.u8(at + 1)
    tenths = code if code < 128 else (code & 0x0F | 0x10) << ((code >> 4 & 7) + 3)
    if code != _DEFAULT_RESPONSE:
        time = f"{tenths * 0.1:.1f}s" if tenths < 600 else duration(tenths // 10)
        d.put(f" [max resp time {time}]")
    if d.u32(at + 4) == 0:
        return
    d.put(f" [gaddr {d.ip4(at + 4)}")
    count = d.u16(at + 10)
    if count:
        if length < 12 + count * 4:
            d.put(" [invalid number of sources]")
        else:
            _sources(d, at + 12, count)
    d.put("]")


def _v3_report(d: Dissection, at: int, length: int) -> None:
    if length < 16 or length & 3:
        d.put(f" [invalid len {length}]")
        return
    groups = d.u16(at + 6)
    d.put(f", {groups} group record(s)")
    if not d.style.verbose:
        return
    record = 8
    for _ in range(groups):
        if length < record + 8:
            d.put(" [invalid number of groups]")
            return
        kind = d.u8(at + record)
        d.put(f" [gaddr {d.ip4(at + record + 4)} ")
        d.put(RECORD_TYPES.get(kind, f" [v3-report-#{kind}]"))
        count = d.u16(at + record + 2)
        if length < record + 8 + count * 4:
            d.put(f" [invalid number of sources {count}]")
            return
        _sources(d, at + record + 8, count)
        d.put("]")
        record += 8 + count * 4


def _sources(d: Dissection, at: int, count: int) -> None:
    """Say how many sources there are, and at -vv which."""
    if d.style.verbose < 2:
        d.put(f", {count} source(s)")
        return
    d.put(" {")
    for n in range(count):
        d.put(f" {d.ip4(at + 4 * n)}")
    d.put(" }")
