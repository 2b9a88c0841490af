from typing import final

@final
class TapWire:
    def __new__(cls, fd: int, vnet_hdr: bool = False) -> TapWire: ...
    @property
    def address(self) -> int: ...
