"""parse: one rule in nftables' words, as an expression of libpcap and what it does.

Stage 6 of 8:  device driver irq napi netif [nf] proto sock
In       words of nft                     nf/tables.py
Out      an expression, a verdict         nf/tables.py
Context  process
Kernel   none; nft(8), pcap-filter(7)
"""

from __future__ import annotations

import re
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
ARP_OPERATIONS = {
    "request": 1, "reply": 2, "rrequest": 3, "rreply": 4, "inrequest": 8, "inreply": 9, "nak": 10,
}  # fmt: skip
ETHER_TYPES = {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD, "8021q": 0x8100, "8021ad": 0x88A8}
MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
IPV4, ETHER = 0xFFFFFFFF, 0xFFFFFFFFFFFF


@dataclass(frozen=True)
class Field:
    """What a rule can look at: libpcap's name of the value (of 6 bytes: of 4 and of 2), its largest, names of values.

    ``within`` is libpcap's word for the packets that have it.
    """

    value: str
    most: int
    names: dict[str, int] = field(default_factory=dict)
    within: str = ""
    as_hex: bool = False

    @property
    def kind(self) -> str:
        """Say what a value may be."""
        if self.most == ETHER:
            return "a hardware address, 02:00:00:00:00:01"
        if self.most == IPV4:
            return "an IPv4 address"
        return f"0 to {self.most}" + (f", or {' '.join(self.names)}" if self.names else "")

    def number(self, word: str) -> int:
        """Read a value. Raises UsageError that says what it may be."""
        if word in self.names:
            return self.names[word]
        try:
            if self.most == ETHER:
                number = int(word.replace(":", ""), 16) if MAC.fullmatch(word) else -1
            else:
                number = int(IPv4Address(word)) if self.most == IPV4 else int(word, 0)
        except ValueError:
            number = -1
        if not 0 <= number <= self.most:
            raise UsageError(f"{word!r} can't be; allowed: {self.kind}", hint=EXAMPLE)
        return number

    def text(self, number: int, *, named: bool = True) -> str:
        """Print a value as nft does."""
        for name, value in self.names.items():
            if named and value == number:
                return name
        if self.most == ETHER:
            return number.to_bytes(6).hex(":")
        if self.most == IPV4:
            return str(IPv4Address(number))
        return f"0x{number:04x}" if self.as_hex else str(number)

    def compare(self, sign: str, number: int) -> str:
        """Give libpcap's comparison."""
        high, _, low = self.value.partition(" ")
        if not low:
            return f"{high} {sign} {number}"
        top, bottom = number >> 16, number & 0xFFFF
        same = f"({high} == {top} and {low} {sign} {bottom})"
        return same if sign == "==" else f"({high} {sign[0]} {top} or {same})"


LENGTH = {("meta", "length"): Field("len", 65535)}
IP_FIELDS = {
    ("ip", "saddr"): Field("ip[12:4]", IPV4, within="ip"),
    ("ip", "daddr"): Field("ip[16:4]", IPV4, within="ip"),
    ("ip", "protocol"): Field("ip[9]", 255, PROTOCOLS, "ip"),
    ("ip", "ttl"): Field("ip[8]", 255, within="ip"),
    ("ip", "length"): Field("ip[2:2]", 65535, within="ip"),
    ("ip", "id"): Field("ip[4:2]", 65535, within="ip"),
    ("meta", "l4proto"): Field("ip[9]", 255, PROTOCOLS, "ip"),
    ("udp", "sport"): Field("udp[0:2]", 65535, within="udp"),
    ("udp", "dport"): Field("udp[2:2]", 65535, within="udp"),
    ("udp", "length"): Field("udp[4:2]", 65535, within="udp"),
    ("tcp", "sport"): Field("tcp[0:2]", 65535, within="tcp"),
    ("tcp", "dport"): Field("tcp[2:2]", 65535, within="tcp"),
    ("icmp", "type"): Field("icmp[0]", 255, ICMP_TYPES, "icmp"),
    ("icmp", "code"): Field("icmp[1]", 255, within="icmp"),
}
ARP_FIELDS = {
    ("arp", "htype"): Field("arp[0:2]", 65535, within="arp"),
    ("arp", "ptype"): Field("arp[2:2]", 65535, ETHER_TYPES, "arp", as_hex=True),
    ("arp", "hlen"): Field("arp[4]", 255, within="arp"),
    ("arp", "plen"): Field("arp[5]", 255, within="arp"),
    ("arp", "operation"): Field("arp[6:2]", 65535, ARP_OPERATIONS, "arp"),
    ("arp", "saddr ether"): Field("arp[8:4] arp[12:2]", ETHER, within="arp"),
    ("arp", "saddr ip"): Field("arp[14:4]", IPV4, within="arp"),
    ("arp", "daddr ether"): Field("arp[18:4] arp[22:2]", ETHER, within="arp"),
    ("arp", "daddr ip"): Field("arp[24:4]", IPV4, within="arp"),
}
ETHER_FIELDS = {
    ("ether", "daddr"): Field("ether[0:4] ether[4:2]", ETHER),
    ("ether", "saddr"): Field("ether[6:4] ether[10:2]", ETHER),
    ("ether", "type"): Field("ether[12:2]", 65535, ETHER_TYPES, as_hex=True),
    ("meta", "protocol"): Field("ether[12:2]", 65535, ETHER_TYPES, as_hex=True),
}
FIELDS: dict[str, dict[tuple[str, str], Field]] = {
    "ip": IP_FIELDS | LENGTH,
    "arp": ARP_FIELDS | ETHER_FIELDS | LENGTH,
    "netdev": IP_FIELDS | ARP_FIELDS | ETHER_FIELDS | LENGTH,
}
OPERATORS = {"==": "==", "eq": "==", "!=": "!=", "ne": "!=", "<": "<", "lt": "<", ">": ">",
             "gt": ">", "<=": "<=", "le": "<=", ">=": ">=", "ge": ">="}  # fmt: skip


