"""ICMPv6, neighbour discovery and multicast listeners, as tcpdump prints them.

Source: RFC 4443, RFC 4861, RFC 2710, RFC 3810.
"""

from __future__ import annotations

from netstack.capture.dissect import Dissection, Network, name_bits, should_be
from netstack.capture.print_igmp import RECORD_TYPES

__all__ = ["icmp6"]

IPPROTO_ICMPV6 = 58
UNREACHABLE, TOO_BIG, EXCEEDED, PARAMETER = 1, 2, 3, 4
ECHO_REQUEST, ECHO_REPLY = 128, 129
MLD_QUERY, MLD_REPORT, MLD_DONE, MLD2_REPORT = 130, 131, 132, 143
ND_RS, ND_RA, ND_NS, ND_NA, ND_REDIRECT = 133, 134, 135, 136, 137

_NAMES = {
    UNREACHABLE: "destination unreachable",
    TOO_BIG: "packet too big",
    EXCEEDED: "time exceeded in-transit",
    PARAMETER: "parameter problem",
    ECHO_REQUEST: "echo request",
    ECHO_REPLY: "echo reply",
    MLD_QUERY: "multicast listener query",
    MLD_REPORT: "multicast listener report",
    MLD_DONE: "multicast listener done",
    ND_RS: "router solicitation",
    ND_RA: "router advertisement",
    ND_NS: "neighbor solicitation",
    ND_NA: "neighbor advertisement",
    ND_REDIRECT: "redirect",
    MLD2_REPORT: "multicast listener report v2",
}
_UNREACHABLE = {
    0: "unreachable route",
    1: " unreachable prohibited",
    2: "beyond scope",
    3: "unreachable address",
    4: "unreachable port",
}
_PARAMETER = {
    0: "erroneous - octet",
    1: "next header - octet",
    2: "option - octet",
    3: "incomplete header chain - octet",
}
_NA_FLAGS = {0x80000000: "router", 0x40000000: "solicited", 0x20000000: "override"}
_RA_FLAGS = {0x80: "managed", 0x40: "other stateful", 0x20: "home agent", 0x02: "ipv6 only"}
_PREFIX_FLAGS = {0x80: "onlink", 0x40: "auto", 0x20: "router"}
_PREFERENCE = ("medium", "high", "rsv", "low")
_OPTIONS = {
    1: "source link-address",
    2: "destination link-address",
    3: "prefix info",
    4: "redirected header",
    5: "mtu",
    7: "advertisement interval",
    8: "homeagent information",
    24: "route info",
    25: "rdnss",
    31: "dnssl",
}
_ND_OPTIONS_AT = {ND_RS: 8, ND_RA: 16, ND_NS: 24, ND_NA: 24, ND_REDIRECT: 40}
_PORTS = {6: "tcp", 17: "udp"}


def icmp6(d: Dissection, at: int, length: int, network: Network) -> None:
    """Describe a message, and at -v its options."""
    if network.version != 6:
        d.put("[ICMPv6 requires IPv6]")
        d.invalid()
        return
    d.protocol = "icmp6"
    if length == 0:
        d.put("ICMP6, length 0")
        d.invalid()
        return
    verbose = d.style.verbose
    if verbose and not network.fragmented and d.have(at, length):
        given = d.u16(at + 2)
        computed = d.transport_checksum(network, IPPROTO_ICMPV6, at, length)
        if computed:
            d.put(f"[bad icmp6 cksum 0x{given:04x} -> 0x{should_be(given, computed):04x}!] ")
        else:
            d.put("[icmp6 sum ok] ")
    kind, code = d.u8(at), None
    d.put(f"ICMP6, {_NAMES.get(kind, f'unknown icmp6 type ({kind})')}")
    if verbose and kind in _ND_OPTIONS_AT:
        d.put(f", length {length}")
    code = d.u8(at + 1)
    if kind not in _NAMES:
        d.put(f", length {length}")
        if verbose < 2:
            d.unknown(at, "\n\t", length)
        return
    if not _message(d, at, length, kind, code):
        return
    if verbose and kind in _ND_OPTIONS_AT:
        begin = _ND_OPTIONS_AT[kind]
        if not _options(d, at + begin, length - begin):
            d.cut()
            return
    if not verbose:
        d.put(f", length {length}")


