"""TCP, as tcpdump prints it (RFC 9293). What it carries is not looked into.

Sequence numbers are relative to the first segment seen of a conversation, in each direction.
"""

from __future__ import annotations

from netstack.capture.dissect import (
    CONVERSATIONS_MAX,
    Dissection,
    Network,
    Truncated,
    name_bits,
    should_be,
)
from netstack.capture.print_tcp_options import tcp_options

__all__ = ["tcp"]

_HEADER = 20
IPPROTO_TCP = 6
FIN, SYN, RST, ACK, URG = 0x01, 0x02, 0x04, 0x10, 0x20
_FLAGS = {
    FIN: "F",
    SYN: "S",
    RST: "R",
    0x08: "P",
    ACK: ".",
    URG: "U",
    0x40: "E",
    0x80: "W",
}
_U32 = 0xFFFFFFFF
_RST_DATA_MAX = 30


def tcp(d: Dissection, at: int, length: int, network: Network) -> None:
    """Describe a segment; ``length`` is what IP carried."""
    d.protocol = "tcp"
    if not d.have(at + 2, 2):
        d.put(f"{network.source} > {network.target}:")
        d.cut()
        return
    source, target = d.u16(at), d.u16(at + 2)
    if network.protocol == IPPROTO_TCP:
        d.put(f"{network.source}.{source} > {network.target}.{target}: ")
    else:
        d.put(f"{source} > {target}: ")
    if not d.have(at, _HEADER):
        d.cut()
        return
    header = (d.u8(at + 12) >> 4) * 4
    if header < _HEADER:
        rest = length - header & _U32
        d.put(f" tcp {rest} [bad hdr length {header} - too short, < {_HEADER}]")
        return
    if d.style.quiet:
        d.put(f"tcp {length - header & _U32}")
        if header > length:
            d.put(f" [bad hdr length {header} - too long, > {length}]")
        return
    flags = d.u8(at + 13)
    d.put(f"Flags [{name_bits(_FLAGS, flags, '')}]")
    seq, ack, sack_base = _relative(d, at, flags, network)
    if header > length:
        d.put(f" [bad hdr length {header} - too long, > {length}]")
        return
    if d.style.verbose and not network.fragmented and not d.style.no_checksums:
        _checksum(d, at, length, network)
    payload = length - header
    if d.style.verbose > 1 or payload or flags & (SYN | FIN | RST):
        d.put(f", seq {seq}")
        if payload:
            d.put(f":{seq + payload & _U32}")
    if flags & ACK:
        d.put(f", ack {ack}")
    d.put(f", win {d.u16(at + 14)}")
    if flags & URG:
        d.put(f", urg {d.u16(at + 18)}")
    if header > _HEADER:
        whole = d.have(at, length)
        if not tcp_options(d, at + _HEADER, header - _HEADER, sack_base, whole):
            return
    d.put(f", length {payload}")
    if payload and not d.have(at, header):
        d.put(f" [remaining caplen({d.end - at}) < header length({header})]")
        raise Truncated
    if payload and flags & RST and d.style.verbose:
        _reset_reason(d, at + header, payload)


def _relative(d: Dissection, at: int, flags: int, network: Network) -> tuple[int, int, int]:
    """Return sequence and acknowledgement as they are printed, and what SACK counts from."""
    source, target = d.u16(at), d.u16(at + 2)
    seq, ack = d.u32(at + 4), d.u32(at + 8)
    if d.style.absolute or not flags & ACK:
        return seq, ack, 0
    # One entry has both directions: the one from the lower port comes first.
    half = 16 if network.version == 6 else 4
    low, high = network.pseudo[:half], network.pseudo[-half:]
    backwards = source > target or (source == target and low > high)
    key = (high + low, target, source) if backwards else (low + high, source, target)
    known = d.conversations.get(key)
    if known is None or flags & SYN:
        first = (ack - 1 & _U32, seq) if backwards else (seq, ack - 1 & _U32)
        if known is None and len(d.conversations) >= CONVERSATIONS_MAX:
            del d.conversations[next(iter(d.conversations))]
        d.conversations[key] = known = first
    else:
        ours, theirs = (known[1], known[0]) if backwards else known
        seq, ack = seq - ours & _U32, ack - theirs & _U32
    return seq, ack, known[0] if backwards else known[1]


def _checksum(d: Dissection, at: int, length: int, network: Network) -> None:
    if not d.have(at, length):
        return
    given = d.u16(at + 16)
    computed = d.transport_checksum(network, IPPROTO_TCP, at, length)
    verdict = f"incorrect -> 0x{should_be(given, computed):04x}" if computed else "correct"
    d.put(f", cksum 0x{given:04x} ({verdict})")


def _reset_reason(d: Dissection, at: int, length: int) -> None:
    """Show what a reset carries, which may be a reason in words (RFC 1122 section 4.2.2.12)."""
    d.put(" [RST" if d.have(at, length) else " [!RST")
    d.put("+ " if length > _RST_DATA_MAX else " ")
    stop = min(at + min(length, _RST_DATA_MAX), d.end)
    d.put("".join(_visible(code) for code in d.data[at:stop]) + "]")


def _visible(code: int) -> str:
    """Return a character as ``cat -v`` shows it."""
    meta, code = ("M-", code & 0x7F) if code > 0x7F else ("", code)
    return meta + (chr(code) if 0x20 <= code <= 0x7E else f"^{chr(code ^ 0x40)}")
