"""ARP and reverse ARP, as tcpdump prints them (RFC 826, RFC 903, RFC 2390)."""

from __future__ import annotations

from netstack.capture.dissect import Dissection, Truncated
from netstack.capture.ethertypes import ETHERTYPES

__all__ = ["arp"]

ETH_P_IP, ETH_P_TRAIL = 0x0800, 0x1000
_HEADER = 8
_OPERATIONS = {
    1: "Request",
    2: "Reply",
    3: "Reverse Request",
    4: "Reverse Reply",
    8: "Inverse Request",
    9: "Inverse Reply",
    10: "NACK Reply",
}
_HARDWARE = {
    1: "Ethernet",
    6: "TokenRing",
    7: "ArcNet",
    15: "FrameRelay",
    19: "ATM",
    23: "Strip",
    24: "IEEE 1394",
    32: "InfiniBand",
}


def arp(d: Dissection, at: int, length: int) -> None:
    """Describe an ARP packet of any address sizes."""
    d.protocol = "arp"
    d.take(at, _HEADER)
    hardware, protocol = d.u16(at), d.u16(at + 2)
    hlen, plen, operation = d.u8(at + 4), d.u8(at + 5), d.u16(at + 6)
    sha = at + _HEADER
    spa = sha + hlen
    tha = spa + plen
    tpa = tha + hlen
    if not d.have(tpa, plen):
        raise Truncated
    if not d.style.link:
        d.put("ARP, ")
    is_ip = protocol in (ETH_P_IP, ETH_P_TRAIL)
    if not is_ip or plen != 4 or hlen == 0 or d.style.verbose:
        hardware_name = _HARDWARE.get(hardware, f"Unknown Hardware ({hardware})")
        protocol_name = ETHERTYPES.get(protocol, f"Unknown Protocol (0x{protocol:04x})")
        d.put(f"{hardware_name} (len {hlen}), {protocol_name} (len {plen})")
        if not d.style.verbose:
            d.put(f", length {length}")
            return
        d.put(", ")
    d.put(f"{_OPERATIONS.get(operation, f'Unknown ({operation})')} ")

    def ip(where: int) -> str:
        if not is_ip:
            return "<wrong proto type>"
        return d.ip4(where) if plen == 4 else "<wrong len>"

    if operation == 1:
        target = f" ({d.mac(tha, hlen)})" if any(d.take(tha, hlen)) else ""
        d.put(f"who-has {ip(tpa)}{target} tell {ip(spa)}")
    elif operation == 2:
        d.put(f"{ip(spa)} is-at {d.mac(sha, hlen)}")
    elif operation in (3, 8):
        d.put(f"who-is {d.mac(tha, hlen)} tell {d.mac(sha, hlen)}")
    elif operation == 4:
        d.put(f"{d.mac(tha, hlen)} at {ip(tpa)}")
    elif operation == 9:
        d.put(f"{d.mac(sha, hlen)} at {ip(spa)}")
    else:
        d.dump(at, d.end - at)
        return
    d.put(f", length {length}")
