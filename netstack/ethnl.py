"""ethnl: what ethtool asks of a device and sets, with the kernel's names and refusals.

Every setter checks all it was given before it changes anything. A driver is asked through the
methods it has: ``lo`` has features only, and for the rest the answer is EOPNOTSUPP, as in Linux.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from netstack._net import netif_features
from netstack.errors import UsageError, hint_of, oserror

Nic = Any  # a driver
Values = Mapping[str, Any]
INDIRECTION = 128  # entries of the table


@dataclass(frozen=True, slots=True)
class Feature:
    """One line of ``ethtool -k``: its name there, the kernel's, and the bit that switches it.

    Without a bit the feature is fixed; ``on`` says how, unless the driver itself does (``fixed_on``).
    """

    name: str
    kernel: str
    bit: int = 0
    on: bool = False
    short: str = ""


def _fixed(names: str, *, on: bool = False) -> list[Feature]:
    return [Feature(name, name, on=on) for name in names.split()]


_F = netif_features
# In the order of ethtool -k. A line that is indented there is part of the group above it.
FEATURES: tuple[Feature, ...] = (
    Feature("rx-checksumming", "rx-checksum", _F.NETIF_F_RXCSUM, short="rx"),
    *_fixed("tx-checksum-ipv4"),
    Feature("tx-checksum-ip-generic", "tx-checksum-ip-generic", _F.NETIF_F_HW_CSUM),
    *_fixed("tx-checksum-ipv6 tx-checksum-fcoe-crc tx-checksum-sctp"),
    *_fixed("tx-scatter-gather tx-scatter-gather-fraglist", on=True),
    *_fixed("tx-tcp-segmentation tx-tcp-ecn-segmentation tx-tcp-mangleid-segmentation"),
    *_fixed("tx-tcp6-segmentation tx-tcp-accecn-segmentation"),
    Feature("generic-segmentation-offload", "tx-generic-segmentation", short="gso"),
    Feature("generic-receive-offload", "rx-gro", _F.NETIF_F_GRO, short="gro"),
    Feature("large-receive-offload", "rx-lro", short="lro"),
    Feature("rx-vlan-offload", "rx-vlan-hw-parse", _F.NETIF_F_HW_VLAN_CTAG_RX, short="rxvlan"),
    Feature("tx-vlan-offload", "tx-vlan-hw-insert", on=True, short="txvlan"),
    Feature("ntuple-filters", "rx-ntuple-filter", short="ntuple"),
    Feature("receive-hashing", "rx-hashing", _F.NETIF_F_RXHASH, short="rxhash"),
    *_fixed("highdma", on=True),
    *_fixed("rx-vlan-filter vlan-challenged tx-gso-robust tx-fcoe-segmentation"),
    *_fixed("tx-gre-segmentation tx-gre-csum-segmentation tx-ipxip4-segmentation"),
    *_fixed("tx-ipxip6-segmentation tx-udp_tnl-segmentation tx-udp_tnl-csum-segmentation"),
    *_fixed("tx-gso-partial tx-tunnel-remcsum-segmentation tx-sctp-segmentation"),
    *_fixed("tx-esp-segmentation"),
    Feature("tx-udp-segmentation", "tx-udp-segmentation", _F.NETIF_F_GSO_UDP_L4),
    *_fixed("tx-gso-list tx-nocache-copy loopback rx-fcs"),
    Feature("rx-all", "rx-all", _F.NETIF_F_RXALL),
    *_fixed("tx-vlan-stag-hw-insert rx-vlan-stag-hw-parse rx-vlan-stag-filter"),
    *_fixed("l2-fwd-offload hw-tc-offload esp-hw-offload esp-tx-csum-hw-offload"),
    *_fixed("rx-udp_tunnel-port-offload tls-hw-tx-offload tls-hw-rx-offload"),
    Feature("rx-gro-hw", "rx-gro-hw", _F.NETIF_F_GRO_HW),
    *_fixed("tls-hw-record"),
    Feature("rx-gro-list", "rx-gro-list", _F.NETIF_F_GRO_FRAGLIST),
    *_fixed("macsec-hw-offload"),
    Feature("rx-udp-gro-forwarding", "rx-udp-gro-forwarding", _F.NETIF_F_GRO_UDP_FWD),
    *_fixed("hsr-tag-ins-offload hsr-tag-rm-offload hsr-fwd-offload hsr-dup-offload"),
)
# A heading of ethtool -k, and the features below it: on when one of them is.
GROUPS = {
    "tx-checksumming": tuple(f.name for f in FEATURES if f.name.startswith("tx-checksum-")),
    "scatter-gather": ("tx-scatter-gather", "tx-scatter-gather-fraglist"),
    "tcp-segmentation-offload": tuple(f.name for f in FEATURES if f.name.startswith("tx-tcp")),
}
GROUP_SHORT = {"tx": "tx-checksumming", "sg": "scatter-gather"}
GROUP_SHORT["tso"] = "tcp-segmentation-offload"
COALESCE = [
    "stats-block-usecs",
    "sample-interval",
    "pkt-rate-low",
    "pkt-rate-high",
    "rx-usecs",
    "rx-frames",
    "rx-usecs-irq",
    "rx-frames-irq",
    "tx-usecs",
    "tx-frames",
    "tx-usecs-irq",
    "tx-frames-irq",
    "rx-usecs-low",
    "rx-frame-low",
    "tx-usecs-low",
    "tx-frame-low",
    "rx-usecs-high",
    "rx-frame-high",
    "tx-usecs-high",
    "tx-frame-high",
    "adaptive-rx",
    "adaptive-tx",
    "cqe-mode-rx",
    "cqe-mode-tx",
]


def _unsupported(device: str, what: str) -> OSError:
    message = f"Operation not supported: {device} has no {what}"
    return oserror(errno.EOPNOTSUPP, message, hint="netstack ethtool -S tap0")


def _method(device: str, nic: Nic, name: str, what: str) -> Callable[..., Any]:
    found: Callable[..., Any] | None = getattr(nic, name, None)
    if found is None:
        raise _unsupported(device, what)
    return found


# ---- what is shown


def show_features(device: str, nic: Nic) -> list[dict[str, Any]]:
    """``-k``: every feature and group, in ethtool's order; groups have no ``fixed``."""
    if not hasattr(nic, "features"):
        raise _unsupported(device, "features")
    rows = []
    heads = {parts[0]: group for group, parts in GROUPS.items()}
    active = {f.name: _is_on(f, nic) for f in FEATURES}
    for feature in FEATURES:
        if feature.name in heads:
            group = heads[feature.name]
            on = any(active[part] for part in GROUPS[group])
            rows.append({"name": group, "active": on, "fixed": None, "requested": None})
        on = active[feature.name]
        rows.append(
            {"name": feature.name, "active": on, "fixed": not _may_switch(feature, nic)}
        )
        rows[-1]["requested"] = on
    return rows


