"""Coalesced frames: whole to who asked, one by one to all others, and n frames in the ledger."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from netstack.device._memory import MemoryWire
from netstack.host import Host
from netstack.socket import UDP_GRO
from netstack.stats import ledger
from tests.frames import OUR_IP, PEER_IP
from tests.memory_host import MemoryHost, memory_host
from tests.vnet import GSO_TCPV4, PLAIN, coalesced, header, packet, singles

PEER = (PEER_IP, 4000)
PAYLOAD = bytes(i % 251 for i in range(44 * 1472 - 300))


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request: pytest.FixtureRequest) -> Iterator[MemoryHost]:
    """Give a host on a wire that carries virtio headers."""
    with memory_host(fast_path=request.param, vnet_hdr=True) as made:
        made.meet()
        yield made


def gro_socket(it: MemoryHost, *address: object) -> socket.socket:
    sock = it.socket(*(address or (OUR_IP, 9000)))
    sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    return sock


def cut(payload: bytes, size: int) -> list[bytes]:
    return [payload[start : start + size] for start in range(0, len(payload), size)]


def all_of(sock: socket.socket) -> list[bytes]:
    out = []
    while True:
        try:
            out.append(sock.recv(65535))
        except BlockingIOError:
            return out


def arrived(it: MemoryHost) -> int:
    """Frames since the two that `meet` put in."""
    return it.host.net.rx_frames() - 2


@pytest.mark.parametrize(
    ("size", "room"), [(18, 64 * 18), (18, 128 * 18), (100, 7000), (1472, 99999)]
)
def test_a_socket_with_udp_gro_reads_all_at_once(it: MemoryHost, size: int, room: int) -> None:
    sock = gro_socket(it)
    payload = PAYLOAD[:room]
    it.put(coalesced(payload, size))
    data, ancillary, flags, peer = sock.recvmsg(65535, 100)
    assert data == payload
    assert ancillary == [(socket.IPPROTO_UDP, UDP_GRO, struct.pack("i", size))]
    assert (flags, peer) == (0, PEER)
    frames = len(cut(payload, size))
    assert arrived(it) == ledger(it.host).delivered == frames
    assert sock.info["rmem"] == 0


@pytest.mark.parametrize(("size", "room"), [(18, 128 * 18), (100, 7000), (1472, 99999)])
def test_a_socket_without_it_reads_one_by_one(it: MemoryHost, size: int, room: int) -> None:
    sock = it.socket(OUR_IP, 9000)
    payload = PAYLOAD[:room]
    it.put(coalesced(payload, size))
    assert all_of(sock) == cut(payload, size)
    assert arrived(it) == ledger(it.host).delivered == len(cut(payload, size))


def test_one_datagram_has_no_size_to_tell(it: MemoryHost) -> None:
    sock = gro_socket(it)
    it.put(coalesced(b"x" * 100, 100), coalesced(b"y" * 50, 100, sport=1))
    it.put(PLAIN + singles(b"z", 9, sport=2)[0])
    assert [sock.recvmsg(1000, 100)[:2] for _ in range(3)] == [
        (b"x" * 100, []), (b"y" * 50, []), (b"z", []),
    ]  # fmt: skip


def test_a_capture_sees_the_frames_as_on_a_cable(it: MemoryHost) -> None:
    gro_socket(it)
    tap = it.host.packet_tap()
    payload = PAYLOAD[:5000]
    it.put(coalesced(payload, 1000), header(gso_type=0) + packet(b"alone"))
    records = tap.drain()
    tap.close()
    assert [bytes(row[5]) for row in records] == [
        *singles(payload, 1000),
        *singles(b"alone", 99),
    ]
    first = records[0][1]
    assert [row[1] for row in records] == [first + nr for nr in range(6)]


def test_order_is_kept_among_single_frames_and_coalesced_ones(it: MemoryHost) -> None:
    sock = it.socket(OUR_IP, 9000)
    gro_socket(it, OUR_IP, 9001)  # so that GRO looks at datagrams at all
    sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    one = [PLAIN + frame for frame in singles(b"a" * 300, 100)]
    it.put(*one, coalesced(b"b" * 300, 100), *one)
    assert [sock.recv(65535) for _ in range(3)] == [b"a" * 300, b"b" * 300, b"a" * 300]


def test_frames_for_others_and_to_no_socket_are_counted_one_by_one(it: MemoryHost) -> None:
    it.put(coalesced(PAYLOAD[:1000], 100, dst_mac="02:00:00:00:00:77"))
    assert it.drops() == {"NIC_DROP_FILTER": 10}
    it.put(coalesced(PAYLOAD, 1472))
    assert it.drops() == {"NIC_DROP_FILTER": 10, "NO_SOCKET": 44}
    assert it.host.net.rx_frames() == 2 + 54


def test_frames_longer_than_the_nic_takes_are_giants_each(it: MemoryHost) -> None:
    it.put(coalesced(PAYLOAD[:6000], 2000))
    assert it.drops() == {"NIC_DROP_ROC": 3}


def test_the_registers_count_what_was_on_the_wire(it: MemoryHost) -> None:
    gro_socket(it)
    before = it.device.nic.stats()
    it.put(coalesced(PAYLOAD[:1000], 100))
    after = it.device.nic.stats()
    assert after["rx_packets"] - before["rx_packets"] == 10
    assert after["rx_bytes"] - before["rx_bytes"] == sum(map(len, singles(PAYLOAD[:1000], 100)))


def test_a_socket_that_holds_all_large_buffers_does_not_stop_the_host(it: MemoryHost) -> None:
    full, other = gro_socket(it), gro_socket(it, OUR_IP, 9001)
    full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    it.host.config["net.core.rmem_max"] = 64 << 20
    full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    for _ in range(70):
        it.put(coalesced(PAYLOAD, 1472))
    it.put(coalesced(PAYLOAD, 1472, dport=9001))
    assert it.host.cpus[0].pool()[-1][1] == 0, "the large buffers are used up"
    assert other.recv(65535) == PAYLOAD
    assert all_of(full) == [PAYLOAD] * 70
    it.put(coalesced(PAYLOAD, 1472))
    assert it.host.cpus[0].pool()[-1][1] > 0
    assert full.recv(65535) == PAYLOAD


def test_coalesced_frames_to_a_group_reach_each_socket_in_its_way(it: MemoryHost) -> None:
    whole = it.socket("0.0.0.0", 9000)  # nosec
    whole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    whole.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    single = it.socket()
    whole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    single.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    single.bind(("0.0.0.0", 9000))
    frame = coalesced(PAYLOAD[:1000], 100, dst="10.0.0.255", dst_mac="ff:ff:ff:ff:ff:ff")
    it.put(frame)
    assert all_of(whole) == [PAYLOAD[:1000]]
    assert all_of(single) == cut(PAYLOAD[:1000], 100)
    assert ledger(it.host).delivered == 10


def test_a_tagged_packet_is_cut_behind_its_tag(it: MemoryHost) -> None:
    sock = it.socket(OUR_IP, 9000)
    tap = it.host.packet_tap()
    frame = Ether(packet(PAYLOAD[:300], ident=7))
    inner = bytes(frame)[14:]
    tagged = (
        bytes(Ether(src=frame.src, dst=frame.dst) / Dot1Q(vlan=0, prio=3, type=0x800)) + inner
    )
    it.put(header(gso_size=100, hdr_len=46, csum_start=38) + tagged)
    assert all_of(sock) == cut(PAYLOAD[:300], 100)
    seen = [Ether(bytes(row[5])) for row in tap.drain()]
    tap.close()
    assert [row[Dot1Q].prio for row in seen] == [3] * 3
    assert [bytes(row[UDP].payload) for row in seen] == cut(PAYLOAD[:300], 100)


def test_tcp_is_cut_with_numbers_and_flags_of_its_own(it: MemoryHost) -> None:
    """Nothing here takes TCP yet: the capture shows what it is cut into."""
    tap = it.host.packet_tap()
    whole = Ether(packet(b"")[:14]) / IP(src=PEER_IP, dst=OUR_IP, id=65535) / TCP(
        sport=1, dport=2, seq=0xFFFFFFF0, flags="FPAC", options=[("NOP", None)] * 4
    ) / (b"x" * 250)  # fmt: skip
    whole[TCP].chksum = 0
    raw = bytearray(bytes(whole))
    from tests.vnet import pseudo_sum

    raw[50:52] = pseudo_sum(PEER_IP, OUR_IP, len(raw) - 34, 6).to_bytes(2)
    it.put(header(gso_type=GSO_TCPV4, gso_size=100, csum_offset=16, hdr_len=58) + bytes(raw))
    seen = [bytes(row[5]) for row in tap.drain() if not row[3]]
    tap.close()
    assert [Ether(frame)[TCP].seq for frame in seen] == [0xFFFFFFF0, 84, 184]
    assert [str(Ether(frame)[TCP].flags) for frame in seen] == ["AC", "A", "FPA"]
    assert [Ether(frame)[IP].id for frame in seen] == [65535, 0, 1]
    for frame in seen:
        right = Ether(frame)
        del right[TCP].chksum, right[IP].chksum
        assert bytes(right) == frame


def test_a_checksum_left_to_the_device_is_good_as_verified(it: MemoryHost) -> None:
    sock = it.socket(OUR_IP, 9000)
    it.put(header(gso_type=0) + packet(b"long enough to be verified by the reader" * 9))
    assert len(sock.recv(1000)) == 360
    assert ledger(it.host).dropped == {}


def test_without_rx_checksumming_it_is_made_and_verified(it: MemoryHost) -> None:
    sock = it.socket(OUR_IP, 9000)
    it.device.nic.features &= ~1  # NETIF_F_RXCSUM
    it.put(header(gso_type=0) + packet(b"x" * 500))
    broken = bytearray(packet(b"x" * 500))
    broken[40] ^= 1
    it.put(header(gso_type=0) + bytes(broken))
    assert len(sock.recv(1000)) == 500
    with pytest.raises(BlockingIOError):
        sock.recv(1000)
    assert it.drops() == {"UDP_CSUM": 1}


def test_what_is_forwarded_leaves_as_the_frames_it_was() -> None:
    with memory_host(vnet_hdr=True) as it:
        it.meet()
        ours, far = MemoryWire.pair()
        other = it.host.add_nic(ours, "eth1", addr="10.1.0.1/24")
        it.host.config["net.ipv4.ip_forward"] = 1
        from scapy.layers.l2 import ARP

        far.send(bytes(Ether(dst=other.mac) / ARP(op=2, hwsrc="02:00:00:00:01:09",
                 psrc="10.1.0.9", hwdst=other.mac, pdst="10.1.0.1")))  # fmt: skip
        far.send(bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc="02:00:00:00:01:09",
                 psrc="10.1.0.9", pdst="10.1.0.1")))  # fmt: skip
        it.host.run()
        far.recv()
        it.put(coalesced(PAYLOAD[:2500], 1000, dst="10.1.0.9"))
        sent = []
        while (frame := far.recv()) is not None:
            sent.append(frame)
        want = singles(PAYLOAD[:2500], 1000, dst="10.1.0.9", ttl=63)
        assert [frame[14:] for frame in sent] == [frame[14:] for frame in want]
        assert ledger(it.host).forwarded == 3


def test_a_device_that_is_closed_ends_what_its_ring_holds() -> None:
    with memory_host(vnet_hdr=True) as it:
        it.meet()
        it.device.nic.set_coalesce(10000)
        it.put(PLAIN + singles(b"now the throttle runs", 99)[0])
        for _ in range(3):
            it.wire.send(coalesced(PAYLOAD, 1472))
            it.wire.send(coalesced(PAYLOAD[:4000], 100))
        it.host.cpus[0].run()
        for _ in range(10):
            it.device.nic.close()
            it.device.nic.open()
        size, free, total = it.host.cpus[0].pool()[-1]
        assert (size, free, total) == (66048, 56, 64), "eight are posted, and none is lost"
        account = ledger(it.host)
        assert account.balanced
        it.put(coalesced(PAYLOAD, 1472))


def finished(frame: bytes) -> bytes:
    """Give a datagram's frame with the checksum that it should have."""
    packet = Ether(frame)
    del packet[UDP].chksum
    return bytes(packet)


