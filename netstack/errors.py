"""Say what went wrong, and what to type next.

Three kinds of error exist, and they never mix:

* the packet is wrong: it is dropped with a reason and counted; no exception is involved;
* the caller is wrong: `oserror()` where the kernel has an errno for it, `UsageError` (a
  `ValueError`) where it has none, because no kernel would have been asked;
* we are wrong: `InternalError`.

An error of the caller carries a message and a hint. The message says what was given and what
is allowed. The hint is what to type instead, one command or option a line, nothing else. It is
the attribute `hint`, and a note as well, so that a plain traceback shows it too. `hint_of()`
reads it from any exception; `explain()` makes the text that the command line prints.
"""

from __future__ import annotations


class InternalError(RuntimeError):
    """Should never happen: netstack broke a rule of its own. Please report it."""


class UsageError(ValueError):
    """A name, address or number that no host could work with. The command line exits with 2."""

    hint: str

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        _attach(self, hint)


def oserror(errno: int, message: str, *, hint: str = "") -> OSError:
    """Return the `OSError` subclass that belongs to `errno`, to be raised by the caller.

    `OSError` itself picks the class: EPERM and EACCES give `PermissionError`, ECONNREFUSED
    `ConnectionRefusedError`, EAGAIN `BlockingIOError`, and so on.
    """
    error = OSError(errno, message)
    _attach(error, hint)
    return error


def hint_of(error: BaseException) -> str:
    """Return what to type next, or an empty string."""
    return getattr(error, "hint", "")


def explain(error: BaseException) -> str:
    """Return the message in plain words, without errno numbers, and the hint below it."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, OSError) and error.filename:  # of Python's own, as from open()
        message = f"{error.filename}: {message}"
    lines = [message or type(error).__name__]
    lines += [f"  try: {line}" for line in hint_of(error).splitlines()]
    return "\n".join(lines)


def _attach(error: OSError | UsageError, hint: str) -> None:
    error.hint = hint  # type: ignore[union-attr]  # OSError has room for it
    for line in hint.splitlines():
        error.add_note(f"try: {line}")
