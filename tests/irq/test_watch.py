"""What the CPU's thread makes of an application that it has left its wires to."""

import pytest

from netstack._net import Net
from netstack.irq._cpu import Cpu
from netstack.irq._testing import Application

SINCE = 1_000_000_000  # ns by the machine's clock, which counts from its start: long ago
SOON, LATE = SINCE + 99_999, SINCE + 100_000
MUCH_LATER = SINCE + 60_000_000_000


@pytest.fixture
def app():
    """Give an application that asks, of a CPU whose thread has just given the role up."""
    net = Net(1)
    cpu = Cpu(net, 0, (64, 64, 64))
    app = Application(net, cpu.address)
    app.ask()
    yield app
    assert cpu  # it lives as long as who looks at it


def test_who_polls_has_taken_over(app):
    assert app.taken_over(SINCE, SOON) is None
    app.take()
    app.stop_asking()
    assert app.taken_over(SINCE, SOON) is None, "it has the role, and may not poll"
    app.poll(SOON)
    for now in (SOON, LATE, MUCH_LATER):
        assert app.taken_over(SINCE, now) is True


def poll_once(app: Application, at: int) -> None:
    app.take()
    app.stop_asking()
    app.poll(at)
    app.leave()


@pytest.mark.parametrize("now", [SOON, LATE, MUCH_LATER])
def test_who_has_polled_and_left_has_taken_over_however_late_the_thread_looks(app, now):
    """The thread waits for the core that the application has, so it may be late."""
    poll_once(app, at=SINCE)
    assert app.taken_over(SINCE, now) is True


def test_by_the_machines_clock_too(app):
    """The thread asks this for the first time when it is late already."""
    poll_once(app, at=SINCE)
    assert app.given_away(SINCE)


def test_what_was_polled_before_does_not_count(app):
    poll_once(app, at=SINCE - 1)
    for now in (SOON, LATE, MUCH_LATER):
        assert app.taken_over(SINCE, now) is False


@pytest.mark.parametrize("now", [SINCE, LATE, MUCH_LATER])
def test_who_asks_no_more_and_has_taken_nothing_never_will(app, now):
    app.stop_asking()
    assert app.taken_over(SINCE, now) is False
    assert not app.given_away(SINCE)


def test_who_still_asks_is_believed(app):
    """It is about to run: the thread has its core."""
    assert app.taken_over(SINCE, SOON) is None
    assert app.taken_over(SINCE, LATE) is True
    assert app.given_away(SINCE)


def test_who_has_the_role_and_does_not_poll_is_waited_for_and_not_longer(app):
    """Set-up takes the role too, and sees to no wires."""
    app.take()
    app.stop_asking()
    assert app.taken_over(SINCE, SOON) is None
    assert app.taken_over(SINCE, LATE) is False
    assert not app.given_away(SINCE)
    app.leave()
