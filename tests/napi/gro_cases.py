"""Frames that put GRO to the test, by name: what the kernel's GRO and ours are given."""

from __future__ import annotations

from tests.napi.frames import ACK, CWR, ECE, FIN, PSH, URG, Ip, Tcp, Udp, datagrams, stream


def flagged(*flags: int) -> list[Ip]:
    segments = stream(Tcp(), [100] * len(flags))
    return [one.but(flags=ACK | bits) for one, bits in zip(segments, flags, strict=True)]


CASES: dict[str, list[Ip]] = {
    "segments": [*stream(Tcp(), [100] * 7 + [40])],
    "64 KiB": [*stream(Tcp(), [1448] * 60)],
    "sequence numbers wrap": [*stream(Tcp(seq=2**32 - 250), [100] * 6)],
    "IDs stand, DF": [*stream(Tcp(), [100] * 4, id_step=0)],
    "IDs stand, no DF": [*stream(Tcp(frag_off=0), [100] * 4, id_step=0)],
    "IDs count, no DF": [*stream(Tcp(frag_off=0, ident=0xFFFE), [100] * 4)],
    "IDs step by two": [*stream(Tcp(), [100] * 4, id_step=2)],
    "CWR": flagged(CWR, CWR, 0, 0, CWR, 0),
    "ECE": flagged(ECE, ECE, 0, 0),
    "PSH": flagged(0, PSH, PSH, 0, 0, PSH),
    "FIN": flagged(0, 0, FIN, 0),
    "URG": flagged(0, URG, 0),
    "pure acknowledgements": [*stream(Tcp(), [100, 0, 0, 100])],
    "nine flows": [
        packet
        for turn in zip(*[stream(Tcp(sport=i), [100] * 3) for i in range(9)], strict=True)
        for packet in turn
    ],
    "datagrams": [*datagrams(Udp(), [100] * 7 + [40, 100])],
    "datagrams for a socket without UDP_GRO": [*datagrams(Udp(dport=5001), [100] * 3)],
    "datagrams for no socket": [*datagrams(Udp(dport=5002), [100] * 3)],
    "more than 64 datagrams": [*datagrams(Udp(), [10] * 130)],
    "64 KiB of datagrams": [*datagrams(Udp(), [1472] * 50)],
    "datagrams grow": [*datagrams(Udp(), [10, 10, 11, 11, 12])],
    "datagrams without checksum": [*datagrams(Udp(check=0), [100] * 3)],
    "small frames, padded": [*datagrams(Udp(pad=bytes(8)), [10] * 3)],
}
