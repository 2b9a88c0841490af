"""Frames that put a layer to the test, by name: what the kernel and both of our roads are given.

Each case is a list of frames from the peer; hosts are as in `tests.proto.stack`.
"""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import checksum

from tests.proto import igmp_frames as f
from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC, eth, ip, ping, who_has

ALL = "ff:ff:ff:ff:ff:ff"
GROUP_MAC = "01:00:5e:00:00:01"
SUBNET = "10.0.0.255"
OUR_MAC_BYTES = bytes.fromhex(MAC.replace(":", ""))
ECHO = bytes(ICMP(id=3, seq=4) / bytes(range(24)))
QUOTED = bytes(IP(src=ADDR, dst=PEER, proto=77) / b"12345678")


def wrong(frame: Any, layer: str) -> Any:
    """Give a frame whose layer has a wrong checksum."""
    frame[layer].chksum = 0x1234
    return frame


def icmp(type_: int, code: int = 0, data: bytes = b"", **kwargs: Any) -> Ether:
    """Make an ICMP message to us."""
    return eth() / ip() / ICMP(type=type_, code=code, **kwargs) / data


def to_all(payload: Any, dst: str = SUBNET, mac: str = ALL, **kwargs: Any) -> Ether:
    """Send to every host."""
    return eth(dst=mac) / ip(dst=dst, **kwargs) / payload


