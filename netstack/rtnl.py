"""rtnl: links and addresses of a running host, as rtnetlink has them.

Rows have the keys and the order of ``ip -j``. What changes the host checks everything first, and
refuses with the kernel's words and errno. Packets never meet half of a change: routes are
published as a whole, and a device's settings are made as its CPU.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import Any

from netstack._net import iff
from netstack.errors import UsageError, oserror

Host = Any  # netstack.host.Host
Device = Any
Row = dict[str, Any]

FOREVER = 0xFFFFFFFF
# IFF_* in the order of ip-link.
FLAGS = ("LOOPBACK", "BROADCAST", "MULTICAST", "NOARP", "ALLMULTI", "PROMISC", "UP")


def device_of(host: Host, name: str) -> Device:
    """Find a device, or raise ENODEV."""
    for device in host.devices:
        if device.name == name:
            return device
    known = "\n".join(f"netstack link show {device.name}" for device in host.devices)
    raise oserror(errno.ENODEV, f"Cannot find device {name!r}", hint=known)


# ---- link


def link_rows(host: Host, dev: str | None = None, *, stats: bool = False) -> list[Row]:
    """Give ``ip -j link``."""
    devices = [device_of(host, dev)] if dev else host.devices
    return [_link(device, stats=stats) for device in devices]


def _link(device: Device, *, stats: bool) -> Row:
    bits, is_lo = device.nic.flags, device.name == "lo"
    up, running = bits & iff.IFF_UP, bits & iff.IFF_RUNNING
    flags = ["NO-CARRIER"] if up and not running else []
    flags += [name for name in FLAGS if bits & iff[f"IFF_{name}"]]
    flags += ["LOWER_UP"] if up and running else []
    state = "UNKNOWN" if is_lo and up else "UP" if up and running else "DOWN"
    row: Row = {
        "ifindex": device.ifindex,
        "ifname": device.name,
        "flags": flags,
        "mtu": device.mtu,
        "qdisc": "noqueue",
        "operstate": state,
        "linkmode": "DEFAULT",
        "group": "default",
        "txqlen": 1000,
        "link_type": "loopback" if is_lo else "ether",
        "address": device.mac,
        "broadcast": "00:00:00:00:00:00" if is_lo else "ff:ff:ff:ff:ff:ff",
    }
    if stats:
        row["stats64"] = _stats64(device.stats())
    return row


def _stats64(of: dict[str, int]) -> Row:
    names = {
        "rx": ("bytes", "packets", "errors", "dropped", "over_errors", "multicast"),
        "tx": ("bytes", "packets", "errors", "dropped", "carrier_errors", "collisions"),
    }
    out: Row = {}
    for way, keys in names.items():
        out[way] = {key: of.get(f"{way}_{key}", of.get(key, 0)) for key in keys}
    out["rx"]["missed_errors"] = of.get("rx_missed_errors", 0)
    return out


def link_set(host: Host, dev: str, changes: dict[str, Any]) -> None:
    """Change a device: mtu, address, up, promisc, allmulticast; all, or nothing when one is refused."""
    device = device_of(host, dev)
    if device.name == "lo":
        message = "Operation not supported: lo is as it is"
        raise oserror(errno.EOPNOTSUPP, message, hint="netstack link show lo")
    mac, mtu = changes.get("address"), changes.get("mtu")
    octets = parse_mac(mac) if mac is not None else b""
    if mtu is not None:
        _check_mtu(device, mtu)
    if mac is not None:
        device.nic.set_mac(octets)
        device.mac = octets.hex(":")
    if mtu is not None:
        device.nic.set_mtu(int(mtu))
        host.inet.routes.refresh()
    if "promisc" in changes:
        device.nic.set_promisc(changes["promisc"])
    if "allmulticast" in changes:
        device.nic.set_allmulti(changes["allmulticast"])
    if "up" in changes:
        _set_up(host, device, up=changes["up"])


def parse_mac(
    text: str, hint: str = "netstack link set tap0 address 02:00:00:00:00:02"
) -> bytes:
    try:
        octets = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        octets = b""
    if len(octets) != 6 or octets[0] & 1 or not any(octets):
        raise oserror(
            errno.EADDRNOTAVAIL,
            f"Cannot assign requested address {text!r}: six octets, not a multicast one",
            hint=hint,
        )
    return octets


def _check_mtu(device: Device, mtu: Any) -> None:
    low, high = 68, 9216
    if not str(mtu).isdigit():
        message = f"invalid mtu {mtu!r}; allowed: {low} to {high}"
    elif int(mtu) < low:
        message = f"mtu less than device minimum: {mtu}, allowed: {low} to {high}"
    elif int(mtu) > high:
        message = f"mtu greater than device maximum: {mtu}, allowed: {low} to {high}"
    else:
        return
    raise oserror(errno.EINVAL, message, hint=f"netstack link set {device.name} mtu 1500")


def _set_up(host: Host, device: Device, *, up: bool) -> None:
    """Open or close: routes and neighbours go with a device that is down. [dev_open(), dev_close()]"""
    if bool(device.nic.flags & iff.IFF_UP) == up:
        return
    if up:
        device.nic.open()
    host.inet.routes.set_down(device.ifindex, not up)
    host.inet.igmp.set_up(device.ifindex, up=up)
    if not up:
        device.nic.close()
        for entry in host.inet.neigh.entries():
            if entry[0] == device.ifindex:
                host.inet.neigh.delete(entry[0], entry[1])


# ---- addr


def addr_rows(host: Host, dev: str | None = None) -> list[Row]:
    """Give ``ip -j addr``: primary addresses first."""
    rows = []
    for link in link_rows(host, dev):
        del link["linkmode"]
        infos = _addr_infos(host, link["ifindex"], link["ifname"])
        rows.append(link | {"addr_info": sorted(infos, key=lambda info: "secondary" in info)})
    return rows


def _addr_infos(host: Host, ifindex: int, label: str) -> list[Row]:
    routes = host.inet.routes
    infos = []
    for have in routes.addresses.get(ifindex, ()):
        info: Row = {
            "family": "inet",
            "local": str(have.ip),
            "prefixlen": have.network.prefixlen,
        }
        if have.ip in routes.broadcasts:
            info["broadcast"] = str(routes.broadcasts[have.ip])
        info["scope"] = "host" if have.ip.is_loopback else "global"
        if routes.is_secondary(ifindex, have):
            info["secondary"] = True
        infos.append(info | {"label": label} | dict.fromkeys(
            ("valid_life_time", "preferred_life_time"), FOREVER
        ))  # fmt: skip
    return infos


def addr_change(host: Host, verb: str, dev: str, address: str, brd: str | None = None) -> None:
    """``ip addr add|change|replace|del ADDRESS dev DEV``."""
    device, have = device_of(host, dev), _interface(address)
    routes = host.inet.routes
    mine = routes.addresses.get(device.ifindex, [])
    hint = f"netstack addr show {dev}"
    if verb == "del":
        if "/" not in address:
            have = next((each for each in mine if each.ip == have.ip), have)
        if have not in mine:
            raise oserror(errno.EADDRNOTAVAIL, f"ipv4: Address not found: {have}", hint=hint)
        routes.remove_address(device.ifindex, have)
        device.addresses[:] = routes.addresses[device.ifindex]
        return
    last = have.network.broadcast_address
    if brd not in (None, "+", str(last)):
        message = f"brd {brd}: the broadcast address of {have} is {last}"
        raise UsageError(message, hint=f"netstack addr add {have} brd + dev {dev}")
    is_there = have in mine
    if is_there and verb == "add":
        raise oserror(errno.EEXIST, f"ipv4: Address already assigned: {have}", hint=hint)
    if not is_there and verb == "change":
        raise oserror(errno.EADDRNOTAVAIL, f"ipv4: Address not found: {have}", hint=hint)
    if not int(have.ip):  # Linux says yes to it, and does nothing
        message = f"any valid address is expected rather than {have}: it means no address"
        raise oserror(errno.EINVAL, message, hint=f"netstack addr add 10.0.0.9/24 dev {dev}")
    if not is_there:
        routes.add_address(device.ifindex, have)
        device.addresses[:] = routes.addresses[device.ifindex]
    if brd is not None:
        routes.broadcasts[have.ip] = last


def addr_flush(host: Host, dev: str) -> int:
    """``ip addr flush dev DEV``: take all of them away; how many there were."""
    device = device_of(host, dev)
    routes = host.inet.routes
    gone = list(routes.addresses.get(device.ifindex, ()))
    for have in reversed(gone):
        routes.remove_address(device.ifindex, have)
    device.addresses[:] = []
    return len(gone)


def _interface(text: str) -> IPv4Interface:
    try:
        return IPv4Interface(text)
    except ValueError:
        message = f"any valid prefix is expected rather than {text!r}"
        raise UsageError(message, hint="netstack addr add 10.0.0.9/24 dev tap0") from None


COMMANDS: dict[str, Callable[..., Any]] = {
    "addr": addr_rows,
    "addr_change": addr_change,
    "addr_flush": addr_flush,
    "link": link_rows,
    "link_set": link_set,
}
