"""ip_options: check the options of a header, add our address or the time, give them back.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       the header of a packet           proto/ip.py
Out      the options of a reply           proto/icmp.py
Context  process
Kernel   ip_options_compile(), __ip_options_echo(), net/ipv4/ip_options.c

RFC 791 section 3.1 has the formats. Offsets in an option count from 1, as in the RFC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netstack.proto.route import RTN

if TYPE_CHECKING:
    from netstack.proto.af_inet import InetHost

IP_HLEN = 20
IPOPT_END, IPOPT_NOOP, IPOPT_RR, IPOPT_TS = 0, 1, 7, 68
IPOPT_LSRR, IPOPT_SSRR, IPOPT_RA, IPOPT_CIPSO = 131, 137, 148, 134
CIPSO_MIN = 8  # bytes of a label without tags
TS_TSONLY, TS_TSANDADDR, TS_PRESPEC = 0, 1, 3
TS_OVERFLOW_MAX = 15


class BadOption(Exception):
    """The options are wrong at byte ``pointer`` of the header (ICMP parameter problem)."""

    def __init__(self, pointer: int) -> None:
        super().__init__(pointer)
        self.pointer = pointer


@dataclass(slots=True)
class IpOptions:
    """What was found: the bytes, and where in them the options begin that may come once."""

    data: bytearray
    srr: int | None = None
    rr: int | None = None
    ts: int | None = None
    changed: bool = False
    error: int | None = None


def ip_options_compile(host: InetHost, header: bytes, spec_dst: int) -> IpOptions:
    """Check the options of a received header, and write into a copy what they ask for.

    ``spec_dst`` is the address that we are known by to the sender. What comes before a wrong
    option is done; ``error`` then says at which byte of the header the wrong one is.
    """
    opt = IpOptions(bytearray(header[IP_HLEN:]))
    try:
        compile_each(host, opt, spec_dst)
    except BadOption as bad:
        opt.error = bad.pointer
    return opt


def compile_each(host: InetHost, opt: IpOptions, spec_dst: int) -> None:
    """Take the options one by one. Raises BadOption."""
    data, at = opt.data, 0
    while at < len(data):
        kind, left = data[at], len(data) - at
        if kind == IPOPT_END:
            opt.changed |= any(data[at:])
            data[at:] = bytes(left)
            break
        if kind == IPOPT_NOOP:
            at += 1
            continue
        if left < 2 or not 2 <= data[at + 1] <= left:
            raise BadOption(IP_HLEN + at)
        size = data[at + 1]
        if kind in (IPOPT_LSRR, IPOPT_SSRR):
            source_route(opt, at, size)
        elif kind == IPOPT_RR:
            record_route(opt, at, size, spec_dst)
        elif kind == IPOPT_TS:
            timestamp(host, opt, at, size, spec_dst)
        elif kind == IPOPT_CIPSO:
            # A label of a domain that nobody has configured. [cipso_v4_validate()]
            raise BadOption(IP_HLEN + at + (2 if size >= CIPSO_MIN else 1))
        elif kind == IPOPT_RA and size < 4:
            raise BadOption(IP_HLEN + at + 1)
        at += size


def source_route(opt: IpOptions, at: int, size: int) -> None:
    """Check a source route: at most one, with a pointer behind its own header."""
    if size < 3:
        raise BadOption(IP_HLEN + at + 1)
    if opt.data[at + 2] < 4:
        raise BadOption(IP_HLEN + at + 2)
    if opt.srr is not None:
        raise BadOption(IP_HLEN + at)
    opt.srr = at


def record_route(opt: IpOptions, at: int, size: int, spec_dst: int) -> None:
    """Add our address to a record route, if there is room."""
    data = opt.data
    if opt.rr is not None:
        raise BadOption(IP_HLEN + at)
    if size < 3:
        raise BadOption(IP_HLEN + at + 1)
    pointer = data[at + 2]
    if pointer < 4 or (pointer <= size and pointer + 3 > size):
        raise BadOption(IP_HLEN + at + 2)
    if pointer <= size:
        put(data, at + pointer - 1, spec_dst)
        data[at + 2] = pointer + 4
        opt.changed = True
    opt.rr = at


def timestamp(host: InetHost, opt: IpOptions, at: int, size: int, spec_dst: int) -> None:
    """Add the time to a timestamp option, with our address if it wants that; else count it full."""
    data = opt.data
    if opt.ts is not None:
        raise BadOption(IP_HLEN + at)
    if size < 4:
        raise BadOption(IP_HLEN + at + 1)
    pointer, flag = data[at + 2], data[at + 3] & 15
    if pointer < 5:
        raise BadOption(IP_HLEN + at + 2)
    if pointer <= size:
        if pointer + (7 if flag in (TS_TSANDADDR, TS_PRESPEC) else 3) > size:
            raise BadOption(IP_HLEN + at + 2)
        add_timestamp(host, opt, at, spec_dst)
    elif flag != TS_PRESPEC:
        overflow = data[at + 3] >> 4
        if overflow == TS_OVERFLOW_MAX:
            raise BadOption(IP_HLEN + at + 3)
        data[at + 3] = flag | overflow + 1 << 4
        opt.changed = True
    opt.ts = at


def add_timestamp(host: InetHost, opt: IpOptions, at: int, spec_dst: int) -> None:
    """Write one entry; one that names another host is left to that."""
    data = opt.data
    pointer, flag = data[at + 2], data[at + 3] & 15
    here = at + pointer - 1
    now = host.inet.inet_current_timestamp()
    if flag == TS_TSONLY:
        put(data, here, now)
        data[at + 2] = pointer + 4
    elif flag == TS_TSANDADDR:
        put(data, here, spec_dst)
        put(data, here + 4, now)
        data[at + 2] = pointer + 8
    elif flag == TS_PRESPEC and not is_others(host, data, here):
        put(data, here + 4, now)
        data[at + 2] = pointer + 8
    else:
        return
    opt.changed = True


def is_others(host: InetHost, data: bytearray, at: int) -> bool:
    """Tell whether the address at this place is another host's."""
    address = int.from_bytes(data[at : at + 4])
    return host.inet.routes.fib.address_type(address) == RTN.UNICAST


