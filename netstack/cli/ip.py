"""``netstack link|addr|neigh``: iproute2's words, columns and JSON, for a host of ours; see route.py."""

from __future__ import annotations

from typing import Any

from netstack.cli.command import Command, Namespace, Parser, ask, print_json
from netstack.errors import UsageError

Row = dict[str, Any]
VERBS = {
    "link": ("show", "set"),
    "addr": ("show", "add", "change", "replace", "del", "flush"),
    "route": ("show", "get", "add", "append", "change", "replace", "del", "flush"),
    "neigh": ("show", "add", "change", "replace", "del", "flush"),
}
ALIASES = {"list": "show", "lst": "show", "delete": "del", "chg": "change"}


def arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("words", nargs="*", metavar="WORD", help="as for ip; without any: show")
    add("-s", "-stats", dest="stats", action="store_true", help="with counters or ages")
    add("-j", dest="json", action="store_true", help="the same as --json")
    add("-br", "-brief", dest="brief", action="store_true", help="a line each")


class Words:
    """The words behind the verb, taken one after the other."""

    def __init__(self, what: str, words: list[str]) -> None:
        self.what = what
        verb = words[0] if words else "show"
        verb = ALIASES.get(verb, verb)
        short = [each for each in VERBS[what] if each.startswith(verb)] if verb else []
        self.verb = short[0] if short else ""
        self.left = words[1:]
        if not self.verb:
            known = "\n".join(f"netstack {what} {each}" for each in ("--help", *VERBS[what]))
            message = f'Command "{words[0]}" is unknown'
            raise UsageError(message, hint=known)

    def take(self, after: str) -> str:
        """Give the next word; it belongs to the one before."""
        if not self.left:
            raise UsageError(f'Command line is not complete: "{after}" wants a value',
                             hint=f"netstack {self.what} --help")  # fmt: skip
        return self.left.pop(0)

    def pairs(self, keys: tuple[str, ...], first: str = "", flags: tuple[str, ...] = ()) -> Row:
        """Read ``key value`` pairs, and flags; one word without a key is ``first``."""
        found: Row = {}
        while self.left:
            word = self.left.pop(0)
            if word in flags and word not in found:
                found[word] = True
                continue
            if word in keys:
                name = word
                value = self.take(word)
            elif first and first not in found:
                name, value = first, word
            else:
                name, value = "", ""
            if not name or name in found:
                default = first or "dev"
                message = f'either "{default}" is duplicate, or "{word}" is a garbage'
                allowed = " ".join(keys)
                raise UsageError(f"{message}; allowed: {allowed}",
                                 hint=f"netstack {self.what} --help")  # fmt: skip
            found[name] = value
        return found


def number(name: str, value: str) -> int:
    if not value.isdigit():
        message = f'argument "{value}" is wrong: {name} value is invalid'
        raise UsageError(message, hint=f"{name} 100")
    return int(value)


def show(args: Namespace, rows: list[Row], line: Any) -> int:
    if args.json:
        print_json(rows)
    else:
        for row in rows:
            print(line(row))
    return 0


# ---- link


def link(args: Namespace) -> int:
    """Show or set devices."""
    words = Words("link", args.words)
    if words.verb == "set":
        return _link_set(args, words)
    spec = words.pairs(("dev",), "dev", ("up",))
    rows = only_up(spec, ask(args, "link", dev=spec.get("dev"), stats=args.stats))
    if args.brief:
        keys = ("ifname", "operstate", "address", "flags")
        rows = [{key: row[key] for key in keys} for row in rows]
        return show(args, rows, _brief_link)
    if args.json:
        for row in rows:
            row.get("stats64", {}).get("rx", {}).pop("missed_errors", None)
    return show(args, rows, _link_text)


def only_up(spec: Row, rows: list[Row]) -> list[Row]:
    """Leave the devices out that are down where ``up`` was asked for."""
    return [row for row in rows if "UP" in row["flags"] or not spec.get("up")]


