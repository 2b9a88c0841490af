from typing import final

from netstack._net import Net

@final
class PollLog:
    def __new__(cls, size: int = 4096) -> PollLog: ...
    def take(self) -> list[int]: ...

@final
class ScriptedNapi:
    def __new__(
        cls,
        n: Net,
        cpu: int,
        log: PollLog,
        number: int = 0,
        weight: int = 64,
        clock: int = 0,
        cost_ns: int = 0,
    ) -> ScriptedNapi: ...
    def interrupt(self, work: int = 0) -> None: ...
    def disable(self) -> None: ...
    def enable(self) -> None: ...
    @property
    def work(self) -> int: ...
    @property
    def unmasked(self) -> int: ...
    @property
    def scheduled(self) -> bool: ...
