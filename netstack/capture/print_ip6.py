"""IPv6 and its extension headers, as tcpdump prints them (RFC 8200)."""

from __future__ import annotations

from netstack.capture.dissect import Dissection, Network
from netstack.capture.ethertypes import IP_PROTOCOLS
from netstack.capture.print_ip import demux

__all__ = ["ipv6"]

_HEADER = 40
HOPOPTS, ROUTING, FRAGMENT, DSTOPTS = 0, 43, 44, 60
OPT_PAD1, OPT_PADN, OPT_ROUTER_ALERT = 0, 1, 5
_OFFSET = 0xFFF8
_EXTENSIONS = frozenset((HOPOPTS, ROUTING, FRAGMENT, DSTOPTS))
_WITH_PORTS = frozenset((6, 17))


def ipv6(d: Dissection, at: int, length: int) -> None:
    """Describe an IPv6 packet; ``length`` is what the layer below carried, padding included."""
    d.protocol = "ip6"
    if not d.have(at, _HEADER):
        d.cut()
        return
    if length < _HEADER:
        d.put(f"truncated-ip6 {length}")
        return
    if not d.style.link:
        d.put("IP6 ")
    version = d.u8(at) >> 4
    if version != 6:
        d.put(f"version error: {version} != 6")
        return
    payload, following = d.u16(at + 4), d.u8(at + 6)
    total = payload + _HEADER if payload else length + _HEADER
    if payload and length < total:
        d.put(f"truncated-ip6 - {total - length} bytes missing!")
    if d.style.verbose:
        _details(d, at, payload, following)
    old = d.upto(at + total)
    _chain(d, at, total - _HEADER, payload, following)
    d.end = old


def _details(d: Dissection, at: int, payload: int, following: int) -> None:
    flow = d.u32(at)
    traffic_class = f"class 0x{flow >> 20 & 0xFF:02x}, " if flow & 0x0FF00000 else ""
    label = f"flowlabel 0x{flow & 0xFFFFF:05x}, " if flow & 0xFFFFF else ""
    name = IP_PROTOCOLS.get(following, "unknown")
    d.put(f"({traffic_class}{label}hlim {d.u8(at + 7)}, next-header {name} ({following})")
    d.put(f" payload length: {payload}) ")


def _chain(d: Dissection, start: int, length: int, payload: int, following: int) -> None:
    """Go along the extension headers to the protocol at their end."""
    network = Network(
        6, d.ip6(start + 8), d.ip6(start + 24), d.take(start + 8, 32), d.u8(start + 6)
    )
    if following not in _WITH_PORTS:
        d.put(f"{network.source} > {network.target}: ")
    at, before = start + _HEADER, None
    while following in _EXTENSIONS:
        if following == HOPOPTS and before is not None:
            d.put("[The Hop-by-Hop Options header don't follow the IPv6 header]")
            d.invalid()
            return
        size = _extension(d, following, at, start, network)
        if following == HOPOPTS and payload == 0:
            d.put("[No valid Jumbo Payload Hop-by-Hop option found]")
            d.invalid()
            return
        if size == 0 or (following == FRAGMENT and d.end <= at + size):
            return
        network.fragmented = network.fragmented or following == FRAGMENT
        before, following = following, d.u8(at)
        d.protocol = "ip6"
        if length < size:
            d.cut()
            return
        at, length = at + size, length - size
    if payload == 0:
        if before is not None:
            d.cut()
            return
        length = 0
        d.upto(at)
    demux(d, at, length, network, following)


def _extension(d: Dissection, kind: int, at: int, start: int, network: Network) -> int:
    """Describe one extension header and return its size, 0 when nothing can follow."""
    if kind == FRAGMENT:
        return _fragment(d, at, start)
    if kind == ROUTING:
        return _routing(d, at, network)
    d.protocol = "hbhopt" if kind == HOPOPTS else "dstopt"
    size = (d.u8(at + 1) + 1) * 8
    if not d.have(at, size):
        d.cut()
        return 0
    d.put("HBH " if kind == HOPOPTS else "DSTOPT ")
    if (kind == HOPOPTS or d.style.verbose) and not _options(d, at + 2, size - 2):
        d.cut()
        return 0
    return size


def _fragment(d: Dissection, at: int, start: int) -> int:
    d.protocol = "frag6"
    size = _HEADER + d.u16(start + 4) - (at - start) - 8
    offset = d.u16(at + 2) & _OFFSET
    identification = f"0x{d.u32(at + 4):08x}:" if d.style.verbose else ""
    d.put(f"frag ({identification}{offset}|{size & 0xFFFFFFFFFFFFFFFF})")
    if offset:
        return 0
    d.put(" ")
    return 8


def _routing(d: Dissection, at: int, network: Network) -> int:
    """Describe a routing header of type 0 or 2 (RFC 5095, RFC 6275)."""
    d.protocol = "rt6"
    size, kind, left = d.u8(at + 1), d.u8(at + 2), d.u8(at + 3)
    deprecated = " [Deprecated]" if kind == 0 else ""
    d.put(f"RT6 (len={size}, type={kind}{deprecated}, segleft={left}")
    if kind not in (0, 2):
        d.put(" (unknown type)")
        d.invalid()
        return 0
    reserved = d.u32(at + 4)
    if reserved or d.style.verbose:
        d.put(f", rsv=0x{reserved:x}")
    if size % 2:
        d.put(f" (invalid length {size})")
        d.invalid()
        return 0
    for n in range(size // 2):
        d.put(f", [{n}]{d.ip6(at + 8 + 16 * n)}")
    if size:
        # The checksum is over where the packet ends up (RFC 8200 section 8.1).
        network.pseudo = network.pseudo[:16] + d.take(at + 8 * size - 8, 16)
    d.put(") ")
    return (size + 1) * 8


def _options(d: Dissection, at: int, length: int) -> bool:
    """Describe hop-by-hop or destination options; tell whether their lengths are right."""
    verbose, stop = d.style.verbose, at + length
    while at < stop:
        kind = d.u8(at)
        if kind == OPT_PAD1:
            d.put("(pad1)" if verbose else "")
            at += 1
            continue
        if at + 1 >= stop or at + d.u8(at + 1) + 2 > stop:
            return False
        size = d.u8(at + 1)
        if kind == OPT_PADN:
            words = "(padn)"
        elif kind == OPT_ROUTER_ALERT:
            if stop - at < 4:
                d.put("(rtalert: trunc)")
                return False
            if size != 2:
                d.put(f"(rtalert: invalid len {size})")
                return False
            words = f"(rtalert: 0x{d.u16(at + 2):04x}) "
        else:
            words = f"(opt_type 0x{kind:02x}: len={size})"
        d.put(words if verbose else "")
        at += size + 2
    d.put(" " if verbose else "")
    return True
