"""rtnl_route: routes of a running host, as rtnetlink has them; see ``rtnl.py``."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from netstack.errors import UsageError, hint_of, oserror
from netstack.proto.route import (
    RTCF_BROADCAST,
    RTCF_LOCAL,
    RTCF_MULTICAST,
    RTN,
    InputRoute,
    OutputRoute,
    Route,
)
from netstack.rtnl import device_of

Host = Any  # netstack.host.Host
Row = dict[str, Any]

REFUSING = ("blackhole", "unreachable", "prohibit")
SCOPES = ("global", "site", "link", "host", "nowhere")
PROTOCOLS = ("redirect", "kernel", "boot", "static", "gated", "ra", "mrt", "zebra", "bird",
             "dnrouted", "xorp", "ntk", "dhcp", "keepalived", "babel", "bgp", "isis", "ospf",
             "rip", "eigrp")  # fmt: skip
INT_MAX = 2**32 - 1
RTCF_WORDS = ((RTCF_LOCAL, "local"), (RTCF_MULTICAST, "mc"), (RTCF_BROADCAST, "brd"))
WHY_NOT = {
    errno.ENETUNREACH: "Network is unreachable",
    errno.EHOSTUNREACH: "No route to host",
    errno.EACCES: "Permission denied",
    errno.EINVAL: "Invalid argument",
}


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


def parse_address(
    text: str, hint: str = "netstack route add default via 10.0.0.1"
) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        message = f"any valid address is expected rather than {text!r}"
        raise UsageError(message, hint=hint) from None


def _word(spec: Row, key: str, known: tuple[str, ...], default: str) -> str:
    """Read a word of a table, or a number to 255, as iproute2 does."""
    word = str(spec.get(key, default))
    if word not in known and word and not (word.isdigit() and int(word) < 256):
        message = f'argument "{word}" is wrong: "{key}" value is invalid'
        raise UsageError(message, hint=f"{key} {known[3]}")
    return word


def _metric(spec: Row) -> int:
    metric = int(spec.get("metric", 0))
    if not 0 <= metric <= INT_MAX:
        message = f'argument "{metric}" is wrong: "metric" value is invalid'
        raise UsageError(message, hint="metric 100")
    return metric


def _route(host: Host, spec: Row) -> Route:
    prefix, metric = parse_prefix(spec["dst"]), _metric(spec)
    proto, scope = _word(spec, "proto", PROTOCOLS, "boot"), _word(spec, "scope", SCOPES, "")
    kind = spec.get("type", "unicast")
    if kind in REFUSING:
        if "via" in spec or "dev" in spec:
            message = f"Gateway and device can not be specified for this route type: {kind}"
            way = f"netstack route add {kind} {spec['dst']}"
            raise oserror(errno.EINVAL, message, hint=way)
        return Route(
            prefix, RTN[kind.upper()], host.lo.ifindex, metric=metric, proto=proto, scope=scope
        )
    if kind != "unicast":
        allowed = " ".join(("unicast", *REFUSING))
        raise UsageError(f"a route of type {kind} follows from addresses; allowed: {allowed}",
                         hint="netstack addr add 10.0.0.9/24 dev tap0")  # fmt: skip
    gateway = parse_address(spec["via"]) if "via" in spec else IPv4Address(0)
    ifindex = device_of(host, spec["dev"]).ifindex if "dev" in spec else 0
    onlink = bool(spec.get("onlink"))
    if int(gateway):
        ifindex = _nexthop(host, gateway, ifindex, onlink=onlink)
        if scope in ("link", "host", "nowhere"):
            message = f"Nexthop has invalid scope: {scope}, behind the gateway {gateway}"
            raise oserror(errno.EINVAL, message, hint="scope global")
    if not ifindex:
        message = f"No such device: a route to {prefix} wants via ADDRESS or dev DEVICE"
        raise oserror(errno.ENODEV, message, hint=f"netstack route add {spec['dst']} dev tap0")
    if ifindex in host.inet.routes.down:
        message = "Nexthop device is not up"
        raise oserror(errno.ENETDOWN, message, hint="netstack link set tap0 up")
    source = parse_address(spec["src"]) if "src" in spec else IPv4Address(0)
    subnets = host.inet.routes.addresses.items()
    if int(source) and not any(source == each.ip for _, have in subnets for each in have):
        message = f"Invalid prefsrc address {source}: it is not ours"
        raise oserror(errno.EINVAL, message, hint="netstack addr show")
    return Route(prefix, RTN.UNICAST, ifindex, gateway, source, metric,
                 onlink=onlink, proto=proto, scope=scope)  # fmt: skip


def _nexthop(host: Host, gateway: IPv4Address, ifindex: int, *, onlink: bool) -> int:
    """Give the device on whose link a router is. [fib_check_nh()]"""
    routes = host.inet.routes
    if routes.is_good(gateway, ifindex):
        return ifindex
    if routes.fib.address_type(int(gateway)) != RTN.UNICAST:
        message = f"Nexthop has invalid gateway: {gateway} is no router"
        raise oserror(errno.EINVAL, message, hint="netstack addr show")
    if onlink:
        if not ifindex:
            message = "Device is required for onlink: which one"
            raise oserror(errno.EINVAL, message, hint=f"via {gateway} dev tap0 onlink")
        return ifindex
    links = routes.links_to(gateway)
    if not links or (ifindex and ifindex not in links):
        message = f"Nexthop has invalid gateway: {gateway} is in no subnet of ours"
        raise oserror(errno.ENETUNREACH, message, hint="netstack addr show")
    return ifindex or links[0]


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
    old = routes.find(new.prefix, new.metric)
    if verb == "add" or (verb == "replace" and old is None):
        if old is not None:
            message = f"File exists: there is a route to {new.prefix}"
            way = spec["dst"]
            raise oserror(errno.EEXIST, message, hint=f"netstack route replace {way} ...")
        routes.add_route(new)
    elif old is None:
        message = f"No such file or directory: there is no route to {new.prefix}"
        raise oserror(errno.ENOENT, message, hint=f"netstack route add {spec['dst']} ...")
    elif old.is_kernel:
        message = f"the route to {new.prefix} follows from an address"
        raise oserror(errno.EPERM, message, hint="netstack addr show")
    else:
        routes.replace_route(old, new)


def route_batch(
    host: Host, changes: list[tuple[str, Row]], *, force: bool = False
) -> list[Row]:
    """Make many changes, published together; what was refused, by its place in the list.

    The first refusal ends it, unless ``force`` says to go on.
    """
    refused: list[Row] = []
    with host.inet.routes.batch():
        for place, (verb, spec) in enumerate(changes):
            try:
                route_change(host, verb, spec)
            except (UsageError, OSError) as error:
                text = getattr(error, "strerror", None) or str(error)
                refused.append({"place": place, "error": text, "hint": hint_of(error)})
                if not force:
                    break
    return refused


def _matching(host: Host, spec: Row) -> list[Route]:
    """Find the added routes that a spec describes, best first; what it does not name is any."""
    prefix = parse_prefix(spec["dst"]) if "dst" in spec else None
    ifindex = device_of(host, spec["dev"]).ifindex if "dev" in spec else None
    kind = RTN[spec["type"].upper()] if "type" in spec else None
    gateway, source = (parse_address(spec[k]) if k in spec else None for k in ("via", "src"))
    metric = _metric(spec) if "metric" in spec else None
    proto = _word(spec, "proto", PROTOCOLS, "") or None
    scope = _word(spec, "scope", SCOPES, "") or None

    def fits(route: Route) -> bool:
        asked = (prefix, ifindex, kind, gateway, source, metric, proto, scope)
        has = (route.prefix, route.ifindex, route.type, route.gateway, route.prefsrc,
               route.metric, route.proto_word(), route.reach)  # fmt: skip
        return all(a is None or a == h for a, h in zip(asked, has, strict=True))

    routes = host.inet.routes
    rows = routes.main_table() if prefix is None else routes.to(prefix)
    return [r for r in rows if not r.is_kernel and fits(r)]


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
    tables = {"all": ("main", "local"), "default": ()}.get(table, (table,))
    rows: list[Row] = []
    for each in tables:
        named = table == "all" and each != "main"
        rows += [_in_table(row, each) if named else row for row in host.routes(each)]
    spec = dict(spec or {})
    if "dev" in spec:
        device_of(host, spec["dev"])
    if "dst" in spec and spec["dst"] != "default":
        size = parse_prefix(spec["dst"]).prefixlen
        spec["dst"] = spec["dst"].removesuffix("/32") if size == 32 else spec["dst"]
    for key in ("via", "src"):
        spec |= {key: str(parse_address(spec[key]))} if key in spec else {}
    for word, known in (("proto", PROTOCOLS), ("scope", SCOPES)):
        spec |= {word: _word(spec, word, known, "")} if word in spec else {}
    spec |= {"metric": _metric(spec)} if "metric" in spec else {}
    return [row for row in rows if all(_shown(row, key) == spec[key] for key in spec)]


def _shown(row: Row, key: str) -> Any:
    """Give what a row says under a key of ip-route; what it leaves out is the default."""
    keys = {"via": "gateway", "src": "prefsrc", "proto": "protocol"}
    left_out = {"type": "unicast", "proto": "boot", "scope": "global", "metric": 0}
    return row.get(keys.get(key, key), left_out.get(key))


def _in_table(row: Row, table: str) -> Row:
    """Name the table behind the device, where iproute2 does."""
    at = [*row].index("dev") + 1 if "dev" in row else len(row)
    items = [*row.items()]
    return dict([*items[:at], ("table", table), *items[at:]])


def route_get(
    host: Host,
    address: str,
    source: str | None = None,
    iif: str | None = None,
    oif: str | None = None,
) -> list[Row]:
    """``ip -j route get``: the way that a packet of ours would take, or with ``iif`` one that came in.

    ``oif`` is the device that it has to leave through, as with SO_BINDTODEVICE.
    """
    saddr = int(parse_address(source)) if source else 0
    daddr = int(parse_address(address, "netstack route get 10.0.0.1"))
    routes = host.inet.routes
    way: OutputRoute | InputRoute
    if iif is None:
        way = routes.ip_route_output(daddr, saddr, device_of(host, oif).ifindex if oif else 0)
        failed = way.error
    else:
        came = routes.ip_route_input(daddr, saddr, device_of(host, iif).ifindex)
        way, failed = came, errno.EINVAL if came.reason else came.error
    if failed:
        raise oserror(failed, f"{WHY_NOT[failed]}: {address}", hint="netstack route show")
    names = {device.ifindex: device.name for device in host.devices}
    row: Row = {} if way.type == RTN.UNICAST else {"type": RTN(way.type).name.lower()}
    row["dst"] = address
    if source:
        row["from"] = source
    if way.type == RTN.UNICAST and way.gateway != daddr:
        row["gateway"] = str(IPv4Address(way.gateway))
    row["dev"] = "lo" if iif and way.flags & RTCF_LOCAL else names[way.ifindex]
    if iif is None and not source:
        row["prefsrc"] = str(IPv4Address(way.saddr))
    cache = [word for flag, word in RTCF_WORDS if way.flags & flag]
    row["flags"] = []
    if iif is not None:
        return [row | {"cache": cache, "iif": iif}]
    return [row | {"uid": 0, "cache": cache}]


COMMANDS: dict[str, Callable[..., Any]] = {
    "route": route_rows,
    "route_batch": route_batch,
    "route_change": route_change,
    "route_flush": route_flush,
    "route_get": route_get,
}
