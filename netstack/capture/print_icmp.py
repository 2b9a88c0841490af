"""ICMP, as tcpdump prints it (RFC 792, RFC 1191, RFC 1256, RFC 1812)."""

from __future__ import annotations

from netstack.capture.dissect import Dissection, Network, should_be

__all__ = ["icmp"]

ICMP_ECHOREPLY, ICMP_DEST_UNREACH, ICMP_SOURCE_QUENCH, ICMP_REDIRECT = 0, 3, 4, 5
ICMP_ECHO, ICMP_ROUTERADVERT, ICMP_TIME_EXCEEDED, ICMP_PARAMETERPROB = 8, 9, 11, 12
ICMP_TIMESTAMP, ICMP_TIMESTAMPREPLY, ICMP_ADDRESSREPLY = 13, 14, 18
ICMP_PORT_UNREACH, ICMP_FRAG_NEEDED = 3, 4

_QUOTING = frozenset(
    (
        ICMP_DEST_UNREACH,
        ICMP_SOURCE_QUENCH,
        ICMP_REDIRECT,
        ICMP_TIME_EXCEEDED,
        ICMP_PARAMETERPROB,
    )
)
# Those that may carry extensions (RFC 4884) behind 128 bytes of the quoted packet.
_EXTENSIBLE = frozenset((ICMP_DEST_UNREACH, ICMP_TIME_EXCEEDED, ICMP_PARAMETERPROB))
_EXTENSION_AT, _EXTENSION_MIN = 136, 141

_NAMES = {
    ICMP_SOURCE_QUENCH: "source quench",
    10: "router solicitation",
    15: "information request",
    16: "information reply",
    17: "address mask request",
}
_UNREACHABLE = {  # {} is the destination of the quoted packet
    0: "net {} unreachable",
    1: "host {} unreachable",
    5: "{} unreachable - source route failed",
    6: "net {} unreachable - unknown",
    7: "host {} unreachable - unknown",
    8: "{} unreachable - source host isolated",
    9: "net {} unreachable - admin prohibited",
    10: "host {} unreachable - admin prohibited",
    11: "net {} unreachable - tos prohibited",
    12: "host {} unreachable - tos prohibited",
    13: "host {} unreachable - admin prohibited filter",
    14: "host {} unreachable - host precedence violation",
    15: "host {} unreachable - precedence cutoff",
}
_REDIRECT = {
    0: "redirect {} to net {}",
    1: "redirect {} to host {}",
    2: "redirect-tos {} to net {}",
    3: "redirect-tos {} to host {}",
}
_EXCEEDED = {0: "time exceeded in-transit", 1: "ip reassembly time exceeded"}
_PORTS = {6: "tcp", 17: "udp"}
_QUOTE = 8  # where the quoted IP header begins


class _Cut(Exception):
    """Say that too little of a message was captured; unlike Truncated, only this layer ends."""


def icmp(d: Dissection, at: int, length: int, network: Network) -> None:
    """Describe a message, and at -v the packet that it quotes."""
    d.protocol = "icmp"
    kind, code = d.u8(at), d.u8(at + 1)
    try:
        message = _message(d, at, kind, code)
    except _Cut:
        d.cut()
        return
    d.put(f"ICMP {message}, length {length}")
    if d.style.verbose and not network.fragmented and d.have(at, length):
        computed = d.checksum(at, length)
        if computed:
            given = d.u16(at + 2)
            d.put(f" (wrong icmp cksum {given:x} (->{should_be(given, computed):x})!)")
    if d.style.verbose and kind in _QUOTING:
        d.put("\n\t")
        old = d.upto(at + _QUOTE + d.u16(at + _QUOTE + 2))
        d.layers[4](d, at + _QUOTE, d.u16(at + _QUOTE + 2))
        d.end = old
        d.protocol = "icmp"
    if d.style.verbose and length > _EXTENSION_AT and kind in _EXTENSIBLE:
        _extensions(d, at, length)


