"""Probe, open, close: every step can fail, and then everything is as it was."""

from __future__ import annotations

import errno

import pytest

from netstack._net import Net
from netstack.config import Config
from netstack.device._memory import MemoryWire
from netstack.device._testing import Source
from netstack.driver._igb import Igb
from netstack.driver._testing import Sink
from netstack.irq._cpu import Cpu
from tests.igb import MAC_BYTES, Machine, udp

OPEN_STEPS = 8


def test_opening_gives_the_device_its_vectors_and_buffers_ahead():
    machine = Machine()
    assert machine.igb.running
    assert machine.igb.carrier
    assert [name for _, _, name in machine.cpu.interrupts()] == ["eth0", "eth0-TxRx-0"]
    assert machine.free()[2] == 4096 - 255  # IGB_RX_WINDOW
    assert machine.igb.registers()["RDT"] == 255


def test_closing_gives_everything_back():
    machine = Machine()
    machine.receive(*[udp(1000) for _ in range(100)])
    machine.igb.close()
    machine.igb.close()
    assert machine.cpu.interrupts() == []
    assert machine.free() == [4096] * 3
    assert not machine.igb.carrier
    assert machine.sender.send(udp()) == -errno.ENETDOWN
    assert machine.receive(udp()) == []


def test_a_device_can_be_opened_again_and_again():
    machine = Machine()
    for _ in range(20):
        assert len(machine.receive(udp(), udp(1400))) == 2
        machine.igb.close()
        machine.igb.open()
    assert machine.free()[2] == 4096 - 255


@pytest.mark.parametrize("step", range(OPEN_STEPS))
def test_a_step_that_fails_undoes_those_before_it(step):
    machine = Machine(open_it=False)
    machine.igb._fail_open_at = step
    with pytest.raises(OSError, match=f"step {step}"):
        machine.igb.open()
    assert not machine.igb.running
    assert not machine.igb.carrier
    assert machine.cpu.interrupts() == []
    assert machine.free() == [4096] * 3
    assert machine.receive(udp()) == []
    machine.igb._fail_open_at = -1
    machine.igb.open()
    assert len(machine.run()) == 1  # the frame waited on the wire


def test_every_step_of_opening_is_tried_above():
    machine = Machine(open_it=False)
    machine.igb._fail_open_at = OPEN_STEPS
    machine.igb.open()
    assert machine.igb.running


def test_opening_fails_when_the_pool_has_no_buffer():
    machine = Machine(pool=0, open_it=False)
    with pytest.raises(OSError, match="packet pool") as caught:
        machine.igb.open()
    assert caught.value.errno == errno.ENOMEM
    assert machine.cpu.interrupts() == []


def test_opening_fails_when_the_cpu_has_no_line_left():
    machine = Machine()
    others = []
    for index in range(2, 9):
        near, _far = MemoryWire.pair()
        other = Igb(
            machine.net, machine.cpu, near, f"eth{index}", MAC_BYTES, ring=64,
            ifindex=index,
        )  # fmt: skip
        other.open()
        others.append((other, near))
    near, _far = MemoryWire.pair()
    last = Igb(machine.net, machine.cpu, near, "eth9", MAC_BYTES, ifindex=9, ring=64)
    before = machine.free()
    with pytest.raises(OSError, match="8 devices"):
        last.open()
    assert machine.free() == before
    assert len(machine.cpu.interrupts()) == 16
    for other, _ in others:
        other.close()


def test_a_wire_that_cannot_be_waited_on_is_refused():
    net = Net(1)
    Config(net)
    cpu = Cpu(net, 0, (512, 512, 512))
    Sink(net, cpu)
    source = Source(udp())
    source.set_fd(1 << 20)
    igb = Igb(net, cpu, source, "eth0", MAC_BYTES)
    with pytest.raises(OSError, match="can't be waited on"):
        igb.open()
    assert cpu.pool()[2][1] == 512