def options(
    opt: bytes, payload: bytes = bytes(ICMP(id=5)), begin: Any = None, **kwargs: Any
) -> bytes:
    """Make a packet with these bytes as options, right or wrong."""
    opt += bytes(-len(opt) % 4)
    fields = {"proto": 1, "ihl": 5 + len(opt) // 4, "chksum": 0} | kwargs
    header = bytearray(bytes(ip(len=20 + len(opt) + len(payload), **fields))[:20] + opt)
    header[10:12] = checksum(bytes(header)).to_bytes(2)
    return bytes(begin or eth(type=0x0800)) + bytes(header) + payload


def frags(*pieces: tuple[int, bytes, int], proto: int = 1, ident: int = 9) -> list[Ether]:
    """Make fragments: offset, bytes, more."""
    return [
        eth()
        / ip(id=ident, proto=proto, flags="MF" if more else 0, frag=offset // 8)
        / Raw(data)
        for offset, data, more in pieces
    ]


def tos_frags(*tos: int) -> list[Ether]:
    """Make two halves of an echo request with these tos."""
    first, last = tos
    return [
        eth() / ip(id=9, proto=1, flags="MF", tos=first) / Raw(ECHO[:16]),
        eth() / ip(id=9, proto=1, frag=2, tos=last) / Raw(ECHO[16:]),
    ]


def arp_bytes(change: tuple[bytes, bytes]) -> Ether:
    """Make a request with some bytes replaced."""
    packet = bytes(ARP(op=1, hwsrc=PEER_MAC, psrc=PEER, pdst=ADDR))
    return Ether(dst=ALL, src=PEER_MAC, type=0x0806) / Raw(packet.replace(*change, 1))


def arp_to(mac: str) -> Ether:
    """Send a request for our address to this MAC."""
    return Ether(dst=mac, src=PEER_MAC) / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER, pdst=ADDR)


HEADERS = {
    "ping": ping(),
    "ping without data": ping(0),
    "ping of 1472": ping(1472),
    "ping with tos": ping(tos=0x12),
    "ping CE": ping(tos=3),
    "ping ECT1": ping(tos=1),
    "ping ttl 0": ping(ttl=0),
    "ping DF": ping(flags="DF"),
    "ping reserved flag": ping(flags="evil"),
    "ICMP checksum": wrong(ping(), "ICMP"),
    "IP checksum": wrong(ping(), "IP"),
    "version 6": eth() / ip(version=6) / ICMP(),
    "ihl 4": eth() / ip(ihl=4) / ICMP(),
    "total length too large": eth() / ip(len=200) / ICMP(),
    "total length below header": eth() / ip(len=10) / ICMP(),
    "total length 24": eth() / ip(len=24) / ICMP() / b"aaaaaa",
    "padding": bytes(ping(1)) + b"\xa5" * 17,
    "ihl 15, cut": bytes(eth() / ip(ihl=15) / ICMP())[:50],
    **{f"cut at {size}": bytes(ping())[:size] for size in (14, 15, 20, 33, 34, 41, 42, 60)},
    "ICMP of 4 bytes": eth() / ip(proto=1) / Raw(b"\x08\x00\xf7\xff"),
    "ICMP of 7 bytes": eth() / ip(proto=1) / Raw(b"\x08\x00\xf7\xff\0\0\0"),
    "no protocol": eth() / ip(proto=77) / Raw(b"hello"),
    "no protocol, to all": to_all(Raw(b"hello"), proto=77),
    "no protocol, long": eth() / ip(proto=77, tos=0xB8) / Raw(bytes(1400)),
}

ADDRESSES = {
    "other MAC": eth(dst="02:00:00:00:00:77") / ip() / ICMP(),
    "other address": eth() / ip(dst="10.0.0.77") / ICMP(),
    "far address": eth() / ip(dst="1.2.3.4") / ICMP(),
    "unicast in broadcast": eth(dst=ALL) / ip() / ICMP(),
    "unicast in multicast": eth(dst="01:00:5e:00:00:05") / ip() / ICMP(),
    "ping to subnet": to_all(ICMP()),
    "ping to limited broadcast": to_all(ICMP(), "255.255.255.255"),
    "ping to lowest address": to_all(ICMP(), "10.0.0.0"),
    "ping to all hosts": to_all(ICMP(), "224.0.0.1", GROUP_MAC),
    "ping to a group not joined": to_all(ICMP(), "239.1.1.1", "01:00:5e:01:01:01"),
    "group from 0.0.0.0": to_all(ICMP(), "224.0.0.1", GROUP_MAC, src="0.0.0.0"),
    "group from loopback": to_all(ICMP(), "224.0.0.1", GROUP_MAC, src="127.0.0.1"),
    "group from ourselves": to_all(ICMP(), "224.0.0.1", GROUP_MAC, src=ADDR),
    "group from far": to_all(ICMP(), "224.0.0.1", GROUP_MAC, src="9.9.9.9"),
    "group from group": to_all(ICMP(), "224.0.0.1", GROUP_MAC, src="224.0.0.1"),
    "subnet from far": to_all(ICMP(), src="9.9.9.9"),
    "all from 0.0.0.0": to_all(Raw(b"x"), "255.255.255.255", src="0.0.0.0", proto=77),
    "0.0.0.0 to 0.0.0.0": to_all(ICMP(), "0.0.0.0", src="0.0.0.0"),
    **{
        f"from {src}": eth() / ip(src=src) / ICMP()
        for src in (
            *("224.0.0.1", "255.255.255.255", "0.0.0.0", "0.1.2.3", "127.0.0.1"),
            *(ADDR, SUBNET, "10.0.0.0", "9.9.9.9", "240.0.0.1"),
        )
    },
    **{
        f"to {dst}": eth() / ip(dst=dst) / ICMP()
        for dst in ("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.1.1.1", "240.0.0.1", "224.0.0.1")
    },
}

ICMP_TYPES = {
    **{f"type {number}": icmp(number) for number in (*range(20), 30, 40, 41, 42, 43, 44, 255)},
    "unreachable": icmp(3, 3, QUOTED),
    "unreachable, code 16": icmp(3, 16, QUOTED),
    "unreachable, ihl 4": icmp(3, 3, b"\x44" + QUOTED[1:]),
    **{f"unreachable, {n} quoted": icmp(3, 3, QUOTED[:n]) for n in (10, 19, 20, 27, 28)},
    "fragmentation needed": icmp(3, 4, QUOTED, nexthopmtu=1000),
    "source quench": icmp(4, 0, QUOTED),
    "redirect": icmp(5, 1, QUOTED, gw="10.0.0.9"),
    "redirect, cut": icmp(5, 1, b"abc"),
    "ttl exceeded": icmp(11, 0, QUOTED),
    "reassembly time exceeded": icmp(11, 1, QUOTED),
    "parameter problem": icmp(12, 0, QUOTED, ptr=20),
    "timestamp with 4 bytes": eth() / ip(proto=1) / Raw(b"\x0d\x00\x2e\x39abcd\1\2\3\4"),
    **{
        f"type {number} to all": to_all(ICMP(type=number) / bytes(12))
        for number in (0, 3, 13, 17, 18, 42, 43)
    },
}

OPTIONS = {
    "no operation": options(b"\1\1\1\1"),
    "end": options(b"\0\0\0\0"),
    "end, then rubbish": options(b"\0\x07\x07\x07"),
    "record route": options(b"\1\x07\x0f\x04" + bytes(12)),
    "record route, one place": options(b"\1\x07\x07\x04\0\0\0\0"),
    "record route, full": options(b"\1\x07\x07\x08\1\2\3\4"),
    "record route, half a place left": options(b"\x07\x09\x04" + bytes(6)),
    "record route, pointer 3": options(b"\1\x07\x07\x03\0\0\0\0"),
    "record route, pointer 6": options(b"\1\x07\x07\x06\0\0\0\0"),
    "record route, length 2": options(b"\x07\x02\1\1"),
    "record route twice": options(b"\x07\x07\x04\0\0\0\0\x07\x07\x04\0\0\0\0"),
    "record route, then wrong": options(b"\x07\x0b\x04" + bytes(8) + b"\x44\x03\x05\0"),
    "cut after the kind": options(b"\1\1\1\x07"),
    "length 0": options(b"\x07\0\1\1"),
    "length 1": options(b"\x07\1\1\1"),
    "length beyond the header": options(b"\x07\x09\4\0"),
    "loose source route": options(b"\1\x83\x07\x04\1\2\3\4"),
    "loose source route, used up": options(b"\1\x83\x07\x08\1\2\3\4"),
    "strict source route": options(b"\1\x89\x07\x04\1\2\3\4"),
    "source route, pointer 3": options(b"\1\x83\x07\x03\1\2\3\4"),
    "source route, length 2": options(b"\1\1\x83\x02"),
    "timestamp, full": options(b"\x44\x08\x09\x00\1\2\3\4"),
    "timestamp, overflow full": options(b"\x44\x08\x09\xf0\1\2\3\4"),
    "timestamp, unknown flag": options(b"\x44\x0c\x05\x02" + bytes(8)),
    "timestamp, other's place": options(b"\x44\x0c\x05\x03\x0a\0\0\x09\0\0\0\0"),
    "timestamp, pointer 4": options(b"\x44\x08\x04\x00\1\2\3\4"),
    "timestamp, length 3": options(b"\x44\x03\x05\x00"),
    "timestamp, half a place": options(b"\x44\x0a\x08\x00" + bytes(6)),
    "router alert": options(b"\x94\x04\0\0"),
    "router alert, short": options(b"\x94\x03\0\0"),
    "label": options(b"\x86\x08\x04\0\1\2\3\4"),
    "label, short": options(b"\1\x86\x06\x04\0\1\2\3"),
    "unknown option": options(b"\x55\x04\0\0"),
    "record route, no protocol": options(b"\1\x07\x0b\x04" + bytes(8), b"hello", proto=77),
    "wrong option, to all": options(b"\x07\0\1\1", begin=eth(dst=ALL, type=0x800), dst=SUBNET),
    "wrong option, for another": options(b"\x07\0\1\1", dst="10.0.0.99"),
}

FRAGMENTS = {
    "two halves": frags((0, ECHO[:16], 1), (16, ECHO[16:], 0)),
    "two halves, last first": frags((16, ECHO[16:], 0), (0, ECHO[:16], 1)),
    "first twice": frags((0, ECHO[:16], 1), (0, ECHO[:16], 1), (16, ECHO[16:], 0)),
    "last twice": frags((16, ECHO[16:], 0), (16, ECHO[16:], 0), (0, ECHO[:16], 1)),
    "part of the first again": frags((0, ECHO[:16], 1), (8, ECHO[8:16], 1), (16, ECHO[16:], 0)),
    "overlap": frags((0, ECHO[:16], 1), (8, ECHO[8:24], 1), (16, ECHO[16:], 0)),
    "overlap over two runs": frags((0, ECHO[:8], 1), (16, ECHO[16:24], 1), (0, ECHO[:24], 1)),
    "gap filled twice": frags(
        *((0, ECHO[:8], 1), (16, ECHO[16:24], 1), (8, ECHO[8:16], 1)),
        *((8, ECHO[8:16], 1), (24, ECHO[24:], 0)),
    ),
    "covers a gap": frags((0, ECHO[:8], 1), (24, ECHO[24:], 0), (8, ECHO[8:24], 1)),
    "two ends": frags((16, ECHO[16:], 0), (8, ECHO[8:24], 0)),
    "behind the end": frags((8, ECHO[8:16], 0), (16, ECHO[16:24], 1)),
    "13 bytes and more": frags((0, ECHO[:13], 1), (8, ECHO[8:], 0)),
    "empty, and more": frags((0, b"", 1)),
    "7 bytes, and more": frags((0, b"1234567", 1)),
    "empty last": frags((0, ECHO[:16], 1), (16, b"", 0)),
    "ends at 65536": frags((65528, b"12345678", 0)),
    "whole of 65535": frags(
        *((i, bytes(1480), 1) for i in range(0, 65120, 1480)), (65120, bytes(395), 0)
    ),
    "whole too large": frags(
        *((i, bytes(1480), 1) for i in range(0, 65120, 1480)),
        *((65120, bytes(400), 1), (65520, bytes(12), 0)),
    ),
    "ECN CE and ECT0": tos_frags(2, 3),
    "ECN CE and ECT1": tos_frags(3, 1),
    "ECN ECT0 and ECT1": tos_frags(2, 1),
    "ECN capable and not": tos_frags(0, 2),
    "ECN CE and not capable": tos_frags(3, 0),
    "DF in all": [
        eth() / ip(id=9, proto=1, flags="MF+DF") / Raw(ECHO[:16]),
        eth() / ip(id=9, proto=1, flags="DF", frag=2) / Raw(ECHO[16:]),
    ],
    "no protocol in fragments": frags((0, ECHO[:16], 1), (16, ECHO[16:], 0), proto=77),
    "to all in fragments": [
        to_all(Raw(ECHO[:16]), id=9, proto=1, flags="MF"),
        to_all(Raw(ECHO[16:]), id=9, proto=1, frag=2),
    ],
    "options in the first": [
        options(b"\1\1\1\1", ECHO[:16], id=9, flags="MF"),
        eth() / ip(id=9, proto=1, frag=2) / Raw(ECHO[16:]),
    ],
    "two ids": [*frags((0, ECHO[:16], 1)), *frags((16, ECHO[16:], 0), ident=10)],
}

ARPS = {
    "request": who_has(),
    "request for another": who_has("10.0.0.9"),
    "is it free": who_has(psrc="0.0.0.0"),
    "is another free": who_has("10.0.0.9", psrc="0.0.0.0"),
    "announcement": who_has(PEER),
    "announcement by reply": Ether(dst=ALL, src=PEER_MAC)
    / ARP(op=2, hwsrc=PEER_MAC, hwdst=PEER_MAC, psrc=PEER, pdst=PEER),
    **{
        f"request from {src}": who_has(psrc=src)
        for src in (ADDR, "9.9.9.9", SUBNET, "224.0.0.1", "127.0.0.1", "255.255.255.255")
    },
    **{
        f"request for {tip}": who_has(tip)
        for tip in ("224.0.0.1", "127.0.0.1", SUBNET, "255.255.255.255", "0.0.0.0")
    },
    **{f"operation {op}": who_has(op=op) for op in (0, 3, 8, 9)},
    "hardware type 2": arp_bytes((b"\0\1\x08\0", b"\0\2\x08\0")),
    "hardware type 6": arp_bytes((b"\0\1\x08\0", b"\0\6\x08\0")),
    "protocol type": arp_bytes((b"\0\1\x08\0", b"\0\1\x86\xdd")),
    "hardware length": arp_bytes((b"\x06\x04", b"\x07\x04")),
    "protocol length": arp_bytes((b"\x06\x04", b"\x06\x05")),
    **{f"ARP cut at {size}": bytes(who_has())[:size] for size in (15, 22, 41)},
    "request to other MAC": arp_to("02:00:00:00:00:77"),
    "request to our MAC": arp_to(MAC),
    "request to a group": arp_to(GROUP_MAC),
    "reply nobody asked for": Ether(dst=MAC, src=PEER_MAC)
    / ARP(op=2, hwsrc=PEER_MAC, psrc="10.0.0.9", pdst=ADDR, hwdst=MAC),
}

DATAGRAM = bytes(ip() / UDP(sport=1000, dport=7) / bytes(range(24)))[20:]


def udp(port: int = 7, data: bytes = b"hello", begin: Any = None, **kwargs: Any) -> Ether:
    """Send a datagram to one of the oracle's sockets (tools/_oracle/compare.py)."""
    return (begin or eth() / ip()) / UDP(**{"sport": 1000, "dport": port} | kwargs) / data


DATAGRAMS = {
    **{f"UDP to port {port}": udp(port) for port in (*range(6, 14), 0, 65535)},
    **{f"UDP of {n} bytes": udp(data=bytes(n)) for n in (0, 1, 18, 100, 1472)},
    "UDP from port 0": udp(sport=0),
    "UDP to the connected, other port": udp(10, sport=1001),
    "UDP to the connected, other host": udp(10, begin=eth() / ip(src="10.0.0.9")),
    "UDP without checksum": udp(chksum=0),
    "UDP checksum": udp(chksum=0x1234),
    "UDP checksum, no socket": udp(99, chksum=0x1234),
    "UDP checksum of a long one": udp(data=bytes(1000), chksum=0x1234),
    "UDP to port 7 with options": options(b"\1\1\1\1", DATAGRAM, proto=17),
    **{f"UDP length {n}": udp(len=n) for n in (0, 7, 8, 12, 13, 14, 500)},
    "UDP cut": eth() / ip(proto=17) / Raw(DATAGRAM[:7]),
    "UDP header only": eth() / ip(proto=17) / Raw(b"\3\xe8\0\7\0\x08\0\0"),
    "UDP in fragments": frags((0, DATAGRAM[:16], 1), (16, DATAGRAM[16:], 0), proto=17),
    "UDP in fragments, no socket": frags(
        (0, DATAGRAM[:2] + b"\0\x63" + DATAGRAM[4:16], 1), (16, DATAGRAM[16:], 0), proto=17
    ),
    "UDP with tos and ttl": udp(begin=eth() / ip(tos=0xB9, ttl=3)),
    "UDP padded": bytes(udp(data=b"a")) + bytes(17),
    **{
        f"UDP to {dst}, port {port}": udp(
            port, begin=eth(dst=GROUP_MAC if dst == "224.0.0.1" else ALL) / ip(dst=dst))
        for dst in (SUBNET, "255.255.255.255", "224.0.0.1", "10.0.0.0")
        for port in (7, 8, 9, 12, 13, 99)
    },
    "UDP from 0.0.0.0 to all": udp(7, begin=Ether(dst=ALL, src=PEER_MAC)
                                   / ip(src="0.0.0.0", dst="255.255.255.255")),
    "UDP from 127.86.0.1 to all": udp(7, begin=Ether(dst=ALL, src=PEER_MAC)
                                      / ip(src="127.86.0.1", dst="255.255.255.255")),
    "UDP for another MAC": udp(begin=eth(dst="02:00:00:00:00:77") / ip()),
}  # fmt: skip

# To our MAC, so that Linux looks for the one socket that is connected to the sender. Where it
# finds one it keeps the route there, and counts what comes later by it (docs/kernel-map.md): no
# frames to make others of.
EARLY_DEMUX = {
    f"UDP from port {sport} of 0.0.0.0 to {dst}, port {port}, our MAC": udp(
        port, sport=sport, begin=eth() / ip(src="0.0.0.0", dst=dst)
    )
    for dst in ("0.0.0.0", "255.255.255.255", SUBNET)
    for port in (7, 12)
    for sport in (0, 1000)
}


def redirected(gw: str = "10.0.0.9", by: str = PEER) -> Ether:
    """Tell a socket that the peer is better reached through another."""
    quoted = bytes(IP(src=ADDR, dst=PEER) / UDP(sport=10, dport=1000))
    return eth() / ip(src=by) / ICMP(type=5, code=1, gw=gw) / quoted


def refused(
    port: int, cut: int = 100, dport: int = 1000, to: str = PEER, **kwargs: Any
) -> Ether:
    """Tell a socket that what it sent to the peer was refused."""
    quoted = bytes(IP(src=ADDR, dst=to) / UDP(sport=port, dport=dport) / b"12345678")
    return icmp(3, kwargs.pop("code", 3), quoted[:cut], **kwargs)


ICMP_ERRORS = {
    **{f"unreachable, code {code}, to a socket": refused(10, code=code) for code in range(17)},
    "unreachable, to an unconnected socket": refused(7),
    "unreachable, to no socket": refused(99),
    "unreachable, to a connected one, other port": refused(10, dport=1001),
    "unreachable, to a connected one, other host": refused(10, to="10.0.0.9"),
    "unreachable, about another host's packet": icmp(
        3, 3, bytes(IP(src="10.0.0.9", dst=PEER) / UDP(sport=10, dport=1000))
    ),
    "unreachable, cut in the header": refused(10, cut=27),
    "unreachable, 8 bytes": refused(10, cut=28),
    **{
        f"fragmentation needed, {mtu}": refused(10, code=4, nexthopmtu=mtu)
        for mtu in (0, 67, 68, 600, 1500, 65535)
    },
    "redirect by a neighbour": redirected(),
    **{
        f"redirect by a neighbour whose MTU is known, {gw}": [
            refused(10, code=4, nexthopmtu=600),
            redirected(gw),
        ]
        for gw in ("10.0.0.9", "0.16.0.0", "77.1.2.3", "0.0.0.0", "224.0.0.9", ADDR, PEER)
    },
    **{
        f"redirect by a neighbour whose MTU was told of {src}'s packet, {proto}": [
            icmp(3, 4, bytes(IP(src=src, dst=PEER) / quoted), nexthopmtu=600),
            redirected(),
        ]
        for src in (ADDR, "9.9.9.9", "0.0.0.0")
        for proto, quoted in (("UDP", UDP(sport=7, dport=1000)), ("ICMP", ICMP(type=0) / b"x"))
    },
    "redirect by another than the neighbour": [
        refused(10, code=4, nexthopmtu=600),
        redirected("10.0.0.9", by="10.0.0.8"),
    ],
    "redirect by a neighbour, followed": [
        who_has(psrc="10.0.0.9", hwsrc="02:00:00:00:00:09"),
        refused(10, code=4, nexthopmtu=600),
        redirected(),
        ping(),
        udp(99),
        redirected("10.0.0.8", by="10.0.0.9"),
        ping(),
    ],
    **{
        f"type {number}, to a socket": icmp(
            number, 0, bytes(IP(src=ADDR, dst=PEER) / UDP(sport=10, dport=1000))
        )
        for number in (4, 5, 11, 12)
    },
    **{
        f"unreachable, quoting protocol {number}": icmp(
            3, 3, bytes(IP(src=ADDR, dst=PEER, proto=number) / b"12345678")
        )
        for number in (0, 1, 6, 17, 77, 136, 255)
    },
}


def tagged(vlan: int, prio: int = 0, frame: Any = None) -> Ether:
    """Put a VLAN tag on a frame."""
    inner = frame or ping()
    return Ether(dst=inner.dst, src=inner.src) / Dot1Q(vlan=vlan, prio=prio) / inner.payload


ETHERNET = {
    **{f"frame of {n} bytes": bytes(ping())[:n] for n in range(1, 15)},
    **{
        f"EtherType {number:#06x}": eth(type=number) / Raw(bytes(46))
        for number in (0, 1, 46, 0x5FF, 0x600, 0x0801, 0x0835, 0x6003, 0x88B5, 0x9000, 0xFFFF)
    },
    "802.3 with LLC": eth(type=46) / Raw(b"\xaa\xaa\x03\0\0\0\x08\0" + bytes(38)),
    "802.3, raw": eth(type=46) / Raw(b"\xff\xff" + bytes(44)),
    "IPv6": eth(type=0x86DD) / Raw(b"\x60" + bytes(60)),
    "ping from our MAC": eth(src=MAC) / ip() / ICMP(),
    "ping from a group MAC": eth(src=GROUP_MAC) / ip() / ICMP(),
    "ping from MAC 0": eth(src="00:00:00:00:00:00") / ip() / ICMP(),
    "ping to MAC 0": eth(dst="00:00:00:00:00:00") / ip() / ICMP(),
    "IPv4 as ARP": bytes(ping()).replace(b"\x08\0", b"\x08\6", 1),
    "ARP as IPv4": bytes(who_has()).replace(b"\x08\6", b"\x08\0", 1),
    "VLAN 0": tagged(0),
    "VLAN 0, priority": tagged(0, 5),
    "VLAN 5": tagged(5),
    "VLAN 4095": tagged(4095),
    "VLAN 5, ARP": tagged(5, frame=who_has()),
    "VLAN 0, ARP": tagged(0, frame=who_has()),
    "VLAN 5 in VLAN 0": tagged(0, frame=tagged(5)),
    "VLAN 0 in VLAN 0": tagged(0, frame=tagged(0)),
    **{f"VLAN 5, cut at {n}": bytes(tagged(5))[:n] for n in (14, 15, 16, 17, 18, 19)},
}

# To groups. Sockets of tools/_oracle/compare.py have joined GROUP, and OTHER from one source.
SOURCE = "10.0.0.33"
GROUPS = {
    "group joined": f.datagram(f.GROUP),
    "group joined, another port": f.datagram(f.GROUP, port=8),
    "group joined, nobody's port": f.datagram(f.GROUP, port=99),
    "group joined, checksum": f.datagram(f.GROUP)[:-3] + b"\1\2x",
    "group joined, from nowhere": f.datagram(f.GROUP, src="0.0.0.0"),
    "group joined, from a group": f.datagram(f.GROUP, src="239.9.9.9"),
    "group joined, from everybody": f.datagram(f.GROUP, src="255.255.255.255"),
    "group joined, from loopback": f.datagram(f.GROUP, src="127.0.0.1"),
    "group joined, from us": f.datagram(f.GROUP, src=ADDR),
    "group joined, ttl 0": f.datagram(f.GROUP, ttl=0),
    "group joined, options": f.datagram(f.GROUP, options=b"\1\1\1\0"),
    "group joined, in a unicast frame": f.datagram(f.GROUP, mac=OUR_MAC_BYTES),
    "group joined, in a broadcast frame": f.datagram(f.GROUP, mac=b"\xff" * 6),
    "group joined, to another's mac": f.datagram(f.GROUP, mac=bytes.fromhex("020000000077")),
    "group joined, fragments": [
        f.packet(f.GROUP, b"\3\xe8\0\7\0\x18\0\0", 17, frag=0x2000),
        f.packet(f.GROUP, b"0123456789abcdef", 17, frag=1),
    ],
    "group joined, blocked source": f.datagram(f.GROUP, src="10.0.0.44"),
    "group of a source, from it": f.datagram(f.OTHER, src=SOURCE),
    "group of a source, from another": f.datagram(f.OTHER),
    "group of a source, from nowhere": f.datagram(f.OTHER, src="0.0.0.0"),
    "group not joined": f.datagram("239.9.9.9"),
    "group next door not joined": f.datagram("224.0.0.9"),
    "all hosts": f.datagram(f.ALL_HOSTS),
    "all hosts, from nowhere": f.datagram(f.ALL_HOSTS, src="0.0.0.0"),
    "echo to a group": f.packet(f.GROUP, bytes(ICMP(id=5)), 1),
    "unknown protocol to a group": f.packet(f.GROUP, b"12345678", 77),
    "IGMP, short": f.igmp(f.GROUP, f.message(f.QUERY, 10, f.GROUP)[:7]),
    "IGMP, checksum": f.igmp(f.GROUP, b"\x11\x0a\x12\x34" + bytes(4)),
    "IGMP, query of 11 bytes": f.igmp(f.GROUP, f.message(f.QUERY, 10, f.GROUP, b"abc")),
    "IGMP, query with sources missing": f.igmp(
        f.GROUP, f.message(f.QUERY, 10, f.GROUP, b"\x02\x7d\0\x02abcd")
    ),
    "IGMP, general query with sources": f.query(3, sources=("10.0.0.1",)),
    "IGMP, query for a group not joined": f.query(3, "239.9.9.9"),
    "IGMP, query for a source not named": f.query(3, f.OTHER, sources=("10.9.9.9",)),
    "IGMP, version 2 report": f.report(f.GROUP),
    "IGMP, version 1 report": f.report(f.GROUP, 1),
    "IGMP, report to us alone": f.igmp(
        ADDR, f.message(f.V2_REPORT, 0, f.GROUP), mac=OUR_MAC_BYTES
    ),
    "IGMP, report of a source nobody wants": f.igmp(
        f.OTHER, f.message(f.V2_REPORT, 0, f.OTHER)
    ),
    "IGMP, leave": f.igmp(f.GROUP, f.message(f.LEAVE, 0, f.GROUP)),
    "IGMP, version 3 report": f.igmp(f.ALL_V3, f.message(f.V3_REPORT)),
    "IGMP, version 3 report to a group": f.igmp(f.GROUP, f.message(f.V3_REPORT)),
    "IGMP, unknown type": f.igmp(f.GROUP, f.message(0x99, 0, f.GROUP)),
    "IGMP, without router alert": f.igmp(f.GROUP, f.message(f.LEAVE, 0, f.GROUP), options=b""),
    "IGMP, ttl 64": f.igmp(f.GROUP, f.message(f.V2_REPORT, 0, f.GROUP), ttl=64),
}

# What a layer can be asked without a device or a socket.
CASES: dict[str, list[Any]] = {
    name: case if isinstance(case, list) else [case]
    for group in (HEADERS, ADDRESSES, ICMP_TYPES, OPTIONS, FRAGMENTS, ARPS)
    for name, case in group.items()
}
# What a whole host is asked.
HOST_CASES: dict[str, list[Any]] = CASES | {
    name: case if isinstance(case, list) else [case]
    for group in (DATAGRAMS, EARLY_DEMUX, ICMP_ERRORS, ETHERNET, GROUPS)
    for name, case in group.items()
}
