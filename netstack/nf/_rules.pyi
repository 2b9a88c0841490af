from collections.abc import Iterable
from typing import Any, TypeAlias, final

from netstack._net import Net
from netstack._skb import SkBuff

# bpf function, program, ifindex in, ifindex out, verdict, Counter or None
_Rule: TypeAlias = tuple[int, int, int, int, int, Any]

@final
class Counter:
    @property
    def packets(self) -> int: ...
    @property
    def bytes(self) -> int: ...

@final
class Rules:
    def __new__(cls, n: Net) -> Rules: ...
    def publish(
        self, hook: int, rules: Iterable[_Rule], policy: int = 1, by_flow: bool = False
    ) -> None: ...
    def publish_wants(self, rules: Iterable[_Rule]) -> None: ...
    def tap(self, hook: int, skb: SkBuff, iif: int = 0) -> None: ...
    def run(self, hook: int, skb: SkBuff, iif: int = 0, oif: int = 0) -> int: ...
