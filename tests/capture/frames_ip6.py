"""IPv6 frames for the comparison with tcpdump; see ``frames.py``."""

from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6MLDMultAddrRec,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    RouterAlert,
)

from tests.capture.frames import LINK, NET6

PORTS = UDP(sport=4, dport=5)
ADDRESSES = """
    :: ::1 ::ffff:1.2.3.4 2001:db8:0:1:1:1:1:1 1:0:0:2:0:0:0:3 ::1.2.3.4 1:0:2:0:3:0:4:0
    0:0:1:: ff02::1:ff00:1
"""
LLADDR = "02:00:00:00:00:01"


def ipv6():
    """Give IPv6 headers, fragments, routing headers and ICMPv6."""
    fields = {"tc": 0x21}, {"fl": 0x12345}, {"hlim": 1}, {"nh": 59}, {"nh": 99}, {"plen": 9}
    for field in fields:
        yield LINK / IPv6(src="fe80::1", dst="fe80::2", **field) / PORTS / b"abc"
    for address in ADDRESSES.split():
        yield LINK / IPv6(src=address, dst="fe80::2") / PORTS
    for offset in (0, 5):
        header = IPv6ExtHdrFragment(offset=offset, m=1, id=77)
        yield NET6 / header / PORTS / b"abcdefgh"
    yield NET6 / IPv6ExtHdrRouting(addresses=["fe80::7", "fe80::8"], segleft=2) / PORTS
    yield from errors()


def errors():
    """Give ICMPv6 errors of every code."""
    quoted = IPv6(src="2001:db8::2", dst="fe80::1") / PORTS / b"abc"
    for code in range(8):
        yield NET6 / ICMPv6DestUnreach(code=code) / quoted
        yield NET6 / ICMPv6TimeExceeded(code=code) / quoted
        yield NET6 / ICMPv6ParamProblem(code=code, ptr=6) / quoted
    segment = IPv6(src="::2", dst="::1") / TCP(sport=4, dport=5)
    yield NET6 / ICMPv6DestUnreach(code=4) / segment
    yield NET6 / ICMPv6DestUnreach(code=4) / IPv6(src="::2", dst="::1", nh=99) / b"abcdefgh"
    yield NET6 / ICMPv6PacketTooBig(mtu=1280) / quoted


def icmp6():
    """Give ICMPv6 messages: echo, neighbour discovery, listeners."""
    for message in (ICMPv6EchoRequest, ICMPv6EchoReply):
        yield NET6 / message(id=5, seq=6, data=b"abc")
    yield NET6 / ICMPv6EchoReply(id=5, seq=6, data=b"abc", cksum=1)
    source = ICMPv6NDOptSrcLLAddr(lladdr=LLADDR)
    for message in (ICMPv6ND_RS(), ICMPv6ND_NS(tgt="fe80::5")):
        yield NET6 / message
        yield NET6 / message / source
    for flags in range(8):
        reply = ICMPv6ND_NA(tgt="fe80::5", R=flags & 1, S=flags >> 1 & 1, O=flags >> 2)
        yield NET6 / reply / ICMPv6NDOptDstLLAddr(lladdr=LLADDR)
    prefix = ICMPv6NDOptPrefixInfo(prefix="2001:db8::", prefixlen=64)
    names = ICMPv6NDOptRDNSS(dns=["2001:db8::53", "2001:db8::54"], lifetime=60)
    advertised = source / ICMPv6NDOptMTU(mtu=1400) / prefix / names
    yield NET6 / ICMPv6ND_RA(M=1, O=1, prf=1) / advertised
    yield NET6 / ICMPv6ND_RA()
    yield NET6 / ICMPv6ND_Redirect(tgt="fe80::1", dst="2001:db8::9")
    yield NET6 / ICMPv6MLReport(mladdr="ff02::5")
    for delay in (9, 40000):
        yield NET6 / ICMPv6MLQuery(mladdr="ff02::5", mrd=delay)
        query = ICMPv6MLQuery2(mladdr="ff02::5", mrd=delay, S=1, QQIC=200, sources=["fe80::9"])
        yield NET6 / query


def ip6_options():
    """Give hop-by-hop and destination options; tcpdump 4.99.6 names them differently at -v."""
    hop_by_hop = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    records = [
        ICMPv6MLDMultAddrRec(rtype=n, dst="ff02::5", sources=["fe80::9"] * n) for n in range(8)
    ]
    yield NET6 / hop_by_hop / ICMPv6MLReport2(records=records)
    yield NET6 / hop_by_hop / ICMPv6MLReport2(records=[])
    yield NET6 / IPv6ExtHdrDestOpt() / PORTS / b"abc"
    yield NET6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / PORTS