def put(data: bytearray, at: int, word: int) -> None:
    """Write a 32-bit word."""
    data[at : at + 4] = word.to_bytes(4)


# ---- out


def ip_options_echo(
    host: InetHost, packet: bytes, own: int, checked: int | None = None
) -> bytes | None:
    """Give the options of a reply: recorded route and timestamps, with an entry of ours more.

    ``own`` is the reply's source address. None when an option has room for half an entry: then
    Linux does not answer. ``checked``: only what ends before this byte of the header.
    """
    header = packet[: (packet[0] & 15) * 4]
    out = bytearray()
    for kind, at, size in walk(header[:checked]):
        option = bytearray(header[at : at + size])
        if kind == IPOPT_RR and not echo_record_route(option, own):
            return None
        if kind == IPOPT_TS and not echo_timestamp(host, option, own):
            return None
        if kind in (IPOPT_RR, IPOPT_TS):
            out += option
    out += refused_label(header, checked)
    return bytes(out) + bytes(-len(out) % 4)


def refused_label(header: bytes, checked: int | None) -> bytes:
    """Give the label back that an error is about, as Linux does."""
    for at in () if checked is None else (checked - 2, checked - 1):
        if at >= IP_HLEN and header[at] == IPOPT_CIPSO:
            return header[at : at + header[at + 1]]
    return b""


def walk(header: bytes) -> list[tuple[int, int, int]]:
    """List kind, place and size of checked options; Linux gives the timestamp back last."""
    found, at = [], IP_HLEN
    while at + 1 < len(header) and header[at] != IPOPT_END:
        if header[at] == IPOPT_NOOP:
            at += 1
            continue
        size = header[at + 1]
        if size < 2 or at + size > len(header):
            break
        found.append((header[at], at, size))
        at += size
    return sorted(found, key=lambda row: row[0] == IPOPT_TS)


def echo_record_route(option: bytearray, own: int) -> bool:
    """Record that the reply leaves from here; False when there is room for half an address."""
    size, pointer = option[1], option[2]
    if pointer <= size:
        if pointer + 3 > size:
            return False
        put(option, pointer - 1, own)
        option[2] = pointer + 4
    return True


def echo_timestamp(host: InetHost, option: bytearray, own: int) -> bool:
    """Record when the reply leaves; False when there is room for half an entry."""
    size, pointer, flag = option[1], option[2], option[3] & 15
    if pointer > size or flag not in (TS_TSONLY, TS_TSANDADDR, TS_PRESPEC):
        return True
    if flag == TS_PRESPEC:
        if pointer + 7 <= size and not is_others(host, option, pointer - 1):
            put(option, pointer + 3, host.inet.inet_current_timestamp())
            option[2] = pointer + 8
        return True
    entry = 4 if flag == TS_TSONLY else 8
    if pointer + entry - 1 > size:
        return False
    if flag == TS_TSANDADDR:
        put(option, pointer - 1, own)
    put(option, pointer + entry - 5, host.inet.inet_current_timestamp())
    option[2] = pointer + entry
    return True
