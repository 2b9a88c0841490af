"""IPv4, and the way on to the protocols inside IP, as tcpdump prints them (RFC 791)."""

from __future__ import annotations

from netstack.capture.dissect import Dissection, Network, Truncated, name_bits, should_be
from netstack.capture.ethertypes import IP_PROTOCOLS
from netstack.capture.print_icmp import icmp
from netstack.capture.print_icmp6 import icmp6
from netstack.capture.print_igmp import igmp
from netstack.capture.print_tcp import tcp
from netstack.capture.print_udp import udp

__all__ = ["demux", "ipv4"]

IP_RF, IP_DF, IP_MF, IP_OFFSET = 0x8000, 0x4000, 0x2000, 0x1FFF
_FLAGS = {IP_MF: "+", IP_DF: "DF", IP_RF: "rsvd"}
_ECN = ("", ",ECT(1)", ",ECT(0)", ",CE")
# Protocols that print the addresses themselves, with ports.
IPPROTO_ND = 77  # a network disk of 1980s workstations; tcpdump has not forgotten it
_WITH_PORTS = frozenset((6, 17))
IPOPT_EOL, IPOPT_NOP, IPOPT_RR, IPOPT_TS, IPOPT_RA = 0, 1, 7, 68, 148
IPOPT_LSRR, IPOPT_SSRR = 131, 137
_OPTIONS = {
    IPOPT_EOL: "EOL",
    IPOPT_NOP: "NOP",
    IPOPT_TS: "timestamp",
    130: "security",
    IPOPT_RR: "RR",
    IPOPT_SSRR: "SSRR",
    IPOPT_LSRR: "LSRR",
    IPOPT_RA: "RA",
    82: "traceroute",
}


def ipv4(d: Dissection, at: int, length: int) -> None:
    """Describe an IPv4 packet; ``length`` is what the layer below carried, padding included."""
    d.protocol = "ip"
    version = d.u8(at) >> 4
    if version != 4:
        d.put("IP6, wrong link-layer encapsulation" if version == 6 else f"IP{version}")
        d.invalid()
        return
    if not d.style.link:
        d.put("IP ")
    if not d.have(at, 20):
        d.cut()
        return
    if length < 20:
        d.put(f"truncated-ip {length}")
        return
    header = (d.u8(at) & 0xF) * 4
    if header < 20:
        d.put(f"bad-hlen {header}")
        return
    total = d.u16(at + 2)
    if length < total:
        d.put(f"truncated-ip - {total - length} bytes missing! ")
    if total < header:
        d.put(f"bad-len {total}")
        return
    old = d.upto(at + total)
    if not d.style.verbose or _details(d, at, header):
        _payload(d, at, header, total - header)
    d.end = old


def _payload(d: Dissection, at: int, header: int, length: int) -> None:
    offset, protocol = d.u16(at + 6), d.u8(at + 9)
    addresses = f"{d.ip4(at + 12)} > {d.ip4(at + 16)}:"
    if offset & IP_OFFSET:
        if d.style.quiet < 2:
            d.put(f"{addresses} ip-proto-{protocol}")
        return
    if protocol not in _WITH_PORTS:
        d.put(addresses + " ")
    if not d.have(at, header):
        d.put(f" [remaining caplen({d.end - at}) < header length({header})]")
        raise Truncated
    pseudo = d.take(at + 12, 4) + _destination(d, at, header)
    fragmented = bool(offset & IP_MF)
    network = Network(4, d.ip4(at + 12), d.ip4(at + 16), pseudo, protocol, fragmented)
    demux(d, at + header, length, network, protocol)


def demux(d: Dissection, at: int, length: int, network: Network, protocol: int) -> None:
    """Describe what an IP packet carries."""
    if protocol == 17:
        udp(d, at, length, network)
    elif protocol == 6:
        tcp(d, at, length, network)
    elif protocol in (1, 2) and network.version == 6:
        d.put(f"[{IP_PROTOCOLS[protocol]} requires IPv4]")
        d.invalid()
    elif protocol == 1:
        icmp(d, at, length, network)
    elif protocol == 2:
        igmp(d, at, length)
    elif protocol == 58:
        icmp6(d, at, length, network)
    elif protocol == 4:
        d.layers[4](d, at, length)
    elif protocol == 41:
        d.layers[6](d, at, length)
    elif protocol == 59:
        d.put("no next header")
    else:
        d.put(f" nd {length}" if protocol == IPPROTO_ND else f" ip-proto-{protocol} {length}")


