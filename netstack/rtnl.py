"""rtnl: links, addresses and routes of a running host, as rtnetlink has them.

Rows have the keys and the order of ``ip -j``. What changes the host checks everything first, and
refuses with the kernel's words and errno. Packets never meet half of a change: routes are
published as a whole, and a device's settings are made as its CPU.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from netstack._net import iff
from netstack.errors import UsageError, oserror
from netstack.proto.route import RTN, Route

Host = Any  # netstack.host.Host
Device = Any
Row = dict[str, Any]

FOREVER = 0xFFFFFFFF
# IFF_* in the order of ip-link.
FLAGS = ("LOOPBACK", "BROADCAST", "MULTICAST", "NOARP", "ALLMULTI", "PROMISC", "UP")
REFUSING = ("blackhole", "unreachable", "prohibit")


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


def parse_mac(text: str) -> bytes:
    try:
        octets = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        octets = b""
    if len(octets) != 6 or octets[0] & 1 or not any(octets):
        raise oserror(
            errno.EADDRNOTAVAIL,
            f"Cannot assign requested address {text!r}: six octets, not a multicast one",
            hint="netstack link set tap0 address 02:00:00:00:00:02",
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


# ---- route


def parse_prefix(text: str) -> IPv4Network:
    try:
        return IPv4Network("0.0.0.0/0" if text == "default" else text)
    except ValueError as error:
        what = "Invalid prefix for given prefix length" if "host bits" in str(error) else (
            "any valid prefix is expected rather than"
        )  # fmt: skip
        raise UsageError(
            f"{what} {text!r}", hint="netstack route add 10.9.0.0/24 ..."
        ) from None


def parse_address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        message = f"any valid address is expected rather than {text!r}"
        raise UsageError(message, hint="netstack route add default via 10.0.0.1") from None


def _route(host: Host, spec: Row) -> Route:
    prefix = parse_prefix(spec["dst"])
    metric = int(spec.get("metric", 0))
    kind = spec.get("type", "unicast")
    if kind in REFUSING:
        return Route(prefix, RTN[kind.upper()], host.lo.ifindex, metric=metric)
    if kind != "unicast":
        allowed = " ".join(("unicast", *REFUSING))
        raise UsageError(f"a route of type {kind} follows from addresses; allowed: {allowed}",
                         hint="netstack addr add 10.0.0.9/24 dev tap0")  # fmt: skip
    gateway = parse_address(spec["via"]) if "via" in spec else IPv4Address(0)
    ifindex = device_of(host, spec["dev"]).ifindex if "dev" in spec else 0
    subnets = host.inet.routes.addresses.items()
    if int(gateway):
        on_link = [i for i, have in subnets if any(gateway in each.network for each in have)]
        if not on_link or (ifindex and ifindex not in on_link):
            message = f"Nexthop has invalid gateway: {gateway} is in no subnet of ours"
            raise oserror(errno.ENETUNREACH, message, hint="netstack addr show")
        ifindex = ifindex or on_link[0]
    if not ifindex:
        message = f"No such device: a route to {prefix} wants via ADDRESS or dev DEVICE"
        raise oserror(errno.ENODEV, message, hint=f"netstack route add {spec['dst']} dev tap0")
    if ifindex in host.inet.routes.down:
        message = "Nexthop device is not up"
        raise oserror(errno.ENETDOWN, message, hint="netstack link set tap0 up")
    source = parse_address(spec["src"]) if "src" in spec else IPv4Address(0)
    if int(source) and not any(source == each.ip for _, have in subnets for each in have):
        message = f"Invalid prefsrc address {source}: it is not ours"
        raise oserror(errno.EINVAL, message, hint="netstack addr show")
    return Route(prefix, RTN.UNICAST, ifindex, gateway, source, metric)


def route_change(host: Host, verb: str, spec: Row) -> None:
    """``ip route add|append|change|replace|del SPEC``."""
    routes = host.inet.routes
    if verb == "del":
        found = _matching(host, spec)
        if not found:
            message = f"No such process: there is no route to {spec['dst']}"
            raise oserror(errno.ESRCH, message, hint="netstack route show")
        routes.flush_routes({found[0]})
        return
    new = _route(host, spec)
    old = [r for r in routes.main_table() if (r.prefix, r.metric) == (new.prefix, new.metric)]
    if verb == "add" or (verb == "replace" and not old):
        if old:
            message = f"File exists: there is a route to {new.prefix}"
            way = spec["dst"]
            raise oserror(errno.EEXIST, message, hint=f"netstack route replace {way} ...")
        routes.add_route(new)
    elif not old:
        message = f"No such file or directory: there is no route to {new.prefix}"
        raise oserror(errno.ENOENT, message, hint=f"netstack route add {spec['dst']} ...")
    elif old[0].is_kernel:
        message = f"the route to {new.prefix} follows from an address"
        raise oserror(errno.EPERM, message, hint="netstack addr show")
    else:
        routes.replace_route(old[0], new)


def _matching(host: Host, spec: Row) -> list[Route]:
    """Find the added routes that a spec describes, best first; what it does not name is any."""
    prefix = parse_prefix(spec["dst"]) if "dst" in spec else None
    ifindex = device_of(host, spec["dev"]).ifindex if "dev" in spec else None
    kind = RTN[spec["type"].upper()] if "type" in spec else None
    gateway = parse_address(spec["via"]) if "via" in spec else None
    metric = int(spec["metric"]) if "metric" in spec else None

    def fits(route: Route) -> bool:
        asked = (prefix, ifindex, kind, gateway, metric)
        has = (route.prefix, route.ifindex, route.type, route.gateway, route.metric)
        return all(a is None or a == h for a, h in zip(asked, has, strict=True))

    return [r for r in host.inet.routes.main_table() if not r.is_kernel and fits(r)]


def route_flush(host: Host, spec: Row) -> int:
    """``ip route flush SPEC``: remove what was added and fits; how many it was."""
    gone = set(_matching(host, spec))
    host.inet.routes.flush_routes(gone)
    return len(gone)


def route_rows(host: Host, table: str = "main", spec: Row | None = None) -> list[Row]:
    """``ip -j route show``."""
    if table not in ("main", "local", "default", "all"):
        message = f"argument {table!r} is wrong: table id value is invalid"
        raise UsageError(message, hint="netstack route show table local")
    tables = {"all": ("local", "main"), "default": ()}.get(table, (table,))
    rows: list[Row] = [row for each in tables for row in host.routes(each)]
    spec = dict(spec or {})
    if "dev" in spec:
        device_of(host, spec["dev"])
    if "dst" in spec and spec["dst"] != "default":
        size = parse_prefix(spec["dst"]).prefixlen
        spec["dst"] = spec["dst"].removesuffix("/32") if size == 32 else spec["dst"]
    keys = {"dst": "dst", "dev": "dev", "via": "gateway", "src": "prefsrc", "type": "type"}
    return [row for row in rows if all(row.get(keys[k]) == v for k, v in spec.items())]


def route_get(host: Host, address: str, source: str | None = None) -> list[Row]:
    """``ip -j route get``: the way that a packet of ours would take."""
    saddr = int(parse_address(source)) if source else 0
    way = host.inet.routes.ip_route_output(int(parse_address(address)), saddr)
    if way.error:
        text = {errno.ENETUNREACH: "Network is unreachable", errno.EHOSTUNREACH:
                "No route to host", errno.EACCES: "Permission denied",
                errno.EINVAL: "Invalid argument"}[way.error]  # fmt: skip
        raise oserror(way.error, f"{text}: {address}", hint="netstack route show")
    names = {device.ifindex: device.name for device in host.devices}
    row: Row = {} if way.type == RTN.UNICAST else {"type": RTN(way.type).name.lower()}
    row["dst"] = address
    if way.type == RTN.UNICAST and way.gateway != way.daddr:
        row["gateway"] = str(IPv4Address(way.gateway))
    row |= {"dev": names[way.ifindex], "prefsrc": str(IPv4Address(way.saddr)), "flags": []}
    return [row | {"uid": 0, "cache": ["local"] if way.type == RTN.LOCAL else []}]


COMMANDS: dict[str, Callable[..., Any]] = {
    "addr": addr_rows,
    "addr_change": addr_change,
    "addr_flush": addr_flush,
    "link": link_rows,
    "link_set": link_set,
    "route": route_rows,
    "route_change": route_change,
    "route_flush": route_flush,
    "route_get": route_get,
}
