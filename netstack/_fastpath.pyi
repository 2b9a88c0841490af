from collections.abc import Iterable

from netstack._net import Net

def connect(n: Net, cpus: Iterable[int]) -> None: ...
