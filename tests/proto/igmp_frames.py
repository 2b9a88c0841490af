"""IGMP messages and datagrams to groups, made by hand: what a router, a neighbour and a sender put on the wire."""

from __future__ import annotations

import struct

from netstack._checksum import internet_checksum
from tests.proto.stack import PEER, PEER_MAC, number

ALL_HOSTS, ALL_V3 = "224.0.0.1", "224.0.0.22"
GROUP, OTHER, LOCAL = "239.1.2.3", "239.1.2.4", "224.0.0.251"
QUERY, V1_REPORT, V2_REPORT, LEAVE, V3_REPORT = 0x11, 0x12, 0x16, 0x17, 0x22
ALERT = b"\x94\x04\x00\x00"


def group_mac(group: str) -> bytes:
    """Give the Ethernet address of a group (RFC 1112 section 6.4)."""
    return b"\x01\x00\x5e" + (number(group) & 0x7FFFFF).to_bytes(3)


def packet(
    dst: str,
    payload: bytes,
    proto: int,
    *,
    src: str = PEER,
    ttl: int = 1,
    options: bytes = b"",
    mac: bytes | None = None,
    frag: int = 0,
) -> bytes:
    """Give a frame from the peer."""
    head = bytearray(20) + options
    head[0] = 0x40 | len(head) // 4
    struct.pack_into("!HHH", head, 2, len(head) + len(payload), 7, frag)
    head[8], head[9] = ttl, proto
    head[12:16], head[16:20] = number(src).to_bytes(4), number(dst).to_bytes(4)
    head[10:12] = internet_checksum(head).to_bytes(2)
    ether = (mac or group_mac(dst)) + bytes.fromhex(PEER_MAC.replace(":", "")) + b"\x08\x00"
    return ether + bytes(head) + payload


def message(type_: int, code: int = 0, group: str = "0.0.0.0", rest: bytes = b"") -> bytes:
    """Give an IGMP message with its checksum."""
    data = struct.pack("!BBHI", type_, code, 0, number(group)) + rest
    return data[:2] + internet_checksum(data).to_bytes(2) + data[4:]


def igmp(dst: str, data: bytes, **fields: object) -> bytes:
    """Put a message into a frame, with the router alert option."""
    return packet(dst, data, 2, **{"options": ALERT} | fields)


def query(
    version: int,
    group: str = "0.0.0.0",
    code: int = 10,
    sources: tuple[str, ...] = (),
    qrv: int = 2,
) -> bytes:
    """Ask, as a router of a version."""
    rest = b""
    if version == 3:
        rest = struct.pack("!BBH", qrv, 125, len(sources))
        rest += b"".join(number(s).to_bytes(4) for s in sources)
    dst = ALL_HOSTS if group == "0.0.0.0" else group
    return igmp(dst, message(QUERY, code if version > 1 else 0, group, rest))


def report(group: str, version: int = 2) -> bytes:
    """Report a group, as a neighbour."""
    return igmp(group, message(V2_REPORT if version == 2 else V1_REPORT, 0, group))


def datagram(group: str, data: bytes = b"x", *, port: int = 7, **fields: object) -> bytes:
    """Send a datagram to a group; no checksum."""
    udp = struct.pack("!HHHH", 1000, port, 8 + len(data), 0) + data
    return packet(group, udp, 17, **{"ttl": 8} | fields)


def read(frame: bytes) -> tuple[str, int, object]:
    """Take an IGMP message of ours apart: destination, type, group or records; what never differs is checked."""
    ihl = (frame[14] & 15) * 4
    assert frame[14 + 20 : 14 + ihl] == ALERT
    assert (frame[15], frame[22], frame[23]) == (0xC0, 1, 2)
    assert internet_checksum(frame[14 : 14 + ihl]) == 0
    dst = ".".join(map(str, frame[30:34]))
    assert frame[:6] == group_mac(dst)
    end = 14 + int.from_bytes(frame[16:18])
    data = frame[14 + ihl : end]
    assert internet_checksum(data) == 0
    if data[0] != V3_REPORT:
        return dst, data[0], ".".join(map(str, data[4:8]))
    records, at = [], 8
    for _ in range(int.from_bytes(data[6:8])):
        kind, aux, count = struct.unpack_from("!BBH", data, at)
        assert aux == 0
        group = ".".join(map(str, data[at + 4 : at + 8]))
        rows = [data[at + 8 + 4 * i : at + 12 + 4 * i] for i in range(count)]
        records.append((kind, group, [".".join(map(str, row)) for row in rows]))
        at += 8 + 4 * count
    assert at == len(data)
    return dst, V3_REPORT, records
