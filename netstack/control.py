"""The control socket: one thread that answers questions about a running host.

A request is a line of JSON, ``{"cmd": "nstat", "args": {}}``. The answer is another,
``{"ok": true, "data": ...}`` or ``{"ok": false, "error": ..., "hint": ..., "errno": ...}``. A
command that gives a `Stream` is answered with such a line too, and then with the stream's bytes
until the client goes away. What can be asked stands in ``commands.py``.

The socket lies in a directory of its owner and has mode 0600; the kernel's word on who is at
the other end (SO_PEERCRED) is checked besides. Nothing here waits: a client that does not read
is left alone until it does, and the host never notices.
"""

from __future__ import annotations

import errno
import fcntl
import inspect
import json
import logging
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from netstack.errors import InternalError, UsageError, hint_of, oserror

MAX_REQUEST = 1 << 20  # bytes of one line
SUN_PATH = 108  # <linux/un.h>, the zero at the end included
HIGH_WATER = 1 << 20  # bytes that may wait for a client before its stream is left alone

Handler = Callable[..., Any]
_log = logging.getLogger("netstack.control")


class Stream(Protocol):
    """Describe an answer without an end. Its owner closes it when the client has gone."""

    head: Any

    def fileno(self) -> int:
        """Return an fd that is readable when ``read`` has something."""

    def read(self) -> bytes:
        """Return what there is, in one piece; empty for nothing. Never waits."""

    def close(self) -> None:
        """Give everything back. Idempotent."""


