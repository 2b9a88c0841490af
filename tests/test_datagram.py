"""The frames that tests make without scapy are scapy's."""

from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from tests import frames, igb
from tests.datagram import checksum

PORTS = st.integers(0, 65535)


@given(st.binary(max_size=1500), PORTS, PORTS)
@example(b"", 0, 0)
@example(b"\xdb\x2a", 4000, 9000)  # its checksum is 0, and goes as 0xffff
def test_a_frame_to_the_host_is_scapys(payload, sport, dport):
    theirs = bytes(frames.ip() / UDP(sport=sport, dport=dport) / payload)
    assert frames.udp(payload, sport, dport) == theirs


@given(st.integers(0, 1500), PORTS, PORTS)
def test_a_frame_to_the_machine_is_scapys(size, sport, dport):
    layers = IP(src="10.0.0.1", dst="10.0.0.2"), UDP(sport=sport, dport=dport), igb.pay(size)
    assert igb.udp(size, sport=sport, dport=dport) == igb.frame(*layers)


def test_a_sum_of_nothing_is_told_from_one_that_wraps():
    assert checksum(bytes(20)) == 0xFFFF
    assert checksum(b"\xff\xff") == checksum(b"\xff\xfe\x00\x01") == 0
    assert checksum(b"\x12") == 0xFFFF - 0x1200
