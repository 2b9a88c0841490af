"""UDP, as tcpdump prints it (RFC 768). What it carries is not looked into."""

from __future__ import annotations

from netstack.capture.dissect import Dissection, Network, should_be

__all__ = ["udp"]

_HEADER = 8
IPPROTO_UDP = 17


def udp(d: Dissection, at: int, length: int, network: Network) -> None:
    """Describe a datagram; ``length`` is what IP carried."""
    d.protocol = "udp"
    if not d.have(at + 2, 2):
        if network.protocol == IPPROTO_UDP:
            d.put(f"{network.source} > {network.target}: ")
        d.cut()
        return
    source, target = d.u16(at), d.u16(at + 2)
    if network.protocol == IPPROTO_UDP:
        d.put(f"{network.source}.{source} > {network.target}.{target}: ")
    else:
        d.put(f"{source} > {target}: ")
    if length < _HEADER:
        d.put(f"truncated-udp {length}")
        return
    if not d.have(at + 4, 2):
        d.cut()
        return
    said = d.u16(at + 4)
    if said == 0 and length > 65535:
        said = length  # a jumbogram (RFC 2675)
    if said < _HEADER:
        d.put(f"truncated-udplength {said}")
        return
    said, length = said - _HEADER, length - _HEADER
    length = min(said, length)
    if at + _HEADER > d.end:
        d.cut()
        return
    if d.style.verbose and not network.fragmented and not d.style.no_checksums:
        _checksum(d, at, length + _HEADER, network)
    if said > length and not network.fragmented:
        d.put(f"UDP, bad length {said} > {length}")
    else:
        d.put(f"UDP, length {said}")


def _checksum(d: Dissection, at: int, length: int, network: Network) -> None:
    """Say whether the checksum is right; over IPv4, where it is optional, at -vv only."""
    given = d.u16(at + 6)
    if network.version == 4:
        if d.style.verbose < 2:
            return
        if given == 0:
            d.put("[no cksum] ")
            return
    if d.have(at, length):
        computed = d.transport_checksum(network, IPPROTO_UDP, at, length)
        if computed:
            d.put(f"[bad udp cksum 0x{given:04x} -> 0x{should_be(given, computed):04x}!] ")
        else:
            d.put("[udp sum ok] ")