def _link_set(args: Namespace, words: Words) -> int:
    changes: Row = {}
    dev = ""
    while words.left:
        word = words.left.pop(0)
        if word in ("up", "down"):
            changes["up"] = word == "up"
        elif word in ("promisc", "allmulticast"):
            value = words.take(word)
            if value not in ("on", "off"):
                message = f'Error: argument of "{word}" must be "on" or "off", not "{value}"'
                raise UsageError(message, hint=f"netstack link set tap0 {word} on")
            changes[word] = value == "on"
        elif word in ("mtu", "address"):
            changes[word] = words.take(word)
        elif word in ("txqueuelen", "txqlen", "qlen"):
            message = "txqueuelen: there is no queueing discipline before the transmit ring"
            raise UsageError(message, hint=f"netstack ethtool -G {dev or 'tap0'} tx 512")
        elif word == "dev" or not dev:
            dev = words.take(word) if word == "dev" else word
        else:
            message = f'either "dev" is duplicate, or "{word}" is a garbage'
            allowed = "up down mtu N address MAC promisc on|off allmulticast on|off"
            raise UsageError(f"{message}; allowed: {allowed}", hint="netstack link set tap0 up")
    if not dev or not changes:
        message = "Not enough of information: a device, and what to set"
        raise UsageError(message, hint="netstack link set tap0 mtu 1400")
    ask(args, "link_set", dev=dev, changes=changes)
    return 0


def _brief_link(row: Row) -> str:
    flags = ",".join(row["flags"])
    return f"{row['ifname']:<16} {row['operstate']:<14} {row['address']} <{flags}> "


def _link_text(row: Row) -> str:
    mode = f"mode {row['linkmode']} " if "linkmode" in row else ""
    lines = [
        f"{row['ifindex']}: {row['ifname']}: <{','.join(row['flags'])}> mtu {row['mtu']} "
        f"qdisc {row['qdisc']} state {row['operstate']} {mode}group {row['group']} "
        f"qlen {row['txqlen']}",
        f"    link/{row['link_type']} {row['address']} brd {row['broadcast']}",
    ]
    if "stats64" in row:
        lines += _stats_text(row["stats64"])
    return "\n".join(lines)


def _stats_text(of: Row) -> list[str]:
    rx, tx = of["rx"], of["tx"]
    ways = (
        ("RX", ("bytes", "packets", "errors", "dropped", "missed", "mcast"),
         (rx["bytes"], rx["packets"], rx["errors"], rx["dropped"], rx["missed_errors"],
          rx["multicast"])),
        ("TX", ("bytes", "packets", "errors", "dropped", "carrier", "collsns"),
         (tx["bytes"], tx["packets"], tx["errors"], tx["dropped"], tx["carrier_errors"],
          tx["collisions"])),
    )  # fmt: skip
    lines = []
    for way, heads, values in ways:
        widths = [max(w, len(str(v))) for w, v in zip((6, 7, 6, 7, 7, 7), values, strict=True)]
        heads_ = " ".join(h.rjust(w) for h, w in zip(heads, widths, strict=True))
        cells = " ".join(str(v).rjust(w) for v, w in zip(values, widths, strict=True))
        lines += [f"    {way}: {heads_}           ", f"        {cells} "]
    return lines


# ---- addr


def addr(args: Namespace) -> int:
    """Show or change addresses."""
    words = Words("addr", args.words)
    if words.verb == "show":
        spec = words.pairs(("dev",), "dev", ("up",))
        rows = only_up(spec, ask(args, "addr", dev=spec.get("dev")))
        if not args.brief:
            return show(args, rows, _addr_text)
        brief = [{key: row[key] for key in ("ifname", "operstate")} | {"addr_info": [
            {key: info[key] for key in ("local", "prefixlen")} for info in row["addr_info"]
        ]} for row in rows]  # fmt: skip
        return show(args, brief, _brief_addr)
    if words.verb == "flush":
        dev = words.pairs(("dev",), "dev").get("dev")
        if dev is None:
            message = "Flush requires arguments: the device"
            raise UsageError(message, hint="netstack addr flush dev tap0")
        ask(args, "addr_flush", dev=dev)
        return 0
    spec = words.pairs(("dev", "brd", "broadcast", "local"), "local")
    if "local" not in spec or "dev" not in spec:
        message = 'Not enough information: "dev" argument and the address are required'
        raise UsageError(message, hint=f"netstack addr {words.verb} 10.0.0.9/24 dev tap0")
    brd = spec.get("brd", spec.get("broadcast"))
    ask(args, "addr_change", verb=words.verb, dev=spec["dev"], address=spec["local"], brd=brd)
    return 0


