from enum import IntEnum

from netstack._net import Net
from netstack._skb import SkBuff

class arp_op(IntEnum):
    ARPOP_REQUEST = 1
    ARPOP_REPLY = 2

def arp_init(n: Net) -> None: ...
def arp_size(skb: SkBuff) -> int: ...
def arp_parse(skb: SkBuff) -> tuple[int, int, bytes, int, bytes, int]: ...
def arp_xmit(
    n: Net,
    ifindex: int,
    op: int,
    tip: int,
    sip: int,
    dst: bytes | None = None,
    tha: bytes | None = None,
) -> None: ...
def xmit_finish(skb: SkBuff) -> None: ...
