from collections.abc import Callable
from typing import final

from netstack._net import Net
from netstack._skb import SkBuff

@final
class LocalOut:
    def __new__(cls, n: Net, layer: Callable[[SkBuff], int]) -> LocalOut: ...