def test_frames_in_the_ring_end_as_reset_when_the_device_is_closed():
    machine = Machine()
    machine.config["net.core.netdev_budget"] = 1
    for _ in range(10):
        machine.far.send(udp())
    machine.igb.set_coalesce(10000)
    machine.receive()
    for _ in range(5):
        machine.far.send(udp())
    machine.cpu.run()  # in the ring, but the throttle holds the interrupt back
    queued = machine.igb.queued()
    assert queued == 5
    assert machine.ledger()[0] == machine.ledger()[1] + len(machine.sink.take())
    machine.igb.close()
    machine.sink.take()
    assert machine.fate("NIC_DROP_RESET") == queued
    assert machine.ledger()[0] == machine.ledger()[1]
    assert machine.free() == [4096] * 3


@pytest.mark.parametrize("ring", [0, 8, 63, 65, 100, 4097, 5000, -64])
def test_a_ring_of_a_wrong_size_is_refused_with_a_right_one(ring):
    with pytest.raises(ValueError, match="64 to 4096 descriptors, a multiple of 8") as caught:
        Machine(ring=ring)
    near = int(caught.value.hint.removeprefix("--ring "))
    Machine(ring=near)


@pytest.mark.parametrize("ring", [64, 72, 256, 4096])
def test_rings_of_every_allowed_size_work(ring):
    machine = Machine(pool=8192, ring=ring)
    frames = [udp(size % 1400) for size in range(900)]
    assert [data for data, _ in machine.receive(*frames)] == frames
    assert machine.igb.ring() == {"rx-max": 4096, "tx-max": 4096, "rx": ring, "tx": ring}


def test_the_ring_is_changed_while_frames_come():
    machine = Machine()
    machine.receive(udp())
    machine.igb.set_ring(rx=4096, tx=64)
    assert machine.igb.ring()["rx"] == 4096
    assert len(machine.receive(*[udp() for _ in range(500)])) == 500
    with pytest.raises(ValueError, match="rx 100"):
        machine.igb.set_ring(rx=100)
    assert len(machine.receive(udp())) == 1


def test_a_ring_larger_than_the_pool_gets_what_there_is():
    machine = Machine(pool=100)
    machine.igb.set_ring(rx=4096)
    assert machine.free()[2] == 0
    assert len(machine.receive(*[udp(1400) for _ in range(900)])) == 900


@pytest.mark.parametrize("mtu", [67, 9217, 70000, 0, -1])
def test_an_mtu_out_of_range_is_refused(mtu):
    with pytest.raises(ValueError, match="68 to 9216"):
        Machine(mtu=mtu)
    machine = Machine()
    with pytest.raises(ValueError, match="68 to 9216"):
        machine.igb.set_mtu(mtu)
    assert machine.igb.mtu == 1500


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"name": ""}, "1 to 15 bytes"),
        ({"name": "sixteen-bytes-xx"}, "1 to 15 bytes"),
        ({"mac": b"\1\0\0\0\0\1"}, "unicast"),
        ({"mac": bytes(6)}, "unicast"),
        ({"mac": b"\2\0"}, "6 bytes"),
        ({"ifindex": 0}, "ifindex"),
        ({"ifindex": 33}, "ifindex"),
        ({"wire": 0}, "addresses"),
    ],
)
def test_arguments_that_cannot_be_are_refused(what, message):
    net = Net(1)
    Config(net)
    cpu = Cpu(net, 0, (64, 64, 64))
    near, _far = MemoryWire.pair()
    good = {"name": "eth0", "mac": MAC_BYTES, "wire": near, "ifindex": 1}
    with pytest.raises(ValueError, match=message):
        Igb(net, cpu, **(good | what))


def test_two_devices_cannot_have_one_index():
    machine = Machine()
    near, _far = MemoryWire.pair()
    with pytest.raises(ValueError, match="no device has"):
        Igb(machine.net, machine.cpu, near, "eth1", MAC_BYTES)
