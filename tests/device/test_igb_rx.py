"""The receive unit: which frames pass, what a descriptor says about one, where each ends."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from netstack._counters import skb_drop_reason
from netstack._net import Net
from netstack.device._memory import MemoryWire
from netstack.device._testing import BareNic, Source
from tests.igb import MAC_BYTES, frame, pay, ping, tcp, udp

DD, EOP, VP, UDPCS, TCPCS, IPCS = 1, 2, 8, 0x10, 0x20, 0x40
TCPE, IPE = 0x20000000, 0x40000000
RCTL_EN, RCTL_UPE, RCTL_MPE, RCTL_LPE, RCTL_BAM, RCTL_VFE = 2, 8, 0x10, 0x20, 0x8000, 0x40000
CTRL_SLU, CTRL_VME = 0x40, 0x40000000


class Nic:
    """The bare hardware, switched on, with a memory wire."""

    def __init__(self, rctl: int = RCTL_BAM, longest: int = 1518, **options: int) -> None:
        self.net = Net(1)
        self.near, self.far = MemoryWire.pair()
        self.hw = BareNic(self.net, self.near.address, MAC_BYTES, **options)
        self.hw.write("CTRL", CTRL_SLU | CTRL_VME)
        self.hw.write("RLPML", longest)
        self.hw.write("RXCSUM", 0x2300)
        self.hw.write("RCTL", RCTL_EN | RCTL_LPE | rctl)
        self.hw.post(options.get("count", 64) - 1)

    def receive(self, *frames: bytes) -> list[tuple[bytes, dict[str, int]]]:
        for each in frames:
            assert self.far.send(each)
        self.hw.step()
        return self.hw.take()

    def dropped(self, name: str) -> int:
        return self.net.fate(skb_drop_reason[name])


def status(data: bytes) -> int:
    """Return the status and errors of the only descriptor that ``data`` gives."""
    [(_, fields)] = Nic().receive(data)
    return fields["status"]


def test_a_frame_stands_in_the_buffer_as_it_came():
    nic = Nic()
    [(data, fields)] = nic.receive(udp(100))
    assert data == udp(100)
    assert fields["status"] & (DD | EOP) == DD | EOP
    assert fields["id"] == 1
    assert nic.net.rx_frames() == 1


@pytest.mark.parametrize(
    ("dst", "rctl", "passes"),
    [
        ("02:00:00:00:00:01", 0, True),
        ("02:00:00:00:00:03", 0, False),
        ("02:00:00:00:00:03", RCTL_UPE, True),
        ("ff:ff:ff:ff:ff:ff", 0, False),
        ("ff:ff:ff:ff:ff:ff", RCTL_BAM, True),
        ("01:00:5e:00:00:01", 0, False),
        ("01:00:5e:00:00:01", RCTL_MPE, True),
        ("01:00:5e:00:00:01", RCTL_UPE, False),
    ],
)
def test_the_address_filter(dst, rctl, passes):
    nic = Nic(rctl=rctl)
    assert bool(nic.receive(udp(dst=dst))) is passes
    assert nic.dropped("NIC_DROP_FILTER") == (not passes)
    assert nic.net.rx_frames() == 1
    assert nic.hw.read("TPR") == 1
    assert nic.hw.read("GPRC") == passes


def test_every_receive_address_register_matches():
    nic = Nic()
    for entry in (1, 15, 16, 23):
        base, index = ("RAL", entry) if entry < 16 else ("RAL16", entry - 16)
        nic.hw.write(base, 0x0002, index, 8)  # 02:00:00:00
        high = ("RAH", entry) if entry < 16 else ("RAL16", entry - 16)
        if entry < 16:
            nic.hw.write(high[0], 0x80000000 | entry << 8, entry, 8)
            assert nic.receive(udp(dst=f"02:00:00:00:00:{entry:02x}"))
    nic.hw.write("RAH", 15 << 8, 15, 8)  # no longer valid
    assert not nic.receive(udp(dst="02:00:00:00:00:0f"))


def test_the_multicast_table_passes_what_hashes_to_a_set_bit():
    nic = Nic(rctl=0)
    group = bytes.fromhex("01005e0000fb")
    value = (group[4] >> 4 | group[5] << 4) & 0xFFF
    nic.hw.write("MTA", 1 << (value & 31), value >> 5)
    assert nic.receive(udp(dst="01:00:5e:00:00:fb"))
    assert not nic.receive(udp(dst="01:00:5e:00:00:fc"))
    assert nic.hw.read("MPRC") == 1


def test_broadcast_and_multicast_are_counted_apart():
    nic = Nic(rctl=RCTL_BAM | RCTL_MPE)
    nic.receive(udp(dst="ff:ff:ff:ff:ff:ff"), udp(dst="01:00:5e:00:00:01"), udp())
    assert (nic.hw.read("BPRC"), nic.hw.read("MPRC"), nic.hw.read("GPRC")) == (1, 1, 3)


@pytest.mark.parametrize("size", [1, 6, 13])
def test_a_runt_is_counted_in_ruc(size):
    nic = Nic()
    assert nic.receive(udp()[:size]) == []
    assert nic.hw.read("RUC") == 1
    assert nic.dropped("NIC_DROP_RUC") == 1


def test_a_bare_header_is_no_runt():
    [(data, _)] = Nic().receive(udp()[:14])
    assert data == udp()[:14]


def test_a_giant_is_counted_in_roc():
    nic = Nic(longest=1518)
    assert len(nic.receive(udp(1518 - 42), udp(1519 - 42))) == 1
    assert nic.hw.read("ROC") == 1
    assert nic.dropped("NIC_DROP_ROC") == 1


def test_a_dropped_frame_leaves_its_descriptor_free():
    nic = Nic(count=8)
    for _ in range(100):
        assert nic.receive(udp(dst="02:00:00:00:00:09")) == []
    assert len(nic.receive(udp())) == 1


@pytest.mark.parametrize("size", [0, 1, 2, 17, 18, 63, 64, 100, 127, 128, 1471, 1472])
def test_good_checksums_are_verified(size):
    assert status(udp(size)) == DD | EOP | IPCS | UDPCS
    if size < 1461:
        assert status(tcp(size)) == DD | EOP | IPCS | TCPCS


def test_padding_behind_the_packet_is_not_summed():
    assert status(udp(1) + b"\xaa" * 17) == DD | EOP | IPCS | UDPCS


def test_a_wrong_bit_anywhere_is_found():
    good = udp(30)
    for at in range(14, len(good)):
        if at == 26 + 13:
            continue
        bad = bytearray(good)
        bad[at] ^= 0x10
        [(_, fields)] = Nic().receive(bytes(bad))
        verified = fields["status"] & UDPCS and not fields["status"] & (TCPE | IPE)
        assert not verified, at


def test_zero_in_the_udp_checksum_is_not_verified():
    assert status(udp(udp={"chksum": 0})) == DD | EOP | IPCS


def test_a_wrong_ip_checksum_is_an_ip_error():
    assert status(udp(ip={"chksum": 0x1234})) & (IPCS | IPE) == IPCS | IPE


@pytest.mark.parametrize("ip", [{"flags": "MF"}, {"frag": 8}])
def test_a_fragment_has_no_transport_checksum(ip):
    assert status(udp(ip=ip)) == DD | EOP | IPCS


def test_packet_types():
    kinds = [udp(), tcp(), ping(), udp(ip={"options": b"\x01" * 4}), frame(IPv6() / UDP())]
    got = [Nic().receive(each)[0][1]["pkt_info"] for each in kinds]
    assert got == [0x210, 0x110, 0x010, 0x220, 0x040]


def test_what_is_no_ip_is_left_alone():
    for data in (frame(pay(50)), udp()[:20], udp()[:14] + b"\x46" + udp()[15:20]):
        [(_, fields)] = Nic().receive(data)
        assert (fields["status"], fields["pkt_info"]) == (DD | EOP, 0)


def test_every_truncation_is_received_and_never_verified():
    good = udp(40)
    for size in range(14, len(good)):
        [(data, fields)] = Nic().receive(good[:size])
        assert data == good[:size]
        assert not fields["status"] & UDPCS


# ---- VLAN


def test_a_tag_is_stripped_into_the_descriptor():
    [(data, fields)] = Nic().receive(udp(vlan=0x6005))
    assert data == udp()
    assert fields["status"] == DD | EOP | VP | IPCS | UDPCS
    assert fields["vlan"] == 0x6005


def test_without_vme_the_tag_stays():
    nic = Nic()
    nic.hw.write("CTRL", CTRL_SLU)
    [(data, fields)] = nic.receive(udp(vlan=5))
    assert data == udp(vlan=5)
    assert not fields["status"] & VP


def test_a_tag_cut_short_stays():
    [(data, fields)] = Nic().receive(udp(vlan=5)[:17])
    assert data == udp(vlan=5)[:17]
    assert not fields["status"] & VP


def test_the_vlan_filter_table():
    nic = Nic(rctl=RCTL_VFE)
    nic.hw.write("VFTA", 1 << (100 & 31), 100 >> 5)
    assert len(nic.receive(udp(vlan=100), udp(vlan=101), udp())) == 2
    assert nic.dropped("NIC_DROP_FILTER") == 1


# ---- RSS: Microsoft's verification suite

KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)
SUITE = [
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
]


def rss(fields: int) -> Nic:
    nic = Nic()
    for word in range(10):
        nic.hw.write("RSSRK", int.from_bytes(KEY[4 * word :][:4], "little"), word)
    nic.hw.write("MRQC", 2 | fields)
    return nic


@pytest.mark.parametrize(("src", "sport", "dst", "dport", "two", "four"), SUITE)
def test_the_hash_of_addresses_and_ports(src, sport, dst, dport, two, four):
    ip = IP(src=src, dst=dst)
    packet = frame(ip, UDP(sport=sport, dport=dport), pay(20))
    segment = frame(ip, TCP(sport=sport, dport=dport), pay(20))
    nic = rss(0x30000)  # IPV4 and IPV4_TCP: igb's default
    [(_, of_udp), (_, of_tcp), (_, of_udp_again)] = nic.receive(packet, segment, packet)
    assert (of_udp["rss"], of_udp["pkt_info"] & 15) == (two, 2)
    assert (of_tcp["rss"], of_tcp["pkt_info"] & 15) == (four, 1)
    assert of_udp_again["rss"] == two
    nic.hw.write("MRQC", 2 | 0x430000)  # IPV4_UDP too
    [(_, of_udp)] = nic.receive(packet)
    assert (of_udp["rss"], of_udp["pkt_info"] & 15) == (four, 7)


def test_a_new_key_gives_a_new_hash():
    nic = rss(0x20000)
    [(_, before)] = nic.receive(udp())
    nic.hw.write("RSSRK", 0x01020304, 0)
    [(_, after)] = nic.receive(udp())
    assert before["rss"] != after["rss"]


def test_fragments_of_a_datagram_hash_alike():
    nic = rss(0x430000)
    [(_, first), (_, second)] = nic.receive(udp(ip={"flags": "MF"}), udp(ip={"frag": 5}))
    assert first["rss"] == second["rss"]
    assert first["pkt_info"] & 15 == 2


def test_with_rss_off_there_is_no_hash():
    [(_, fields)] = Nic().receive(udp())
    assert (fields["rss"], fields["pkt_info"] & 15) == (0, 0)


# ---- descriptors and the wire


def test_without_a_descriptor_frames_stay_on_the_wire():
    nic = Nic(count=8)
    assert len(nic.receive(*[udp(i) for i in range(20)])) == 7
    assert nic.near.waiting == 13
    assert not nic.hw.busy
    nic.hw.post(7)
    assert nic.hw.busy
    nic.hw.run()
    assert len(nic.hw.take()) == 7
    assert nic.net.rx_frames() == 14


def test_rnbc_counts_a_frame_that_had_to_wait():
    nic = Nic(count=8)
    nic.receive(*[udp() for _ in range(8)])
    nic.hw.step()
    assert nic.hw.read("RNBC") == 0  # nobody knows yet whether a frame waits
    nic.hw.post(7)
    nic.hw.run()
    assert nic.hw.read("RNBC") == 1
    assert len(nic.hw.take()) == 1


def test_rnbc_does_not_count_when_the_last_descriptor_took_the_last_frame():
    nic = Nic(count=8)
    nic.receive(*[udp() for _ in range(7)])
    nic.hw.post(7)
    nic.hw.step()
    assert nic.hw.read("RNBC") == 0


def test_only_an_empty_read_forgets_that_the_wire_is_ready():
    source = Source(udp(), 10)
    nic = BareNic(Net(1), source.address, MAC_BYTES)
    nic.write("CTRL", CTRL_SLU)
    nic.write("RCTL", RCTL_EN | RCTL_BAM)
    nic.post(63)
    assert nic.step(budget=4) == 4
    assert nic.busy
    assert nic.run() == 6
    assert not nic.busy
    source.more(1)
    assert nic.run() == 0  # the wire's word is needed: its fd is edge-triggered
    assert nic.step() == 1


def test_with_the_receiver_off_the_wire_is_left_alone():
    nic = Nic()
    nic.hw.write("RCTL", 0)
    assert nic.receive(udp()) == []
    assert nic.near.waiting == 1
    assert not nic.hw.busy


def test_a_jumbo_frame_is_spread_over_descriptors():
    nic = Nic(longest=9000, size=1024)
    big = udp(4000, ip={"flags": "DF"})
    parts = nic.receive(big, udp())
    assert b"".join(data for data, _ in parts[:4]) == big
    assert [fields["status"] & EOP for _, fields in parts] == [0, 0, 0, EOP, EOP]
    assert [fields["id"] for _, fields in parts] == [1, 1, 1, 1, 2]
    assert parts[3][1]["status"] & UDPCS


def test_a_jumbo_frame_waits_in_the_nic_for_more_descriptors():
    nic = Nic(longest=9000, size=1024, count=8)
    big = udp(4000)
    first = nic.receive(big, big, big)
    assert len(first) == 7
    assert nic.near.waiting == 1
    assert nic.hw.run() == 0
    nic.hw.post(7)
    assert nic.hw.busy
    nic.hw.run()
    rest = nic.hw.take()
    assert b"".join(data for data, _ in first + rest) == big * 3


def test_the_rest_of_a_frame_latches_the_cause_too():
    nic = Nic(longest=9000, size=1024, count=8)
    nic.hw.write("IVAR0", 0x81)
    nic.receive(udp(4000), udp(4000))
    assert nic.hw.read("EICR") == 2
    nic.hw.post(7)
    nic.hw.run()
    assert nic.hw.read("EICR") == 2


def test_a_reset_gives_every_register_its_initial_value():
    nic = Nic(longest=9000, size=1024, count=8)
    nic.receive(udp(4000), udp(4000))
    nic.hw.write("CTRL", 0x04000000)
    assert not nic.hw.busy
    assert nic.hw.read("RCTL") == nic.hw.read("RDLEN") == nic.hw.read("RXCSUM") == 0
    assert nic.hw.read("STATUS") & 2 == 0
    assert nic.hw.read("RAL") == int.from_bytes(MAC_BYTES[:4], "little")


def test_a_dead_wire_lowers_the_link():
    source = Source(udp(), 10)
    nic = BareNic(Net(1), source.address, MAC_BYTES)
    nic.write("CTRL", CTRL_SLU)
    nic.write("RCTL", RCTL_EN | RCTL_BAM)
    nic.write("IMS", 4)
    nic.write("IVAR_MISC", 0x8000)
    nic.write("EIMS", 1)
    nic.write("EIAC", 1)
    nic.read("ICR")
    nic.read("EICR")
    nic.post(10)
    assert nic.read("STATUS") & 2
    source.fail(-5)
    assert nic.step() == 0
    assert nic.read("STATUS") & 2 == 0
    assert nic.fires[0] == 1
    assert nic.read("ICR") & 4
    assert not nic.busy