def test_what_leaves_says_what_is_left_to_do(it: MemoryHost) -> None:
    sock = it.socket(OUR_IP, 9000)
    sock.setsockopt(socket.IPPROTO_UDP, 103, 100)
    sock.sendto(PAYLOAD[:250], PEER)
    (sent,) = it.sent()
    assert sent[:10] == header(gso_size=100)
    assert bytes(Ether(sent[10:])[UDP].payload) == PAYLOAD[:250]
    sock.setsockopt(socket.IPPROTO_UDP, 103, 0)
    sock.sendto(b"one", PEER)
    (sent,) = it.sent()
    assert sent[:10] == PLAIN
    assert sent[10:] == finished(sent[10:]), "one frame is as on a cable"
    stats = it.device.nic.stats()
    assert stats["tx_packets"] == 3 + 1 + 1, "three of the first, one, and the ARP reply"


def test_two_hosts_hand_each_other_whole_packets() -> None:
    a_end, b_end = MemoryWire.pair(vnet_hdr=True)
    with Host(threads=False) as a, Host(threads=False) as b:
        a.add_nic(a_end, "eth0", addr="10.0.0.1/24")
        b.add_nic(b_end, "eth0", addr="10.0.0.2/24")
        with a.socket() as sender, b.socket() as receiver:
            receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            receiver.bind(("10.0.0.2", 9000))
            receiver.setblocking(False)
            sender.setsockopt(socket.IPPROTO_UDP, 103, 1400)
            sender.sendto(PAYLOAD, ("10.0.0.2", 9000))
            for _ in range(4):
                b.run()
                a.run()
            data, ancillary, _flags, _peer = receiver.recvmsg(65535, 100)
            assert data == PAYLOAD
            assert ancillary[0][2] == struct.pack("i", 1400)
        assert ledger(a).balanced
        assert ledger(b).balanced


