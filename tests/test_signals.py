"""A signal that asks the program to end unwinds it, once."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from netstack.signals import ENDING, orderly_exit


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ENDING)
def test_signal_becomes_system_exit_with_the_shells_status(number: int) -> None:
    with pytest.raises(SystemExit) as caught, orderly_exit():
        send(number)
    assert caught.value.code == 128 + number


@contextmanager
def callback(function: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    finally:
        function()


def test_second_signal_does_not_cut_the_way_out_short() -> None:
    steps = []

    def put_back() -> None:
        send(signal.SIGINT, signal.SIGTERM)
        steps.append("put back")

    with pytest.raises(SystemExit) as caught, orderly_exit(), callback(put_back):
        send(signal.SIGTERM)
    assert steps == ["put back"]
    assert caught.value.code == 128 + signal.SIGTERM


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with pytest.raises(SystemExit), orderly_exit():
        send(signal.SIGTERM)
    with orderly_exit():
        assert [signal.getsignal(number) for number in ENDING] != before
    assert [signal.getsignal(number) for number in ENDING] == before


def test_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with orderly_exit():
            send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
