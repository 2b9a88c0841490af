"""The transmit unit: what leaves, what is inserted, when a descriptor is done."""

from __future__ import annotations

import errno

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from netstack._net import Net
from netstack.device._memory import MemoryWire
from netstack.device._testing import BareNic, Source
from tests.igb import MAC_BYTES, PEER, tcp, udp

EOP, RS, VLE, DATA, CTXT = 0x01000000, 0x08000000, 0x40000000, 0x00300000, 0x00200000
LAST = DATA | EOP | RS
IXSM, TXSM, TCP_CONTEXT = 0x100, 0x200, 0x800
WTHRESH = 16


class Nic:
    def __init__(self, count: int = 64) -> None:
        self.net = Net(1)
        self.near, self.far = MemoryWire.pair()
        self.hw = BareNic(self.net, self.near.address, MAC_BYTES, count=count)

    def send(self, *descriptors):
        """Transmit descriptors; give DD of each and the frames on the wire."""
        done = self.hw.transmit(list(descriptors))
        frames = []
        while (frame := self.far.recv()) is not None:
            frames.append(frame)
        return done, frames


def context(ip: int, l4: int, *, tcp: bool = False, vlan: int = 0) -> tuple[int, int, int]:
    """Make a context descriptor: MACLEN is ``ip``, IPLEN is ``l4 - ip``."""
    return (vlan << 16 | ip << 9 | (l4 - ip), CTXT | (TCP_CONTEXT if tcp else 0), 0)


