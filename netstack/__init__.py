"""The Linux receive path as a program: a host behind a TAP that shows where every frame went.

::

    import netstack
    from socket import AF_INET, SOCK_DGRAM

    with netstack.up("tap0", addr="10.0.0.2/24") as host:
        sock = host.socket(AF_INET, SOCK_DGRAM)

The names below are imported when they are first used, so that ``netstack --help`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netstack._net import ManualClock
    from netstack.device._memory import MemoryWire
    from netstack.errors import InternalError, UsageError
    from netstack.host import Host
    from netstack.live import up
    from netstack.stats import ledger

__version__ = "0.1.0"
__all__ = ["Host", "InternalError", "ManualClock", "MemoryWire", "UsageError", "ledger", "up"]

_WHERE = {
    "Host": "netstack.host",
    "InternalError": "netstack.errors",
    "ManualClock": "netstack._net",
    "MemoryWire": "netstack.device._memory",
    "UsageError": "netstack.errors",
    "ledger": "netstack.stats",
    "up": "netstack.live",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used. [PEP 562]."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
