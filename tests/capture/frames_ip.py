"""IPv4, UDP, ICMP and IGMP frames for the comparison with tcpdump; see ``frames.py``."""

from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    IPerror,
    IPOption_LSRR,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    IPOption_SSRR,
    IPOption_Timestamp,
    UDPerror,
    fragment,
)
from scapy.layers.inet6 import IPv6
from scapy.packet import Padding
from scapy.utils import checksum

from tests.capture.frames import BODY, LINK, NET, NET6

PORTS = UDP(sport=4, dport=5)
ADDRESSES = {"src": "1.2.3.4", "dst": "5.6.7.8"}
RAW_IP_OPTIONS = """
    0000 07 0703 070304 070400 0707ff01020304 83 0100 ff04aabb 4404 440501 44040500
    44080500010203 9402 940400 52020000 8201 070b0400010203040506 ff02ff02ff02 44ff 00ff
"""


def udp():
    """Give UDP of all sizes, and with lengths and checksums that can't be."""
    for size in (0, 1, 2, 17, 18, 1472):
        yield NET / UDP(sport=40000, dport=40001) / (BODY * 6)[:size]
    yield NET / UDP(sport=40000, dport=9) / b"x" / Padding(bytes(17))
    for given in (0, 1):
        yield NET / UDP(sport=40000, dport=9, chksum=given) / b"abc"
    for length in (0, 1, 7, 8, 9, 12, 100, 65535):
        yield NET / UDP(sport=40000, dport=9, len=length) / b"abc"
    for length in (20, 21, 24, 27, 28, 29):
        yield LINK / IP(**ADDRESSES, len=length) / PORTS / b"abc"
    for given in (None, 0x1234, 0):
        yield NET6 / UDP(sport=40000, dport=9, chksum=given) / b"abc"


def ip():
    """Give every field of the IPv4 header, options, fragments and other protocols."""
    for tos in (0, 1, 2, 3, 0x10, 0xFF):
        yield LINK / IP(**ADDRESSES, tos=tos, ttl=tos) / PORTS
    for flags in range(8):
        yield LINK / IP(**ADDRESSES, flags=flags) / PORTS
    for total in (20, 21, 28, 31):
        yield LINK / IP(**ADDRESSES, len=total) / PORTS / b"abcd"
    yield LINK / IP(**ADDRESSES, chksum=0xBAD) / PORTS
    for packet in (UDP(sport=40000, dport=40001), ICMP(), TCP(sport=40000, dport=40001)):
        yield from fragment(NET / packet / (BODY * 9), fragsize=1480)
    for protocol in (0, 3, 59, 61, 77, 200, 253, 255):
        yield LINK / IP(**ADDRESSES, proto=protocol) / b"abcdefgh"
    yield NET / IP(src="192.0.2.1", dst="192.0.2.2") / PORTS / b"abc"
    yield NET / IPv6(src="::1", dst="::2") / PORTS / b"abc"


def ip_options():
    """Give IPv4 options, right and wrong."""
    times = {"internet_address": "10.0.0.1", "timestamp": 77}
    for option in (
        IPOption_NOP(),
        IPOption_RR(pointer=8, routers=["10.0.0.1", "10.0.0.2"]),
        IPOption_RR(pointer=5, routers=["10.0.0.1"]),
        IPOption_LSRR(pointer=4, routers=["10.0.0.9", "10.0.0.8"]),
        IPOption_SSRR(pointer=4, routers=["10.0.0.9"]),
        IPOption_Router_Alert(),
        IPOption_Router_Alert(alert=5),
        IPOption_Timestamp(flg=0, pointer=9, timestamp=77),
        IPOption_Timestamp(flg=1, pointer=13, **times),
        IPOption_Timestamp(flg=3, pointer=5, oflw=3, **times),
        IPOption_Timestamp(flg=7, **times),
    ):
        yield LINK / IP(**ADDRESSES, options=[option]) / PORTS
    for text in RAW_IP_OPTIONS.split():
        data = bytes.fromhex(text)
        data += bytes(-len(data) % 4)
        frame = bytearray(bytes(LINK / IP(**ADDRESSES) / PORTS))
        frame[34:34] = data
        frame[14] = 0x45 + len(data) // 4
        frame[16:18] = (len(frame) - 14).to_bytes(2, "big")
        yield bytes(frame)


