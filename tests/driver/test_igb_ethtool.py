"""What ethtool shows: the kernel's names, in its order, with its meaning."""

from __future__ import annotations

from netstack.driver import igb_ethtool
from tests.igb import Machine, udp


def test_the_names_are_those_of_the_kernel_in_its_order():
    names = list(Machine().igb.stats())
    assert len(names) == 42 + 9 + 8
    assert names[:4] == ["rx_packets", "tx_packets", "rx_bytes", "tx_bytes"]
    assert names[11:13] == ["rx_no_buffer_count", "rx_missed_errors"]
    assert names[41] == "rx_hwtstamp_cleared"
    assert names[42] == "rx_errors"
    assert names[50:] == [
        "tx_heartbeat_errors",
        "tx_queue_0_packets",
        "tx_queue_0_bytes",
        "tx_queue_0_restart",
        "rx_queue_0_packets",
        "rx_queue_0_bytes",
        "rx_queue_0_drops",
        "rx_queue_0_csum_err",
        "rx_queue_0_alloc_failed",
    ]


def test_counters_add_up_however_often_they_are_read():
    machine = Machine()
    for _ in range(5):
        machine.receive(udp(), udp(dst="ff:ff:ff:ff:ff:ff"))
        machine.sender.send(udp())
        machine.igb.stats()
    stats = machine.igb.stats()
    assert (stats["rx_packets"], stats["rx_broadcast"], stats["tx_packets"]) == (10, 5, 5)
    assert stats["rx_bytes"] == stats["rx_queue_0_bytes"] == 600
    assert machine.igb.link_stats()["rx_bytes"] == 600
    machine.igb.close()
    machine.igb.open()
    machine.receive(udp())
    assert machine.igb.stats()["rx_packets"] == 11


def test_a_frame_that_the_wire_lost_is_missed_and_a_fifo_error():
    machine = Machine()
    machine.igb.set_missed(5)
    machine.igb.set_missed(8)
    stats = machine.igb.stats()
    assert stats["rx_missed_errors"] == stats["rx_fifo_errors"] == 8
    assert machine.igb.link_stats()["rx_missed_errors"] == 8


def test_runts_and_giants_are_length_errors():
    machine = Machine()
    machine.receive(b"short", udp(1600), udp(1600))
    stats = machine.igb.stats()
    assert (stats["rx_short_length_errors"], stats["rx_long_length_errors"]) == (1, 2)
    assert stats["rx_length_errors"] == stats["rx_errors"] == 3
    assert stats["rx_packets"] == 0


def test_multicast_is_counted_by_the_device():
    machine = Machine()
    machine.igb.set_rx_mode(allmulti=True)
    machine.receive(udp(dst="01:00:5e:00:00:01"), udp())
    assert machine.igb.link_stats()["multicast"] == 1
    assert machine.igb.stats()["multicast"] == 1


def test_the_register_dump_has_every_register_and_changes_none():
    machine = Machine()
    machine.receive(udp())
    dump = machine.igb.registers()
    assert dump["STATUS"] & 2
    assert dump["RLPML"] == 1534
    assert dump["RDLEN"] == 4096
    assert "ICR" not in dump
    assert "GPRC" not in dump
    assert machine.igb.registers() == dump
    assert machine.igb.stats()["rx_packets"] == 1


def test_drvinfo():
    assert Machine().igb.drvinfo()["driver"] == "igb"


def test_every_statistic_has_a_register_that_exists():
    from netstack.device._igb_regs import e1000_reg

    known = {reg.name[6:] for reg in e1000_reg} | {"GORC", "GOTC"}
    assert {reg for _, reg in igb_ethtool.STATISTICS if reg} <= known
