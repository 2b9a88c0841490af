"""Ask a running host: find its control socket, send a request, read the answer."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from netstack.control import is_answering
from netstack.errors import InternalError, UsageError, oserror

TIMEOUT = 10.0  # seconds for an answer; the longest takes milliseconds


class Control:
    """A connection to the control socket of one host.

    ::

        with Control.find(directory) as control:
            print(control.request("nstat"))
    """

    def __init__(self, path: Path) -> None:
        """Connect; ConnectionRefusedError when nobody listens."""
        self.name = path.stem
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(TIMEOUT)
            self._connect(path)
        except BaseException:
            self.sock.close()
            raise
        self._rest = b""

    @classmethod
    def find(
        cls, directory: Path, name: str | None = None, mentioned: Iterable[str] = ()
    ) -> Self:
        """Connect to the host of this name, to the only one there is, or to the only one ``mentioned``."""
        running = hosts(directory)
        if name is None and len(running) > 1:
            meant = set(running) & set(mentioned)
            name = meant.pop() if len(meant) == 1 else None
        if name is None:
            if len(running) > 1:
                ways = "\n".join(f"netstack --name {host} ..." for host in running)
                raise UsageError(f"{len(running)} hosts are running; say which", hint=ways)
            if not running:
                raise oserror(errno.ENOENT, "no host of yours is running", hint=_start())
            name = running[0]
        if name not in running:
            others = "\n".join(f"netstack --name {host} ..." for host in running)
            raise oserror(
                errno.ENOENT, f"no host named {name} is running", hint=others or _start(name)
            )
        return cls(directory / f"{name}.sock")

    def _connect(self, path: Path) -> None:
        """Connect; while more wait in line than the kernel keeps (EAGAIN), wait as well."""
        until = time.monotonic() + TIMEOUT
        while True:
            try:
                self.sock.connect(str(path))
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise self._silent() from None
            time.sleep(0.01)

    def _silent(self) -> OSError:
        """Make the error of a host that is there and does not answer, as one that is stopped."""
        return oserror(
            errno.ETIMEDOUT,
            f"host {self.name} gave no answer in {TIMEOUT:.0f} s",
            hint=f"netstack --name {self.name} ss    again, once it is up\n"
            "ps -C netstack    is it stopped (T)?",
        )

    def request(self, command: str, **arguments: Any) -> Any:
        """Return the data of the answer, or raise what the host raised."""
        line = json.dumps({"cmd": command, "args": arguments}) + "\n"
        try:
            with suppress(BrokenPipeError):  # refused before it was asked: the reason is there
                self.sock.sendall(line.encode())
            reply = json.loads(self._line())
        except (ConnectionError, EOFError):
            raise oserror(errno.ECONNRESET, f"host {self.name} has ended") from None
        except TimeoutError:
            raise self._silent() from None
        if not reply["ok"]:
            raise _error(reply)
        return reply["data"]

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def take_rest(self) -> bytes:
        """Return what was received behind the last answer: the beginning of a stream."""
        rest, self._rest = self._rest, b""
        return rest

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def __enter__(self) -> Self:
        """Give the connection itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Hang up."""
        self.close()


def hosts(directory: Path) -> list[str]:
    """Return the names of the hosts that answer, sorted."""
    return sorted(path.stem for path in directory.glob("*.sock") if is_answering(path))


def _start(name: str = "tap0") -> str:
    """Say how a host comes up, and for an ordinary user that root may have one."""
    return f"netstack up {name}" + ("" if os.geteuid() == 0 else "\nsudo netstack ...")


def _error(reply: dict[str, Any]) -> Exception:
    """Make the error again that the host sent: the same class, message and hint."""
    if reply["errno"]:
        return oserror(reply["errno"], reply["error"], hint=reply["hint"])
    if "please report" in reply["error"]:
        return InternalError(reply["error"])
    return UsageError(reply["error"], hint=reply["hint"])