def test_ring_sizes_change_under_coalesced_frames(it: MemoryHost) -> None:
    sock = gro_socket(it)
    it.host.config["net.core.rmem_max"] = 64 << 20
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    for rx in (64, 4096, 80):
        for _ in range(3):
            it.wire.send(coalesced(PAYLOAD, 1472))
            it.wire.send(coalesced(PAYLOAD[:5000], 1000))
        it.host.cpus[0].run()
        it.device.nic.set_ring(rx=rx)
        it.host.run()
        assert all_of(sock) == [PAYLOAD, PAYLOAD[:5000]] * 3


def test_the_self_test_passes_on_a_virtual_wire(it: MemoryHost) -> None:
    before = it.host.cpus[0].pool()
    assert not any(it.device.nic.self_test(True).values())
    assert it.host.cpus[0].pool()[-1] == before[-1]
    gro = gro_socket(it)
    it.put(coalesced(PAYLOAD, 1472))
    assert gro.recv(65535) == PAYLOAD


def test_what_we_send_to_all_comes_back_to_us_cut_or_whole(it: MemoryHost) -> None:
    """The copy for ourselves has no Ethernet header."""
    whole = gro_socket(it, "0.0.0.0", 9000)
    sock = it.socket(OUR_IP, 9001)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.IPPROTO_UDP, 103, 100)
    sock.sendto(PAYLOAD[:250], ("10.0.0.255", 9000))
    it.host.run()
    assert all_of(whole) == [PAYLOAD[:250]]
    whole.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 0)
    sock.sendto(PAYLOAD[:250], ("10.0.0.255", 9000))
    it.host.run()
    assert all_of(whole) == cut(PAYLOAD[:250], 100)


@pytest.mark.parametrize("size", [18, 1000])
def test_a_message_uses_up_a_budget_as_its_frames_would(it: MemoryHost, size: int) -> None:
    """Else a poll of 64 messages brings up more than any socket holds."""
    it.host.config["net.core.netdev_budget"] = 64
    it.socket(OUR_IP, 9000)
    payload = PAYLOAD[: 64 * size]
    squeezed = []
    for messages in ([coalesced(payload, size)], [PLAIN + f for f in singles(payload, size)]):
        before = it.host.softnet()[0]["time_squeeze"]
        for _ in range(5):
            for message in messages:
                it.wire.send(message)
        it.host.run()
        squeezed.append(it.host.softnet()[0]["time_squeeze"] - before)
    assert squeezed[0] == squeezed[1] > 1
