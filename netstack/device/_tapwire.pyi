from typing import final

@final
class TapWire:
    def __new__(cls, fd: int) -> TapWire: ...
    @property
    def address(self) -> int: ...
