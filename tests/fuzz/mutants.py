"""Frames that are nearly right: what a peer may send by mistake or on purpose.

Each begins as a good frame of some kind, gets a few faults, and may then get right checksums
again, because a fault behind a wrong checksum is never looked at. All choices are drawn from a
``random.Random``: a number makes a frame, and hypothesis can make a frame small.
"""

from __future__ import annotations

from random import Random

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR, IPOption_Timestamp, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, LLC, Dot1Q, Ether

from tests.datagram import checksum
from tests.frames import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC

PORTS = [9000, 9001, 4242]  # a socket each on the first two
INTERESTING = [0, 1, 7, 8, 20, 28, 0x7FFF, 0x8000, 0xFFFF]
ETHERNET = 14
IGMP_QUERY = bytes.fromhex("1164ee9b00000000")


def good_frames() -> list[bytes]:
    """Make one frame of every kind that the stack tells apart."""
    ether = Ether(src=PEER_MAC, dst=OUR_MAC)
    everyone = Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff")
    group = Ether(src=PEER_MAC, dst="01:00:5e:00:00:01")
    ip = IP(src=PEER_IP, dst=OUR_IP)
    payload = bytes(range(256)) * 5
    frames = [
        everyone / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER_IP, pdst=OUR_IP),
        everyone / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER_IP, pdst=PEER_IP),
        ether / ARP(op=2, hwsrc=PEER_MAC, psrc=PEER_IP, hwdst=OUR_MAC, pdst=OUR_IP),
        ether / ip / ICMP(type=8, id=1, seq=1) / payload[:56],
        ether / ip / ICMP(type=0, id=1, seq=1) / payload[:56],
        ether / ip / ICMP(type=3, code=3) / IP(src=OUR_IP, dst=PEER_IP) / UDP(sport=9000) / b"",
        ether / ip / ICMP(type=3, code=4, nexthopmtu=600) / IP(src=OUR_IP, dst=PEER_IP) / UDP(),
        ether / ip / ICMP(type=13),
        group / IP(src=PEER_IP, dst="224.0.0.1", proto=2, ttl=1) / IGMP_QUERY,
        everyone / IP(src=PEER_IP, dst="10.0.0.255") / UDP(sport=4000, dport=PORTS[1]) / b"all",
        group / IP(src=PEER_IP, dst="224.0.0.1") / UDP(sport=4000, dport=PORTS[1]) / b"group",
        ether / IP(src=PEER_IP, dst="10.9.9.9") / UDP(sport=4000, dport=PORTS[0]) / b"not us",
        ether / IP(src=PEER_IP, dst=OUR_IP, proto=253) / payload[:40],
        ether / ip / TCP(sport=5000, dport=80, flags="S"),
        ether / IPv6(src="fe80::1", dst="fe80::2") / UDP(sport=1, dport=2) / b"six",
        ether / Dot1Q(vlan=5) / ip / UDP(sport=4000, dport=PORTS[0]) / b"tagged",
        Ether(src=PEER_MAC, dst=OUR_MAC, type=0x88B5) / payload[:50],
        Ether(src=PEER_MAC, dst=OUR_MAC, type=60) / LLC() / payload[:57],
        Ether(src=PEER_MAC, dst="02:00:00:00:00:99") / ip / UDP(dport=PORTS[0]) / b"another's",
    ]
    options = [IPOption_RR(routers=["0.0.0.0"] * 3), IPOption_Timestamp()]
    for option in options:
        routed = IP(src=PEER_IP, dst=OUR_IP, options=[option])
        frames.append(ether / routed / UDP(sport=4000, dport=PORTS[0]) / b"option")
    for port in PORTS:
        for size in (0, 1, 18, 600, 1280):
            frames.append(ether / ip / UDP(sport=4000, dport=port) / payload[:size])
    long = IP(src=PEER_IP, dst=OUR_IP, id=77) / UDP(sport=4000, dport=PORTS[0]) / payload
    frames += [ether / part for part in fragment(long, fragsize=400)]
    for seq in range(3):  # a train that GRO merges
        segment = TCP(sport=5000, dport=80, seq=1000 + 600 * seq, flags="A") / payload[:600]
        frames.append(ether / ip / segment)
    return [bytes(frame) for frame in frames]


GOOD = good_frames()


def mend(frame: bytearray) -> None:
    """Set the checksums that the frame's own fields ask for, as far as it has them."""
    if frame[12:14] != b"\x08\x00" or len(frame) < ETHERNET + 20:
        return
    header = (frame[ETHERNET] & 15) * 4
    transport = ETHERNET + header
    if header < 20 or len(frame) < transport:
        return
    frame[24:26] = bytes(2)
    frame[24:26] = checksum(frame[ETHERNET:transport]).to_bytes(2, "big")
    if frame[20] & 0x3F or frame[21]:
        return  # the transport's sum is over all fragments
    end = ETHERNET + int.from_bytes(frame[16:18], "big")
    body = frame[transport:end]
    protocol = frame[23]
    at = {1: 2, 2: 2, 6: 16, 17: 6}.get(protocol)
    if at is None or len(body) < at + 2:
        return
    body[at : at + 2] = bytes(2)
    pseudo = b""
    if protocol in (6, 17):
        pseudo = bytes(frame[26:34]) + bytes([0, protocol]) + len(body).to_bytes(2, "big")
    frame[transport + at : transport + at + 2] = checksum(pseudo + body).to_bytes(2, "big")


def mutant(rng: Random) -> bytes:
    """Make a good frame with up to three faults; the simplest one has none."""
    frame = bytearray(rng.choice(GOOD))
    for _ in range(rng.randrange(4)):
        FAULTS[rng.randrange(len(FAULTS))](frame, rng)
    if rng.randrange(2):
        mend(frame)
    return bytes(frame[:65535]) or b"\0"  # a wire has no frame without a byte, and none longer


def wrong_byte(frame: bytearray, rng: Random) -> None:
    if at := place(frame, 1, rng):
        frame[at] = rng.randrange(256)


def wrong_word(frame: bytearray, rng: Random) -> None:
    if at := place(frame, 2, rng):
        frame[at : at + 2] = rng.choice(INTERESTING).to_bytes(2, "big")


def cut(frame: bytearray, rng: Random) -> None:
    del frame[rng.randrange(len(frame) + 1) :]


def grow(frame: bytearray, rng: Random) -> None:
    frame += bytes(rng.choice([1, 4, 1000, 9000]))


def noise(frame: bytearray, rng: Random) -> None:
    frame[:] = rng.randbytes(rng.choice([1, 13, 14, 33, 60, 1514, 1515, 9000, 65535]))


FAULTS = [wrong_byte, wrong_byte, wrong_word, wrong_word, cut, grow, noise]


def place(frame: bytearray, size: int, rng: Random) -> int:
    """Choose where ``size`` bytes go wrong: mostly in the headers. 0 when there is no room."""
    room = min(len(frame), rng.choice([60, 60, 60, 1500])) - size
    return rng.randrange(room + 1) if room >= 0 else 0
