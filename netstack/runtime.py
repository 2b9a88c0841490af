"""Where running hosts leave their sockets and notes, for other terminals of the same user.

`NAME.sock` is the control socket of the host on wire NAME, `NAME.lab` the note of a host that
lives in a lab: its pid, in a file that stays locked as long as the process lives. A lock needs
no cleaning up after SIGKILL, and a pid that was given to another process does not deceive.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from netstack.errors import UsageError, oserror


def runtime_dir(
    *,
    uid: int | None = None,
    environ: Mapping[str, str] = os.environ,
    run: Path = Path("/run"),
    tmp: Path = Path("/tmp"),
) -> Path:
    """Return the directory of this user's sockets, made with mode 0700 if it is missing.

    /run/netstack for root, $XDG_RUNTIME_DIR/netstack for others, /tmp/netstack-UID where there
    is neither. Raises `PermissionError` if somebody else made it: he could pose as our host.
    """
    me = os.geteuid() if uid is None else uid
    base = run if me == 0 else Path(environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    if _is_ours(base, me) and os.access(base, os.W_OK):
        path = base / "netstack"
    else:
        path = tmp / f"netstack-{me}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        number = error.errno or errno.EIO
        message = f"{path}, for control sockets, cannot be made: {os.strerror(number)}"
        raise oserror(number, message, hint="export XDG_RUNTIME_DIR=$(mktemp -d)") from None
    if not _is_ours(path, me):
        message = f"{path}, for control sockets, belongs to somebody else or is no directory"
        raise oserror(errno.EPERM, message, hint=f"sudo rm -r {path}")
    if stat.S_IMODE(path.stat().st_mode) != 0o700:
        path.chmod(0o700)
    return path


@contextmanager
def announce(name: str, directory: Path) -> Iterator[Path]:
    """Keep a note, while the block runs, that this process holds the lab of wire `name`.

    Raises EBUSY if another process of this user holds one.
    """
    path = directory / f"{name}.lab"
    fd = _locked(path)
    if fd is None:
        pid = labs(directory).get(name)
        message = f"{name} is up in the lab of process {pid}"
        raise oserror(errno.EBUSY, message, hint=f"netstack stop {name}\nkill {pid}")
    try:
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def labs(directory: Path) -> dict[str, int]:
    """Return the pid of each lab that is alive, by the name of its wire."""
    found = {}
    for path in sorted(directory.glob("*.lab")):
        pid = _holder(path)
        if pid is not None:
            found[path.stem] = pid
    return found


def find_lab(directory: Path, name: str | None = None) -> int:
    """Return the pid of the lab of wire `name`; without a name, of the only lab there is."""
    alive = labs(directory)
    if name is None and len(alive) == 1:
        return next(iter(alive.values()))
    if name is None and alive:
        names = ", ".join(alive)
        hint = "\n".join(f"netstack -i {each} exec COMMAND" for each in alive)
        raise UsageError(f"several labs are running: {names}; say which", hint=hint)
    if name not in alive:
        which = "no lab is running" if name is None else f"no lab of {name} is running"
        raise oserror(errno.ENOENT, which, hint=f"netstack up {name or 'tap0'}")
    return alive[name]


def _locked(path: Path) -> int | None:
    """Open and lock the note; None if it is locked by another."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # its former holder removed it between our open and our lock


def _holder(path: Path) -> int | None:
    """Return the pid in the note, None if nobody holds it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(fd, 20)
        return int(text) if text.strip().isdigit() else None
    finally:
        os.close(fd)
    return None


def _is_ours(path: Path, uid: int) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid
