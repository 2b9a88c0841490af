"""Clean the receive ring: one packet a frame, whole, accounted for, in the right buffer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP

from netstack.device._testing import Source
from netstack.driver._igb import Igb
from tests.igb import MAC_BYTES, Machine, frame, pay, ping, tcp, udp

NONE, UNNECESSARY = 0, 1
HOST, BROADCAST, MULTICAST, OTHERHOST = 0, 1, 2, 3


def one(data: bytes, **options):
    """Give the fields of the packet that one frame becomes."""
    [(got, fields)] = Machine(**options).receive(data)
    assert got == data
    return fields


@pytest.mark.parametrize("size", range(0, 1473, 31))
def test_a_frame_comes_out_as_it_went_in(size):
    one(udp(size))


@pytest.mark.parametrize(
    ("length", "truesize"),
    [(14, 832), (60, 832), (192, 832), (193, 1280), (640, 1280), (641, 2304), (1514, 2304)],
)
def test_a_short_frame_is_copied_into_a_small_buffer(length, truesize):
    assert one(frame(pay(length - 14)))["truesize"] == truesize


def test_with_small_buffers_used_up_the_ring_gives_its_own():
    machine = Machine(pool=400)
    held = [udp() for _ in range(420)]
    for data in held:
        machine.far.send(data)
    machine.cpu.run()
    got = machine.run()
    assert [data for data, _ in got] == held


def test_what_the_packet_knows():
    machine = Machine()
    machine.clock.advance(5)
    [(_, fields)] = machine.receive(udp())
    assert fields["id"] == 1
    assert fields["frames"] == 1
    assert fields["slot"] == 1
    assert fields["protocol"] == 0x0800
    assert fields["napi_id"] >= 8192
    assert fields["data_len"] == 0
    assert fields["network"] == 78  # 64 bytes of headroom and the Ethernet header


@pytest.mark.parametrize(
    ("dst", "kind"),
    [
        ("02:00:00:00:00:01", HOST),
        ("ff:ff:ff:ff:ff:ff", BROADCAST),
        ("01:00:5e:00:00:fb", MULTICAST),
        ("02:00:00:00:00:77", OTHERHOST),
    ],
)
def test_whom_a_frame_is_for(dst, kind):
    machine = Machine()
    machine.igb.set_rx_mode(promisc=True)
    [(_, fields)] = machine.receive(udp(dst=dst))
    assert fields["pkt_type"] == kind


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (frame(ARP()), 0x0806),
        (frame(pay(50))[:12] + b"\x05\xff" + bytes(50), 0x0004),
        (frame(pay(50))[:12] + b"\x00\x32\xff\xff" + bytes(48), 0x0001),
        (frame(pay(50))[:12] + b"\x06\x00" + bytes(50), 0x0600),
        (frame(pay(50))[:12] + b"\x00\x01", 0x0004),
    ],
)
def test_what_a_frame_carries(data, protocol):
    assert one(data)["protocol"] == protocol


def test_checksums():
    assert one(udp())["ip_summed"] == UNNECESSARY
    assert one(tcp())["ip_summed"] == UNNECESSARY
    assert one(ping())["ip_summed"] == NONE
    assert one(udp(udp={"chksum": 0}))["ip_summed"] == NONE
    machine = Machine()
    [(_, fields)] = machine.receive(udp(udp={"chksum": 0x1234}))
    assert fields["ip_summed"] == NONE
    assert machine.igb.stats()["rx_queue_0_csum_err"] == 1


def test_features_switch_checksum_and_hash_off():
    machine = Machine()
    [(_, before)] = machine.receive(udp())
    machine.igb.features &= ~3
    [(_, after)] = machine.receive(udp())
    assert (before["ip_summed"], before["hash"] != 0) == (UNNECESSARY, True)
    assert (after["ip_summed"], after["hash"]) == (NONE, 0)


def test_the_hash_is_of_addresses_and_with_udp4_of_ports_too():
    machine = Machine()
    [(_, a), (_, b), (_, c)] = machine.receive(udp(sport=1), udp(sport=2), tcp())
    assert a["hash"] == b["hash"]
    assert (a["l4_hash"], c["l4_hash"]) == (0, 1)
    machine.igb.set_rss(udp4=True)
    [(_, a), (_, b)] = machine.receive(udp(sport=1), udp(sport=2))
    assert a["hash"] != b["hash"]
    assert a["l4_hash"] == 1


def test_the_key_is_random_for_each_device_and_can_be_set():
    first, second = Machine(), Machine()
    assert first.igb.rss()["key"] != second.igb.rss()["key"]
    second.igb.set_rss(first.igb.rss()["key"])
    assert first.receive(udp())[0][1]["hash"] == second.receive(udp())[0][1]["hash"]
    with pytest.raises(ValueError, match="40"):
        first.igb.set_rss(bytes(39))


def test_a_vlan_tag_is_beside_the_packet():
    [(data, fields)] = Machine().receive(udp(vlan=0x6005))
    assert data == udp()
    assert fields["vlan"] == 0x6005
    assert one(udp())["vlan"] is None


def test_multicast_is_taken_when_asked_for():
    machine = Machine()
    group = bytes.fromhex("01005e0000fb")
    data = udp(dst="01:00:5e:00:00:fb")
    assert machine.receive(data) == []
    machine.igb.set_rx_mode(multicast=[group])
    assert len(machine.receive(data)) == 1
    machine.igb.set_rx_mode(allmulti=True)
    assert len(machine.receive(udp(dst="33:33:00:00:00:01"))) == 1
    machine.igb.set_rx_mode(multicast=[bytes([1, 0, 94, 0, 0, i]) for i in range(65)])
    assert len(machine.receive(udp(dst="33:33:00:00:00:01"))) == 1
    machine.igb.set_rx_mode()
    assert machine.receive(data) == []
    with pytest.raises(ValueError, match="no multicast"):
        machine.igb.set_rx_mode(multicast=[MAC_BYTES])


def test_many_more_frames_than_descriptors_come_out_in_order():
    machine = Machine(ring=64)
    frames = [udp(i % 1473) for i in range(1000)]
    got = machine.receive(*frames)
    assert [data for data, _ in got] == frames
    assert [fields["id"] for _, fields in got] == list(range(1, 1001))
    assert machine.ledger() == (1000, 1000)


def test_a_poll_takes_at_most_its_weight():
    machine = Machine(pool=8192)
    for _ in range(200):
        machine.far.send(udp())
    machine.cpu.run()
    machine.sink.take()
    assert machine.igb.stats()["rx_queue_0_packets"] == 200
    assert machine.cpu.softirqs()[3] < 200 / 16


def held_by_the_throttle(machine: Machine, frames: int) -> int:
    """Send ``frames`` while the throttle holds the interrupt back; how many the ring takes."""
    machine.far.send(udp())
    machine.cpu.run()  # fires, and may not for 10 ms from here on
    for _ in range(frames):
        machine.far.send(udp())
    machine.cpu.run()
    return machine.igb.queued()


def test_the_hardware_gets_few_descriptors_and_more_when_it_used_up_all():
    machine = Machine(ring=1024)
    machine.igb.set_coalesce(10000)
    took = []
    for _ in range(4):
        took.append(held_by_the_throttle(machine, 990))
        machine.clock.advance(0.01)
        assert len(machine.run()) == 991
        machine.clock.advance(0.01)
    assert 240 < took[0] <= 255  # IGB_RX_WINDOW, and a few polls
    assert 400 < took[1] < took[2] < took[3]  # it grows fast and shrinks slowly
    assert max(took) <= 1023
    assert machine.ledger() == (4 * 991, 4 * 991)


def test_the_hardware_gets_fewer_again_when_it_needs_few():
    machine = Machine(ring=512)
    machine.igb.set_coalesce(10000)
    held_by_the_throttle(machine, 600)
    machine.clock.advance(0.01)
    machine.run()
    machine.igb.set_coalesce(0)
    for _ in range(600):
        machine.receive(udp(1000))
    machine.igb.set_coalesce(10000)
    machine.clock.advance(0.01)
    assert held_by_the_throttle(machine, 600) == 64  # IGB_RX_WINDOW_MIN
    machine.clock.advance(0.01)
    machine.run()
    machine.igb.close()
    assert machine.free() == [4096] * 3


def test_between_two_polls_the_hardware_reads_no_further_than_one_poll_reaches():
    machine = Machine(pool=8192)
    machine.igb.set_coalesce(0)
    for _ in range(600):
        machine.far.send(udp())
    machine.cpu.run()
    machine.sink.take()
    assert machine.igb.stats()["rx_queue_0_packets"] == 600
    assert machine.igb.stats()["rx_no_buffer_count"] == 0
    assert machine.free()[2] == 8192 - 255


def test_no_frame_is_lost_when_the_pool_is_used_up():
    machine = Machine(pool=300)
    frames = [udp(1000 + i % 400) for i in range(600)]
    for data in frames:
        machine.far.send(data)
    machine.cpu.run()  # the sink holds every buffer
    stats = machine.igb.stats()
    assert stats["rx_queue_0_packets"] == 300
    assert stats["rx_queue_0_alloc_failed"] > 0
    assert machine.near.waiting == 300
    got = [data for data, _ in machine.sink.take()]
    # Nothing can interrupt: the watchdog polls, and finds the buffers that came back.
    assert machine.cpu.deadline() > 0
    machine.clock.advance(0.001)
    got += [data for data, _ in machine.run()]
    assert got == frames
    assert machine.igb.stats()["rx_no_buffer_count"] >= 1
    assert machine.ledger() == (600, 600)


# ---- frames over several descriptors


@pytest.mark.parametrize("size", [1942, 1943, 1984, 3926, 3927, 5000, 9000 - 28, 9216 - 28])
def test_a_jumbo_frame_is_one_packet_of_several_buffers(size):
    big = udp(size)
    fields = one(big, mtu=9216)
    assert fields["data_len"] == max(len(big) - 1984, 0)
    assert fields["ip_summed"] == UNNECESSARY
    assert fields["frames"] == 1


def test_jumbo_and_small_frames_mix():
    machine = Machine(mtu=9000)
    frames = [udp(size) for size in (8000, 18, 5000, 5000, 1400, 18, 8900, 600) * 20]
    assert [data for data, _ in machine.receive(*frames)] == frames
    assert machine.ledger() == (160, 160)
    machine.igb.close()
    assert machine.free() == [4096] * 3


def test_without_jumbo_frames_a_long_one_is_a_giant():
    machine = Machine()
    assert machine.receive(udp(2000)) == []
    assert machine.fate("NIC_DROP_ROC") == 1
    machine.igb.set_mtu(9000)
    assert len(machine.receive(udp(2000))) == 1


def test_half_a_frame_is_kept_on_the_ring_over_polls():
    machine = Machine(pool=66, mtu=9000, ring=64)
    frames = [udp(8900) for _ in range(40)]
    got = []
    for data in frames:
        machine.far.send(data)
    for _ in range(60):
        machine.cpu.run()
        got += [data for data, _ in machine.sink.take()]
        machine.clock.advance(0.001)
    assert got == frames


def test_half_a_frame_ends_as_reset_when_the_device_is_closed():
    machine = Machine(pool=66, mtu=9000, ring=64)
    for _ in range(40):
        machine.far.send(udp(8900))
    machine.cpu.run()
    machine.igb.close()
    delivered = len(machine.sink.take())
    assert machine.fate("NIC_DROP_RESET") > 0
    assert machine.fate("NIC_DROP_RESET") + delivered == machine.net.rx_frames()
    assert machine.free() == [66] * 3


@given(
    st.lists(st.binary(min_size=1, max_size=1600), max_size=40), st.sampled_from([1500, 9000])
)
def test_noise_is_received_or_dropped_and_always_accounted_for(frames, mtu):
    machine = Machine(ring=64, mtu=mtu, pool=512)
    machine.igb.set_rx_mode(promisc=True)
    got = machine.receive(*frames)
    assert machine.net.rx_frames() == len(frames)
    assert machine.ledger() == (len(frames), len(frames))
    limit = 1534 if mtu == 1500 else 9728
    untagged = [f for f in frames if 14 <= len(f) <= limit and f[12:14] != b"\x81\0"]
    assert [d for d, fields in got if fields["vlan"] is None] == untagged
    machine.igb.close()
    assert machine.free() == [512] * 3


# ---- link


def test_a_dead_wire_takes_the_carrier_away():
    machine = Machine(open_it=False)
    source = Source(udp())
    igb = Igb(machine.net, machine.cpu, source, "eth1", MAC_BYTES, ifindex=2)
    igb.open()
    machine.cpu.run()
    assert igb.carrier
    source.fail(-5)
    machine.cpu.run()
    assert not igb.carrier
    source.fail(0)
    source.more(1)
    assert machine.run() == []
    igb.close()
    igb.open()
    assert igb.carrier
    assert len(machine.run()) == 1
