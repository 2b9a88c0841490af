"""``netstack ethtool``: the NIC and its driver, in ethtool's words and shapes."""

from __future__ import annotations

import argparse
from typing import Any

from netstack.cli.command import Command, Namespace, Parser, ask, print_json
from netstack.errors import UsageError

SUPPORTS = ("statistics", "test", "eeprom-access", "register-dump", "priv-flags")
# The lines of `ethtool -c`, in its order; "" is an empty line.
COALESCE = (
    "stats-block-usecs", "sample-interval", "pkt-rate-low", "pkt-rate-high", "",
    "rx-usecs", "rx-frames", "rx-usecs-irq", "rx-frames-irq", "",
    "tx-usecs", "tx-frames", "tx-usecs-irq", "tx-frames-irq", "",
    "rx-usecs-low", "rx-frame-low", "tx-usecs-low", "tx-frame-low", "",
    "rx-usecs-high", "rx-frame-high", "tx-usecs-high", "tx-frame-high", "",
)  # fmt: skip
GROUPED = ("tx-checksum-", "tx-scatter-gather", "tx-tcp")  # indented below their heading
FIELDS = {"s": "IP SA", "d": "IP DA", "f": "L4 bytes 0 & 1 [TCP/UDP src port]"}
FIELDS["n"] = "L4 bytes 2 & 3 [TCP/UDP dst port]"
FLOWS = {"tcp4": "TCP", "udp4": "UDP", "sctp4": "SCTP"} | dict.fromkeys(
    ("ah4", "esp4"), "IPSEC AH/ESP"
)
ALIASES = {  # of the options below, as in the real tool
    "-n": ("-u", "--show-ntuple"), "-N": ("-U", "--config-ntuple"),
    "-x": ("--show-rxfh-indir",), "-X": ("--set-rxfh-indir",),
    "-k": ("--show-offload",), "-K": ("--offload",),
}  # fmt: skip
OPTIONS = (
    ("-S", "--statistics", "stats", "what NIC and driver have counted"),
    ("-i", "--driver", "drvinfo", "the driver"),
    ("-g", "--show-ring", "ring", "sizes of the descriptor rings"),
    ("-G", "--set-ring", "set ring", "set them: rx N, tx N"),
    ("-c", "--show-coalesce", "coalesce", "interrupt throttling"),
    ("-C", "--coalesce", "set coalesce", "set it: rx-usecs N; 3 is dynamic"),
    ("-k", "--show-features", "features", "offloads and other features"),
    ("-K", "--features", "set features", "switch them: gro off, rxhash on"),
    ("-l", "--show-channels", "channels", "queues and vectors"),
    ("-L", "--set-channels", "set channels", "set their number: combined N"),
    ("-x", "--show-rxfh", "rxfh", "RSS: indirection table and key"),
    ("-X", "--rxfh", "set rxfh", "set them: equal N, weight W..., default, hkey KEY"),
    ("-n", "--show-nfc", "rxnfc", "rings and rules; rx-flow-hash udp4: what is hashed"),
    ("-N", "--config-nfc", "set rxnfc", "rx-flow-hash udp4 sdfn: hash UDP's ports too"),
    ("-t", "--test", "test", "test registers, interrupts, loopback, link; online: link only"),
)
WHAT = " ".join(option[0] for option in OPTIONS)
SETTINGS = {  # an example of each
    "ring": "-G tap0 rx 512",
    "coalesce": "-C tap0 rx-usecs 50",
    "features": "-K tap0 gro off",
    "channels": "-L tap0 combined 2",
    "rxfh": "-X tap0 default",
}


def _arguments(parser: Parser) -> None:
    what = parser.add_mutually_exclusive_group()
    for short, long, value, text in OPTIONS:
        words = (short, long)
        what.add_argument(*words, dest="what", action="store_const", const=value, help=text)
        for alias in ALIASES.get(short, ()):
            what.add_argument(
                alias, dest="what", action="store_const", const=value, help=argparse.SUPPRESS
            )
    parser.add_argument("device", nargs="?", metavar="DEVICE", help="the interface: tap0")
    parser.add_argument("words", nargs="*", metavar="NAME VALUE", help="what to set")


