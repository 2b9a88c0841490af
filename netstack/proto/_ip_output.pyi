from typing import final

from netstack._net import Net
from netstack._skb import SkBuff

@final
class IPOutput:
    def __new__(cls, n: Net, seed: int) -> IPOutput: ...

def send(
    n: Net,
    data: bytes,
    daddr: int,
    saddr: int,
    protocol: int,
    *,
    tos: int = 0,
    ttl: int = 0,
    df: bool = False,
    options: bytes = b"",
) -> int: ...
def output(n: Net, skb: SkBuff) -> int: ...
