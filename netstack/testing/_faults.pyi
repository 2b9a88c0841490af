from typing import Any, final

NAMES: tuple[str, ...]

@final
class Injector:
    def __new__(
        cls, nic: Any, seed: int, chances: dict[str, float], seconds: dict[str, float]
    ) -> Injector: ...
    def counts(self) -> dict[str, int]: ...
    def remove(self) -> None: ...
