"""Every error of the caller says what was wrong and what to type instead."""

import errno
import pickle
import traceback
from pathlib import Path

import pytest

from netstack.errors import InternalError, UsageError, explain, hint_of, oserror


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EPERM, PermissionError),
        (errno.EACCES, PermissionError),
        (errno.ENOENT, FileNotFoundError),
        (errno.EEXIST, FileExistsError),
        (errno.EAGAIN, BlockingIOError),
        (errno.ECONNREFUSED, ConnectionRefusedError),
        (errno.ETIMEDOUT, TimeoutError),
        (errno.EBUSY, OSError),
    ],
)
def test_errno_chooses_the_subclass(number: int, kind: type[OSError]) -> None:
    error = oserror(number, "what was given, what is allowed")
    assert type(error) is kind
    assert error.errno == number
    assert error.strerror == "what was given, what is allowed"


def test_hint_is_readable_from_any_exception() -> None:
    assert hint_of(UsageError("bad", hint="--ring 256")) == "--ring 256"
    assert hint_of(oserror(errno.EPERM, "no", hint="sudo true")) == "sudo true"
    assert hint_of(UsageError("bad")) == ""
    assert hint_of(OSError(errno.EPERM, "not ours")) == ""
    assert hint_of(KeyError("x")) == ""


def test_traceback_shows_the_hint() -> None:
    error = oserror(errno.ENODEV, "no such thing", hint="sudo modprobe tun\nnetstack doctor")
    text = "".join(traceback.format_exception(error))
    assert "try: sudo modprobe tun\n" in text
    assert "try: netstack doctor\n" in text


def test_explain_has_no_errno_and_one_line_for_each_thing_to_type() -> None:
    error = oserror(errno.EBUSY, "tap0 is in use", hint="kill 7\nnetstack up tap1")
    assert explain(error) == "tap0 is in use\n  try: kill 7\n  try: netstack up tap1"


def test_explain_names_the_file_that_python_could_not_open() -> None:
    with pytest.raises(FileNotFoundError) as missing:
        Path("/nonexistent/routes.txt").read_text()
    assert explain(missing.value) == "/nonexistent/routes.txt: No such file or directory"


def test_explain_speaks_even_for_an_exception_without_text() -> None:
    assert explain(MemoryError()) == "MemoryError"
    assert explain(OSError("only text")) == "only text"


def test_usage_error_is_a_value_error_and_internal_error_is_neither() -> None:
    assert issubclass(UsageError, ValueError)
    assert not issubclass(InternalError, ValueError | OSError)


@pytest.mark.parametrize(
    "error", [UsageError("m", hint="h"), oserror(errno.EPERM, "m", hint="h")]
)
def test_hint_survives_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, hint_of(copy)) == (type(error), error.args, "h")
    assert copy.__notes__ == ["try: h"]