def _message(d: Dissection, at: int, length: int, kind: int, code: int) -> bool:
    """Describe what is special to a type; tell whether the line goes on behind it."""
    if kind == UNREACHABLE:
        return _unreachable(d, at, length, code)
    if kind == TOO_BIG:
        d.put(f", mtu {d.u32(at + 4)}")
    elif kind == EXCEEDED:
        if code == 0:
            d.put(f" for {d.ip6(at + 32)}")
        else:
            d.put(" (reassembly)" if code == 1 else f", unknown code ({code})")
    elif kind == PARAMETER:
        if not d.have(at + 32, 16):
            d.cut()
            return False
        name = _PARAMETER.get(code)
        d.put(f", {name} {d.u32(at + 4)}" if name else f", code-#{code}")
    elif kind in (ECHO_REQUEST, ECHO_REPLY):
        d.put(f", id {d.u16(at + 4)}, seq {d.u16(at + 6)}")
    elif kind == MLD2_REPORT:
        _listener_report(d, at, length)
    elif kind == MLD_QUERY and length >= 28:
        d.put(" v2")
        _listener_query(d, at, length)
    elif kind == MLD_QUERY and length != 24:
        d.put(f" unknown-version (len {length}) ")
    elif kind in (MLD_QUERY, MLD_REPORT, MLD_DONE):
        if d.have(at, 24):
            d.put(f"max resp delay: {d.u16(at + 4)} addr: {d.ip6(at + 8)}")
    elif kind == ND_RA:
        _router_advertisement(d, at)
    elif kind == ND_NS:
        d.put(f", who has {d.ip6(at + 8)}")
    elif kind == ND_NA:
        d.put(f", tgt is {d.ip6(at + 8)}")
        if d.style.verbose:
            d.put(f", Flags [{name_bits(_NA_FLAGS, d.u32(at + 4))}]")
    elif kind == ND_REDIRECT:
        d.put(f", {d.ip6(at + 24)} to {d.ip6(at + 8)}")
    return True


def _unreachable(d: Dissection, at: int, length: int, code: int) -> bool:
    quote = at + 8
    d.put(f", {_UNREACHABLE.get(code, f'unknown unreach code ({code})')}")
    if code in (0, 1, 3):
        d.put(f" {d.ip6(quote + 24)}")
    elif code == 2:
        d.put(f" {d.ip6(quote + 24)}, source address {d.ip6(quote + 8)}")
    elif code == 4:
        # Extension headers in what is quoted are rare, and not followed.
        protocol = d.u8(quote + 6) if d.have(quote + 42, 2) else None
        if protocol not in _PORTS:
            d.cut()
            return False
        d.put(f", {d.ip6(quote + 24)} {_PORTS[protocol]} port {d.u16(quote + 42)}")
    elif d.style.verbose < 2:
        d.unknown(at, "\n\t", length)
        return False
    return True


def _router_advertisement(d: Dissection, at: int) -> None:
    if not d.style.verbose:
        return
    d.take(at, 16)
    flags = d.u8(at + 5)
    d.put(f"\n\thop limit {d.u8(at + 4)}, Flags [{name_bits(_RA_FLAGS, flags)}]")
    d.put(f", pref {_PREFERENCE[flags >> 3 & 3]}, router lifetime {d.u16(at + 6)}s")
    d.put(f", reachable time {d.u32(at + 8)}ms, retrans timer {d.u32(at + 12)}ms")