def ethtool(args: Namespace) -> int:
    """Ask the driver and print the answer, or set what is named."""
    if args.what is None or args.device is None:
        lacking = f"say what is asked: {WHAT}" if args.what is None else "say which DEVICE"
        raise UsageError(lacking, hint="netstack ethtool -S tap0\nnetstack ethtool --help")
    setter, _, name = args.what.rpartition(" ")
    if setter:
        values = PAIRS[name](args.words) if name in PAIRS else _pairs(args.words, name)
        ask(args, "ethtool_set", device=args.device, what=name, values=values)
        return 0
    asked = {"device": args.device, "what": name, "options": _options(name, args.words)}
    data: Any = ask(args, "ethtool", **asked)
    if args.json:
        if isinstance(data, list):
            data = {row["name"]: {k: v for k, v in row.items() if k != "name"} for row in data}
        print_json([{"ifname": args.device} | data])
    else:
        print(TEXTS[name](args.device, data))
    return 1 if name == "test" and data["result"] != "PASS" else 0


# ---- words


def _options(name: str, words: list[str]) -> dict[str, Any]:
    if not words:
        return {}
    if name == "test" and words in (["online"], ["offline"]):
        return {"offline": words == ["offline"]}
    if name == "rxnfc" and len(words) == 2 and words[0] == "rx-flow-hash":
        return {"flow": words[1]}
    raise UsageError(f"{' '.join(words)!r} asks nothing", hint="netstack ethtool --help")


def _pairs(words: list[str], what: str) -> dict[str, str]:
    if len(words) % 2 or not words:
        given = " ".join(words) or "nothing"
        hint = f"netstack ethtool {SETTINGS[what]}"
        raise UsageError(f"{given}: give NAME VALUE", hint=hint)
    return dict(zip(words[::2], words[1::2], strict=True))


def _rxfh_words(words: list[str]) -> dict[str, Any]:
    """Read what -X takes; ``weight`` takes all numbers that follow."""
    values: dict[str, Any] = {}
    left = list(words)
    while left:
        name = left.pop(0)
        if name == "default":
            values["default"] = True
        elif name == "weight":
            values["weight"] = []
            while left and left[0].lstrip("-").isdigit():
                values["weight"].append(left.pop(0))
        elif name in ("equal", "hkey", "hfunc") and left:
            values[name] = left.pop(0)
        else:
            allowed = "equal N, weight W..., default, hkey KEY, hfunc toeplitz"
            message = f"{name!r} can't be set; allowed: {allowed}"
            raise UsageError(message, hint="netstack ethtool -X tap0 default")
    return values or _pairs(words, "rxfh")


def _rxnfc_words(words: list[str]) -> dict[str, str]:
    if words and words[0] in ("flow-type", "delete"):
        raise UsageError(
            "rmgr: Cannot insert RX class rule: Operation not supported",
            hint="netstack ethtool -N tap0 rx-flow-hash udp4 sdfn",
        )
    if len(words) != 3 or words[0] != "rx-flow-hash":
        message = f"{' '.join(words) or 'nothing'}: give rx-flow-hash FLOW FIELDS"
        raise UsageError(message, hint="netstack ethtool -N tap0 rx-flow-hash udp4 sdfn")
    return {words[1]: words[2]}


PAIRS = {"rxfh": _rxfh_words, "rxnfc": _rxnfc_words}


# ---- texts


def _stats(_device: str, data: dict[str, Any]) -> str:
    return "\n".join(["NIC statistics:", *(f"     {k}: {v}" for k, v in data.items())])


def _drvinfo(_device: str, data: dict[str, Any]) -> str:
    names = ("driver", "version", "firmware-version", "expansion-rom-version", "bus-info")
    lines = [f"{name}: {data.get(name, '')}" for name in names]
    has = {"statistics", "test"}
    lines += [f"supports-{name}: {'yes' if name in has else 'no'}" for name in SUPPORTS]
    return "\n".join(lines)


