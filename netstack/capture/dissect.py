"""Read a frame that may end anywhere, and collect the words that describe it.

Two lengths matter everywhere, as in tcpdump: what a header says (``length``, from the wire) and
what was captured (``end``, where reading stops). A protocol that reads past ``end`` raises
:class:`Truncated`; the printer then ends the line with ``[|udp]``, the protocol it was in.
Nothing a frame contains can raise anything else.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from netstack.capture.hexdump import hex_and_ascii, hex_only

__all__ = ["Dissection", "Network", "Style", "Truncated", "name_bits", "should_be"]

CONVERSATIONS_MAX = 65536  # the oldest is forgotten: memory must not grow with traffic


class Truncated(Exception):
    """Say that a protocol wanted bytes that were not captured."""


@dataclass(slots=True)
class Style:
    """Say how to print, by tcpdump's options and how often each was given."""

    verbose: int = 0  # -v
    link: bool = False  # -e
    quiet: int = 0  # -q
    time: int = 0  # -t
    hex: int = 0  # -x
    hex_ascii: int = 0  # -X
    ascii: int = 0  # -A
    number: bool = False  # -#
    absolute: bool = False  # -S
    no_checksums: bool = False  # -K
    nano: bool = False  # --nano
    place: bool = False  # interface and direction first, as tcpdump -i any has them

    @property
    def terse(self) -> bool:
        """Tell whether unknown protocols go without a dump: -q, -x and -X do that."""
        return bool(self.quiet or self.hex or self.hex_ascii)


@dataclass(slots=True)
class Network:
    """Keep what a transport protocol has to know about the network header before it."""

    version: int
    source: str
    target: str
    pseudo: bytes  # both addresses, as the pseudo header has them
    protocol: int  # what the header itself says comes next
    fragmented: bool = False


Layer = Callable[["Dissection", int, int], None]


@dataclass(slots=True)
class Dissection:
    """Hold one frame on its way to a line of text.

    ``layers`` has the printers of IPv4 and IPv6 by version, for what is quoted or tunnelled
    inside them. ``conversations`` outlives the frame: TCP's sequence numbers are printed
    relative to it.
    """

    data: bytes
    style: Style
    layers: Mapping[int, Layer]
    conversations: dict[tuple[bytes, int, int], tuple[int, int]]
    end: int = 0
    protocol: str = ""
    out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with everything captured in view."""
        self.end = len(self.data)

    def put(self, text: str) -> None:
        """Add words to the description."""
        self.out.append(text)

    def cut(self) -> None:
        """Note that the protocol at hand does not go on."""
        self.out.append(f" [|{self.protocol}]")

    def invalid(self) -> None:
        """Note that the protocol at hand makes no sense."""
        self.out.append(" (invalid)")

    def have(self, at: int, count: int) -> bool:
        """Tell whether bytes were captured."""
        return at + count <= self.end

    def take(self, at: int, count: int) -> bytes:
        """Return bytes, all or none."""
        if at + count > self.end:
            raise Truncated
        return self.data[at : at + count]

    def u8(self, at: int) -> int:
        """Return a byte."""
        if at >= self.end:
            raise Truncated
        return self.data[at]

    def u16(self, at: int) -> int:
        """Return 16 bits in network byte order."""
        return int.from_bytes(self.take(at, 2), "big")

    def u24(self, at: int) -> int:
        """Return 24 bits in network byte order."""
        return int.from_bytes(self.take(at, 3), "big")

    def u32(self, at: int) -> int:
        """Return 32 bits in network byte order."""
        return int.from_bytes(self.take(at, 4), "big")

    def ip4(self, at: int) -> str:
        """Return an IPv4 address as text."""
        return socket.inet_ntop(socket.AF_INET, self.take(at, 4))

    def ip6(self, at: int) -> str:
        """Return an IPv6 address as text."""
        return socket.inet_ntop(socket.AF_INET6, self.take(at, 16))

    def mac(self, at: int, count: int = 6) -> str:
        """Return a link-layer address as text."""
        return self.take(at, count).hex(":") if count else "<empty>"

    def upto(self, at: int) -> int:
        """Hide what lies behind ``at`` (padding, say); return the old end, to be put back."""
        old, self.end = self.end, min(self.end, at)
        return old

    def checksum(self, at: int, length: int, pseudo: bytes = b"") -> int:
        """Return the Internet checksum of captured bytes: 0 when theirs is right."""
        data = pseudo + self.data[at : at + length]
        number = int.from_bytes(data + bytes(len(data) & 1), "big")
        # One's complement addition of 16-bit words is arithmetic modulo 65535 (RFC 1071), with
        # 65535 instead of 0 for anything but all zeros.
        return 0xFFFF - ((number % 0xFFFF or 0xFFFF) if number else 0)

    def transport_checksum(self, network: Network, protocol: int, at: int, length: int) -> int:
        """Return the checksum of a segment with its pseudo header: 0 when it is right."""
        if network.version == 4:
            tail = bytes((0, protocol)) + (length & 0xFFFF).to_bytes(2, "big")
        else:
            tail = length.to_bytes(4, "big") + bytes((0, 0, 0, protocol))
        return self.checksum(at, length, network.pseudo + tail)

    def dump(self, at: int, length: int) -> None:
        """Show bytes in hex and ASCII, below the line."""
        self.put(hex_and_ascii(self.data[at : min(at + length, self.end)]))
        if at + length > self.end:
            raise Truncated

    def unknown(self, at: int, indent: str, length: int) -> None:
        """Show the captured ones of some bytes in hex, below the line."""
        self.put(hex_only(self.data[at : min(at + length, self.end)], indent))


def should_be(given: int, computed: int) -> int:
    """Return the checksum that a header should have, from its own and what the sum gave."""
    total = given + computed
    return (total & 0xFFFF) + (total >> 16)


def name_bits(names: Mapping[int, str], value: int, separator: str = ", ") -> str:
    """Return the names of the bits that are set, or ``none``."""
    return separator.join(name for bit, name in names.items() if value & bit) or "none"
