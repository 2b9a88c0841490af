"""``netstack ethtool``: the NIC and its driver, in ethtool's words and shapes."""

from __future__ import annotations

from typing import Any

from netstack.cli.command import Command, Namespace, Parser, ask, print_json

SUPPORTS = ("statistics", "test", "eeprom-access", "register-dump", "priv-flags")
# The lines of `ethtool -c`, in its order; "" is an empty line.
COALESCE = (
    "stats-block-usecs", "sample-interval", "pkt-rate-low", "pkt-rate-high", "",
    "rx-usecs", "rx-frames", "rx-usecs-irq", "rx-frames-irq", "",
    "tx-usecs", "tx-frames", "tx-usecs-irq", "tx-frames-irq", "",
    "rx-usecs-low", "rx-frame-low", "tx-usecs-low", "tx-frame-low", "",
    "rx-usecs-high", "rx-frame-high", "tx-usecs-high", "tx-frame-high", "",
)  # fmt: skip


def _arguments(parser: Parser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    for short, long, value, text in (
        ("-S", "--statistics", "stats", "what NIC and driver have counted"),
        ("-i", "--driver", "drvinfo", "the driver"),
        ("-g", "--show-ring", "ring", "sizes of the descriptor rings"),
        ("-c", "--show-coalesce", "coalesce", "interrupt throttling"),
    ):
        what.add_argument(
            short, long, dest="what", action="store_const", const=value, help=text
        )
    parser.add_argument("device", metavar="DEVICE", help="the interface: tap0")


def ethtool(args: Namespace) -> int:
    """Ask the driver and print the answer."""
    data: dict[str, Any] = ask(args, "ethtool", device=args.device, what=args.what)
    if args.json:
        print_json([{"ifname": args.device} | data])
    else:
        print(TEXTS[args.what](args.device, data))
    return 0


def _stats(_device: str, data: dict[str, Any]) -> str:
    return "\n".join(["NIC statistics:", *(f"     {k}: {v}" for k, v in data.items())])


def _drvinfo(_device: str, data: dict[str, Any]) -> str:
    names = ("driver", "version", "firmware-version", "expansion-rom-version", "bus-info")
    lines = [f"{name}: {data.get(name, '')}" for name in names]
    has = {"statistics"}
    lines += [f"supports-{name}: {'yes' if name in has else 'no'}" for name in SUPPORTS]
    return "\n".join(lines)


def _ring(device: str, data: dict[str, Any]) -> str:
    lines = [f"Ring parameters for {device}:"]
    for heading, suffix in (("Pre-set maximums:", "-max"), ("Current hardware settings:", "")):
        lines += [heading, f"RX:\t\t{data['rx' + suffix]}", "RX Mini:\tn/a", "RX Jumbo:\tn/a"]
        lines.append(f"TX:\t\t{data['tx' + suffix]}")
    return "\n".join(lines)


def _coalesce(device: str, data: dict[str, Any]) -> str:
    adaptive = (_on(data.get(f"adaptive-{way}")) for way in ("rx", "tx"))
    lines = [f"Coalesce parameters for {device}:", "Adaptive RX: {}  TX: {}".format(*adaptive)]
    lines += [f"{name}: {data.get(name, 'n/a')}" if name else "" for name in COALESCE]
    lines += ["CQE mode RX: n/a  TX: n/a", ""]
    return "\n".join(lines)


def _on(value: bool | None) -> str:
    return "n/a" if value is None else "on" if value else "off"


TEXTS = {"stats": _stats, "drvinfo": _drvinfo, "ring": _ring, "coalesce": _coalesce}

COMMANDS = {
    "ethtool": Command(
        ethtool,
        "netstack ethtool -S tap0\nnetstack ethtool -g tap0\nnetstack ethtool -c tap0 --json",
        _arguments,
        "What the NIC and its driver say, as ethtool prints it.",
    ),
}
