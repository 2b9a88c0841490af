"""The softirq loop: budget, time, order, and what is counted."""

import pytest

from netstack import _fastpath
from netstack._net import ManualClock, Net
from netstack.config import Config
from netstack.irq._cpu import Cpu
from netstack.irq._testing import PollLog, ScriptedNapi
from netstack.netif._backlog import Seam
from netstack.netif._core import core_exit


class Machine:
    """One CPU without a thread."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.net = Net(1, self.clock)
        self.config = Config(self.net)
        self.cpu = Cpu(self.net, 0, (64, 64, 64))
        self.seam = Seam(self.net)
        _fastpath.connect(self.net, [self.cpu.address])
        self.log = PollLog()
        self.napis: list[ScriptedNapi] = []

    def napi(self, **options: int) -> ScriptedNapi:
        napi = ScriptedNapi(
            self.net, self.cpu.address, self.log, number=len(self.napis), **options
        )
        self.napis.append(napi)
        return napi

    def counters(self) -> dict[str, int]:
        return self.cpu.counters()


@pytest.fixture
def machine():
    machine = Machine()
    yield machine
    core_exit(machine.net)


def test_an_interrupt_leads_to_one_poll_and_unmasks(machine):
    napi = machine.napi()
    napi.interrupt(10)
    machine.cpu.run()
    assert machine.log.take() == [0]
    assert napi.work == 0
    assert napi.unmasked == 1
    assert not napi.scheduled
    assert machine.counters()["hardirqs"] == 1
    assert machine.cpu.softirqs()[3] == 1


def test_a_poll_that_used_its_weight_is_polled_again(machine):
    napi = machine.napi()
    napi.interrupt(130)
    machine.cpu.run()
    assert machine.log.take() == [0, 0, 0]
    assert napi.unmasked == 1


def test_exactly_the_weight_is_polled_once_more_to_complete(machine):
    napi = machine.napi()
    napi.interrupt(64)
    machine.cpu.run()
    assert machine.log.take() == [0, 0]


def test_napis_take_turns_by_weight(machine):
    first, second = machine.napi(), machine.napi()
    first.interrupt(128)
    second.interrupt(128)
    machine.cpu.run()
    assert machine.log.take() == [0, 1, 0, 1, 0, 1]


def test_squeeze_is_counted_when_the_budget_ends(machine):
    for _ in range(6):
        machine.napi().interrupt(64)
    machine.cpu.run()
    # The fifth poll brings 300 down to -20. The sixth NAPI comes first in the next round.
    assert machine.log.take()[:7] == [0, 1, 2, 3, 4, 5, 0]
    assert machine.counters()["time_squeeze"] == 1


def test_one_napi_alone_never_squeezes_the_default_budget(machine):
    machine.napi().interrupt(6400)
    machine.cpu.run()
    # A poll of 64 ends the round: it is polled again by a softirq of its own, with a fresh budget.
    assert machine.counters()["time_squeeze"] == 0
    assert machine.cpu.softirqs()[3] == 101


def test_a_budget_of_one_squeezes_at_every_poll(machine):
    machine.config["net.core.netdev_budget"] = 1
    machine.napi().interrupt(200)
    machine.cpu.run()
    assert len(machine.log.take()) == 4
    assert machine.counters()["time_squeeze"] == 4


def test_no_squeeze_within_the_budget(machine):
    machine.napi().interrupt(255)
    machine.cpu.run()
    assert machine.counters()["time_squeeze"] == 0


def test_squeeze_is_counted_when_time_is_up(machine):
    machine.config["net.core.netdev_budget_usecs"] = 2000
    for _ in range(2):
        machine.napi(clock=machine.clock.address, cost_ns=1_000_000).interrupt(64)
    machine.cpu.run()
    assert machine.log.take() == [0, 1, 0, 1]
    assert machine.counters()["time_squeeze"] == 2


def test_work_is_left_to_ksoftirqd_after_two_milliseconds(machine):
    machine.config["net.core.netdev_budget"] = 64
    machine.napi(clock=machine.clock.address, cost_ns=1_000_000).interrupt(64 * 5)
    machine.cpu.run()
    assert machine.counters()["ksoftirqd_runs"] == 2


def test_work_is_left_to_ksoftirqd_after_ten_restarts(machine):
    machine.config["net.core.netdev_budget"] = 64
    machine.napi().interrupt(64 * 12)
    machine.cpu.run()
    assert machine.counters()["ksoftirqd_runs"] == 1
    assert machine.napis[0].work == 0


def test_an_interrupt_while_scheduled_means_another_poll(machine):
    napi = machine.napi()
    napi.interrupt(1)
    napi.interrupt(1)
    machine.cpu.run()
    assert machine.counters()["hardirqs"] == 1, "a raised line stays one interrupt"
    assert napi.work == 0


def test_a_disabled_napi_is_not_polled_and_can_come_back(machine):
    napi = machine.napi()
    napi.disable()
    napi.interrupt(5)
    machine.cpu.run()
    assert machine.log.take() == []
    napi.enable()
    napi.interrupt()
    machine.cpu.run()
    assert napi.work == 0


def test_deferred_interrupts_stay_masked_and_the_watchdog_polls(machine):
    machine.config["gro_flush_timeout"] = 100_000
    machine.config["napi_defer_hard_irqs"] = 2
    napi = machine.napi()
    napi.interrupt(3)
    machine.cpu.run()
    assert napi.unmasked == 0
    assert machine.cpu.deadline() == machine.clock.ns + 100_000
    # The first empty poll is still deferred, the second unmasks.
    for expected in (0, 1):
        machine.clock.advance(0.0002)
        machine.cpu.run()
        assert napi.unmasked == expected
    assert machine.cpu.deadline() == 0


def test_deferring_without_a_flush_timeout_changes_nothing(machine):
    machine.config["napi_defer_hard_irqs"] = 2
    napi = machine.napi()
    napi.interrupt(3)
    machine.cpu.run()
    assert napi.unmasked == 1