def icmp():
    """Give ICMP of every type and code, quoting UDP, TCP and another protocol."""
    for kind in set(range(20)) - {3, 4, 5, 11, 12}:
        yield NET / ICMP(type=kind, code=0, id=5, seq=6) / BODY[:40]
    yield NET / ICMP(type=8, id=5, seq=6, chksum=1) / b"abc"
    back = {"src": "10.9.0.2", "dst": "10.9.0.1"}
    udp, tcp = UDPerror(sport=4, dport=5), TCP(sport=4, dport=5)
    for mtu in (0, 1400):
        yield NET / ICMP(type=3, code=4, nexthopmtu=mtu) / IPerror(**back, proto=17) / udp
    for protocol, quoted in ((17, udp), (6, tcp), (99, b"\0\1\2\3\4\5\6\7")):
        for code in range(17):
            inner = IPerror(**back, proto=protocol) / quoted
            yield NET / ICMP(type=3, code=code) / inner
    inner = IPerror(**back, proto=17) / udp / b"abcdefghij"
    for code in range(5):
        yield NET / ICMP(type=5, code=code, gw="10.9.0.9") / inner
    for kind in (4, 11, 12):
        for code in range(3):
            yield NET / ICMP(type=kind, code=code, ptr=20) / inner
    for size in (100, 107, 108, 109, 110, 111, 112, 113, 114, 120, 500):
        # around 128 bytes of quote, where extensions (RFC 4884) begin
        big = IPerror(**back, proto=17) / udp / (BODY * 3)[:size]
        yield NET / ICMP(type=3, code=3) / big
        yield NET / ICMP(type=11, code=0) / bytes(big)[:60]
    yield NET / ICMP(type=3, code=3) / inner / BODY[:200]
    for lifetime in (5, 100, 4000):
        head = bytes((9, 0, 0, 0, 2, 2)) + lifetime.to_bytes(2, "big")
        yield LINK / IP(**ADDRESSES, proto=1) / (head + BODY[:16])


def igmp_message(kind, code, rest):
    """Return an IGMP message (scapy's own layer has moved between its releases)."""
    head = bytes((kind, code, 0, 0))
    return head[:2] + checksum(head + rest).to_bytes(2, "big") + rest


def igmp():
    """Give IGMP of all versions."""
    net = LINK / IP(src="10.9.0.1", dst="224.0.0.22", ttl=1, proto=2)
    group, sources = bytes((239, 1, 2, 3)), bytes((10, 0, 0, 1, 10, 0, 0, 2))
    for kind in (0x11, 0x12, 0x16, 0x17, 0x21, 0x99):
        for code in (0, 5, 100):
            yield net / igmp_message(kind, code, group)
            yield net / igmp_message(kind, code, bytes(4)) / b"1234"
    options = [IPOption_Router_Alert()]
    net = LINK / IP(src="10.9.0.1", dst="224.0.0.22", proto=2, options=options)
    yield net / igmp_message(0x11, 100, bytes(8))
    for code in (20, 127, 128, 200, 255):
        for count in range(3):
            query = group + bytes((2, 20, 0, count)) + sources[: 4 * count]
            yield net / igmp_message(0x11, code, query)
        yield net / igmp_message(0x11, code, group + bytes((2, 20, 0, 9)))
    records = b"".join(
        bytes((kind, 0, 0, kind % 3)) + group + sources[: 4 * (kind % 3)] for kind in range(8)
    )
    yield net / igmp_message(0x22, 0, bytes((0, 0, 0, 8)) + records)
    yield net / igmp_message(0x22, 0, bytes((0, 0, 0, 9)) + records)
    yield net / igmp_message(0x22, 0, bytes((0, 0, 0, 1, 1, 0, 0, 9)) + group)
    yield net / igmp_message(0x22, 0, bytes((0, 0, 0, 1, 1, 0, 0)))
