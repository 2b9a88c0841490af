"""Print records in tcpdump's own lines, with ``-n``: numbers, no names are looked up.

The test compares them with the tcpdump that is installed, line by line and option by option,
so that fingers, eyes and scripts that know tcpdump find nothing new. Where its releases differ,
the words are those of 4.99.3. What differs on purpose:

* The payload of UDP and TCP is not looked into: port 53 reads ``UDP, length 40``, not a
  question.
* The same holds for EtherTypes and IP protocols other than IP, ARP, ICMP, IGMP, UDP and TCP,
  for 802.3 (the LLC header is shown, SNAP and STP are not), for ICMP's extension objects,
  Multipath TCP, and IGMP's neighbours DVMRP, PIMv1 and mtrace.
* An ARP packet for ATM or frame relay is printed as one for Ethernet.
* A record's comment (a drop reason, say) stands in brackets behind its line. With
  ``Style.place`` the interface and the direction stand before it, as ``tcpdump -i any`` has
  them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from netstack.capture import Direction, Record
from netstack.capture.dissect import Dissection, Layer, Style, Truncated
from netstack.capture.hexdump import ascii_only, hex_and_ascii, hex_only
from netstack.capture.print_ether import ethernet, raw_ip
from netstack.capture.print_ip import ipv4
from netstack.capture.print_ip6 import ipv6
from netstack.errors import UsageError

__all__ = ["LINK_TYPES", "Printer"]

LINK_TYPES: Mapping[int, tuple[str, str]] = {
    1: ("EN10MB", "Ethernet"),
    12: ("RAW", "Raw IP"),
    101: ("RAW", "Raw IP"),
    228: ("IPV4", "Raw IPv4"),
    229: ("IPV6", "Raw IPv6"),
}
_LENGTH_MAX = 262144
_NS = 10**9
_LAYERS: Mapping[int, Layer] = {4: ipv4, 6: ipv6}
_DIRECTIONS = {Direction.UNKNOWN: "?", Direction.IN: "In", Direction.OUT: "Out"}


class Printer:
    """Turn records into text; keeps what one line needs of those before it.

    That is the time of the first or the last record (``-ttt``, ``-ttttt``) and the sequence
    numbers that TCP conversations began with.
    """

    def __init__(self, style: Style, linktype: int = 1) -> None:
        """Choose the form; UsageError for a link type that can't be printed."""
        if linktype not in LINK_TYPES:
            raise UsageError(
                f"link type {linktype} can't be printed", hint="-w FILE\ntcpdump -r FILE"
            )
        self._style = style
        self._width = 5
        self._conversations: dict[tuple[bytes, int, int], tuple[int, int]] = {}
        self._reference: int | None = None
        self._second: tuple[int, str] = (-1, "")
        self._count = 0

    def __call__(self, record: Record) -> str:
        """Return the lines for one record, without a line feed at the end."""
        self._count += 1
        style, data = self._style, record.data
        number = f"{self._count:5}  " if style.number else ""
        wrong = _wrong_lengths(len(data), record.wire_len)
        if wrong:
            return f"{number}[Invalid header:{','.join(wrong)}]"
        place = ""
        if style.place:
            self._width = max(self._width, len(record.interface))
            place = f"{record.interface:<{self._width}} {_DIRECTIONS[record.direction]:<3} "
        d = Dissection(data, style, _LAYERS, self._conversations)
        try:
            # A capture at several stages has frames and packets without a frame.
            link = ethernet if record.linktype == 1 else raw_ip
            header = link(d, 0, record.wire_len)
        except Truncated:
            d.cut()
            header = 0
        comment = f" [{' '.join(record.comment.split())}]" if record.comment else ""
        dump = _dump(style, data, header)
        return f"{number}{self._time(record.ts_ns)}{place}{''.join(d.out)}{comment}{dump}"

    def _time(self, ts_ns: int) -> str:
        """Return the time in the form asked for, with a space behind it."""
        kind = self._style.time
        if kind == 1:
            return ""
        if kind in (3, 5):
            return self._since(ts_ns)
        seconds, ns = divmod(ts_ns, _NS)
        fraction = f"{ns:09}" if self._style.nano else f"{ns // 1000:06}"
        if seconds & 0x80000000:
            return "[Error converting time] "
        if kind == 2:
            return f"{seconds}.{fraction} "
        if seconds != self._second[0]:
            form = "%Y-%m-%d %H:%M:%S" if kind == 4 else "%H:%M:%S"
            self._second = seconds, time.strftime(form, time.localtime(seconds))
        return f"{self._second[1]}.{fraction} "

    def _since(self, ts_ns: int) -> str:
        """Return the time since the record before (-ttt) or the first one (-ttttt)."""
        now = ts_ns if self._style.nano else ts_ns // 1000 * 1000
        if self._reference is None:
            self._reference = now
        elapsed = now - self._reference
        if self._style.time == 3:
            self._reference = now
        seconds, ns = divmod(abs(elapsed), _NS)
        fraction = f"{ns:09}" if self._style.nano else f"{ns // 1000:06}"
        clock = time.strftime("%H:%M:%S", time.gmtime(seconds))
        return f"{'-' if elapsed < 0 else ' '}{clock}.{fraction} "


def _wrong_lengths(captured: int, wire_len: int) -> list[str]:
    """Say which lengths can't be."""
    wrong = []
    if captured == 0:
        wrong.append(" caplen==0")
    if wire_len == 0:
        wrong.append(" len==0")
    elif wire_len < captured:
        wrong.append(f" len({wire_len}) < caplen({captured})")
    if captured > _LENGTH_MAX:
        wrong.append(f" caplen({captured}) > {_LENGTH_MAX}")
    if wire_len > _LENGTH_MAX:
        wrong.append(f" len({wire_len}) > {_LENGTH_MAX}")
    return wrong


def _dump(style: Style, data: bytes, header: int) -> str:
    """Return the bytes as asked for, with the link-layer header for an option given twice."""
    times = style.hex_ascii or style.hex or style.ascii
    if times == 0:
        return ""
    if times == 1:
        data = data[header:]
        if not data:
            return ""
    if style.hex_ascii:
        return hex_and_ascii(data)
    return hex_only(data) if style.hex else ascii_only(data)