def _details(d: Dissection, at: int, header: int) -> bool:
    """Describe the header's fields (-v); tell whether it was captured whole enough to go on."""
    tos, ttl, offset, protocol = d.u8(at + 1), d.u8(at + 8), d.u16(at + 6), d.u8(at + 9)
    d.put(f"(tos 0x{tos:x}{_ECN[tos & 3]}")
    if ttl:
        d.put(f", ttl {ttl}")
    d.put(f", id {d.u16(at + 4)}, offset {(offset & IP_OFFSET) * 8}")
    d.put(f", flags [{name_bits(_FLAGS, offset)}]")
    d.put(f", proto {IP_PROTOCOLS.get(protocol, 'unknown')} ({protocol})")
    d.put(f", length {d.u16(at + 2)}")
    whole = True
    if header > 20:
        d.put(", options (")
        whole = _options(d, at + 20, header - 20)
        d.put(")" if whole else " [truncated-option])")
    if d.have(at, header) and not d.style.no_checksums:
        computed = d.checksum(at, header)
        if computed:
            given = d.u16(at + 10)
            d.put(f", bad cksum {given:x} (->{should_be(given, computed):x})!")
    d.put(")\n    ")
    if not whole:
        d.put(f"{d.ip4(at + 12)} > {d.ip4(at + 16)}: ")
        d.cut()
    return whole


def _options(d: Dissection, at: int, length: int) -> bool:
    """Describe the options; tell whether all of them were captured."""
    separator = ""
    while length > 0:
        d.put(separator)
        separator = ","
        kind = d.u8(at)
        d.put(_OPTIONS.get(kind, f"unknown {kind}"))
        size = 1
        if kind not in (IPOPT_EOL, IPOPT_NOP):
            size = d.u8(at + 1)
        if size > length or (size < 2 and kind not in (IPOPT_EOL, IPOPT_NOP)):
            d.put(f" [bad length {size}]")
            return True
        if not d.have(at, size):
            return False
        if kind == IPOPT_EOL:
            return True
        if kind == IPOPT_TS and not _timestamps(d, at, size):
            return False
        if kind in (IPOPT_RR, IPOPT_LSRR, IPOPT_SSRR) and not _route(d, at, size):
            return False
        if kind == IPOPT_RA:
            if size < 4:
                d.put(f" [bad length {size}]")
            elif d.u16(at + 2):
                d.put(f" value {d.u16(at + 2)}")
        at, length = at + size, length - size
    return True


def _route(d: Dissection, at: int, length: int) -> bool:
    """Describe the addresses of a record or source route; tell whether all were captured."""
    if length < 3:
        d.put(f" [bad length {length}]")
        return True
    if length + 1 & 3:
        d.put(f" [bad length {length}]")
    pointer = d.u8(at + 2) - 1
    if pointer < 3 or pointer + 1 & 3 or pointer > length + 1:
        d.put(f" [bad ptr {d.u8(at + 2)}]")
    for place in range(3, length, 4):
        if not d.have(at + place, 4):
            return False
        d.put(f" {d.ip4(at + place)}")
        if pointer > place or pointer < 0:
            d.put(",")
    return True


def _timestamps(d: Dissection, at: int, length: int) -> bool:
    """Describe a timestamp option; tell whether all of it was captured."""
    if length < 4:
        d.put(f"[bad length {length}]")
        return True
    kind = d.u8(at + 3) & 0xF
    hop = 4 if kind == 0 else 8
    pointer = d.u8(at + 2) - 1
    d.put(" TS{")
    if length - 4 & hop - 1:
        d.put(f"[bad length {length}]")
    if pointer < 4 or pointer - 4 & hop - 1 or pointer > length + 1:
        d.put(f"[bad ptr {d.u8(at + 2)}]")
    place = 0
    if kind in (0, 1, 3):
        d.put({0: "TSONLY", 1: "TS+ADDR", 3: "PRESPEC"}[kind])
        mark, place = " ", 4
        while place < length:
            if pointer == place:
                mark = " ^ "
            if not d.have(at + place, hop):
                return False
            address = d.ip4(at + place) if hop == 8 else ""
            d.put(f"{mark}{d.u32(at + place + hop - 4)}@{address}")
            mark = " "
            place += hop
    else:
        d.put(f"[bad ts type {kind}]")
    d.put(" ^ " if pointer == place else "")
    missed = d.u8(at + 3) >> 4
    d.put(f" [{missed} hops not recorded]}} " if missed else "}")
    return True


def _destination(d: Dissection, at: int, header: int) -> bytes:
    """Return where the packet ends up: with a source route, the route's last address.

    The checksums of UDP and TCP are over that one (RFC 1122 section 4.1.3.5, 4.2.3.8).
    """
    target = d.take(at + 16, 4)
    place, end = at + 20, at + header
    while place < end:
        kind = d.u8(place)
        if kind == IPOPT_EOL:
            break
        size = 1 if kind == IPOPT_NOP else d.u8(place + 1)
        if size < 1 + (kind != IPOPT_NOP) or place + size > end:
            break
        if kind in (IPOPT_SSRR, IPOPT_LSRR) and size >= 7:
            return d.take(place + size - 4, 4)
        place += size
    return target
