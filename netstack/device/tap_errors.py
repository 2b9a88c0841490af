"""tap_errors: say why a TAP could not be had, and what to type.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       an errno of open() or TUNSETIFF   device/tap.py
Out      an OSError with its hint          netstack/errors.py
Context  process; Python, only when open failed
Kernel   tun_set_iff(), tun_not_capable(), drivers/net/tun.c
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from ipaddress import IPv4Interface
from pathlib import Path

from netstack.device.link import Link
from netstack.errors import oserror

IFF_TUN, IFF_TAP = 0x0001, 0x0002
PROC = Path("/proc")
MISC = Path("/sys/class/misc/tun")


def open_error(
    number: int, path: Path, *, misc: Path = MISC, uid: int | None = None
) -> OSError:
    """Return the error for an open() of the TUN device that failed with `number`."""
    user = user_name(os.geteuid() if uid is None else uid)
    node = f"sudo mkdir -p {path.parent} && sudo mknod -m 0666 {path} c 10 200"
    if number in (errno.ENOENT, errno.ENOTDIR):
        built_in = misc.exists()
        message = f"{path} does not exist, so no TAP can be made"
        return oserror(number, message, hint=node if built_in else "sudo modprobe tun")
    if number in (errno.ENODEV, errno.ENXIO):
        message = f"{path} exists, but no TUN driver is behind it in this kernel"
        return oserror(number, message, hint="sudo modprobe tun")
    if number == errno.EACCES:
        message = (
            f"{path} has mode {_mode(path)}, so user {user} may not open it; 0666 is usual"
        )
        return oserror(number, message, hint=f"sudo chmod 0666 {path}")
    if number == errno.EPERM:  # the mode would allow it: a device cgroup, hence a container
        message = f"{path} may not be opened here; a container has to be given the device"
        return oserror(
            number, message, hint="docker run --device /dev/net/tun --cap-add NET_ADMIN ..."
        )
    return oserror(
        number, f"{path} cannot be opened: {os.strerror(number)}", hint="netstack doctor"
    )


def attach_error(
    number: int,
    name: str,
    link: Link | None,
    *,
    peer: IPv4Interface | None = None,
    path: Path = Path("/dev/net/tun"),
    proc: Path = PROC,
    uid: int | None = None,
) -> OSError:
    """Return the error for a TUNSETIFF of `name` that failed with `number`.

    `link` is the interface of that name, or None if there is none.
    """
    me = os.geteuid() if uid is None else uid
    if number == errno.EPERM and link is None:
        message = f"{name} does not exist, and creating it needs CAP_NET_ADMIN"
        return oserror(
            number, message, hint=f"sudo netstack up {name}\n{own_tap(name, me, peer)}"
        )
    if number == errno.EPERM and link is not None:
        message = f"{name} belongs to {_owner(link)}, not to {user_name(me)}"
        other = unused_name(name)
        return oserror(
            number, message, hint=f"sudo netstack up {name}\n{own_tap(other, me, peer)}"
        )
    if number == errno.EBUSY:
        return _busy(name, holders(name, proc=proc))
    if number == errno.EINVAL and link is not None:
        return oserror(number, _mismatch(link), hint=f"netstack up {unused_name(name)}")
    if number == errno.ENOTTY:
        hint = f"sudo rm {path} && sudo mknod -m 0666 {path} c 10 200"
        return oserror(number, f"{path} is not the TUN device", hint=hint)
    return oserror(
        number, f"{name} cannot be had: {os.strerror(number)}", hint="netstack doctor"
    )


def own_tap(name: str, uid: int, peer: IPv4Interface | None = None) -> str:
    """Return the command that makes a persistent TAP which `uid` can use without privilege."""
    lines = [f"sudo ip tuntap add dev {name} mode tap user {user_name(uid)}"]
    if peer is not None:
        lines.append(f"sudo ip addr add {peer} dev {name}")
    lines.append(f"sudo ip link set {name} up")
    return " && ".join(lines)


def holders(name: str, *, proc: Path = PROC) -> list[tuple[int, str]]:
    """Return (pid, command) of the processes that have the TAP `name` open.

    Only those of this network namespace, and only those that /proc lets us look into.
    """
    found = []
    try:
        here = os.readlink(proc / "thread-self/ns/net")
    except OSError:
        return []
    for pid in sorted(int(p.name) for p in proc.iterdir() if p.name.isdigit()):
        try:
            if os.readlink(proc / str(pid) / "ns/net") == here and _holds(
                proc / str(pid), name
            ):
                found.append((pid, (proc / str(pid) / "comm").read_text().strip()))
        except OSError:
            continue  # another user's, or gone meanwhile
    return found


def unused_name(name: str, taken: Iterable[str] | None = None) -> str:
    """Return a name that is free and resembles `name`: tap1 for tap0."""
    import socket

    used = {n for _, n in socket.if_nameindex()} if taken is None else set(taken)
    stem = name.rstrip("0123456789")[:12] or "tap"
    return next(n for i in range(1000) if (n := f"{stem}{i}") not in used and n != name)


def user_name(uid: int) -> str:
    """Return the login name, or the number where there is none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _holds(process: Path, name: str) -> bool:
    wanted = f"iff:\t{name}"
    for entry in (process / "fdinfo").iterdir():
        try:
            if wanted in entry.read_text().splitlines():
                return True
        except OSError:
            continue  # closed meanwhile
    return False


def _busy(tap: str, found: list[tuple[int, str]]) -> OSError:
    other = unused_name(tap)
    if not found:
        message = f"{tap} is in use by a process that this user may not look at"
        return oserror(errno.EBUSY, message, hint=f"netstack up {other}")
    me = os.getpid()
    who = ", ".join("this process" if p == me else f"{name} (pid {p})" for p, name in found)
    kill = "\n".join(f"kill {pid}" for pid, _ in found if pid != me)
    hint = f"{kill}\nnetstack up {other}".strip()
    return oserror(errno.EBUSY, f"{tap} is in use by {who}", hint=hint)


def _mismatch(link: Link) -> str:
    if link.tun_type == IFF_TUN:
        return (
            f"{link.name} is a TUN and carries packets; a TAP, which carries frames, is needed"
        )
    if link.tun_type == IFF_TAP and link.multi_queue:
        return f"{link.name} is a multiqueue TAP; one with a single queue is needed"
    return f"{link.name} exists and is not a TAP; the name of a TAP, or a free one, is needed"


def _owner(link: Link) -> str:
    import grp

    if link.owner is not None:
        return f"user {user_name(link.owner)}"
    if link.group is None:
        return "somebody else"
    try:
        return f"group {grp.getgrgid(link.group).gr_name}"
    except KeyError:
        return f"group {link.group}"


def _mode(path: Path) -> str:
    try:
        return f"{path.stat().st_mode & 0o7777:04o}"
    except OSError:
        return "unknown"
