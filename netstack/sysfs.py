"""What a host's devices show below /sys/class/net, and what can be written there.

::

    queues/rx-0/rps_cpus         CPUs that take the packets of the queue (RPS), a mask in hexadecimal
    queues/rx-0/rps_flow_cnt     entries of the queue's flow table (RFS), rounded up to a power of 2
    gro_flush_timeout            and napi_defer_hard_irqs: the same for all devices of a host here
    statistics/rx_packets ...    counters, and address, ifindex, mtu: to be read only

Texts, errors and roundings are those of Linux 6.18. [net/core/net-sysfs.c]
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from netstack import cpumask
from netstack.config import Config
from netstack.errors import UsageError, oserror

if TYPE_CHECKING:
    from netstack.netif._rps_conf import Rps

Host = Any  # netstack.host.Host
Device = Any  # netstack.netdev.NetDevice
TREE = "class/net/"
MAX_FLOW_CNT = 1 << 20  # RFS_MAX_LOG of netif/_rps.pxd
TUNABLES = ("gro_flush_timeout", "napi_defer_hard_irqs")
TO_READ: dict[str, Callable[[Device], object]] = {
    "address": lambda device: device.mac,
    "ifindex": lambda device: device.ifindex,
    "mtu": lambda device: device.mtu,
}


def connect(config: Config, rps: Rps) -> None:
    """Let the sysctls of RFS and the flow limit do something when they are set."""

    def set_flow_limit(mask: int) -> int:
        rps.set_flow_limit(mask, config.flow_limit_table_len)
        return mask

    config.on_set("net.core.flow_limit_cpu_bitmap", set_flow_limit)
    config.on_set("net.core.rps_sock_flow_entries", rps.set_rps_sock_flow_entries)


def names(host: Host) -> list[str]:
    """Return the path of every file, below /sys."""
    return sorted(TREE + path for device in host.devices for path in _files(device))


def read(host: Host, path: str) -> str:
    """Return the text of a file below /sys."""
    device, name = _find(host, path)
    if name in TO_READ:
        return f"{TO_READ[name](device)}\n"
    if name in TUNABLES:
        return f"{host.config.text('class.net.' + name)}\n"
    if name.startswith("statistics/"):
        return f"{device.stats()[name.removeprefix('statistics/')]}\n"
    queue, what = _queue(name)
    if what == "rps_cpus":
        return cpumask.text(host.rps.rps_cpus(device.nic.address, queue), host.net.cpus) + "\n"
    return f"{host.rps.rps_flow_cnt(device.nic.address, queue)}\n"


def write(host: Host, path: str, text: str) -> None:
    """Write a file below /sys, or raise OSError or ValueError and change nothing."""
    device, name = _find(host, path)
    full = f"{TREE}{device.name}/{name}"
    if name in TUNABLES:
        host.config["class.net." + name] = text
        return
    if not name.startswith("queues/"):
        way = (
            f"link set {device.name} {name} ..."
            if name in ("mtu", "address")
            else f"sys {full}"
        )
        raise oserror(errno.EACCES, f"{full} can only be read", hint=f"netstack {way}")
    queue, what = _queue(name)
    if what == "rps_cpus":
        mask = cpumask.parse(text, host.net.cpus, full, f"netstack sys {full}=1")
        host.rps.set_rps_cpus(device.nic.address, queue, mask)
    else:
        host.rps.set_rps_flow_cnt(device.nic.address, queue, _count(text, full))


def _count(text: str, full: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= MAX_FLOW_CNT:
        raise oserror(
            errno.EINVAL,
            f"{full} = {text!r} is refused; allowed: 0 to {MAX_FLOW_CNT} flows",
            hint=f"netstack sys {full}=4096",
        )
    return value


def _files(device: Device) -> list[str]:
    """Return the paths of one device's files, with its name in front."""
    queues = [f"queues/rx-{n}/{what}" for n in range(device.rx_queues) for what in RX_QUEUE]
    counters = [f"statistics/{name}" for name in device.stats()]
    return [f"{device.name}/{name}" for name in (*TO_READ, *TUNABLES, *queues, *counters)]


RX_QUEUE = ("rps_cpus", "rps_flow_cnt")


def _queue(name: str) -> tuple[int, str]:
    """Take queues/rx-1/rps_cpus apart."""
    _, queue, what = name.split("/")
    return int(queue.removeprefix("rx-")), what


def _find(host: Host, path: str) -> tuple[Device, str]:
    """Return the device that a path names, and the rest of the path."""
    known = path.removeprefix("/sys/").strip("/").removeprefix(TREE)
    for device in host.devices:
        if known in _files(device):
            return device, known.removeprefix(device.name + "/")
    near = get_close_matches(TREE + known, names(host), n=2)
    raise UsageError(
        f"there is no file {path!r}",
        hint="\n".join(f"netstack sys {each}" for each in near) or "netstack sys",
    )
