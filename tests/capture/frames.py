"""Frames that tcpdump's printer and ours must describe in the same words.

They are chosen so that tcpdump does not look into what UDP and TCP carry (no well-known ports),
and so that its versions 4.99.3 (Debian 12), 4.99.4 (Ubuntu 24.04) and 4.99.5 (Debian 13) agree.
Broken headers, on which they don't, are in ``test_printer.py`` with the words of 4.99.3.
"""

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Padding

LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
NET = LINK / IP(src="10.9.0.1", dst="10.9.0.2", id=7)
NET6 = LINK / IPv6(src="fe80::1", dst="2001:db8::2")
BODY = bytes(range(256))


def patched(packet, changes):
    """Return a packet's bytes with some of them changed."""
    raw = bytearray(bytes(packet))
    for where, value in changes.items():
        raw[where] = value
    return bytes(raw)


def arp():
    """Give ARP of every operation, and of sizes that are none of Ethernet's and IP's."""
    base = {"hwsrc": "02:00:00:00:00:01", "psrc": "10.9.0.1", "pdst": "10.9.0.2"}
    for op in range(12):
        yield LINK / ARP(op=op, hwdst="02:00:00:00:00:02", **base)
        yield LINK / ARP(op=op, **base) / Padding(bytes(18))
    for fields in ({"ptype": 0x86DD}, {"ptype": 0x1234}, {"hwtype": 6}, {"hwtype": 77}):
        yield LINK / ARP(op=1, **base, **fields)
    for hlen, plen in ((0, 4), (6, 16), (8, 4), (6, 0), (255, 255), (0, 0)):
        yield patched(LINK / ARP(**base), {18: hlen, 19: plen})
    yield LINK / ARP(op=2, **base) / BODY
    yield patched(LINK / ARP(op=3, **base), {12: 0x80, 13: 0x35})


def link():
    """Give VLAN tags, unknown types, 802.3 and runts."""
    tags = Dot1Q(vlan=5, prio=3), Dot1Q(vlan=4095, dei=1), Dot1Q(vlan=5) / Dot1Q(vlan=6)
    datagram = IP(src="1.2.3.4", dst="5.6.7.8") / UDP(sport=4, dport=5) / b"abc"
    for tag in (*tags, Dot1AD(vlan=9) / Dot1Q(vlan=5)):
        yield LINK / tag / datagram
        yield LINK / tag / ARP(psrc="10.9.0.1", pdst="10.9.0.2", hwsrc="02:00:00:00:00:01")
        yield bytes(LINK / tag)
    for kind in (0x05DD, 0x0600, 0x1234, 0x88B5, 0x88B6, 0x22F0, 0xFFFF):
        yield bytes(LINK)[:12] + kind.to_bytes(2, "big") + BODY[:60]
        yield LINK / Dot1Q(vlan=5, type=kind) / BODY[:9]
    for dsap, ssap, control in (
        *((0x42, 4, 3), (4, 4, 0xE3), (4, 4, 0x63), (0x10, 0x21, 0xBF), (9, 9, 0x13)),
        *((4, 5, supervisory) for supervisory in (1, 5, 9, 13)),
        *((4, 5, information) for information in (0, 2, 0x10)),
    ):
        header = LLC(dsap=dsap, ssap=ssap, ctrl=control)
        yield Dot3(src=LINK.src, dst=LINK.dst) / header / b"\x15bcdef"
    for payload in (b"", b"\x81", b"\x81\x01\x02", b"\x82"):
        yield Dot3(src=LINK.src, dst=LINK.dst) / LLC(dsap=4, ssap=4, ctrl=0xAF) / payload
    for size in (0, 1, 2, 3, 13):
        yield bytes(LINK)[:12] + size.to_bytes(2, "big") + b"\4\4\3abcdefghijkl"
    for size in range(1, 14):
        yield bytes(LINK / datagram)[:size]