def _ring(device: str, data: dict[str, Any]) -> str:
    lines = [f"Ring parameters for {device}:"]
    for heading, suffix in (("Pre-set maximums:", "-max"), ("Current hardware settings:", "")):
        lines += [heading, f"RX:\t\t{data['rx' + suffix]}", "RX Mini:\tn/a", "RX Jumbo:\tn/a"]
        lines.append(f"TX:\t\t{data['tx' + suffix]}")
    lines += ["RX Buf Len:\t\tn/a", "CQE Size:\t\tn/a", "TX Push:\tn/a"]
    return "\n".join([*lines, "TCP data split:\tn/a"])


def _coalesce(device: str, data: dict[str, Any]) -> str:
    adaptive = (_on(data.get(f"adaptive-{way}")) for way in ("rx", "tx"))
    lines = [f"Coalesce parameters for {device}:", "Adaptive RX: {}  TX: {}".format(*adaptive)]
    lines += [f"{name}: {data.get(name, 'n/a')}" if name else "" for name in COALESCE]
    lines += ["CQE mode RX: n/a  TX: n/a", ""]
    return "\n".join(lines)


def _features(device: str, data: list[dict[str, Any]]) -> str:
    lines = [f"Features for {device}:"]
    for row in data:
        name = row["name"]
        indent = "\t" if name.startswith(GROUPED) and row["fixed"] is not None else ""
        if name == "tx-checksumming":
            indent = ""
        fixed = " [fixed]" if row["fixed"] else ""
        lines.append(f"{indent}{name}: {_on(row['active'])}{fixed}")
    return "\n".join(lines)


def _channels(device: str, data: dict[str, Any]) -> str:
    lines = [f"Channel parameters for {device}:"]
    for heading, suffix in (("Pre-set maximums:", "-max"), ("Current hardware settings:", "")):
        lines += [heading, "RX:\t\tn/a", "TX:\t\tn/a", f"Other:\t\t{data['other' + suffix]}"]
        lines.append(f"Combined:\t{data['combined' + suffix]}")
    return "\n".join(lines)


def _rxfh(device: str, data: dict[str, Any]) -> str:
    table = data["rss-indirection-table"]
    lines = [f"RX flow hash indirection table for {device} with {data['rings']} RX ring(s):"]
    for first in range(0, len(table), 8):
        cells = "".join(f" {queue:5d}" for queue in table[first : first + 8])
        lines.append(f"{first:5d}: {cells}")
    lines += ["RSS hash key:", bytes(data["rss-hash-key"]).hex(":"), "RSS hash function:"]
    return "\n".join([*lines, "    toeplitz: on", "    xor: off", "    crc32: off"])


def _rxnfc(_device: str, data: dict[str, Any]) -> str:
    if "flow" not in data:
        return f"{data['rx-rings']} RX rings available\nTotal {data['rules']} rules\n"
    head = (
        f"{FLOWS[data['flow']]} over IPV4 flows use these fields for computing Hash flow key:"
    )
    return "\n".join([head, *(FIELDS[letter] for letter in data["fields"]), ""])


def _test(_device: str, data: dict[str, Any]) -> str:
    lines = [f"The test result is {data['result']}", "The test extra info:"]
    return "\n".join(
        [*lines, *(f"{name}\t {code}" for name, code in data["tests"].items()), ""]
    )


def _on(value: bool | None) -> str:
    return "n/a" if value is None else "on" if value else "off"


TEXTS: dict[str, Any] = {
    "stats": _stats,
    "drvinfo": _drvinfo,
    "ring": _ring,
    "coalesce": _coalesce,
    "features": _features,
    "channels": _channels,
    "rxfh": _rxfh,
    "rxnfc": _rxnfc,
    "test": _test,
}

COMMANDS = {
    "ethtool": Command(
        ethtool,
        "netstack ethtool -S tap0\nnetstack ethtool -g tap0\nnetstack ethtool -c tap0 --json\n"
        "netstack ethtool -G tap0 rx 1024 tx 512    under traffic, without losing a frame\n"
        "netstack ethtool -C tap0 rx-usecs 50\nnetstack ethtool -K tap0 gro off rxhash off\n"
        "netstack ethtool -N tap0 rx-flow-hash udp4 sdfn\nnetstack ethtool -t tap0",
        _arguments,
        "What the NIC and its driver say, as ethtool prints it, and what can be set.",
    ),
}
