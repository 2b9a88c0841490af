"""Check the names, addresses and sizes a wire is made with, before anything is touched.

Pure functions: text in, value out, or a `UsageError` that says what to type instead. The
examples in the hints use the options of `netstack up`, which are the arguments of
`netstack.up()` too.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network, ip_address

from netstack.errors import UsageError

IFNAMSIZ = 16  # include/uapi/linux/if.h; the last byte is the terminating zero
MTU_MIN, MTU_MAX = 68, 9216  # RFC 791: every link carries 68; the igb goes up to 9216
TXQUEUELEN_MAX = 65536
DEFAULT_ADDRESS = "10.0.0.2/24"


def check_name(name: str) -> str:
    """Return `name` if an interface can have it (the kernel's dev_valid_name(), and no '%')."""
    size = len(name.encode())
    if not 0 < size < IFNAMSIZ:
        raise UsageError(
            f"interface name {name!r} has {size} bytes; 1 to {IFNAMSIZ - 1} are allowed",
            hint=f"netstack up {_mended(name)}",
        )
    bad = sorted({c for c in name if c in "/:%" or c.isspace() or not c.isprintable()})
    if bad or name in (".", ".."):
        what = " ".join(map(repr, bad)) or repr(name)
        raise UsageError(
            f"interface name {name!r} contains {what}; letters, digits, '-' and '_' are safe",
            hint=f"netstack up {_mended(name)}",
        )
    return name


def _mended(name: str) -> str:
    kept = "".join(c for c in name if c.isascii() and (c.isalnum() or c in "-_"))
    return kept[: IFNAMSIZ - 1] or "tap0"


def check_mtu(mtu: int) -> int:
    """Return `mtu`, in bytes after the Ethernet header, if the NIC can carry it."""
    if not MTU_MIN <= mtu <= MTU_MAX:
        raise UsageError(
            f"mtu {mtu} is out of range; {MTU_MIN} to {MTU_MAX} bytes are allowed",
            hint=f"--mtu {1500 if mtu < MTU_MIN else MTU_MAX}",
        )
    return mtu


def check_txqueuelen(frames: int) -> int:
    """Return `frames` if a TAP can have a queue of that many; the kernel allocates it whole."""
    if not 1 <= frames <= TXQUEUELEN_MAX:
        raise UsageError(
            f"txqueuelen {frames} is out of range; 1 to {TXQUEUELEN_MAX} frames are allowed",
            hint="--txqueuelen 1000",
        )
    return frames


def default_mac(name: str, end: str = "host") -> str:
    """Return a locally administered unicast MAC that is the same for `name` every time.

    So a peer's ARP cache stays valid over a restart. `end` tells the two ends of a wire apart:
    "host" is ours, "kernel" the interface that ping and netcat see.
    """
    digest = zlib.crc32(f"{end} of {name}".encode())
    return "02:6e:" + digest.to_bytes(4, "big").hex(":")


def parse_addresses(
    addr: str | IPv4Interface, peer: str | IPv4Address | IPv4Interface | None = None
) -> tuple[IPv4Interface, IPv4Interface]:
    """Return the host's and the peer's address, both with the prefix of their subnet.

    Without `peer` it is the first address of the subnet that is not the host's own: 10.0.0.2/24
    gives 10.0.0.1/24.
    """
    host = _parse_host(addr)
    other = _default_peer(host) if peer is None else _parse_peer(peer, host)
    if other.ip == host.ip:
        free = _default_peer(host)
        raise UsageError(
            f"address {host.ip} is given to both ends; host and peer need one each",
            hint=f"--addr {host} --peer {free.ip}",
        )
    if other.ip not in host.network:
        raise UsageError(
            f"peer {other.ip} is not in {host.network}, the subnet of the host's {host}",
            hint=f"--addr {host} --peer {_default_peer(host).ip}",
        )
    if other.network != host.network:
        raise UsageError(
            f"peer {other} and host {host} disagree about the prefix; both ends need the same",
            hint=f"--addr {host} --peer {other.ip}",
        )
    if why := _complaint(other):
        hint = f"--addr {host} --peer {_default_peer(host).ip}"
        raise UsageError(f"peer {other} {why}", hint=hint)
    return host, other


def free_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return a private /24 that overlaps none of `taken`, to be offered in a hint."""
    used = list(taken)
    for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"):
        for subnet in IPv4Network(block).subnets(new_prefix=24):
            if not any(subnet.overlaps(other) for other in used):
                return subnet
    return IPv4Network("198.18.0.0/24")  # RFC 2544: set aside for tests of network devices


def _parse_host(addr: str | IPv4Interface) -> IPv4Interface:
    if isinstance(addr, str) and "/" not in addr:
        mended = _mended_host(IPv4Interface((_parse_ip(addr, "--addr"), 24)))
        raise UsageError(
            f"address {addr!r} has no prefix length; it says which addresses are on the wire",
            hint=f"--addr {mended}",
        )
    host = _interface(addr, "--addr")
    if why := _complaint(host):
        raise UsageError(f"address {host} {why}", hint=f"--addr {_mended_host(host)}")
    return host


def _parse_peer(peer: str | IPv4Address | IPv4Interface, host: IPv4Interface) -> IPv4Interface:
    if isinstance(peer, IPv4Interface):
        return peer
    if isinstance(peer, str) and "/" in peer:
        return _interface(peer, "--peer")
    ip = peer if isinstance(peer, IPv4Address) else _parse_ip(peer, "--peer")
    return IPv4Interface((ip, host.network.prefixlen))


def _interface(text: str | IPv4Interface, option: str) -> IPv4Interface:
    if isinstance(text, IPv4Interface):
        return text
    ip, _, prefix = text.partition("/")
    address = _parse_ip(ip, option)
    try:
        return IPv4Interface((address, prefix))
    except ValueError:
        mended = _mended_host(IPv4Interface((address, 24)))
        raise UsageError(
            f"prefix {prefix!r} of {text!r} is not a number from 1 to 31",
            hint=f"{option} {mended if option == '--addr' else mended.ip}",
        ) from None


def _parse_ip(text: str, option: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        example = DEFAULT_ADDRESS if option == "--addr" else "10.0.0.1"
        kind = "an IPv6 address; netstack speaks IPv4" if _is_ipv6(text) else "no IPv4 address"
        raise UsageError(f"{text!r} is {kind}", hint=f"{option} {example}") from None


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def _complaint(address: IPv4Interface) -> str:
    """Say why a machine on a wire cannot own `address` with a peer beside it; "" if it can."""
    ip, network = address.ip, address.network
    if not 1 <= network.prefixlen <= 31:
        return "leaves no room for a peer; the prefix can be 1 to 31"
    if _is_martian(ip):
        return "cannot be the address of a host on a wire"
    # RFC 3021: in a /31 both addresses are hosts.
    if network.prefixlen < 31 and ip == network.network_address:
        return f"is the network address of {network}; a host needs one above it"
    if network.prefixlen < 31 and ip == network.broadcast_address:
        return f"is the broadcast address of {network}; a host needs one below it"
    return ""


def _is_martian(ip: IPv4Address) -> bool:
    """Tell whether kernels refuse `ip` as a source: 0/8, 127/8, 224/4 and above."""
    return ip.is_loopback or ip.is_multicast or ip.is_reserved or int(ip) >> 24 == 0


def _mended_host(address: IPv4Interface) -> IPv4Interface:
    """Return the usable address next to one that `_complaint()` refused."""
    if _is_martian(address.ip):
        return IPv4Interface(DEFAULT_ADDRESS)
    prefix = address.network.prefixlen
    near = IPv4Interface((address.ip, prefix if 1 <= prefix <= 30 else 24))
    edges = (near.network.network_address, near.network.broadcast_address)
    return _default_peer(near) if near.ip in edges else near


def _default_peer(host: IPv4Interface) -> IPv4Interface:
    first = next(host.network.hosts())
    if _is_martian(first):  # the subnet begins with 0/8
        first = IPv4Address("1.0.0.1")
    return IPv4Interface((first if first != host.ip else first + 1, host.network.prefixlen))


def mac_bytes(mac: str) -> bytes:
    """Give the six octets of a NIC's address; UsageError when it is none."""
    try:
        octets = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    except ValueError:
        octets = b""
    if len(octets) != 6 or octets[0] & 1 or not any(octets):
        raise UsageError(
            f"{mac!r} is not the MAC address of a NIC: six octets, not a multicast one",
            hint="--mac 02:00:00:00:00:02",
        )
    return octets
