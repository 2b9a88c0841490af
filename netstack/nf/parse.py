"""parse: one rule in nftables' words, as an expression of libpcap and what it does.

Stage 6 of 8:  device driver irq napi netif [nf] proto sock
In       words of nft                     nf/tables.py
Out      an expression, a verdict         nf/tables.py
Context  process
Kernel   none; nft(8), pcap-filter(7)
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from netstack.errors import UsageError

EXAMPLE = "netstack nft add rule ip filter input ip saddr 10.0.0.0/8 udp dport 53 counter drop"
VERDICTS = ("accept", "drop", "reject", "continue")
PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "udplite": 136,
}
ICMP_TYPES = {
    "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5,
    "echo-request": 8, "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11,
    "parameter-problem": 12, "timestamp-request": 13, "timestamp-reply": 14,
    "info-request": 15, "info-reply": 16, "address-mask-request": 17, "address-mask-reply": 18,
}  # fmt: skip
# Header and field: libpcap's name of the value, its largest, names of values.
FIELDS: dict[tuple[str, str], tuple[str, int, dict[str, int]]] = {
    ("ip", "saddr"): ("ip[12:4]", 0xFFFFFFFF, {}),
    ("ip", "daddr"): ("ip[16:4]", 0xFFFFFFFF, {}),
    ("ip", "protocol"): ("ip[9]", 255, PROTOCOLS),
    ("ip", "ttl"): ("ip[8]", 255, {}),
    ("ip", "length"): ("ip[2:2]", 65535, {}),
    ("ip", "id"): ("ip[4:2]", 65535, {}),
    ("meta", "l4proto"): ("ip[9]", 255, PROTOCOLS),
    ("meta", "length"): ("len", 65535, {}),
    ("udp", "sport"): ("udp[0:2]", 65535, {}),
    ("udp", "dport"): ("udp[2:2]", 65535, {}),
    ("udp", "length"): ("udp[4:2]", 65535, {}),
    ("tcp", "sport"): ("tcp[0:2]", 65535, {}),
    ("tcp", "dport"): ("tcp[2:2]", 65535, {}),
    ("icmp", "type"): ("icmp[0]", 255, ICMP_TYPES),
    ("icmp", "code"): ("icmp[1]", 255, {}),
}
OPERATORS = {"==": "==", "eq": "==", "!=": "!=", "ne": "!=", "<": "<", "lt": "<", ">": ">",
             "gt": ">", "<=": "<=", "le": "<=", ">=": ">=", "ge": ">="}  # fmt: skip


@dataclass
class Parsed:
    """What a rule says: its matches as nft lists them, and as libpcap takes them."""

    matches: list[str] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    iif: int = 0
    oif: int = 0
    counter: bool = False
    verdict: str = ""
    comment: str = ""

    @property
    def filter(self) -> str:
        """The whole expression; empty for every packet."""
        return " and ".join(f"({each})" for each in self.filters)


def split_words(text: str) -> list[str]:
    """Split a line as nft does: braces and commas stand alone, quotes hold together."""
    try:
        lexer = shlex.shlex(text, posix=True, punctuation_chars="{},;")
        lexer.whitespace_split = True
        return [word for token in lexer for word in _braces(token)]
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}", hint=EXAMPLE) from None


def _braces(token: str) -> list[str]:
    return list(token) if token and not token.strip("{},;") else [token]


def parse_rule(words: list[str], ifindex: Callable[[str], int]) -> Parsed:
    """Read a rule. Raises UsageError that says what can stand where."""
    rule = Parsed()
    left = list(words)
    while left:
        word = left.pop(0)
        if rule.verdict and word != "comment":
            raise UsageError(f"{word!r} behind the verdict {rule.verdict}", hint=EXAMPLE)
        if word in VERDICTS:
            rule.verdict = word
            _reject_with(word, left)
        elif word == "counter":
            rule.counter = True
            if left[:1] == ["packets"]:
                del left[:4]  # as it was listed
        elif word == "comment":
            rule.comment = _next(word, left)
        elif word in ("iifname", "oifname", "iif", "oif"):
            _device(rule, word, left, ifindex)
        elif word == "meta" and left[:1] and left[0] in ("iifname", "oifname", "iif", "oif"):
            _device(rule, left.pop(0), left, ifindex)
        else:
            _match(rule, word, left)
    if not (rule.verdict or rule.counter):
        message = f"a rule ends with a verdict ({' '.join(VERDICTS)}), or counts"
        raise UsageError(message, hint=EXAMPLE)
    return rule


def _reject_with(word: str, left: list[str]) -> None:
    if word != "reject" or left[:1] != ["with"]:
        return
    if left[1:4] != ["icmp", "type", "port-unreachable"] and left[1:3] != [
        "icmp",
        "port-unreachable",
    ]:
        message = f"reject {' '.join(left)}: allowed is with icmp type port-unreachable"
        raise UsageError(message, hint=EXAMPLE)
    del left[: 4 if left[2] == "type" else 3]


def _next(after: str, left: list[str]) -> str:
    if not left:
        raise UsageError(f"syntax error: {after!r} wants a value", hint=EXAMPLE)
    return left.pop(0)


def _device(rule: Parsed, word: str, left: list[str], ifindex: Callable[[str], int]) -> None:
    name = _next(word, left)
    if name in ("==", "eq"):
        name = _next(word, left)
    index = ifindex(name)
    if word.startswith("i"):
        rule.iif = index
    else:
        rule.oif = index
    rule.matches.append(f'{word} "{name}"')


def _match(rule: Parsed, header: str, left: list[str]) -> None:
    """Read ``HEADER FIELD [OP] VALUE``."""
    name = left.pop(0) if left else ""
    found = FIELDS.get((header, name))
    if found is None:
        fields = [field_ for head, field_ in FIELDS if head == header]
        heads = sorted(
            {head for head, _ in FIELDS} | {"iifname", "oifname", "counter", *VERDICTS}
        )
        allowed = (
            f"{header} has {' '.join(fields)}" if fields else f"allowed: {' '.join(heads)}"
        )
        raise UsageError(
            f"syntax error: {header} {name}".rstrip() + f"; {allowed}", hint=EXAMPLE
        )
    value, most, names = found
    op = OPERATORS[left.pop(0)] if left and left[0] in OPERATORS else "=="
    words = _values(f"{header} {name}", left)
    if len(words) > 1 and op not in ("==", "!="):
        raise UsageError(f"{op} goes with one value, not with a set", hint=EXAMPLE)
    is_address = name in ("saddr", "daddr")
    terms = [_term(value, op, word, most, names, is_address) for word in words]
    joined = " or ".join(f"({term})" for term in terms)
    if header in ("udp", "tcp", "icmp"):
        # nft has looked at the protocol first: what is another one matches neither way.
        joined = f"{header} and (not ({joined}))" if op == "!=" else joined
    elif op == "!=":
        joined = f"not ({joined})"
    rule.filters.append(f"ip and ({joined})")
    shown = words[0] if len(words) == 1 else f"{{ {', '.join(words)} }}"
    rule.matches.append(" ".join([header, name, *([] if op == "==" else [op]), shown]))


def _values(what: str, left: list[str]) -> list[str]:
    word = _next(what, left)
    if word != "{":
        return [word]
    if "}" not in left:
        raise UsageError(f"syntax error: {what} {{ without }}", hint=EXAMPLE)
    end = left.index("}")
    words = [each for each in left[:end] if each != ","]
    del left[: end + 1]
    if not words:
        raise UsageError(f"{what}: the set is empty", hint=EXAMPLE)
    return words


def _term(
    value: str, op: str, word: str, most: int, names: dict[str, int], is_address: bool
) -> str:
    """Give one comparison; != is turned round by the caller."""
    sign = "==" if op == "!=" else op
    first, dash, last = word.partition("-")
    if dash and word not in names:
        low, high = (_number(each, most, names, is_address) for each in (first, last))
        if low > high:
            raise UsageError(f"{word}: the range goes down", hint=EXAMPLE)
        return f"{value} >= {low} and {value} <= {high}"
    if is_address and "/" in word:
        try:
            net = IPv4Network(word, strict=False)
        except ValueError:
            raise UsageError(f"{word!r} is no prefix", hint="10.0.0.0/8") from None
        mask = int(net.netmask)
        return f"{value} & {mask:#x} {sign} {int(net.network_address):#x}"
    return f"{value} {sign} {_number(word, most, names, is_address)}"


def _number(word: str, most: int, names: dict[str, int], is_address: bool) -> int:
    if word in names:
        return names[word]
    try:
        number = int(IPv4Address(word)) if is_address else int(word, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        known = f", or {' '.join(names)}" if names else ""
        allowed = "an IPv4 address" if is_address else f"0 to {most}{known}"
        raise UsageError(f"{word!r} can't be; allowed: {allowed}", hint=EXAMPLE)
    return number