def show_channels(device: str, nic: Nic) -> dict[str, int]:
    """``-l``: one vector for a queue pair, and one for other causes."""
    rss = _method(device, nic, "rss", "channels")()
    most = rss.get("rings-max", rss["rings"])
    return {"combined-max": most, "other-max": 1, "combined": rss["rings"], "other": 1}


def show_rxfh(device: str, nic: Nic) -> dict[str, Any]:
    """``-x``: the queue of each hash value, and the key."""
    rss = _method(device, nic, "rss", "RX flow hash")()
    return {
        "rings": rss["rings"],
        "rss-indirection-table": rss["indirection"],
        "rss-hash-key": list(rss["key"]),
        "rss-hash-function": "toeplitz",
    }


def show_rxnfc(device: str, nic: Nic, flow: str | None = None) -> dict[str, Any]:
    """``-n``: rings and rules; with a kind of flow, the fields that its hash is of."""
    rss = _method(device, nic, "rss", "RX rings")()
    if flow is None:
        return {"rx-rings": rss["rings"], "rules": 0}
    return {"flow": flow, "fields": _hash_fields(rss)[_flow(flow)]}


def _hash_fields(rss: Values) -> dict[str, str]:
    """Tell the fields by kind of flow, in ethtool's letters."""
    return {"tcp4": "sdfn", "udp4": rss["udp4"], "sctp4": "sd", "ah4": "sd", "esp4": "sd"}


def _flow(flow: str) -> str:
    kinds = _hash_fields({"udp4": ""})
    if flow not in kinds:
        ways = [f"netstack ethtool -n tap0 rx-flow-hash {kind}" for kind in ("udp4", "tcp4")]
        raise UsageError(
            f"rx-flow-hash {flow}: allowed are {' '.join(kinds)}", hint="\n".join(ways)
        )
    return flow


def self_test(device: str, nic: Nic, *, offline: bool = True) -> dict[str, Any]:
    """``-t``: run the driver's tests."""
    tests = _method(device, nic, "self_test", "self-test")(offline)
    return {"result": "FAIL" if any(tests.values()) else "PASS", "tests": tests}


# ---- what is set