def seeded(frame: bytes, field: int) -> bytes:
    """Put the sum of the pseudo header into a checksum field, as a driver does."""
    packet = Ether(frame)[IP]
    size = len(packet.payload)
    pseudo = frame[26:34] + bytes([0, packet.proto]) + size.to_bytes(2, "big")
    total = sum(int.from_bytes(pseudo[i : i + 2], "big") for i in range(0, len(pseudo), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return frame[: 34 + field] + total.to_bytes(2, "big") + frame[34 + field + 2 :]


def test_a_frame_leaves_as_it_stands_and_is_done_at_once():
    assert Nic().send((udp(), LAST, 0)) == ([True], [udp()])


def test_buffers_up_to_eop_are_one_frame():
    frame = udp(300)
    parts = [(frame[:100], DATA, 0), (frame[100:101], DATA, 0), (frame[101:], LAST, 0)]
    done, frames = Nic().send(*parts)
    assert frames == [frame]
    assert done == [False, False, True]  # DD only where RS asked for it


def test_a_frame_without_its_end_waits_for_it():
    nic = Nic()
    frame = udp(300)
    assert nic.send((frame[:100], DATA, 0)) == ([False], [])
    assert nic.send((frame[100:], LAST, 0)) == ([True], [frame])


def test_the_ring_wraps():
    nic = Nic(count=8)
    for size in range(50):
        frame = udp(size)
        assert nic.send((frame[:20], DATA, 0), (frame[20:], LAST, 0))[1] == [frame]
    assert nic.hw.read("TDH") == nic.hw.read("TDT") == 100 % 8


@pytest.mark.parametrize("size", [0, 1, 18, 19, 700, 1471, 1472])
def test_the_checksum_of_udp_is_inserted(size):
    good = udp(size)
    _, frames = Nic().send(context(14, 34), (seeded(good, 6), LAST, TXSM))
    assert frames == [good]


@pytest.mark.parametrize("size", [0, 1, 18, 1400])
def test_the_checksum_of_tcp_is_inserted(size):
    good = tcp(size)
    _, frames = Nic().send(context(14, 34, tcp=True), (seeded(good, 16), LAST, TXSM))
    assert frames == [good]


def test_a_udp_checksum_of_zero_is_sent_as_ffff():
    frame = bytes(
        Ether(dst=PEER) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(chksum=0) / b"\0\0"
    )
    frame = seeded(frame, 6)
    total = sum(int.from_bytes(frame[at : at + 2], "big") for at in range(34, 44, 2))
    frame = frame[:-2] + (0xFFFF - total % 0xFFFF).to_bytes(2, "big")  # now it adds up to FFFF
    _, [sent] = Nic().send(context(14, 34), (frame, LAST, TXSM))
    assert sent[40:42] == b"\xff\xff"


def test_the_ip_checksum_is_inserted():
    good = udp()
    broken = good[:24] + b"\x12\x34" + good[26:]
    assert Nic().send(context(14, 34), (broken, LAST, IXSM))[1] == [good]


def test_a_tag_is_inserted():
    _, frames = Nic().send(context(0, 0, vlan=0x6005), (udp(), LAST | VLE, 0))
    assert frames == [udp(vlan=0x6005)]


def test_a_tag_and_a_checksum_over_several_buffers():
    good = udp(500)
    bad = seeded(good, 6)
    parts = [(bad[:35], DATA | VLE, TXSM), (bad[35:200], DATA, TXSM), (bad[200:], LAST, TXSM)]
    assert Nic().send(context(14, 34, vlan=7), *parts)[1] == [udp(500, vlan=7)]


def test_the_drivers_buffer_is_not_written_to():
    frame = seeded(udp(), 6)
    before = bytes(bytearray(frame))
    Nic().send(context(14, 34, vlan=7), (frame, LAST | VLE, TXSM | IXSM))
    assert frame == before


def test_what_leaves_is_counted():
    nic = Nic()
    nic.send((udp(), LAST, 0))
    nic.send((udp(dst="ff:ff:ff:ff:ff:ff"), LAST, 0))
    nic.send((udp(dst="01:00:5e:00:00:01"), LAST, 0))
    assert [nic.hw.read(name) for name in ("GPTC", "TPT", "BPTC", "MPTC")] == [3, 3, 1, 1]
    assert nic.hw.read("GOTCL") == 180


def test_the_cause_is_latched_every_wthresh_frames():
    source = Source(b"")
    nic = BareNic(Net(1), source.address, MAC_BYTES)
    nic.write("IVAR0", 0x8100)
    nic.write("TXDCTL", 0x02000000 | WTHRESH << 16)
    for sent in range(1, 50):
        nic.transmit([(udp(), LAST, 0)])
        assert nic.read("EICR") == (2 if sent % WTHRESH == 0 else 0), sent


def test_a_wire_without_room_keeps_the_frame_and_wakes_the_cpu():
    source = Source(b"")
    nic = BareNic(Net(1), source.address, MAC_BYTES)
    nic.write("IVAR0", 0x8100)
    nic.write("EIMS", 2)
    nic.write("TXDCTL", 0x02000000 | WTHRESH << 16)
    source.fail(-errno.EAGAIN)
    assert nic.transmit([(udp(), LAST, 0)]) == [False]
    assert nic.fires[1] == 1
    nic.run(now=1_000_000)
    assert nic.deadline == 1_100_000
    source.fail(0)
    nic.run(now=1_050_000)
    assert source.sent == 0
    nic.run(now=1_100_000)
    assert source.sent == 1
    assert nic.deadline == 0
    assert nic.read("TDH") == 1


def test_another_error_of_the_wire_ends_the_frame_and_is_counted():
    source = Source(b"")
    nic = BareNic(Net(1), source.address, MAC_BYTES)
    source.fail(-errno.EIO)
    assert nic.transmit([(udp(), LAST, 0)]) == [True]
    assert nic.read("TNCRS") == 1
    assert nic.read("GPTC") == 0


def test_a_frame_that_is_too_long_for_the_nic_is_not_sent():
    nic = Nic()
    piece = bytes(5000)
    done, frames = nic.send((piece, DATA, 0), (piece, LAST, 0))
    assert (done[-1], frames) == (True, [])
    assert nic.hw.read("TNCRS") == 1
