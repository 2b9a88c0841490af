"""rtnl_neigh: the neighbour table of a running host, as rtnetlink has it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

from netstack.errors import UsageError, oserror
from netstack.proto._neigh import nud
from netstack.rtnl import device_of, parse_mac
from netstack.rtnl_route import parse_address, parse_prefix

Host = Any  # netstack.host.Host
Row = dict[str, Any]

NS = 1_000_000_000
NUD = {name.removeprefix("NUD_").lower(): value for name, value in nud.__members__.items()}
NAMES = {value.value: name.upper() for name, value in NUD.items()}


def neigh_rows(
    host: Host, dev: str | None = None, to: str | None = None, state: str | None = None
) -> list[Row]:
    """``ip -j -s neigh``: the caller leaves out the times if they were not asked for."""
    names = {device.ifindex: device.name for device in host.devices}
    wanted = device_of(host, dev).ifindex if dev else None
    prefix = parse_prefix(to) if to else None
    number = _state(state) if state and state != "all" else None
    now, rows = host.now(), []
    for (
        ifindex,
        address,
        ha,
        nud_state,
        probes,
        confirmed,
        used,
        updated,
    ) in host.inet.neigh.entries():
        if wanted not in (None, ifindex) or number not in (None, nud_state):
            continue
        if prefix is not None and IPv4Address(address) not in prefix:
            continue
        row = {"dst": str(IPv4Address(address)), "dev": names[ifindex]}
        row |= {"lladdr": ha.hex(":")} if any(ha) else {}
        ages = {"used": used, "confirmed": confirmed, "updated": updated}
        row |= {name: (now - at) // NS for name, at in ages.items()} | {"probes": probes}
        rows.append(row | {"state": [NAMES[nud_state]]})
    return rows


def _state(text: str) -> int:
    if text not in NUD or text == "none":
        known = " ".join(name for name in NUD if name != "none")
        message = f"nud state is bad: {text!r}; allowed: {known}"
        raise UsageError(message, hint="netstack neigh show nud reachable")
    return int(NUD[text])


def neigh_change(host: Host, verb: str, address: str, spec: Row) -> None:
    """``ip neigh add|change|replace|del ADDRESS dev DEV lladdr MAC nud STATE``."""
    device = device_of(host, spec.get("dev", ""))
    key = int(parse_address(address, f"netstack neigh {verb} 10.0.0.9 dev {device.name}"))
    way = f"netstack neigh {verb} {address} dev {device.name}"
    table, ifindex = host.inet.neigh, device.ifindex
    hint = f"netstack neigh show dev {device.name}"
    is_there = table.lookup(ifindex, key) is not None
    if verb == "del":
        if not is_there:
            raise oserror(errno.ENOENT, f"No such file or directory: {address}", hint=hint)
        table.delete(ifindex, key)
        return
    if "lladdr" not in spec:
        message = f"Invalid argument: {address} wants lladdr MAC"
        raise oserror(errno.EINVAL, message, hint=f"{way} lladdr 02:00:00:00:00:09")
    mac = parse_mac(spec["lladdr"], f"{way} lladdr 02:00:00:00:00:09")
    state = _state(spec.get("nud", "permanent"))
    if state not in (nud.NUD_PERMANENT, nud.NUD_REACHABLE, nud.NUD_STALE, nud.NUD_NOARP):
        message = f"nud {spec['nud']} can't be set; allowed: permanent noarp reachable stale"
        raise UsageError(message, hint=hint)
    if is_there and verb == "add":
        raise oserror(errno.EEXIST, f"File exists: {address}", hint=hint)
    if not is_there and verb == "change":
        raise oserror(errno.ENOENT, f"No such file or directory: {address}", hint=hint)
    table.update(ifindex, key, mac, state, override=True, admin=True, create=True)


def neigh_flush(host: Host, dev: str | None = None, to: str | None = None,
                state: str | None = None) -> int:  # fmt: skip
    """``ip neigh flush``: forget what fits, but what is permanent only on request."""
    names = {device.name: device.ifindex for device in host.devices}
    gone = 0
    for row in neigh_rows(host, dev, to, state):
        if row["state"] != ["PERMANENT"] or state == "permanent":
            gone += host.inet.neigh.delete(names[row["dev"]], int(IPv4Address(row["dst"])))
    return gone


COMMANDS: dict[str, Callable[..., Any]] = {
    "neigh": neigh_rows,
    "neigh_change": neigh_change,
    "neigh_flush": neigh_flush,
}
