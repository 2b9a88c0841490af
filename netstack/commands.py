"""What can be asked of a running host over its control socket, one row a command.

A handler takes the host's `Running` and the arguments of the request, and returns what JSON can
hold, or a `Stream`. Text and tables are the business of the asker: ``cli/``.
"""

from __future__ import annotations

import base64
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from netstack import drops, ethnl, procfs, rtnl, rtnl_neigh, rtnl_route, stats, sysfs
from netstack.capture import stages
from netstack.capture.bpf import Program
from netstack.control import Handler
from netstack.errors import UsageError, oserror
from netstack.tapstream import TapStream

LOOKS = 20  # at the ledger of a host that is at work, a millisecond apart

Host = Any  # netstack.host.Host
Rows = list[dict[str, Any]]


@dataclass(slots=True)
class Running:
    """A host as the control socket knows it: with its name, its apps, and how to end it."""

    host: Host
    name: str
    apps: list[str] = field(default_factory=list)
    stop: Callable[[], None] | None = None
    started: float = field(default_factory=time.time)


def info(it: Running) -> dict[str, Any]:
    """Say who this is."""
    return {
        "name": it.name,
        "pid": os.getpid(),
        "started": it.started,
        "cpus": len(it.host.softnet()),
        "apps": it.apps,
        "devices": [device.name for device in it.host.devices],
    }


def nstat(it: Running) -> dict[str, Any]:
    """Give every counter, and which life of the host has counted them."""
    return {"counters": stats.nstat(it.host.net), "since": it.started, "now": time.time()}


def softnet(it: Running) -> Rows:
    """Give the counters of each CPU."""
    return list(it.host.softnet())


def sockets(it: Running) -> Rows:
    """Give every open socket, and whose it is: all are this process's."""
    owner = {"pid": os.getpid(), "command": Path("/proc/self/comm").read_text().strip()}
    return [row | owner for row in it.host.sockets()]


def ledger(it: Running) -> dict[str, Any]:
    """Give the account of all frames, at a moment when it balances if there is one soon.

    While frames move, some are between two places when they are counted; ``moving`` says so.
    """
    first = account = stats.ledger(it.host)
    for _ in range(LOOKS):
        if account.balanced:
            break
        time.sleep(0.001)
        account = stats.ledger(it.host)
    return account.as_dict() | {"moving": account.frames != first.frames}


def list_drops(it: Running) -> Rows:
    """Give the drop reasons that have counted."""
    return drops.drops(it.host.net)


def proc(it: Running, paths: list[str] | None = None) -> dict[str, str]:
    """Give the text of files below /proc; of all of them without ``paths``."""
    return {path: procfs.read(it.host, path) for path in paths or procfs.names(it.host)}


def set_proc(it: Running, values: dict[str, str]) -> dict[str, str]:
    """Write files below /proc: all of them, or none when one is refused; what they say then."""
    return _write_all(it, procfs, values)


def proc_names(it: Running) -> list[str]:
    """Give the paths that ``proc`` knows."""
    return procfs.names(it.host)


def sysctl(it: Running, names: list[str] | None = None) -> Rows:
    """Give tunables with all that is known of them; of all of them without ``names``."""
    config = it.host.config
    rows = [config.find(name) for name in names] if names else config.rows()
    return [
        {
            "name": row.key,
            "value": it.host.config[row.key],
            "text": it.host.config.text(row.key),
            "unit": row.unit,
            "range": row.range,
            "default": row.default,
            "doc": row.text,
        }
        for row in rows
    ]


def set_sysctl(it: Running, values: dict[str, str]) -> Rows:
    """Set tunables: all of them, or none when one is refused."""
    config = it.host.config
    before = {name: config[name] for name in values}
    try:
        for name, value in values.items():
            config[name] = value
    except (ValueError, OSError):
        for name, value in before.items():
            config[name] = value
        raise
    return sysctl(it, list(values))


def sys(it: Running, paths: list[str] | None = None) -> dict[str, str]:
    """Give the text of files below /sys; of all of them without ``paths``."""
    return {path: sysfs.read(it.host, path) for path in paths or sysfs.names(it.host)}


def sys_names(it: Running) -> list[str]:
    """Give the paths that ``sys`` knows."""
    return sysfs.names(it.host)


