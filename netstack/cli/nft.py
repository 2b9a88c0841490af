"""``netstack nft``: rules of a running host, in nftables' words."""

from __future__ import annotations

from typing import Any

from netstack.cli.command import Command, Namespace, Parser, ask, print_json


def _arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("words", nargs="*", metavar="WORD", help="list ruleset, add rule ip filter input ...")
    add("-a", "--handle", action="store_true", help="show the handles of rules")
    add("-j", dest="json", action="store_true", help="the same as --json")


def nft(args: Namespace) -> int:
    """Do one command, and print what it lists."""
    words = [
        f'"{word}"' if " " in word and len(args.words) > 1 else word for word in args.words
    ]
    chains = ask(args, "nft", text=" ".join(words))
    if chains is None:
        return 0
    if args.json:
        print_json({"nftables": list(_objects(chains))})
    else:
        print(listing(chains, handles=args.handle), end="")
    return 0


def _objects(chains: list[dict[str, Any]]) -> Any:
    """Give tables, chains and rules one after the other, as ``nft -j`` does."""
    for family, table in dict.fromkeys((c["family"], c["table"]) for c in chains):
        yield {"table": {"family": family, "name": table}}
    for chain in chains:
        where = {"family": chain["family"], "table": chain["table"]}
        yield {"chain": where | {"name": chain["chain"], "type": "filter",
                                 "hook": chain["hook"], "prio": 0,
                                 "policy": chain["policy"]}}  # fmt: skip
        for rule in chain["rules"]:
            yield {"rule": where | {"chain": chain["chain"]} | rule}


def listing(chains: list[dict[str, Any]], *, handles: bool = False) -> str:
    """Print chains as ``nft list`` does."""
    lines: list[str] = []
    for family, table in dict.fromkeys((c["family"], c["table"]) for c in chains):
        lines.append(f"table {family} {table} {{")
        bodies = [_chain(c, handles=handles) for c in chains if c["family"] == family]
        lines += "\n\n".join(bodies).split("\n")
        lines.append("}")
    return "".join(f"{line}\n" for line in lines)


def _chain(chain: dict[str, Any], *, handles: bool) -> str:
    lines = [f"\tchain {chain['chain']} {{"]
    lines.append(
        f"\t\ttype filter hook {chain['hook']} priority filter; policy {chain['policy']};"
    )
    for rule in chain["rules"]:
        handle = f" # handle {rule['handle']}" if handles else ""
        lines.append(f"\t\t{rule['rule']}{handle}")
    return "\n".join([*lines, "\t}"])


COMMANDS = {
    "nft": Command(
        nft,
        "netstack nft list ruleset\n"
        "netstack nft add rule ip filter input udp dport 53 counter drop\n"
        "netstack nft add rule ip filter input ip saddr 10.0.0.0/8 icmp type echo-request reject\n"
        "netstack nft 'add rule ip filter output udp dport { 67, 68 } counter'\n"
        "netstack nft add rule arp filter input arp operation request arp saddr ip 10.0.0.9 counter drop\n"
        "netstack nft -a list chain ip filter input\n"
        "netstack nft delete rule ip filter input handle 2\nnetstack nft flush ruleset",
        _arguments,
        "Rules at the hooks of netfilter, run in compiled code. Chains: ip filter prerouting,\n"
        "input, forward, output, postrouting; arp filter input, output; netdev filter ingress.",
    ),
}
