"""Ring sizes change while frames come and go, and none is lost."""

from __future__ import annotations

import pytest

from tests.driver.test_igb_tx import stuck
from tests.frames import OUR_IP
from tests.frames import udp as datagram
from tests.igb import Machine, udp
from tests.memory_host import memory_host

SIZES = [64, 4096, 72, 256, 1024, 64]


def throttled(**options):
    """Give a machine that leaves frames in its ring: after the first the throttle holds back."""
    machine = Machine(**options)
    machine.igb.set_coalesce(10000)
    machine.receive(udp())
    return machine


@pytest.mark.parametrize("size", [64, 4096, 72, 1024])
def test_frames_finished_in_the_old_ring_come_out(size):
    machine = throttled()
    frames = [udp(n) for n in range(100)]
    for each in frames:
        assert machine.far.send(each)
    machine.cpu.run()
    assert machine.igb.queued() == 100
    machine.igb.set_ring(rx=size, tx=size)
    assert machine.igb.queued() == 0
    assert [data for data, _ in machine.run()] == frames
    assert machine.fate("NIC_DROP_RESET") == 0


def test_what_the_wire_had_no_room_for_moves_to_the_new_ring():
    machine, igb, source, sender = stuck()
    assert [sender.send(udp()) for _ in range(40)] == [0] * 40
    igb.set_ring(tx=128)
    assert sender.pool_in_use() == 40
    source.fail(0)
    machine.run()
    assert source.sent == 40
    assert sender.pool_in_use() == 0
    assert igb.link_stats()["tx_dropped"] == 0


def test_half_a_jumbo_frame_outlives_the_change():
    machine = throttled(mtu=9000, ring=64)
    frames = [udp(8900) for _ in range(30)]  # five descriptors each: more than the ring has
    for each in frames:
        assert machine.far.send(each)
    machine.cpu.run()
    machine.igb.set_ring(rx=128)
    assert [data for data, _ in machine.run()] == frames


@pytest.mark.parametrize("fast_path", [True, False])
def test_a_host_loses_nothing_and_sends_on(fast_path):
    with memory_host(fast_path=fast_path) as it:
        it.meet()
        sock = it.socket(OUR_IP, 9000)
        for n, size in enumerate(SIZES * 3):
            it.wire.send(datagram(b"%d" % n))
            it.device.nic.set_ring(rx=size, tx=size)
            it.host.run()
            data, peer = sock.recvfrom(100)
            assert data == b"%d" % n
            sock.sendto(data, peer)
        assert len(it.sent()) == len(SIZES) * 3
        assert it.drops() == {}


def test_an_mtu_is_changed_without_losing_a_frame():
    machine = throttled()
    frames = [udp(500), udp(600)]
    for each in frames:
        assert machine.far.send(each)
    machine.cpu.run()
    machine.igb.set_mtu(9000)
    assert machine.far.send(udp(5000))
    assert [data for data, _ in machine.run()] == [*frames, udp(5000)]
    machine.igb.set_mtu(1500)
    assert machine.receive(udp(5000)) == []
    assert machine.fate("NIC_DROP_RESET") == 0
    assert machine.fate("NIC_DROP_ROC") == 1