def set_ring(device: str, nic: Nic, values: Values) -> None:
    """``-G``."""
    change = _method(device, nic, "set_ring", "ring parameters")
    _only(values, ("rx", "tx"), ("rx-mini", "rx-jumbo"), f"netstack ethtool -G {device} rx 512")
    way = f"netstack ethtool -G {device}"
    sizes = {name: _number(name, value, f"{way} {name} 512") for name, value in values.items()}
    try:
        change(**sizes)
    except UsageError as error:  # its hint is the option of `netstack up`
        name = str(error).partition(" ")[0]
        hint = hint_of(error).replace("--ring", f"{way} {name}")
        raise UsageError(str(error), hint=hint) from None


def set_coalesce(device: str, nic: Nic, values: Values) -> None:
    """``-C``."""
    change = _method(device, nic, "set_coalesce", "coalesce parameters")
    hint = f"netstack ethtool -C {device} rx-usecs 3"
    _only(values, ("rx-usecs",), COALESCE, hint)
    change(_number("rx-usecs", values["rx-usecs"], hint))


def _only(values: Values, known: tuple[str, ...], other: Any, hint: str) -> None:
    for name in values:
        if name not in known and name in other:
            raise oserror(
                errno.EOPNOTSUPP,
                f"cannot modify an unsupported parameter: {name}; an igb has {' '.join(known)}",
                hint=hint,
            )
        if name not in known:
            message = f"unknown parameter {name!r}; allowed: {' '.join(known)}"
            raise UsageError(message, hint=hint)
    if not values:
        raise UsageError(f"nothing to set; allowed: {' '.join(known)}", hint=hint)


def _number(name: str, value: Any, hint: str) -> int:
    try:
        return int(value, 0) if isinstance(value, str) else int(value)
    except ValueError:
        raise UsageError(f"{name} {value}: not a number", hint=hint) from None


def set_features(device: str, nic: Nic, values: Values) -> None:
    """``-K``: all that is named, or nothing."""
    if not hasattr(nic, "features"):
        raise _unsupported(device, "features")
    bits = nic.features
    wanted = []
    for name, value in values.items():
        if value not in ("on", "off"):
            message = f"flag {value!r} for parameter {name!r} is not followed by 'on' or 'off'"
            raise UsageError(message, hint=f"netstack ethtool -K {device} {name} on")
        for feature in _features(device, name):
            on = value == "on"
            is_on = _is_on(feature, nic)
            if _may_switch(feature, nic):
                bits = bits | feature.bit if on else bits & ~feature.bit
            elif is_on != on:
                now = f"{_on(is_on)} [requested {value}]"
                wanted.append(f"{feature.kernel}: {now}")
    if wanted:
        message = f"Could not change any device features: {', '.join(wanted)}"
        raise oserror(errno.EOPNOTSUPP, message, hint=f"netstack ethtool -k {device}")
    nic.features = bits


def _may_switch(feature: Feature, nic: Nic) -> bool:
    """Tell whether -K can change a feature; some it can on certain devices and wires only."""
    return bool(feature.bit & nic.hw_features)


def _is_on(feature: Feature, nic: Nic) -> bool:
    if feature.bit:
        return bool(nic.features & feature.bit)
    own = getattr(nic, "fixed_on", None)
    return feature.on if own is None else feature.name in own


def _features(device: str, name: str) -> list[Feature]:
    """Find what a name means: ethtool's short or long one, the kernel's, or a group."""
    group = GROUP_SHORT.get(name, name)
    if group in GROUPS:
        return [f for f in FEATURES if f.name in GROUPS[group]]
    for feature in FEATURES:
        if name in (feature.name, feature.kernel, feature.short):
            return [feature]
    known = [f.name for f in FEATURES] + [f.short for f in FEATURES if f.short]
    near = get_close_matches(name, known, n=2)
    ways = [f"netstack ethtool -K {device} {each} on" for each in near]
    hint = "\n".join(ways) or f"netstack ethtool -k {device}"
    raise UsageError(f"there is no feature {name!r}", hint=hint)


def _on(value: bool) -> str:
    return "on" if value else "off"


def set_channels(device: str, nic: Nic, values: Values) -> None:
    """``-L``: the number of queue pairs, each with a vector."""
    have = show_channels(device, nic)
    hint = f"netstack ethtool -L {device} combined {have['combined-max']}"
    _only(values, ("combined",), ("rx", "tx", "other"), hint)
    count, most = _number("combined", values["combined"], hint), have["combined-max"]
    if not 1 <= count <= most:
        why = "exceeds maximum" if count > most else "is too small"
        message = f"requested channel count {why}: combined {count}, allowed 1 to {most}"
        raise oserror(errno.EINVAL, message, hint=hint)
    if count != have["combined"]:
        nic.set_channels(count)


