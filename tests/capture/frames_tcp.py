"""TCP frames for the comparison with tcpdump; see ``frames.py``."""

from scapy.layers.inet import IP, TCP

from tests.capture.frames import BODY, LINK, NET, NET6

SYN = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 7)]
RAW_OPTIONS = """
    0204 020405b4 0200 020305b4 0301 030307 0402 050a0000000100000002 0804
    0509000000010000000200 080a0000000100000002 1312abababababababababababababababab 1312abcd
    22 2202 220401020304 2206aabbccdd 2205aabbcc fe04f989 fe08f989aabbccdd fe041234 fe02
    fe03aa 1c04800f 1c04000f 1d0401 1d040102 1d0801020a0b0c0d 1d03aa 1404aabb 0606aabbccdd
    0706aabbccdd 0b06aabbccdd 4504aabb 4502 00 0000 000204 010101 ff ff00
"""


def conversation():
    """Give a conversation from SYN to RST, so that sequence numbers become relative."""
    a, b = {"sport": 40000, "dport": 40001}, {"sport": 40001, "dport": 40000}
    there, back = NET, LINK / IP(src="10.9.0.2", dst="10.9.0.1")
    sack = [("NOP", None), ("NOP", None), ("SAck", (1101, 1201, 1301, 1401))]
    yield there / TCP(**a, flags="S", seq=1000, options=SYN)
    yield back / TCP(**b, flags="SA", seq=9000, ack=1001, options=SYN)
    yield there / TCP(**a, flags="A", seq=1001, ack=9001)
    yield there / TCP(**a, flags="PA", seq=1001, ack=9001) / b"hello"
    yield back / TCP(**b, flags="A", seq=9001, ack=1006, options=sack)
    yield there / TCP(**a, flags="A", seq=1006, ack=9001, options=[("SAck", (9101, 9201))])
    yield there / TCP(**a, flags="FA", seq=1006, ack=9001)
    yield back / TCP(**b, flags="R", seq=9001)
    reason = b"go away \x00\x7f\xff please, do not come back"
    yield back / TCP(**b, flags="RA", seq=9001, ack=1006) / reason
    yield back / TCP(**b, flags="RA", seq=9001, ack=1006) / b"short"
    yield there / TCP(**a, flags="SA", seq=77, ack=88)
    yield back / TCP(**b, flags="A", seq=88, ack=78)


def tcp():
    """Give conversations, flags, options, and header lengths that can't be."""
    yield from conversation()
    for flags in range(0, 256, 7):
        # where a flag says that a field does not count, it is 0
        ack, urgent = 5 if flags & 0x10 else 0, 9 if flags & 0x20 else 0
        ports = {"sport": 41000, "dport": 41000}
        yield NET / TCP(**ports, flags=flags, seq=flags, ack=ack, urgptr=urgent)
    for offset in range(16):
        yield NET / TCP(sport=4, dport=5, dataofs=offset, flags="A") / BODY[:20]
    for text in RAW_OPTIONS.split():
        data = bytes.fromhex(text)
        data += b"\1" * (-len(data) % 4)
        segment = bytearray(bytes(TCP(sport=42000, dport=42001, flags="A") / b"hi"))
        segment[20:20] = data
        segment[12] = (5 + len(data) // 4) << 4
        yield LINK / IP(src="1.2.3.4", dst="5.6.7.8", proto=6) / bytes(segment)
    ports = {"sport": 40000, "dport": 40001}
    yield NET6 / TCP(**ports, flags="S", seq=5, options=SYN)
    yield NET6 / TCP(**ports, flags="PA", seq=6, ack=7) / b"hello"
    yield NET6 / TCP(**ports, flags="PA", seq=11, ack=7, chksum=1) / b"hello"
