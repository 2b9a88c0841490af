"""Run a function as an ordinary user, while the tests themselves are root.

The child is a fork, not a new interpreter: the tree and its virtual environment may lie in a
home directory that the other user cannot enter. It stays in the network namespace of the
calling thread. What the function returns or raises comes back through a pipe.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import ctypes
import grp
import os
import pickle
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IFCHR
from tempfile import TemporaryDirectory
from typing import Any

import pyroute2
import pyroute2.netlink.exceptions

# Imported now, because the other user may not be able to read them later.
_NEEDED_BY_THE_CHILD = (asyncio, concurrent.futures.thread, grp, pwd, pyroute2)
NOBODY = 65534
PR_SET_DUMPABLE = 4  # include/uapi/linux/prctl.h


def in_child(function: Callable[[], Any], *, uid: int | None = None) -> Any:
    """Return what `function` returns in a forked child, or raise what it raises there.

    With `uid` the child is that user: no groups, no capabilities.
    """
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(readable)
            result = _outcome(function, uid)
            with os.fdopen(writable, "wb") as pipe:
                pipe.write(result)
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    good, value = pickle.loads(data)
    if not good:
        raise value
    return value


def _outcome(function: Callable[[], Any], uid: int | None) -> bytes:
    try:
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            # A process that changed its uid may not look into its own /proc until it execs.
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        return pickle.dumps((True, function()))
    except BaseException as error:
        return pickle.dumps((False, error))


@contextmanager
def tun_node(mode: int = 0o666) -> Iterator[Path]:
    """Give a device node like /dev/net/tun with this mode, where every user may reach it."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        node = Path(name) / "tun"
        os.mknod(node, S_IFCHR | 0o600, os.makedev(10, 200))
        os.chmod(node, mode)
        yield node