def set_rxfh(device: str, nic: Nic, values: Values) -> None:
    """``-X``: key and table."""
    rss = _method(device, nic, "rss", "RX flow hash")()
    new: dict[str, Any] = {}
    if values.get("hkey") is not None:
        new["key"] = _key(device, values["hkey"], len(rss["key"]))
    if values.get("hfunc", "toeplitz") != "toeplitz":
        message = f"hfunc {values['hfunc']}: Operation not supported; allowed: toeplitz"
        raise oserror(errno.EOPNOTSUPP, message, hint=f"netstack ethtool -X {device} default")
    tables = [name for name in ("equal", "weight", "default") if name in values]
    if len(tables) > 1:
        message = f"{' and '.join(tables)} are mutually exclusive"
        raise UsageError(message, hint=f"netstack ethtool -X {device} {tables[0]} ...")
    hint = f"netstack ethtool -X {device} equal {rss['rings']}"
    weights = [_number("weight", each, hint) for each in values.get("weight", ())]
    if "equal" in values:
        weights = [1] * min(_number("equal", values["equal"], hint), rss["rings"] + 1)
    if "weight" in values or "equal" in values:
        new["indirection"] = _spread(device, weights, rss["rings"])
    if values.get("default"):
        new["indirection"] = [i * rss["rings"] // INDIRECTION for i in range(INDIRECTION)]
    if new:
        nic.set_rss(**new)


def _spread(device: str, weights: list[int], rings: int) -> list[int]:
    """Make the table that ethtool makes of weights: equal ones go round, others get their share in a row."""
    if not any(weights) or min(weights) < 0 or len(weights) > rings:
        given = " ".join(map(str, weights)) or "nothing"
        message = (
            f"Cannot set RX flow hash configuration: {device} has {rings} RX ring(s); "
            f"allowed: up to {rings} weights of 0 or more, not all 0, instead of {given}"
        )
        raise oserror(errno.EINVAL, message, hint=f"netstack ethtool -X {device} equal {rings}")
    if set(weights) == {1}:
        return [i % len(weights) for i in range(INDIRECTION)]
    table: list[int] = []
    partial, total = 0, sum(weights)
    for queue, weight in enumerate(weights):
        partial += weight
        table += [queue] * (INDIRECTION * partial // total - len(table))
    return table


def _key(device: str, text: str, size: int) -> bytes:
    try:
        key = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        key = b""
    if len(key) != size:
        raise UsageError(
            f"hkey of {len(key)} bytes: give {size} in hexadecimal, with colons",
            hint=f"netstack ethtool -X {device} hkey {':'.join(['6d'] * size)}",
        )
    return key


def set_rxnfc(device: str, nic: Nic, values: Values) -> None:
    """``-N rx-flow-hash udp4 sdfn``, letters in any order: an igb has a choice for UDP alone."""
    rss = _method(device, nic, "rss", "RX flow hash")()
    for flow, fields in values.items():
        allowed = ("sd", "sdfn") if _flow(flow) == "udp4" else (_hash_fields(rss)[flow],)
        if set(fields) not in map(set, allowed):
            raise oserror(
                errno.EINVAL,
                f"Cannot change RX network flow hashing options: {flow} {fields}; "
                f"allowed: {' '.join(allowed)}",
                hint=f"netstack ethtool -N {device} rx-flow-hash {flow} {allowed[-1]}",
            )
    if "udp4" in values:
        nic.set_rss(udp4="f" in values["udp4"])


def _asked(name: str) -> Callable[[str, Nic], Any]:
    def ask(device: str, nic: Nic) -> Any:
        return dict(_method(device, nic, name, name)())

    return ask


SHOW: dict[str, Callable[..., Any]] = {
    "channels": show_channels,
    "coalesce": _asked("coalesce"),
    "drvinfo": _asked("drvinfo"),
    "features": show_features,
    "ring": _asked("ring"),
    "rxfh": show_rxfh,
    "rxnfc": show_rxnfc,
    "stats": _asked("stats"),
    "test": self_test,
}
SET: dict[str, Callable[[str, Nic, Values], None]] = {
    "channels": set_channels,
    "coalesce": set_coalesce,
    "features": set_features,
    "ring": set_ring,
    "rxfh": set_rxfh,
    "rxnfc": set_rxnfc,
}
