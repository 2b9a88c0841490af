from collections.abc import Sequence
from typing import final

from netstack._net import Net

@final
class PacketTap:
    def __new__(
        cls,
        n: Net,
        run: int = 0,
        program: int = 0,
        snaplen: int = 262144,
        size: int = ...,
        keep: object = None,
        raw: int = 0,
        devices: Sequence[int] | None = None,
    ) -> PacketTap: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    @property
    def stats(self) -> tuple[int, int]: ...
    def drain(
        self, most: int = 256
    ) -> list[tuple[int, int, int, bool, int, bytes, int, bool, int, int]]: ...
