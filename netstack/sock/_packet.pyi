from typing import final

from netstack._net import Net

@final
class Packet: ...

def init(n: Net) -> None: ...