class _Client:
    """One connection: what it has sent of a line, and what it has not yet read."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.request = bytearray()
        self.unsent = bytearray()
        self.stream: Stream | None = None


class ControlServer:
    """Answer on ``directory/NAME.sock`` until closed.

    ``target`` is handed to every handler of ``commands`` as its first argument; the others are
    the ``args`` of the request.
    """

    def __init__(
        self, name: str, directory: Path, target: object, commands: Mapping[str, Handler]
    ) -> None:
        """Take the socket, so that a second host of this name is refused before it exists."""
        self.path = directory / f"{name}.sock"
        self._target = target
        self._commands = commands
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._listener = _bind(name, self.path)
        except BaseException:
            os.close(self._wake)
            self._selector.close()
            raise
        self._inode = os.stat(self.path).st_ino
        self._thread = threading.Thread(target=self._serve, name=f"control/{name}", daemon=True)
        self._idle = threading.Event()
        self._idle.set()
        self._closing = threading.Lock()
        self._process = os.getpid()

    def start(self) -> None:
        """Begin to answer."""
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        # Cleared first: a signal's exception may cut the start short, and the thread be there.
        self._idle.clear()
        try:
            self._thread.start()
        except RuntimeError:
            self._idle.set()
            raise

    def close(self) -> None:
        """End the thread, every connection, and the socket. Idempotent; not from a handler.

        In a fork of the process it does nothing: the thread and the name are the parent's.
        """
        if self._process != os.getpid():
            return
        with self._closing:
            if self._wake < 0:
                return
            os.eventfd_write(self._wake, 1)
            self._idle.wait()
            for client in list(self._clients.values()):
                self._drop(client)
            # The name first: who finds that nobody listens any more finds no name either.
            with suppress(OSError):
                if os.stat(self.path).st_ino == self._inode:
                    self.path.unlink()
            self._listener.close()
            self._selector.close()
            os.close(self._wake)
            self._wake = -1

    def _serve(self) -> None:
        try:
            while self._serve_once():
                pass
        finally:
            self._idle.set()

    def _serve_once(self) -> bool:
        """Wait for events and handle them; False when it is time to end."""
        for key, events in self._selector.select():
            if key.data is None:
                return False
            try:
                key.data(events)
            except Exception:  # one client must not end the service for the others
                _log.exception("control socket %s", self.path)
        return True

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # gone again, or no fd left: the client sees it
        sock.setblocking(False)
        client = _Client(sock)
        self._clients[sock.fileno()] = client
        self._watch(client)
        if not _is_allowed(sock):
            message = "this host belongs to another user"
            self._answer(client, error=oserror(errno.EPERM, message, hint="sudo netstack ..."))
            self._drop(client)

    def _watch(self, client: _Client) -> None:
        """Look at the events that matter now: requests, room to write, news of the stream."""
        events = selectors.EVENT_WRITE if client.unsent else 0
        events |= selectors.EVENT_READ

        def ready(found: int) -> None:
            self._ready(client, found)

        with suppress(KeyError):
            self._selector.unregister(client.sock)
        self._selector.register(client.sock, events, ready)
        stream = client.stream
        if stream is not None:
            with suppress(KeyError):
                self._selector.unregister(stream.fileno())
            if len(client.unsent) < HIGH_WATER:
                self._selector.register(
                    stream.fileno(), selectors.EVENT_READ, lambda _: self._pump(client)
                )

    def _ready(self, client: _Client, events: int) -> None:
        if client.sock.fileno() < 0:
            return  # dropped for what its stream said a moment ago
        try:
            if events & selectors.EVENT_WRITE:
                self._send(client)
            if events & selectors.EVENT_READ:
                self._receive(client)
        except (ConnectionError, EOFError):
            self._drop(client)

    def _receive(self, client: _Client) -> None:
        try:
            data = client.sock.recv(65536)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        client.request += data
        while (end := client.request.find(b"\n")) >= 0:
            line = bytes(client.request[:end])
            del client.request[: end + 1]
            self._run(client, line)
        if len(client.request) > MAX_REQUEST:
            raise ConnectionError("a request without an end")

    def _run(self, client: _Client, line: bytes) -> None:
        try:
            result = self._call(line)
        except Exception as error:
            self._answer(client, error=error)
            return
        if hasattr(result, "fileno"):
            if client.stream is not None:
                result.close()
                self._answer(client, error=UsageError("this connection has a stream already"))
                return
            client.stream = result
            self._answer(client, data=result.head)
            self._pump(client)
        else:
            self._answer(client, data=result)

    def _call(self, line: bytes) -> Any:
        try:
            request = json.loads(line)
            command, arguments = request["cmd"], request.get("args", {})
            handler = self._commands.get(command)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UsageError(
                "a request is a JSON object with cmd and args", hint='{"cmd": "info"}'
            ) from None
        if handler is None:
            known = " ".join(sorted(self._commands))
            raise UsageError(f"there is no command {command!r}", hint=f"one of: {known}")
        try:
            call = inspect.signature(handler).bind(self._target, **arguments)
        except TypeError as error:
            raise UsageError(
                f"{command}: {error}", hint='{"cmd": "info", "args": {}}'
            ) from None
        return handler(*call.args, **call.kwargs)

    def _answer(
        self, client: _Client, *, data: Any = None, error: Exception | None = None
    ) -> None:
        reply = {"ok": True, "data": data} if error is None else _refusal(error)
        client.unsent += json.dumps(reply).encode() + b"\n"
        self._send(client)

    def _pump(self, client: _Client) -> None:
        """Move the stream on, as far as the client has room."""
        if client.stream is None:
            return
        client.unsent += client.stream.read()
        try:
            self._send(client)
        except ConnectionError:
            self._drop(client)

    def _send(self, client: _Client) -> None:
        with suppress(BlockingIOError):
            while client.unsent:
                sent = client.sock.send(client.unsent)
                del client.unsent[:sent]
        self._watch(client)

    def _drop(self, client: _Client) -> None:
        stream, client.stream = client.stream, None
        if stream is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(stream.fileno())
            stream.close()
        with suppress(KeyError, ValueError):
            self._selector.unregister(client.sock)
        self._clients.pop(client.sock.fileno(), None)
        client.sock.close()


def _refusal(error: Exception) -> dict[str, Any]:
    """Put an error into the words of the protocol; one of ours says so and is logged."""
    if not isinstance(error, (UsageError, OSError)):
        _log.error("a command failed", exc_info=error)
        error = InternalError(f"{type(error).__name__}: {error}; please report it")
        return {"ok": False, "error": str(error), "hint": "", "errno": 0}
    number = getattr(error, "errno", None) or 0
    message = getattr(error, "strerror", None) or str(error)
    return {"ok": False, "error": message, "hint": hint_of(error), "errno": number}


def _is_allowed(sock: socket.socket) -> bool:
    """Tell whether the process at the other end is of this user, or root's."""
    size = struct.calcsize("3i")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())


@contextmanager
def _directory_lock(directory: Path) -> Iterator[None]:
    """Let one process at a time decide whose a socket is."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _bind(name: str, path: Path) -> socket.socket:
    """Listen on ``path``. The socket of a process that has died is replaced."""
    if len(os.fsencode(path)) >= SUN_PATH:
        raise UsageError(
            f"{path} is no path for a socket: {SUN_PATH} bytes are the limit of the kernel",
            hint="export XDG_RUNTIME_DIR=$(mktemp -d)",
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with _directory_lock(path.parent):
            if path.exists() and is_answering(path):
                raise oserror(
                    errno.EADDRINUSE,
                    f"a host named {name} is running already",
                    hint=f"netstack stop --name {name}\nnetstack up NAME",
                )
            path.unlink(missing_ok=True)
            sock.bind(str(path))
            path.chmod(0o600)
            sock.listen()
    except BaseException:
        sock.close()
        raise
    return sock


def is_answering(path: Path) -> bool:
    """Tell whether a process listens on a socket: a dead one refuses, or has removed it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        result = probe.connect_ex(str(path))
    return result not in (errno.ECONNREFUSED, errno.ENOENT)
