"""A network of one's own for an ordinary user, and how a second terminal finds it.

Creating a TAP needs CAP_NET_ADMIN over the network namespace it lives in. A user namespace
gives that to anybody, for a network namespace made inside it: the lab. The user keeps his uid
and his files there, sees only `lo` and what he makes, and what he makes ends with the last
process. `enter()` moves this process into a new lab; `announce()` leaves a note about it, and
`join()` follows such a note: so `netstack up tap0` and `netstack exec ping 10.0.0.2` meet.

Root, and who has CAP_NET_ADMIN already, needs no lab.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from netstack.errors import UsageError, oserror

# include/uapi/linux/sched.h, capability.h, prctl.h
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN = 12, 13, 21
CAPABILITY_VERSION_3 = 0x20080522
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2

# What programs started in the lab keep: interfaces, raw sockets, namespaces of their own.
KEPT = (CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN)
NAMESPACES = (("user", CLONE_NEWUSER), ("net", CLONE_NEWNET), ("mnt", CLONE_NEWNS))
PROC = Path("/proc")


def may_administer(status: Path = PROC / "thread-self/status") -> bool:
    """Tell whether this thread has CAP_NET_ADMIN over its network namespace."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_NET_ADMIN & 1)
    return False


def is_needed(name: str) -> bool:
    """Tell whether `netstack up NAME` has to go into a lab first.

    Not if we may administer the network here, and not if an interface of that name exists: a
    persistent TAP of ours needs no privilege, and a foreign one deserves a clear refusal.
    """
    import socket

    return not may_administer() and name not in {n for _, n in socket.if_nameindex()}


def enter() -> None:
    """Move this process into a new lab, with `lo` up; it cannot leave again.

    Programs it starts keep CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN there. Call it before
    the first thread starts. Raises `OSError` if this system does not allow it; the process is
    unchanged then, because a child has tried it first.
    """
    _refuse_threads("a lab can be entered")
    if number := errno_of(_enter):
        raise refusal(number)
    _enter()


def join(pid: int) -> None:
    """Move this process into the lab of `pid`; it keeps its uid and its current directory."""
    _refuse_threads("a lab can be joined")
    opened = []
    try:
        for kind, flag in NAMESPACES:
            path = PROC / str(pid) / "ns" / kind
            opened.append((os.open(path, os.O_RDONLY | os.O_CLOEXEC), flag))
        here = Path.cwd()
        for fd, flag in opened:
            _call("setns", fd, flag)
    except OSError as error:
        raise _join_error(pid, error) from None
    finally:
        for fd, _ in opened:
            os.close(fd)
    os.chdir(here)  # setns() of a mount namespace leaves us at its root
    _keep_capabilities()


def execute(pid: int, command: Sequence[str]) -> None:
    """Replace this process by `command`, in the lab of `pid`. Returns only by an exception."""
    if not command:
        raise UsageError("no command is given", hint="netstack exec ping 10.0.0.2")
    program = shutil.which(command[0])
    if program is None:
        message = f"{command[0]}: no such command in PATH"
        raise oserror(errno.ENOENT, message, hint="netstack exec ping 10.0.0.2")
    join(pid)
    os.execv(program, list(command))


def own_network() -> None:
    """Move this thread into a fresh network namespace, if it may (CAP_SYS_ADMIN)."""
    with contextlib.suppress(PermissionError):
        _call("unshare", CLONE_NEWNET)


@contextlib.contextmanager
def another_network() -> Iterator[None]:
    """Run the block in a fresh network namespace, in this thread; needs CAP_SYS_ADMIN."""
    before = os.open(PROC / "thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("unshare", CLONE_NEWNET)
        try:
            _lo_up()
            yield
        finally:
            _call("setns", before, CLONE_NEWNET)
    finally:
        os.close(before)


def errno_of(function: Callable[[], object]) -> int:
    """Return the errno that `function` fails with in a forked child, 0 if it succeeds."""
    pid = os.fork()
    if pid == 0:
        number = errno.EIO
        try:
            function()
            number = 0
        except OSError as error:
            number = error.errno or errno.EIO
        finally:
            os._exit(number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def refusal(number: int, *, proc: Path = PROC) -> OSError:
    """Return the error for a lab that could not be made, with the switch that forbids it."""
    sysctl = proc / "sys"
    hint = "sudo netstack up tap0"
    if _value(sysctl / "kernel/unprivileged_userns_clone") == 0:
        why = "kernel.unprivileged_userns_clone is 0"
        hint = "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    elif _value(sysctl / "user/max_user_namespaces") == 0:
        why = "user.max_user_namespaces is 0"
        hint = "sudo sysctl -w user.max_user_namespaces=10000"
    elif _value(sysctl / "user/max_net_namespaces") == 0:
        why = "user.max_net_namespaces is 0"
        hint = "sudo sysctl -w user.max_net_namespaces=10000"
    elif _value(sysctl / "kernel/apparmor_restrict_unprivileged_userns") == 1:
        # The switch is there for a good reason: sudo for one command asks for less.
        why = "AppArmor keeps user namespaces from having capabilities (the default of Ubuntu)"
    elif number == errno.EPERM:
        why = "a chroot, or a container's filter of system calls, forbids user namespaces"
    else:
        why = os.strerror(number)
    return oserror(number, f"an ordinary user cannot make a lab here: {why}", hint=hint)


def _enter() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
    # In this order: without "deny" the kernel refuses the gid_map of an ordinary user.
    (PROC / "self/setgroups").write_text("deny")
    (PROC / "self/uid_map").write_text(f"{uid} {uid} 1")
    (PROC / "self/gid_map").write_text(f"{gid} {gid} 1")
    _keep_capabilities()
    _lo_up()


def _keep_capabilities() -> None:
    """Make them ambient: for a uid other than 0, execve() takes all others away."""
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)  # effective, permitted, inheritable: twice 32 bits
    _call("capget", header, data)
    words = list(struct.unpack("6I", data.raw))
    words[2], words[5] = words[1], words[4]  # ambient needs inheritable
    _call("capset", header, struct.pack("6I", *words))
    for capability in KEPT:
        _call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def _lo_up() -> None:
    import fcntl
    import socket

    get_flags, set_flags, up, layout = 0x8913, 0x8914, 0x1, "16sH22x"  # SIOC[GS]IFFLAGS, IFF_UP
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        reply = fcntl.ioctl(sock, get_flags, struct.pack(layout, b"lo", 0))
        flags = struct.unpack(layout, reply)[1]
        fcntl.ioctl(sock, set_flags, struct.pack(layout, b"lo", flags | up))


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _refuse_threads(what: str) -> None:
    threads = len(os.listdir(PROC / "self/task"))
    if threads > 1:
        message = f"{what} only by a process with one thread; this one has {threads}"
        raise oserror(errno.EINVAL, message, hint="netstack exec python your_program.py")


def _join_error(pid: int, error: OSError) -> OSError:
    number = error.errno or errno.EIO
    if number in (errno.ENOENT, errno.ESRCH):
        message = f"process {pid}, which held the lab, has ended"
        return oserror(errno.ESRCH, message, hint="netstack up tap0")
    message = f"the lab of process {pid} cannot be joined: {os.strerror(number)}"
    return oserror(number, message, hint="netstack doctor")


def _value(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
