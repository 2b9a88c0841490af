"""tables: rules in nftables' words, and what of them the data path is given.

Stage 6 of 8:  device driver irq napi netif [nf] proto sock
In       lines of nft                     commands.py
Out      programs of classic BPF          nf/_rules.pyx
Context  process
Kernel   nf_tables_newrule(), nf_tables_commit(), net/netfilter/nf_tables_api.c

The base chains are there from the start: ``ip filter`` has prerouting, input, forward, output and
postrouting, ``arp filter`` input and output, ``netdev filter`` has ingress. A rule's matches become
one expression of libpcap.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from netstack.errors import UsageError, oserror
from netstack.nf._rules import Counter
from netstack.nf.hooks import (
    NF_ACCEPT,
    NF_ARP_IN,
    NF_ARP_OUT,
    NF_DROP,
    NF_INET_INGRESS,
    NF_REJECT,
    Filter,
    Hooks,
)
from netstack.nf.parse import Parsed, parse_rule, split_words

NFT_CONTINUE = 8
CHAINS = {
    ("ip", "filter", "prerouting"): 0,
    ("ip", "filter", "input"): 1,
    ("ip", "filter", "forward"): 2,
    ("ip", "filter", "output"): 3,
    ("ip", "filter", "postrouting"): 4,
    ("arp", "filter", "input"): NF_ARP_IN,
    ("arp", "filter", "output"): NF_ARP_OUT,
    ("netdev", "filter", "ingress"): NF_INET_INGRESS,
}
COMMANDS = (
    ("list", "ruleset"), ("list", "table"), ("list", "chain"), ("add", "rule"),
    ("insert", "rule"), ("replace", "rule"), ("delete", "rule"), ("add", "table"), ("add", "chain"),
    ("flush", "chain"), ("flush", "table"), ("flush", "ruleset"),
)  # fmt: skip
FAMILIES = ("ip", "arp", "netdev", "inet", "ip6", "bridge")
VERDICTS = {"accept": NF_ACCEPT, "drop": NF_DROP, "continue": NFT_CONTINUE, "reject": NF_REJECT}
REJECTABLE = ("prerouting", "input", "forward", "output")
EXAMPLE = "netstack nft add rule ip filter input udp dport 53 counter drop"
WAYS = "netstack nft list ruleset\n" + EXAMPLE

# What a program may load and still say the same of every packet of a flow: version and header
# length, fragment offset, protocol, addresses, and the first four bytes behind the header.
FLOW_BYTES = {0, 6, 7, 9, *range(12, 20)}
ETH_HLEN, ETHER_TYPE = 14, {12, 13}


@dataclass
class Rule:
    """One rule: what it matches, what it says, and its counter if it has one."""

    handle: int
    parsed: Parsed
    program: Filter | None
    by_flow: bool
    counter: Counter | None

    def text(self, names: dict[int, str]) -> str:
        """Give it as nft lists it."""
        words = [*self.parsed.matches]
        if self.counter is not None:
            words.append(f"counter packets {self.counter.packets} bytes {self.counter.bytes}")
        words += [self.parsed.verdict] if self.parsed.verdict else []
        words += [f'comment "{self.parsed.comment}"'] if self.parsed.comment else []
        return " ".join(words)


@dataclass
class Chain:
    """The rules of one hook, and what becomes of packets that none of them decides."""

    family: str
    table: str
    name: str
    hook: int
    policy: str = "accept"
    rules: list[Rule] = field(default_factory=list)


class Tables:
    """All rules of one host. ``compile_`` makes a program of an expression of libpcap, for a hook."""

    def __init__(
        self,
        hooks: Hooks,
        compile_: Callable[[str, int], Any],
        ifindex: Callable[[str], int],
    ) -> None:
        """Begin with empty chains."""
        self._hooks = hooks
        self._compile = compile_
        self._ifindex = ifindex
        self.chains = {key: Chain(*key, hook) for key, hook in CHAINS.items()}
        self._handle = 1

    # ---- commands

    def command(self, text: str) -> list[dict[str, Any]] | None:
        """Do one line of nft; a listing for ``list``."""
        words = split_words(text)
        verb = words[0] if words else ""
        what = words[1] if len(words) > 1 else ""
        handler = getattr(self, f"_{verb}_{what}", None)
        if (verb, what) not in COMMANDS or handler is None:
            given = " ".join(words[:2]) or "nothing"
            allowed = ", ".join(" ".join(each) for each in COMMANDS)
            raise UsageError(
                f"syntax error: {given!r} is not what nft can do here; allowed: {allowed}",
                hint=WAYS,
            )
        return handler(words[2:])  # type: ignore[no-any-return]

    def add_rules(self, lines: Iterable[str]) -> None:
        """Append many rules, ``ip filter input udp dport 53 drop``, in one step: all or none."""
        added: list[tuple[Chain, Rule]] = []
        for line in lines:
            chain, left = self._chain(split_words(line))
            added.append((chain, self._rule(chain, left)))
        for chain, rule in added:
            chain.rules.append(rule)
        for chain in {id(chain): chain for chain, _ in added}.values():
            self._publish(chain)

    def _list_ruleset(self, rest: list[str]) -> list[dict[str, Any]]:
        _nothing(rest)
        return [self._listing(chain) for chain in self.chains.values() if _is_used(chain)]

    def _list_table(self, rest: list[str]) -> list[dict[str, Any]]:
        family, table = self._table(rest)
        have = [c for c in self.chains.values() if (c.family, c.table) == (family, table)]
        return [self._listing(chain) for chain in have]

    def _list_chain(self, rest: list[str]) -> list[dict[str, Any]]:
        chain, left = self._chain(rest)
        _nothing(left)
        return [self._listing(chain)]

    def _listing(self, chain: Chain) -> dict[str, Any]:
        rows = [
            {"handle": rule.handle, "rule": rule.text({})}
            | ({} if rule.counter is None else
               {"packets": rule.counter.packets, "bytes": rule.counter.bytes})
            for rule in chain.rules
        ]  # fmt: skip
        return {"family": chain.family, "table": chain.table, "chain": chain.name,
                "hook": chain.name, "policy": chain.policy, "rules": rows}  # fmt: skip

    def _add_rule(self, rest: list[str]) -> None:
        self._insert(rest, at_end=True)

    def _insert_rule(self, rest: list[str]) -> None:
        self._insert(rest, at_end=False)

    def _insert(self, rest: list[str], *, at_end: bool) -> None:
        chain, left = self._chain(rest)
        at = len(chain.rules) if at_end else 0
        if left[:1] in (["handle"], ["position"]):
            at = self._place(chain, left[1:2]) + at_end
            left = left[2:]
        rule = self._rule(chain, left)
        chain.rules.insert(at, rule)
        self._publish(chain)

    def _replace_rule(self, rest: list[str]) -> None:
        chain, left = self._chain(rest)
        at = self._place(chain, left[1:2] if left[:1] == ["handle"] else [])
        rule = self._rule(chain, left[2:])
        rule.handle = chain.rules[at].handle
        chain.rules[at] = rule
        self._publish(chain)

    def _delete_rule(self, rest: list[str]) -> None:
        chain, left = self._chain(rest)
        at = self._place(chain, left[1:2] if left[:1] == ["handle"] else [])
        _nothing(left[2:])
        del chain.rules[at]
        self._publish(chain)

    def _add_table(self, rest: list[str]) -> None:
        self._table(rest)  # it is there

    def _add_chain(self, rest: list[str]) -> None:
        """``add chain ip filter input { policy drop ; }``: set what becomes of the rest."""
        chain, left = self._chain(rest)
        words = [word.strip(";") for word in left if word.strip(";{}")]
        if words[:1] == ["type"] and "policy" in words:
            words = words[words.index("policy") :]
        if len(words) != 2 or words[0] != "policy" or words[1] not in ("accept", "drop"):
            where = f"{chain.family} {chain.table} {chain.name}"
            way = f"netstack nft 'add chain {where} {{ policy drop ; }}'"
            raise UsageError(
                "a base chain is there; its policy can be accept or drop", hint=way
            )
        chain.policy = words[1]
        self._publish(chain)

    def _flush_chain(self, rest: list[str]) -> None:
        chain, left = self._chain(rest)
        _nothing(left)
        chain.rules.clear()
        self._publish(chain)

    def _flush_table(self, rest: list[str]) -> None:
        family, table = self._table(rest)
        for chain in self.chains.values():
            if (chain.family, chain.table) == (family, table):
                chain.rules.clear()
                self._publish(chain)

    def _flush_ruleset(self, rest: list[str]) -> None:
        _nothing(rest)
        for chain in self.chains.values():
            if _is_used(chain):
                chain.rules.clear()
                chain.policy = "accept"
                self._publish(chain)

    # ---- words

    def _table(self, rest: list[str]) -> tuple[str, str]:
        words = _with_family(rest)
        if tuple(words) not in {key[:2] for key in CHAINS}:
            message = f"No such file or directory: table {' '.join(words)}"
            raise oserror(errno.ENOENT, message, hint="netstack nft list table ip filter")
        return words[0], words[1]

    def _chain(self, rest: list[str]) -> tuple[Chain, list[str]]:
        """Find a chain by family (ip), table and name; give the words behind them too."""
        words = _with_family(rest)
        family, table, name = [*words[:3], "", ""][:3]
        chain = self.chains.get((family, table, name))
        if chain is None:
            known = "\n".join(f"netstack nft list chain {' '.join(key)}" for key in CHAINS)
            given = (
                " ".join(words[:3]) if rest else "FAMILY TABLE CHAIN wanted, as ip filter input"
            )
            message = f"No such file or directory: chain {given}"
            raise oserror(errno.ENOENT, message, hint=known)
        return chain, words[3:]

    def _place(self, chain: Chain, words: list[str]) -> int:
        handles = [str(rule.handle) for rule in chain.rules]
        if not words or words[0] not in handles:
            given = f"handle {words[0]}" if words else "a rule is named by its handle"
            message = (
                f"No such file or directory: {given}; there are: {' '.join(handles) or 'none'}"
            )
            raise oserror(errno.ENOENT, message, hint="netstack nft -a list ruleset")
        return handles.index(words[0])

    def _rule(self, chain: Chain, words: list[str]) -> Rule:
        parsed = parse_rule(words, self._ifindex, chain.family)
        refused = not_there(chain, parsed)
        if refused:
            raise UsageError(refused, hint=EXAMPLE)
        program = self._compile(parsed.filter, chain.hook) if parsed.filter else None
        link = ETH_HLEN if chain.hook >= NF_INET_INGRESS else 0
        by_flow = not parsed.oif and (program is None or is_by_flow(program.insns, link))
        counter = Counter() if parsed.counter else None
        self._handle += 1
        return Rule(self._handle, parsed, program, by_flow, counter)

    # ---- the data path

    def _publish(self, chain: Chain) -> None:
        rows = [
            (
                rule.program.function if rule.program else 0,
                rule.program.address if rule.program else 0,
                rule.parsed.iif,
                rule.parsed.oif,
                VERDICTS.get(rule.parsed.verdict, NFT_CONTINUE),
                rule.counter,
            )
            for rule in chain.rules
        ]
        self._hooks.rejecting = list(self._rejecting())
        self._hooks.changed()
        by_flow = all(rule.by_flow for rule in chain.rules)
        old = getattr(self, "_programs", {}).copy()
        self._hooks.rules.publish(chain.hook, rows, VERDICTS[chain.policy], by_flow)
        # Programs live until the data path has let go of the chain that pointed to them.
        old[chain.hook] = [rule.program for rule in chain.rules]
        self._programs = old

    def _rejecting(self) -> Iterator[tuple[int, int, int]]:
        for chain in self.chains.values():
            for rule in chain.rules:
                if rule.parsed.verdict == "reject":
                    of = rule.program
                    yield (of.function if of else 0, of.address if of else 0, 1 << chain.hook)


def not_there(chain: Chain, parsed: Parsed) -> str:
    """Say what a rule asks for that its chain does not have; empty for nothing."""
    if parsed.verdict == "reject" and chain.family != "ip":
        return f"cannot use reject with {chain.family}; say drop"
    if parsed.verdict == "reject" and chain.name not in REJECTABLE:
        return f"reject is for {', '.join(REJECTABLE)}; in {chain.name} say drop"
    if parsed.oif and chain.name in ("prerouting", "input", "ingress"):
        return f"oifname is not known in {chain.name}"
    if chain.hook == NF_ARP_OUT and parsed.iif:
        return "iifname is not known in output"
    if chain.hook == NF_ARP_OUT and "ether" in parsed.headers:
        # nft takes such a rule, and it matches nothing: skb->mac_header is not set yet.
        return "ether is not known in output; arp saddr ether and arp daddr ether are"
    return ""


def is_by_flow(insns: bytes, link: int = 0) -> bool:
    """Tell whether a program says the same of every IP packet of a flow. ``link``: bytes in front of it."""
    same = {link + n for n in FLOW_BYTES} | (ETHER_TYPE if link else set())
    for code, _jt, _jf, k in struct.iter_unpack("=HBBI", insns):
        kind, mode = code & 0x07, code & 0xE0
        size = {0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
        if kind == 0x00 and mode == 0x20 and not set(range(k, k + size)) <= same:
            return False
        if kind == 0x00 and mode == 0x40 and k + size > link + 4:
            return False
        if kind in (0x00, 0x01) and mode == 0x80:  # the length
            return False
    return True


def _with_family(words: list[str]) -> list[str]:
    """Put the family in front that nft takes when none is named."""
    return words if words and words[0] in FAMILIES else ["ip", *words]


def _is_used(chain: Chain) -> bool:
    return bool(chain.rules) or chain.policy != "accept"


def _nothing(rest: list[str]) -> None:
    if rest:
        raise UsageError(f"syntax error: unexpected {' '.join(rest)!r}", hint=WAYS)
