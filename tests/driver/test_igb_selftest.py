"""``ethtool -t``: the model is really tried, and is as it was afterwards."""

from __future__ import annotations

from netstack.driver import igb_ethtool
from tests.igb import Machine, udp


def test_a_sound_nic_passes_and_works_on():
    machine = Machine()
    machine.igb.set_rx_mode(promisc=True)
    machine.receive(udp(), udp())
    before, registers = machine.igb.stats(), machine.igb.registers()
    assert machine.igb.self_test() == dict.fromkeys(igb_ethtool.TESTS, 0)
    assert machine.igb.stats() == before  # what the tests sent does not count
    after = machine.igb.registers()
    base = {
        name for name in after if name.startswith(("RDBA", "TDBA", "RDH", "RDT", "TDH", "TDT"))
    }
    assert {k: v for k, v in after.items() if k not in base} == {
        k: v for k, v in registers.items() if k not in base
    }
    assert len(machine.receive(udp(), udp(dst="02:00:00:00:00:99"))) == 2
    machine.sender.send(udp())
    assert machine.far.recv() is not None
    assert machine.far.recv() is None  # no test frame has reached the wire


def test_every_frame_of_the_tests_is_accounted_for():
    machine = Machine()
    machine.igb.self_test()
    frames, ended = machine.ledger()
    assert frames == ended == 32
    assert machine.fate("SKB_CONSUMED") == 32
    machine.igb.close()
    assert machine.free() == [4096] * 3


def test_online_only_the_link_is_looked_at():
    machine = Machine()
    assert machine.igb.self_test(offline=False) == dict.fromkeys(igb_ethtool.TESTS, 0)
    assert machine.ledger() == (0, 0)
    machine.igb.close()
    assert machine.igb.self_test(offline=False)["Link test   (on/offline)"] == 1
    assert not machine.igb.running


def test_without_buffers_the_loopback_fails_alone():
    machine = Machine(pool=40, open_it=False)
    result = machine.igb.self_test()
    assert result["Loopback test  (offline)"] == 11
    assert result["Register test  (offline)"] == result["Interrupt test (offline)"] == 0
    assert machine.free() == [40] * 3
