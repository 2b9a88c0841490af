"""Send: what reaches the wire, when packets are freed, what a full ring does."""

from __future__ import annotations

import errno
import threading

import pytest

from netstack.device._testing import Source
from netstack.driver._igb import Igb
from netstack.driver._testing import Sender
from tests.device.test_igb_tx import seeded
from tests.igb import MAC_BYTES, Machine, tcp, udp


def stuck() -> tuple[Machine, Igb, Source, Sender]:
    """Make a device on a wire without room."""
    machine = Machine(open_it=False)
    source = Source(udp())
    igb = Igb(machine.net, machine.cpu, source, "eth1", MAC_BYTES, ifindex=2, ring=64)
    igb.open()
    source.fail(-errno.EAGAIN)
    return machine, igb, source, Sender(machine.net, igb.address)


@pytest.mark.parametrize("size", range(0, 1473, 92))
def test_a_packet_leaves_as_it_is(size):
    machine = Machine()
    assert machine.sender.send(udp(size)) == 0
    assert machine.far.recv() == udp(size)


def test_further_buffers_are_further_descriptors():
    machine = Machine()
    data = udp(1400)
    assert machine.sender.send(data[:100], data[100:101], data[101:]) == 0
    assert machine.far.recv() == data


def test_checksums_and_tags_are_inserted():
    machine = Machine()
    machine.sender.send(seeded(udp(), 6), csum=(34, 6))
    assert machine.far.recv() == udp()
    machine.sender.send(seeded(tcp(), 16), csum=(34, 16), vlan=7)
    assert machine.far.recv() == tcp(vlan=7)
    machine.sender.send(udp(), vlan=0x6005)
    assert machine.far.recv() == udp(vlan=0x6005)


@pytest.mark.parametrize("cut", [50, 51, 60])
def test_a_checksum_that_the_nic_does_not_know_is_done_in_software(cut):
    machine = Machine()
    data = bytes(range(100))  # the sum of 34..99 belongs at 34 + 10
    machine.sender.send(data[:cut], data[cut:], csum=(34, 10))
    words = [int.from_bytes(data[at : at + 2], "big") for at in range(34, 100, 2)]
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    expected = (~total & 0xFFFF).to_bytes(2, "big")
    assert machine.far.recv() == data[:44] + expected + data[46:]


def test_what_was_sent_is_freed_by_the_poll():
    machine = Machine()
    for _ in range(10):
        machine.sender.send(udp())
    assert machine.sender.pool_in_use() == 10
    machine.receive(udp())
    assert machine.sender.pool_in_use() == 0


def test_a_sender_alone_frees_what_it_sent():
    machine = Machine(ring=64)
    for _ in range(2000):
        assert machine.sender.send(udp()) == 0
        while machine.far.recv() is not None:
            pass
        assert machine.sender.pool_in_use() <= 33
    assert machine.igb.stats()["tx_packets"] == 2000
    assert machine.igb.stats()["tx_queue_0_restart"] == 0


def test_a_full_ring_drops_and_goes_on_when_there_is_room():
    machine, igb, source, sender = stuck()
    sent = [sender.send(udp()) for _ in range(70)]
    assert sent.count(0) == 62  # 63 usable, two asked for: a context may be needed
    assert set(sent) == {0, -errno.ENOBUFS}
    assert igb.link_stats()["tx_dropped"] == 8
    assert sender.pool_in_use() == 62
    source.fail(0)
    machine.run()
    assert source.sent == 62
    assert sender.pool_in_use() == 0
    assert igb.stats()["tx_queue_0_restart"] == 1
    assert sender.send(udp()) == 0


def test_closing_frees_what_could_not_leave():
    _machine, igb, _source, sender = stuck()
    for _ in range(10):
        sender.send(udp())
    igb.close()
    assert sender.pool_in_use() == 0


def test_frames_that_no_nic_sends_are_refused():
    machine = Machine()
    assert machine.sender.send(*[bytes(1900)] * 6) == -errno.EMSGSIZE
    assert machine.sender.send(b"") == -errno.EMSGSIZE
    assert machine.sender.pool_in_use() == 0
    assert machine.igb.link_stats()["tx_dropped"] == 2


def test_a_wire_that_fails_counts_and_does_not_hold_the_packet():
    machine, igb, source, sender = stuck()
    source.fail(-errno.EIO)
    assert sender.send(udp()) == 0
    assert igb.stats()["tx_carrier_errors"] == 1
    machine.run()
    igb.close()
    assert sender.pool_in_use() == 0


def test_several_threads_send_while_the_cpu_receives():
    machine = Machine(pool=8192)
    machine.cpu.start()
    source = Source(udp())
    igb = Igb(machine.net, machine.cpu, source, "eth1", MAC_BYTES, ifindex=2)
    igb.open()
    senders = [Sender(machine.net, igb.address) for _ in range(3)]

    def send(sender: Sender) -> None:
        for _ in range(2000):
            assert sender.send(udp()) == 0

    threads = [threading.Thread(target=send, args=(sender,)) for sender in senders]
    for thread in threads:
        thread.start()
    for _ in range(200):
        machine.far.send(udp(18))
    for thread in threads:
        thread.join()
    machine.cpu.stop()
    machine.run()
    assert source.sent == 6000
    assert igb.stats()["tx_packets"] == igb.link_stats()["tx_packets"] == 6000
    igb.close()
    assert [sender.pool_in_use() for sender in senders] == [0, 0, 0]
