from typing import final

from netstack._net import Net
from netstack._skb import SkBuff

@final
class ICMP:
    def __new__(cls, n: Net, seed: int) -> ICMP: ...

def rcv_check(n: Net, skb: SkBuff) -> int: ...
def echo(n: Net, skb: SkBuff, options: bytes = b"") -> None: ...
def allow(n: Net, type: int, code: int, daddr: int, loopback: bool = False) -> bool: ...
def push(
    n: Net,
    message: bytes,
    daddr: int,
    saddr: int,
    tos: int = 0,
    options: bytes = b"",
    reply: bool = False,
) -> int: ...
