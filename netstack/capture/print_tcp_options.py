"""The options of a TCP header, as tcpdump prints them (RFC 9293, RFC 2018, RFC 7323).

Multipath TCP is named, and its data shown in hex.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from netstack.capture.dissect import Dissection

__all__ = ["tcp_options"]

TCPOPT_EOL, TCPOPT_NOP, TCPOPT_MSS, TCPOPT_WINDOW, TCPOPT_SACK_PERM = 0, 1, 2, 3, 4
TCPOPT_SACK, TCPOPT_TIMESTAMP, TCPOPT_MD5SIG, TCPOPT_FASTOPEN = 5, 8, 19, 34
TCPOPT_EXP_FASTOPEN = 0xF989  # behind option 254 (RFC 6994)
_U32 = 0xFFFFFFFF
_WITHOUT_LENGTH = (TCPOPT_EOL, TCPOPT_NOP)


class _BadOption(Exception):
    """Say that an option's length can't be."""


class _CutOption(Exception):
    """Say that an option was not captured whole."""


@dataclass(slots=True)
class _Option:
    """Hold the data of one option: where it begins, what its length says, what is left."""

    d: Dissection
    at: int
    said: int
    left: int
    sack_base: int
    whole: bool  # the segment was captured whole

    def need(self, count: int) -> int:
        """Check that this many bytes are there, and return the number."""
        if count > self.left:
            raise _BadOption
        if not self.d.have(self.at, count):
            raise _CutOption
        return count


def tcp_options(d: Dissection, at: int, left: int, sack_base: int, whole: bool) -> bool:
    """Describe the options; tell whether they could be read to their end.

    ``sack_base`` is what the edges of SACK blocks are counted from. ``whole`` tells whether the
    segment was captured to its end.
    """
    comma = ""
    d.put(", options [")
    try:
        while left > 0:
            d.put(comma)
            kind = d.u8(at)
            size = skip = 1
            if kind not in _WITHOUT_LENGTH:
                size, skip = d.u8(at + 1), 2
                if size < 2 or size > left:
                    raise _BadOption
            at, left = at + skip, left - skip
            name, show = _OPTIONS.get(kind, (f"unknown-{kind}", _hex))
            d.put(name)
            used = show(_Option(d, at, size - skip, left, sack_base, whole))
            at, left = at + used, left - used
            if used + skip != size:
                d.put(f"[len {size}]")
            comma = ","
            if kind == TCPOPT_EOL:
                break
    except _BadOption:
        d.put("[bad opt]]" if comma else "[bad opt]")
        return False
    except _CutOption:
        d.cut()
        d.put(">" if comma else "")
        return False
    d.put("]")
    return True


def _nothing(_: _Option) -> int:
    return 0


def _u8(o: _Option) -> int:
    used = o.need(1)
    o.d.put(f" {o.d.u8(o.at)}")
    return used


def _u16(o: _Option) -> int:
    used = o.need(2)
    o.d.put(f" {o.d.u16(o.at)}")
    return used


def _u32(o: _Option) -> int:
    used = o.need(4)
    o.d.put(f" {o.d.u32(o.at)}")
    return used


def _hex(o: _Option) -> int:
    if o.said:
        o.d.put(" 0x")
        _digits(o, 0)
    return o.said


def _digits(o: _Option, first: int) -> None:
    """Show bytes one by one, as far as they were captured."""
    for place in range(first, o.said):
        o.need(place + 1)
        o.d.put(f"{o.d.u8(o.at + place):02x}")


def _timestamps(o: _Option) -> int:
    used = o.need(8)
    o.d.put(f" val {o.d.u32(o.at)} ecr {o.d.u32(o.at + 4)}")
    return used


def _sack(o: _Option) -> int:
    if o.said % 8:
        o.d.put(" invalid sack")
        return o.said
    o.d.put(f" {o.said // 8} ")
    for place in range(o.at, o.at + o.said, 8):
        o.need(place - o.at + 8)
        left, right = (o.d.u32(edge) - o.sack_base & _U32 for edge in (place, place + 4))
        o.d.put(f"{{{left}:{right}}}")
    return o.said


def _signature(o: _Option) -> int:
    used = o.need(16)
    o.d.put(" ")
    o.d.put("shared secret not supplied with -M, " if o.whole else "snaplen too short, ")
    o.d.put(f"can't check - {o.d.take(o.at, used).hex()}")
    return used


def _scps(o: _Option) -> int:
    used = o.need(2)
    o.d.put(f" cap {o.d.u8(o.at):02x} id {o.d.u8(o.at + 1)}")
    return used


def _user_timeout(o: _Option) -> int:
    used = o.need(2)
    timeout = o.d.u16(o.at)
    seconds = (timeout >> 1) * 60 if timeout & 1 else timeout >> 1
    o.d.put(f" 0x{timeout:x} {seconds}")
    return used


def _authentication(o: _Option) -> int:
    if o.said < 2:
        o.d.invalid()
        return o.said
    for place, name in enumerate((" keyid ", " rnextkeyid ")):
        o.need(place + 1)
        o.d.put(f"{name}{o.d.u8(o.at + place)}")
    if o.said > 2:
        o.d.put(" mac 0x")
        _digits(o, 2)
    return o.said


def _fast_open(o: _Option) -> int:
    o.need(o.said)
    o.d.put(" ")
    _cookie(o.d, o.at, o.said)
    return o.said


def _experiment(o: _Option) -> int:
    o.need(o.said)
    if o.said < 2:
        raise _BadOption
    magic = o.d.u16(o.at)
    if magic == TCPOPT_EXP_FASTOPEN:
        o.d.put("-tfo")
        _cookie(o.d, o.at + 2, o.said - 2)
    else:
        o.d.put(f"-{magic:04x}")
    return o.said


def _cookie(d: Dissection, at: int, size: int) -> None:
    if size == 0:
        d.put(" cookiereq")
    elif size % 2 or not 4 <= size <= 16:
        d.invalid()
    else:
        d.put(f" cookie {d.take(at, size).hex()}")


_OPTIONS: dict[int, tuple[str, Callable[[_Option], int]]] = {
    TCPOPT_EOL: ("eol", _nothing),
    TCPOPT_NOP: ("nop", _nothing),
    TCPOPT_MSS: ("mss", _u16),
    TCPOPT_WINDOW: ("wscale", _u8),
    TCPOPT_SACK_PERM: ("sackOK", _nothing),
    TCPOPT_SACK: ("sack", _sack),
    6: ("echo", _u32),
    7: ("echoreply", _u32),
    TCPOPT_TIMESTAMP: ("TS", _timestamps),
    11: ("cc", _u32),
    12: ("ccnew", _u32),
    13: ("", _u32),
    TCPOPT_MD5SIG: ("md5", _signature),
    20: ("scps", _scps),
    28: ("uto", _user_timeout),
    29: ("tcp-ao", _authentication),
    30: ("mptcp", _hex),
    TCPOPT_FASTOPEN: ("tfo", _fast_open),
    254: ("exp", _experiment),
}
