from typing import Any, final

from netstack._net import Net
from netstack.irq._cpu import Cpu

@final
class Sink:
    def __new__(cls, n: Net, cpu: Cpu, keeping: bool = True) -> Sink: ...
    def take(self) -> list[tuple[bytes, dict[str, Any]]]: ...

@final
class Sender:
    def __new__(cls, n: Net, dev: int, elements: int = 4096) -> Sender: ...
    def send(
        self, *parts: bytes, vlan: int | None = None, csum: tuple[int, int] | None = None
    ) -> int: ...
    def pool_in_use(self) -> int: ...