def _message(d: Dissection, at: int, kind: int, code: int) -> str:
    """Return the words for one type and code."""
    if kind in (ICMP_ECHO, ICMP_ECHOREPLY):
        what = "request" if kind == ICMP_ECHO else "reply"
        return f"echo {what}, id {d.u16(at + 4)}, seq {d.u16(at + 6)}"
    if kind == ICMP_DEST_UNREACH:
        return _unreachable(d, at, code)
    if kind == ICMP_REDIRECT:
        form = _REDIRECT.get(code, f"redirect-#{code} {{}} to {{}}")
        return form.format(d.ip4(at + _QUOTE + 16), d.ip4(at + 4))
    if kind == ICMP_ROUTERADVERT:
        return _router_advertisement(d, at)
    if kind == ICMP_TIME_EXCEEDED:
        _need(d, at + _QUOTE + 16, 4)
        return _EXCEEDED.get(code, f"time exceeded-#{code}")
    if kind == ICMP_PARAMETERPROB:
        return f"parameter problem - {f'code {code}' if code else f'octet {d.u8(at + 4)}'}"
    if kind == ICMP_ADDRESSREPLY:
        return f"address mask is 0x{d.u32(at + 8):08x}"
    if kind == ICMP_TIMESTAMP:
        return f"time stamp query id {d.u16(at + 4)} seq {d.u16(at + 6)}"
    if kind == ICMP_TIMESTAMPREPLY:
        _need(d, at + 16, 4)
        times = [_time_of_day(d.u32(at + place)) for place in (8, 12, 16)]
        head = f"time stamp reply id {d.u16(at + 4)} seq {d.u16(at + 6)}"
        return f"{head}: org {times[0]}, recv {times[1]}, xmit {times[2]}"
    return _NAMES.get(kind, f"type-#{kind}")


def _unreachable(d: Dissection, at: int, code: int) -> str:
    quote = at + _QUOTE
    if code == 2:
        return f"{d.ip4(quote + 16)} protocol {d.u8(quote + 9)} unreachable"
    if code == ICMP_PORT_UNREACH:
        _need(d, quote + 9, 1)
        protocol = d.u8(quote + 9)
        port = d.u16(quote + (d.u8(quote) & 0xF) * 4 + 2)
        name = _PORTS.get(protocol, f"protocol {protocol}")
        return f"{d.ip4(quote + 16)} {name} port {port} unreachable"
    if code == ICMP_FRAG_NEEDED:
        mtu = d.u16(at + 6)
        words = f"{d.ip4(quote + 16)} unreachable - need to frag"
        return f"{words} (mtu {mtu})" if mtu else words
    return _UNREACHABLE.get(code, f"{{}} unreachable - #{code}").format(d.ip4(quote + 16))


def _router_advertisement(d: Dissection, at: int) -> str:
    _need(d, at + 4, 4)
    count, size, lifetime = d.u8(at + 4), d.u8(at + 5), d.u16(at + 6)
    minutes, seconds = divmod(lifetime, 60)
    if lifetime < 60:
        time = f"{lifetime}"
    elif lifetime < 3600:
        time = f"{minutes}:{seconds:02}"
    else:
        time = f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    words = f"router advertisement lifetime {time} {count}:"
    if size != 2:
        return f"{words} [size {size}]"
    for place in range(at + 8, at + 8 + 8 * count, 8):
        _need(d, place, 8)
        words += f" {{{d.ip4(place)} {d.u32(place + 4)}}}"
    return words


def _need(d: Dissection, at: int, count: int) -> None:
    if not d.have(at, count):
        raise _Cut


def _time_of_day(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}"


def _extensions(d: Dissection, at: int, length: int) -> None:
    """Name the extension header (RFC 4884), if there is one; its objects are left to -x."""
    if not d.have(at, _EXTENSION_MIN):
        d.cut()
        return
    start, size = at + _EXTENSION_AT, length - _EXTENSION_AT
    # Not every sender sets the length field, so a checksum that is right counts as well.
    whole = d.have(start, size)
    if d.u8(at + 5) == 0 and whole and d.checksum(start, size):
        return
    version = d.u8(start) >> 4
    d.put(f"\n\tICMP Multi-Part extension v{version}")
    if version != 2:
        d.put(" packet not supported")
    elif whole:
        correct = "in" if d.checksum(start, size) else ""
        d.put(f", checksum 0x{d.u16(start + 2):04x} ({correct}correct), length {size}")