def _options(d: Dissection, at: int, left: int) -> bool:
    """Describe the options of neighbour discovery; tell whether their lengths are right."""
    while at < d.end:
        if not d.have(at + 1, 1):
            return False
        if left <= 0:
            return True
        kind, units = d.u8(at), d.u8(at + 1)
        size = units * 8
        if units == 0 or at + size > d.end:
            return False
        name = _OPTIONS.get(kind, "unknown")
        d.put(f"\n\t  {name} option ({kind}), length {size} ({units}): ")
        if not _option(d, at, kind, size):
            d.unknown(at + 2, "\n\t  ", size - 2)
            if d.style.verbose < 2:
                return True
        if d.style.verbose > 1:
            d.unknown(at + 2, "\n\t    ", size - 2)
        at, left = at + size, left - size
    return True


def _option(d: Dissection, at: int, kind: int, size: int) -> bool:
    """Describe one option if it is one of those known."""
    if kind in (1, 2):
        d.put(d.mac(at + 2, size - 2))
    elif kind == 3:
        bad = "" if size == 32 else "badlen"
        d.put(f"{d.ip6(at + 16)}/{d.u8(at + 2)}{bad}")
        d.put(f", Flags [{name_bits(_PREFIX_FLAGS, d.u8(at + 3))}]")
        d.put(f", valid time {_lifetime(d.u32(at + 4))}, pref. time {_lifetime(d.u32(at + 8))}")
    elif kind == 5:
        d.put(f" {d.u32(at + 4)}{'' if size == 8 else 'bad option length'}")
    elif kind == 25:
        d.put(f" lifetime {d.u32(at + 4)}s,")
        for place in range(at + 8, at + size - 15, 16):
            d.put(f" addr: {d.ip6(place)}")
    else:
        return False
    return True


def _lifetime(seconds: int) -> str:
    return "infinity" if seconds == 0xFFFFFFFF else f"{seconds}s"


def _listener_report(d: Dissection, at: int, length: int) -> None:
    if length < 8:
        d.put(f" [invalid len {length}]")
        return
    groups = d.u16(at + 6)
    d.put(f", {groups} group record(s)")
    if not d.style.verbose:
        return
    record = 8
    for _ in range(groups):
        if length < record + 20:
            d.put(" [invalid number of groups]")
            return
        kind = d.u8(at + record)
        d.put(f" [gaddr {d.ip6(at + record + 4)} ")
        d.put(RECORD_TYPES.get(kind, f" [v2-report-#{kind}]"))
        count = d.u16(at + record + 2)
        if length < record + 20 + count * 16:
            d.put(f" [invalid number of sources {count}]")
            return
        _sources(d, at + record + 20, count)
        d.put("]")
        record += 20 + count * 16


def _listener_query(d: Dissection, at: int, length: int) -> None:
    code = d.u16(at + 4)
    delay = code if code < 32768 else (code & 0x0FFF | 0x1000) << ((code >> 12 & 7) + 3)
    d.put(f" [max resp delay={delay}]" if d.style.verbose else "")
    d.put(f" [gaddr {d.ip6(at + 8)}")
    if d.style.verbose:
        flags, interval = d.u8(at + 24), d.u8(at + 25)
        d.put(" sflag" if flags & 8 else "")
        d.put(f" robustness={flags & 7}" if flags & 7 else "")
        if interval >= 128:
            interval = (interval & 0x0F | 0x10) << ((interval >> 4 & 7) + 3)
        d.put(f" qqi={interval}")
    count = d.u16(at + 26)
    if count and length < 28 + count * 16:
        d.put(" [invalid number of sources]")
    elif count:
        _sources(d, at + 28, count)
    d.put("]")


def _sources(d: Dissection, at: int, count: int) -> None:
    if d.style.verbose < 2:
        d.put(f", {count} source(s)")
        return
    d.put(" {")
    for n in range(count):
        d.put(f" {d.ip6(at + 16 * n)}")
    d.put(" }")
