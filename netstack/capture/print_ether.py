"""Ethernet II, 802.1Q and 802.3 headers, as tcpdump prints them.

Each printer returns the length of the link-layer header: ``-x``, ``-X`` and ``-A`` begin behind
it.
"""

from __future__ import annotations

from netstack.capture.dissect import Dissection
from netstack.capture.ethertypes import ETHERTYPES, VLAN_TYPES
from netstack.capture.print_arp import arp

__all__ = ["ethernet", "raw_ip"]

ETH_HLEN, ETH_ALEN = 14, 6
ETH_P_802_3_MIN = 0x0600
_LENGTH_MAX = 1500  # above it the field is a type
_VERSIONS = {0x0800: 4, 0x86DD: 6}

_SAPS = {
    0x00: "Null",
    0xFF: "Global",
    0x02: "802.1B I",
    0x03: "802.1B G",
    0x06: "IP",
    0x04: "SNA",
    0x0E: "ProWay NM",
    0x42: "STP",
    0x4E: "RS511",
    0x7E: "ISO8208",
    0x8E: "ProWay",
    0xAA: "SNAP",
    0xE0: "IPX",
    0xF0: "NetBeui",
    0xFE: "OSI",
}
_XID, _XID_FORMAT = 0xAF, 0x81
_LLC_COMMANDS = {
    0x03: "ui",
    0xE3: "test",
    _XID: "xid",
    0x63: "ua",
    0x43: "disc",
    0x0F: "dm",
    0x6F: "sabme",
    0x87: "frmr",
}
_LLC_RESPONSE, _LLC_POLL_U, _LLC_POLL_IS, _LLC_GROUP = 0x01, 0x10, 0x100, 0x01
_LLC_FLAGS = {
    0: "Command",
    _LLC_RESPONSE: "Response",
    _LLC_POLL_U: "Poll",
    _LLC_RESPONSE | _LLC_POLL_U: "Final",
    _LLC_POLL_IS: "Poll",
    _LLC_RESPONSE | _LLC_POLL_IS: "Final",
}
_SUPERVISORY = {0: "Receiver Ready", 1: "Receiver not Ready", 2: "Reject"}


def raw_ip(d: Dissection, at: int, length: int) -> int:
    """Describe a frame that begins with an IP header."""
    d.protocol = "raw"
    if d.style.link:
        d.put("ip: ")
    d.protocol = "ipn"
    version = d.u8(at) >> 4
    if version in d.layers:
        d.layers[version](d, at, length)
    else:
        d.put(f"unknown ip {version}")
    return 0


def ethernet(d: Dissection, at: int, length: int) -> int:
    """Describe an Ethernet frame with any number of VLAN tags."""
    d.protocol = "ether"
    if not d.have(at, ETH_HLEN):
        d.cut()
        return d.end - at
    whole, start = length, at
    addresses = f"{d.mac(at + ETH_ALEN)} > {d.mac(at)}, "
    link = d.style.link
    if link:
        d.put(addresses)
    at, length = at + 2 * ETH_ALEN, length - 2 * ETH_ALEN
    kind = d.u16(at)
    at, length = at + 2, length - 2
    named = False
    while kind in VLAN_TYPES:
        if not d.have(at, 4) or length < 4:
            d.protocol = "vlan"
            d.cut()
            return at - start + min(length, d.end - at)
        if link:
            d.put(_type_name(d, kind))
            d.put(", " if named else f", length {whole}: ")
            d.put(_tag(d.u16(at)))
            named = True
        kind = d.u16(at + 2)
        at, length = at + 4, length - 4
    if kind <= _LENGTH_MAX:
        return at - start + _ieee_802_3(d, at, length, kind, named, addresses)
    if link:
        d.put(_type_name(d, kind))
        d.put(", " if named else f", length {whole}: ")
    if not _ethertype(d, kind, at, length):
        if not link:
            d.put(f"{addresses}{_type_name(d, kind)}, length {whole}: ")
        if not d.style.terse:
            d.dump(at, d.end - at)
    return at - start


def _ethertype(d: Dissection, kind: int, at: int, length: int) -> bool:
    """Describe the payload if its type is one of those known."""
    if kind in _VERSIONS:
        d.layers[_VERSIONS[kind]](d, at, length)
    elif kind in (0x0806, 0x8035):
        arp(d, at, length)
    else:
        return False
    return True