def set_sys(it: Running, values: dict[str, str]) -> dict[str, str]:
    """Write files below /sys: all of them, or none when one is refused; what they say then."""
    return _write_all(it, sysfs, values)


def _write_all(it: Running, tree: Any, values: dict[str, str]) -> dict[str, str]:
    before = {path: tree.read(it.host, path) for path in values}
    done: list[str] = []
    try:
        for path, text in values.items():
            tree.write(it.host, path, text)
            done.append(path)
    except (ValueError, OSError):
        for path in done:
            tree.write(it.host, path, before[path])
        raise
    return {path: tree.read(it.host, path) for path in values}


def _nics(it: Running) -> list[str]:
    """Name the devices with a wire, or all if there is none."""
    names = [device.name for device in it.host.devices]
    return [name for name in names if name != "lo"] or names


def _device(it: Running, name: str) -> Any:
    devices = {device.name: device for device in it.host.devices}
    if name not in devices:
        ways = "\n".join(f"netstack ethtool -S {each}" for each in _nics(it))
        raise UsageError(f"host {it.name} has no device {name!r}", hint=ways)
    return devices[name]


def ethtool(it: Running, device: str, what: str, options: dict[str, Any] | None = None) -> Any:
    """Ask a driver, as ethtool does: its ``what`` is a name in ``ethnl.SHOW``."""
    found = _device(it, device)
    found.refresh()
    return _ethnl(it, device, ethnl.SHOW, what)(device, found.nic, **(options or {}))


def ethtool_set(it: Running, device: str, what: str, values: dict[str, Any]) -> None:
    """Set what a name in ``ethnl.SET`` stands for: all of the values, or none."""
    found = _device(it, device)
    _ethnl(it, device, ethnl.SET, what)(device, found.nic, values)


def _ethnl(it: Running, device: str, table: dict[str, Any], what: str) -> Any:
    if what not in table:
        message = f"{device} has no {what}"
        raise oserror(errno.EOPNOTSUPP, message, hint=f"netstack ethtool -S {_nics(it)[0]}")
    return table[what]


def places(it: Running) -> list[tuple[str, str]]:
    """Give what ``capture`` can listen on, with descriptions: interfaces first, then stages."""
    return stages.places(it.host.devices)


def capture(
    it: Running,
    program: str = "",
    snaplen: int = 262144,
    raw: str = "",
    wanted: list[tuple[str, str]] | None = None,
) -> TapStream:
    """Give a stream of records of ``wanted``: pairs of interface and stage; None for every wire.

    ``program`` is BPF in base64, empty for all frames; ``raw`` that for packets that begin with their
    IP header.
    """
    code, raw_code = (
        Program(base64.b64decode(text)) if text else None for text in (program, raw)
    )
    return TapStream(it.host, code, snaplen, raw_code, wanted or [("any", "")])


def nft(it: Running, text: str) -> Rows | None:
    """Do one line of nft; what it lists."""
    found: Rows | None = it.host.nft.command(text)
    return found


def stop(it: Running) -> None:
    """End the host, as Ctrl-C in its terminal does."""
    if it.stop is None:
        raise UsageError(
            f"host {it.name} belongs to a program; only that can end it",
            hint=f"kill {os.getpid()}",
        )
    it.stop()


def _on_host(function: Callable[..., Any]) -> Handler:
    """Make a handler of a function whose first argument is the host."""

    @wraps(function)
    def handler(it: Running, *args: Any, **kwargs: Any) -> Any:
        return function(it.host, *args, **kwargs)

    return handler


RTNL: dict[str, Handler] = {**rtnl.COMMANDS, **rtnl_neigh.COMMANDS, **rtnl_route.COMMANDS}
COMMANDS: dict[str, Handler] = {
    **{name: _on_host(function) for name, function in RTNL.items()},
    "capture": capture,
    "drops": list_drops,
    "ethtool": ethtool,
    "ethtool_set": ethtool_set,
    "info": info,
    "ledger": ledger,
    "nft": nft,
    "nstat": nstat,
    "places": places,
    "proc": proc,
    "proc_names": proc_names,
    "set_proc": set_proc,
    "set_sys": set_sys,
    "set_sysctl": set_sysctl,
    "softnet": softnet,
    "sockets": sockets,
    "stop": stop,
    "sys": sys,
    "sys_names": sys_names,
    "sysctl": sysctl,
}
