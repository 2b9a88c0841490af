"""Servers for clients that everybody has, each for the kernel's sockets and for netstack's."""

from __future__ import annotations

import struct
import time
import zlib
from typing import Any

from scapy.asn1.asn1 import ASN1_STRING
from scapy.layers.snmp import SNMP, SNMPresponse, SNMPvarbind

from tests.e2e.twins import World

Sender = tuple[str, int]
FILE = bytes(range(256)) * 400 + b"the end"
SINCE_1900 = 2_208_988_800


def collect(world: World, sock: Any, data: bytes, sender: Sender) -> None:
    """Note what came."""
    world.got.append(data if len(data) < 500 else f"{len(data)} {zlib.crc32(data)}".encode())


def ntp(world: World, sock: Any, data: bytes, sender: Sender) -> None:
    """Say what time it is, as a server of stratum 1 (RFC 5905)."""
    now = int((time.time() + SINCE_1900) * 2**32).to_bytes(8)
    head = struct.pack("!BBbbII4s", data[0] & 0x38 | 4, 1, 6, -20, 0, 1, b"TEST")
    sock.sendto(head + now + data[40:48] + now + now, sender)


def snmp(world: World, sock: Any, data: bytes, sender: Sender) -> None:
    """Give every object the same value."""
    request = SNMP(data)
    rows = [
        SNMPvarbind(oid=row.oid, value=ASN1_STRING(b"a host"))
        for row in request.PDU.varbindlist
    ]
    answer = SNMPresponse(id=request.PDU.id, varbindlist=rows)
    sock.sendto(
        bytes(SNMP(version=request.version, community=request.community, PDU=answer)), sender
    )


def tftp(world: World, sock: Any, data: bytes, sender: Sender) -> None:
    """Send the file to who reads, take one from who writes, by a port of its own (RFC 1350)."""
    reads = data[:2] == b"\0\1"
    own = world.socket()
    block, part = (1, b"") if reads else (0, b"")
    received = b""
    while True:
        if reads:
            part = FILE[(block - 1) * 512 : block * 512]
            own.sendto(struct.pack("!HH", 3, block) + part, sender)
        else:
            own.sendto(struct.pack("!HH", 4, block), sender)
            if block and len(part) < 512:
                break
        answer, who = own.recvfrom(600)
        assert who == sender
        if reads:
            assert answer == struct.pack("!HH", 4, block)
            if len(part) < 512:
                break
        else:
            part = answer[4:]
            received += part
        block += 1
    if not reads:
        world.got.append(f"{len(received)} {zlib.crc32(received)}".encode())