@dataclass
class Parsed:
    """What a rule says: its matches as nft lists them, and as libpcap takes them."""

    matches: list[str] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    headers: set[str] = field(default_factory=set)
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


def parse_rule(words: list[str], ifindex: Callable[[str], int], family: str = "ip") -> Parsed:
    """Read a rule of a family's table. Raises UsageError that says what can stand where."""
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
            _match(rule, FIELDS[family], word, left)
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


def _match(
    rule: Parsed, fields: dict[tuple[str, str], Field], header: str, left: list[str]
) -> None:
    """Read ``HEADER FIELD [OP] VALUE``."""
    name = left.pop(0) if left else ""
    if (header, f"{name} {left[0] if left else ''}") in fields:
        name = f"{name} {left.pop(0)}"
    field_ = fields.get((header, name))
    if field_ is None:
        known = [each for head, each in fields if head == header]
        heads = sorted(
            {head for head, _ in fields} | {"iifname", "oifname", "counter", *VERDICTS}
        )
        allowed = f"{header} has {', '.join(known)}" if known else f"allowed: {' '.join(heads)}"
        raise UsageError(
            f"syntax error: {header} {name}".rstrip() + f"; {allowed}", hint=EXAMPLE
        )
    op = OPERATORS[left.pop(0)] if left and left[0] in OPERATORS else "=="
    words = _values(f"{header} {name}", left)
    if len(words) > 1 and op not in ("==", "!="):
        raise UsageError(f"{op} goes with one value, not with a set", hint=EXAMPLE)
    terms, texts = zip(*(_term(field_, op, word) for word in words), strict=True)
    joined = " or ".join(f"({term})" for term in terms)
    if op == "!=":
        joined = f"not ({joined})"
    # nft has looked at the protocol first: what is another one matches neither way.
    within = field_.within
    rule.filters.append(f"{within} and ({joined})" if within else joined)
    shown = texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"
    rule.matches.append(" ".join([header, name, *([] if op == "==" else [op]), shown]))
    rule.headers.add(header)


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


def _term(field_: Field, op: str, word: str) -> tuple[str, str]:
    """Give one comparison, and its value as nft prints it; != is turned round by the caller."""
    sign = "==" if op == "!=" else op
    first, dash, last = word.partition("-")
    if dash and word not in field_.names:
        low, high = field_.number(first), field_.number(last)
        if low > high:
            raise UsageError(f"{word}: the range goes down", hint=EXAMPLE)
        text = "-".join(field_.text(each, named=False) for each in (low, high))
        return f"{field_.compare('>=', low)} and {field_.compare('<=', high)}", text
    if field_.most == IPV4 and "/" in word:
        try:
            net = IPv4Network(word, strict=False)
        except ValueError:
            raise UsageError(f"{word!r} is no prefix", hint="10.0.0.0/8") from None
        masked = f"{field_.value} & {int(net.netmask):#x}"
        text = str(net if net.prefixlen < 32 else net.network_address)
        return f"{masked} {sign} {int(net.network_address):#x}", text
    number = field_.number(word)
    return field_.compare(sign, number), field_.text(number)