def _brief_addr(row: Row) -> str:
    have = "".join(f"{info['local']}/{info['prefixlen']} " for info in row["addr_info"])
    return f"{row['ifname']:<16} {row['operstate']:<14} {have}"


def _addr_text(row: Row) -> str:
    lines = [_link_text(row)]
    for info in row["addr_info"]:
        brd = f" brd {info['broadcast']}" if "broadcast" in info else ""
        second = " secondary" if info.get("secondary") else ""
        lines.append(f"    inet {info['local']}/{info['prefixlen']}{brd} scope {info['scope']}"
                     f"{second} {info['label']}")  # fmt: skip
        lines.append("       valid_lft forever preferred_lft forever")
    return "\n".join(lines)


# ---- neigh


def neigh(args: Namespace) -> int:
    """Show or change neighbours."""
    words = Words("neigh", args.words)
    if words.verb in ("show", "flush"):
        spec = words.pairs(("dev", "to", "nud"), "to")
        asked = {"dev": spec.get("dev"), "to": spec.get("to"), "state": spec.get("nud")}
        if words.verb == "flush":
            if not spec:
                raise UsageError("Flush requires arguments: what is to go",
                                 hint="netstack neigh flush dev tap0")  # fmt: skip
            ask(args, "neigh_flush", **asked)
            return 0
        rows = ask(args, "neigh", **asked)
        if not args.stats:
            ages = ("used", "confirmed", "updated", "probes")
            rows = [{k: v for k, v in row.items() if k not in ages} for row in rows]
        return show(args, without_dev(rows) if spec.get("dev") else rows, _neigh_text)
    spec = words.pairs(("dev", "lladdr", "nud", "to"), "to")
    if "to" not in spec or "dev" not in spec:
        message = "Device and destination are required arguments"
        raise UsageError(message, hint=f"netstack neigh {words.verb} 10.0.0.9 dev tap0")
    ask(args, "neigh_change", verb=words.verb, address=spec.pop("to"), spec=spec)
    return 0


def without_dev(rows: list[Row]) -> list[Row]:
    """Leave the device out where it was asked for, as ip does."""
    return [{key: value for key, value in row.items() if key != "dev"} for row in rows]


def _neigh_text(row: Row) -> str:
    lladdr = f" lladdr {row['lladdr']}" if "lladdr" in row else ""
    ages = ""
    if "used" in row:
        ages = f"  used {row['used']}/{row['confirmed']}/{row['updated']}probes {row['probes']}"
    dev = f" dev {row['dev']}" if "dev" in row else ""
    return f"{row['dst']}{dev}{lladdr}{ages} {' '.join(row['state'])} "


COMMANDS = {
    "link": Command(
        link,
        "netstack link\nnetstack link -s show tap0\nnetstack link -br\n"
        "netstack link set tap0 mtu 1400\nnetstack link set tap0 down\n"
        "netstack link set dev tap0 address 02:00:00:00:00:07 promisc on up",
        arguments,
        "Devices of a running host, in the words of ip-link.\n\n"
        "  show [DEVICE]\n"
        "  set DEVICE [up|down] [mtu N] [address MAC] [promisc on|off] [allmulticast on|off]",
    ),
    "addr": Command(
        addr,
        "netstack addr\nnetstack addr add 10.0.0.9/24 brd + dev tap0\n"
        "netstack addr del 10.0.0.9/24 dev tap0\nnetstack addr flush dev tap0",
        arguments,
        "Addresses of a running host, in the words of ip-address.\n\n"
        "  show [DEVICE]\n"
        "  add|change|replace|del ADDR/LEN [brd +] dev DEVICE\n"
        "  flush dev DEVICE",
    ),
    "neigh": Command(
        neigh,
        "netstack neigh\nnetstack neigh -s show dev tap0\n"
        "netstack neigh replace 10.0.0.1 dev tap0 lladdr 02:00:00:00:00:01 nud permanent\n"
        "netstack neigh flush dev tap0",
        arguments,
        "The neighbour table of a running host, in the words of ip-neighbour.\n\n"
        "  show|flush [to PREFIX] [dev DEVICE] [nud STATE]\n"
        "  add|change|replace ADDR dev DEVICE lladdr MAC [nud permanent|noarp|reachable|stale]\n"
        "  del ADDR dev DEVICE",
    ),
}