def _type_name(d: Dissection, kind: int) -> str:
    if d.style.quiet:
        return ETHERTYPES.get(kind, f"Unknown Ethertype (0x{kind:04x})")
    return f"ethertype {ETHERTYPES.get(kind, 'Unknown')} (0x{kind:04x})"


def _tag(tci: int) -> str:
    return f"vlan {tci & 0xFFF}, p {tci >> 13}{', DEI' if tci & 0x1000 else ''}, "


def _ieee_802_3(
    d: Dissection, at: int, length: int, said: int, named: bool, addresses: str
) -> int:
    """Describe a frame whose type field is a length; return the length of its LLC header."""
    length = min(length, said)
    old = d.upto(at + length)
    if d.style.link:
        d.put("802.3" if named else f"802.3, length {length}: ")
    header, known = _llc(d, at, length, addresses)
    if not known and not d.style.terse:
        d.dump(at, d.end - at)
    d.end = old
    return header


def _llc(d: Dissection, at: int, length: int, addresses: str) -> tuple[int, bool]:
    """Describe the LLC header; give its length, and whether nothing is left to be shown."""
    d.protocol = "llc"
    captured = d.end - at
    if captured < 3 or length < 3:
        d.cut()
        d.dump(at, captured)
        return min(captured, length), True
    dsap, ssap, control = d.u8(at), d.u8(at + 1), d.u8(at + 2)
    unnumbered = control & 3 == 3
    size = 3 if unnumbered else 4
    if captured < size or length < size:
        d.cut()
        d.dump(at, captured)
        return min(captured, length), True
    if not unnumbered:
        control |= d.u8(at + 3) << 8
    source, target = ssap & ~_LLC_RESPONSE, dsap & ~_LLC_GROUP
    if d.style.link:
        width = 2 if unnumbered else 4
        d.put(
            f"LLC, dsap {_SAPS.get(target, 'Unknown')} (0x{target:02x}) "
            f"{'Group' if dsap & _LLC_GROUP else 'Individual'}, "
            f"ssap {_SAPS.get(source, 'Unknown')} (0x{source:02x}) "
            f"{_LLC_FLAGS[ssap & _LLC_RESPONSE]}, ctrl 0x{control:0{width}x}: "
        )
    else:
        sender, receiver = addresses.removesuffix(", ").split(" > ")
        to = _SAPS.get(target, f"Unknown DSAP 0x{target:02x}")
        by = "" if source == target else _SAPS.get(source, f"Unknown SSAP 0x{source:02x}") + " "
        d.put(f"{sender} {by}> {receiver} {to} ")
    return size, _llc_control(d, at, length, control, unnumbered, ssap & _LLC_RESPONSE)


def _llc_control(
    d: Dissection, at: int, length: int, control: int, unnumbered: bool, response: int
) -> bool:
    """Describe the control field; tell whether it leaves no payload to be shown."""
    if unnumbered:
        command = control & ~_LLC_POLL_U
        name = _LLC_COMMANDS.get(command, f"{command:02x}")
        flags = _LLC_FLAGS[response | control & _LLC_POLL_U]
        d.put(f"Unnumbered, {name}, Flags [{flags}], length {length}")
        return command == _XID and (length == 3 or _llc_xid(d, at + 3, length - 3))
    flags = _LLC_FLAGS[response | control & _LLC_POLL_IS]
    if control & 3 == 1:
        order = _SUPERVISORY.get(control >> 2 & 3, "?")
        d.put(f"Supervisory, {order}, rcv seq {control >> 9}")
        d.put(f", Flags [{flags}], length {length}")
        return True
    d.put(f"Information, send seq {control >> 1 & 0x7F}, rcv seq {control >> 9}")
    d.put(f", Flags [{flags}], length {length}")
    return False


def _llc_xid(d: Dissection, at: int, length: int) -> bool:
    """Describe what an exchange of identification carries; tell whether that was all."""
    captured = d.end - at
    if captured < 1:
        d.cut()
        return True
    if d.u8(at) != _XID_FORMAT:
        return False
    if captured < 3 or length < 3:
        d.cut()
        d.dump(at, captured)
    else:
        d.put(f": {d.u8(at + 1):02x} {d.u8(at + 2):02x}")
    return True
