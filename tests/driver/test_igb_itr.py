"""The throttle: how it is chosen, and what ethtool -C allows."""

from __future__ import annotations

import pytest

from tests.igb import Machine, udp

START, BULK, LOW, LOWEST = 648, 980, 196, 56


def eitr(machine: Machine) -> int:
    """Return EITR of the ring's vector, in quarters of a microsecond."""
    return machine.igb.vector_itr()


def traffic(machine: Machine, rounds: int, frames: int, size: int) -> None:
    for _ in range(rounds):
        machine.receive(*[udp(size) for _ in range(frames)])


def test_a_device_starts_at_about_6000_a_second():
    assert eitr(Machine()) == START


def test_small_requests_get_20000_a_second():
    machine = Machine()
    traffic(machine, 3, 1, 18)
    assert eitr(machine) == LOW


def test_a_bulk_transfer_gets_4000_a_second():
    machine = Machine()
    traffic(machine, 2, 2, 1400)  # few and large: no longer the lowest latency
    traffic(machine, 3, 9, 1400)
    assert eitr(machine) == BULK


def test_a_bulk_transfer_that_turns_small_is_noticed():
    machine = Machine()
    traffic(machine, 2, 2, 1400)
    traffic(machine, 3, 9, 1400)
    traffic(machine, 3, 1, 18)
    assert eitr(machine) == LOW


def test_rx_usecs_1_goes_down_to_70000_a_second():
    machine = Machine()
    machine.igb.set_coalesce(1)
    traffic(machine, 4, 1, 18)
    assert eitr(machine) == LOWEST


def test_a_fixed_throttle_stays():
    machine = Machine()
    machine.igb.set_coalesce(100)
    traffic(machine, 4, 9, 1400)
    assert eitr(machine) == 100 << 2
    assert machine.igb.coalesce()["rx-usecs"] == 100


def test_without_a_throttle_every_batch_interrupts():
    machine = Machine()
    machine.igb.set_coalesce(0)
    machine.receive(udp())  # the interrupt at which the new value is written
    machine.clock.advance(0.001)
    before = machine.cpu.interrupts()[1][1]
    for step in range(10):
        machine.clock.advance(0.00001)
        machine.far.send(udp())
        machine.cpu.run()
        assert machine.cpu.interrupts()[1][1] == before + step + 1


def test_the_throttle_delays_an_interrupt_and_loses_none():
    machine = Machine()
    machine.igb.set_coalesce(1000)
    machine.receive(udp())  # the interrupt at which the new value is written
    machine.clock.advance(0.01)
    assert len(machine.receive(udp())) == 1  # none for a while: at once
    before = machine.cpu.interrupts()[1][1]
    machine.far.send(udp())
    machine.far.send(udp())
    machine.cpu.run()
    assert machine.sink.take() == []
    assert machine.cpu.deadline() == machine.clock.ns + 1_000_000
    machine.clock.advance(0.001)
    machine.cpu.run()
    assert len(machine.sink.take()) == 2
    assert machine.cpu.interrupts()[1][1] == before + 1


def test_frames_that_were_polled_cause_no_interrupt_of_their_own():
    machine = Machine(pool=8192)
    for _ in range(900):
        machine.far.send(udp())
    machine.cpu.run()
    assert len(machine.sink.take()) == 900
    assert machine.cpu.interrupts()[1][1] == 1
    assert machine.cpu.deadline() == 0


@pytest.mark.parametrize("usecs", [0, 1, 3, 10, 125, 10000])
def test_what_rx_usecs_may_be(usecs):
    machine = Machine()
    machine.igb.set_coalesce(usecs)
    assert machine.igb.coalesce() == {"rx-usecs": usecs, "tx-usecs": 0}


@pytest.mark.parametrize("usecs", [-1, 2, 4, 9, 10001])
def test_what_rx_usecs_may_not_be(usecs):
    machine = Machine()
    with pytest.raises(ValueError, match="10 to 10000"):
        machine.igb.set_coalesce(usecs)
    assert machine.igb.coalesce()["rx-usecs"] == 3
