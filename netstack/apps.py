"""Small servers to put on a host: echo, discard, chargen, or a function of the user's.

Each runs in a Python thread of its own on the socket API, as a user's program would, and ends
when the host closes its socket.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from netstack.errors import UsageError

DATAGRAM_MAX = 65535
AF_INET, SOCK_DGRAM = 2, 2
# Two servers that answer each other would do so for ever: a reply never goes to these ports.
ANSWERING_PORTS = frozenset((7, 13, 17, 19))

CHARGEN_LINE = 72
_PRINTABLE = bytes(range(0x20, 0x7F))
# RFC 864: "one popular pattern is 72 character lines of the ASCII printing characters".
CHARGEN = b"".join(
    (_PRINTABLE * 2)[start : start + CHARGEN_LINE] + b"\r\n" for start in range(len(_PRINTABLE))
)

Host = Any
log = logging.getLogger("netstack.apps")


@dataclass(frozen=True, slots=True)
class App:
    """A server: its name, the UDP port it binds (0: it sees to that itself), its loop."""

    name: str
    port: int
    serve: Callable[..., object]

    def __str__(self) -> str:
        """Say what is where."""
        return f"{self.name} on UDP port {self.port}" if self.port else self.name


def echo(sock: Any) -> None:
    """Send every datagram back (RFC 862)."""
    buffer = bytearray(DATAGRAM_MAX)
    view = memoryview(buffer)
    receive, send = sock.recvfrom_into, sock.sendto
    while True:
        size, sender = receive(buffer)
        if sender[1] not in ANSWERING_PORTS:
            with suppress(OSError):  # no room, no route: the sender asks again, as on any wire
                send(view[:size], sender)


def discard(sock: Any) -> None:
    """Take every datagram and do nothing with it (RFC 863)."""
    buffer = bytearray(DATAGRAM_MAX)
    receive = sock.recv_into
    while True:
        receive(buffer)


def chargen(sock: Any) -> None:
    """Answer every datagram with up to 512 characters (RFC 864), a line further each time."""
    buffer = bytearray(DATAGRAM_MAX)
    period = len(CHARGEN)
    text = memoryview(CHARGEN * 2)
    step = CHARGEN_LINE + 2
    for turn in itertools.count():
        _size, sender = sock.recvfrom_into(buffer)
        if sender[1] not in ANSWERING_PORTS:
            start = turn * step % period
            with suppress(OSError):
                sock.sendto(text[start : start + 512 - turn % step], sender)


BUILT_IN = {
    "echo": App("echo", 7, echo),
    "discard": App("discard", 9, discard),
    "chargen": App("chargen", 19, chargen),
}


def find(spec: str) -> App:
    """Return the app of a name, or the function that ``module:function`` names.

    A module is looked for in the current directory first. Raises UsageError, before any host
    exists, if it can't be imported.
    """
    module, colon, function = spec.partition(":")
    if not colon:
        if spec in BUILT_IN:
            return BUILT_IN[spec]
        near = get_close_matches(spec, BUILT_IN, n=1)
        ways = near or [*BUILT_IN, "module:function"]
        raise UsageError(
            f"there is no app {spec!r}", hint="\n".join(f"--app {way}" for way in ways)
        )
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in function.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"app {spec!r}: {error}", hint="--app module:function") from error
    finally:
        with suppress(ValueError):
            sys.path.remove(here)
    if not callable(found):
        raise UsageError(f"app {spec!r} is no function", hint="--app module:function")
    return App(spec, 0, found)


def start(host: Host, app: App) -> threading.Thread:
    """Run an app on a host in a thread of its own. Its port is bound when this returns."""
    target: Any = host
    if app.port:
        target = host.socket(AF_INET, SOCK_DGRAM)
        try:
            target.bind(("0.0.0.0", app.port))
        except BaseException:
            target.close()
            raise
    thread = threading.Thread(
        target=_run, args=(host, app, target), name=f"app/{app.name}", daemon=True
    )
    thread.start()
    return thread


def _run(host: Host, app: App, target: Any) -> None:
    try:
        app.serve(target)
    except OSError as error:
        if not host.closed:
            log.error("app %s has ended: %s", app.name, error)
    except Exception:
        log.exception("app %s has failed", app.name)
