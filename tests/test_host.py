"""The main road: a frame from a wire reaches recvfrom, and the answer goes back. And the ledger."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether

import netstack
from netstack.device._memory import MemoryWire
from netstack.nf.hooks import (
    NF_ACCEPT,
    NF_DROP,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
    NF_STOLEN,
)
from netstack.stats import ledger
from netstack.testing._traffic import feed
from tests.frames import OUR_IP, OUR_MAC, PEER_IP, PEER_MAC, ping, udp, who_has
from tests.memory_host import balance, memory_host


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def it(request):
    with memory_host(fast_path=request.param) as host:
        yield host


def test_a_datagram_reaches_recvfrom_and_the_answer_goes_back(it):
    sock = it.socket(OUR_IP, 9000)
    it.meet()
    it.put(udp(b"hello"))
    data, peer = sock.recvfrom(100)
    assert (data, peer) == (b"hello", (PEER_IP, 4000))
    sock.sendto(b"back", peer)
    (frame,) = it.sent()
    answer = Ether(frame)
    assert (answer.src, answer.dst) == (OUR_MAC, PEER_MAC)
    assert (answer[IP].src, answer[IP].dst, answer[IP].ttl) == (OUR_IP, PEER_IP, 64)
    assert (answer[UDP].sport, answer[UDP].dport) == (9000, 4000)
    assert bytes(answer[UDP].payload)[:4] == b"back"
    account = ledger(it.host)
    assert account.delivered == 1
    assert account.consumed == 2, "the peer's request and its reply to ours"


def test_arp_request_is_answered(it):
    (frame,) = it.put(who_has())
    answer = Ether(frame)
    assert answer.dst == PEER_MAC
    assert (answer[ARP].op, answer[ARP].hwsrc, answer[ARP].psrc) == (2, OUR_MAC, OUR_IP)


@pytest.mark.parametrize("size", [0, 1, 56, 555, 1472])
def test_ping_is_answered_with_its_own_bytes(it, size):
    it.meet()
    payload = bytes(i & 0xFF for i in range(size))
    (frame,) = it.put(ping(payload, 77, 5))
    answer = Ether(frame)
    assert (answer[ICMP].type, answer[ICMP].id, answer[ICMP].seq) == (0, 77, 5)
    assert bytes(answer[ICMP].payload)[:size] == payload


def test_a_closed_port_answers_with_port_unreachable(it):
    it.meet()
    (frame,) = it.put(udp(b"x", dport=4242))
    answer = Ether(frame)
    assert (answer[ICMP].type, answer[ICMP].code) == (3, 3)
    assert it.drops() == {"NO_SOCKET": 1}


def test_every_counter_of_a_delivered_datagram_moves_once(it):
    sock = it.socket("", 9000)
    it.meet()
    before = netstack.stats.nstat(it.host.net)
    it.put(udp(b"x" * 100))
    sock.recv(200)
    after = netstack.stats.nstat(it.host.net)
    assert {
        name: after[name] - before[name] for name in after if after[name] != before[name]
    } == {
        "IpInReceives": 1,
        "IpInDelivers": 1,
        "IpExtInOctets": 128,
        "IpExtInNoECTPkts": 1,
        "UdpInDatagrams": 1,
    }


def test_the_receive_buffer_holds_as_many_datagrams_as_linux(it):
    # Measured on 6.18: 256 x 832 = 212992 to the byte, 166 x 1280, 92 x 2304.
    it.meet()
    for size, count in ((1, 256), (100, 256), (500, 166), (1000, 92), (1472, 92)):
        with it.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("", 9000))
            sock.setblocking(False)
            for _ in range(400):
                it.put(udp(bytes(size)))
            assert len(read_all(sock)) == count


def read_all(sock) -> list[bytes]:
    out = []
    with contextlib.suppress(BlockingIOError):
        while True:
            out.append(sock.recv(2000, socket.MSG_DONTWAIT))
    return out


def test_the_same_frames_give_the_same_result():
    def run() -> tuple[list[bytes], dict[str, int]]:
        with memory_host() as it, it.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("", 9000))
            out = it.put(who_has(), ping(b"a"), udp(b"b"), udp(b"c", dport=1), b"\xff" * 60)
            out += it.advance(5)
            return out, netstack.stats.nstat(it.host.net)

    assert run() == run()


def test_two_hosts_talk_over_a_cable():
    a_end, b_end = MemoryWire.pair()
    with netstack.Host("a") as a, netstack.Host("b") as b:
        a.add_nic(a_end, "eth0", addr="10.9.0.1/24", mac="02:00:00:00:09:01")
        b.add_nic(b_end, "eth0", addr="10.9.0.2/24", mac="02:00:00:00:09:02")
        with a.socket() as client, b.socket() as server:
            server.bind(("10.9.0.2", 7))
            server.settimeout(10)
            client.settimeout(10)
            thread = threading.Thread(target=lambda: server.sendto(*server.recvfrom(100)))
            thread.start()
            client.sendto(b"over the cable", ("10.9.0.2", 7))
            assert client.recvfrom(100) == (b"over the cable", ("10.9.0.2", 7))
            thread.join()
        for host in (a, b):
            host.settle()
            balance(host)


def test_what_is_sent_to_ourselves_comes_back_through_lo(it):
    with it.host.socket() as a, it.host.socket() as b:
        a.bind((OUR_IP, 5000))
        for target in (OUR_IP, "127.0.0.1"):
            b.settimeout(0)
            b.sendto(b"self", (target, 5000)) if target == OUR_IP else None
        it.host.run()
        assert a.recv(100, socket.MSG_DONTWAIT) == b"self"
    assert it.sent() == []
    assert ledger(it.host).frames == 0, "lo is no wire"


def test_a_hook_can_drop_and_be_taken_out(it):
    it.meet()
    take_out = it.host.hook(NF_INET_PRE_ROUTING, lambda host, skb: NF_DROP)
    assert it.put(ping(b"x")) == []
    take_out()
    assert len(it.put(ping(b"x"))) == 1
    assert it.drops() == {"NETFILTER_DROP": 1}


def sent_past(it, hook, answer):
    """Send a datagram past a hook; give what sendto says, how often the hook was asked, and counters."""
    asked: list[threading.Thread] = []

    def fn(host, skb):
        asked.append(threading.current_thread())
        return answer(skb)

    sock = it.socket("", 9000)
    it.meet()
    before = netstack.stats.nstat(it.host.net)
    it.host.hook(hook, fn)
    try:
        result = sock.sendto(b"out", (PEER_IP, 4000))
    except OSError as error:
        result = error.errno
    after = netstack.stats.nstat(it.host.net)
    assert asked == [threading.current_thread()]
    names = ("IpOutRequests", "IpOutDiscards", "IpOutTransmits", "UdpOutDatagrams")
    return result, tuple(after[name] - before[name] for name in names)


OUT = pytest.mark.parametrize(
    "hook", [NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING], ids=["LOCAL_OUT", "POST_ROUTING"]
)


@OUT
def test_who_sends_what_a_hook_drops_is_told(it, hook):
    assert sent_past(it, hook, lambda skb: NF_DROP) == (errno.EPERM, (1, 1, 0, 0))
    assert it.sent() == []


@OUT
def test_what_a_hook_accepts_leaves_at_once(it, hook):
    assert sent_past(it, hook, lambda skb: NF_ACCEPT) == (3, (1, 0, 1, 1))
    assert Ether(it.sent()[0])[UDP].dport == 4000


@OUT
def test_what_a_hook_steals_counts_as_sent(it, hook):
    def steal(skb):
        skb.consume()
        return NF_STOLEN

    assert sent_past(it, hook, steal) == (3, (1, 0, 0, 1))
    assert it.sent() == []


@OUT
def test_a_hook_that_fails_drops_and_the_host_goes_on(it, hook, caplog):
    assert sent_past(it, hook, lambda skb: 1 // 0) == (errno.EPERM, (1, 1, 0, 0))
    assert "ZeroDivisionError" in caplog.text
    assert it.sent() == []


def test_a_tap_handler_sees_a_copy_and_changes_nothing(it):
    seen: list[bytes] = []
    it.host.register_ethertype(3, lambda host, skb: seen.append(skb.frame))
    frame = ping(b"x" * 50)
    it.meet()
    assert len(it.put(frame)) == 1
    assert seen[-1] == frame
    assert ledger(it.host).consumed == 3


# ---- the ledger in bad times


def test_ledger_when_the_socket_is_not_read(it):
    sock = it.socket("", 9000)
    it.meet()
    for _ in range(4):
        it.put(*[udp(b"x") for _ in range(100)])
    account = ledger(it.host)
    assert account.queued == {"sock/queue": 256}
    assert it.drops() == {"SOCKET_RCVBUFF": 144}
    sock.close()
    assert it.drops() == {"SOCKET_RCVBUFF": 144, "SOCKET_CLOSE": 256}


def test_ledger_when_the_wire_overflows(it):
    sock = it.socket("", 9000)
    sent = sum(it.wire.send(udp(b"x")) for _ in range(3000))
    assert sent == 1000
    it.host.run()
    assert ledger(it.host).frames == 1000
    assert it.device.wire.missed == it.device.stats()["rx_missed_errors"] == 2000
    assert ledger(it.host).queued == {"sock/queue": 256}
    assert it.drops() == {"SOCKET_RCVBUFF": 744}
    sock.close()


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "slow"])
def test_ledger_with_a_ring_of_64(fast_path):
    with memory_host(fast_path=fast_path, ring=64) as it, it.host.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind(("", 9000))
        it.put(*[udp(b"%d" % i) for i in range(900)])
        got = [sock.recv(10, socket.MSG_DONTWAIT) for _ in range(900)]
        assert got == [b"%d" % i for i in range(900)]


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "slow"])
def test_ledger_when_the_packet_pool_is_exhausted(fast_path):
    with memory_host(fast_path=fast_path, pool=(64, 64, 512)) as it:
        # Without the limit that keeps sockets from taking everything.
        it.host.config["net.ipv4.udp_mem"] = (1 << 20, 1 << 20, 1 << 20)
        socks = [it.host.socket() for _ in range(4)]
        for number, sock in enumerate(socks):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sock.bind(("", 9000 + number))
        for _ in range(5):
            it.put(*[udp(bytes(700), dport=9000 + i % 4) for i in range(400)])
            balance(it.host)
        assert it.host.cpus[0].pool()[-1][1] == 0, it.host.cpus[0].pool()
        for sock in socks:
            assert read_all(sock)
            sock.close()
        # With the memory back the host goes on as before, with what waited on the wire.
        it.host.run()
        with it.host.socket() as sock:
            sock.bind(("", 9100))
            it.put(udp(b"again", dport=9100))
            assert sock.recv(10, socket.MSG_DONTWAIT) == b"again"


@pytest.mark.parametrize("size", [18, 600, 1400])
def test_unread_sockets_leave_a_ring_of_4096_its_buffers(size):
    ours, wire = MemoryWire.pair()
    with netstack.Host(threads=False) as host, contextlib.ExitStack() as stack:
        device = host.add_nic(ours, "tap0", addr=f"{OUR_IP}/24", mac=OUR_MAC, ring=4096)
        device.nic.set_coalesce(0)
        ports = range(9000, 9110)
        for port in ports:
            stack.enter_context(host.socket()).bind(("", port))
        frames = [udp(bytes(size), dport=port) for port in ports]
        # 92 to 256 fill a socket's own buffer.
        feed(host.cpus[0].address, wire.address, frames, 300 * len(ports))
        host.run()
        drops = ledger(host).dropped
        assert drops["PROTO_MEM"] > 0, "udp_mem is what stops them"
        assert device.nic.stats()["rx_queue_0_alloc_failed"] == 0
        pool = host.cpus[0].pool()
        assert all(free > 1024 for _, free, _ in pool), pool
        assert pool[-1][1] > 4096


def test_unread_sockets_on_lo_leave_buffers_to_send_with():
    with memory_host() as it:
        sender = it.socket("127.0.0.1", 8999)
        ports = range(9000, 9110)
        for port in ports:
            it.socket("127.0.0.1", port)
        for port in (*ports, *ports):
            for _ in range(50):
                sender.sendto(bytes(1400), ("127.0.0.1", port))
            it.host.run()
        assert netstack.stats.nstat(it.host.net)["UdpMemErrors"] > 0
        assert all(free > 1024 for _, free, _ in it.host.pool.state())


def test_ledger_when_the_host_is_closed_under_load():
    ours, wire = MemoryWire.pair()
    host = netstack.Host()
    host.add_nic(ours, "tap0", addr=f"{OUR_IP}/24", mac=OUR_MAC)
    sock = host.socket()
    sock.bind(("", 9000))
    stop = threading.Event()
    frames = [udp(b"x"), ping(b"y"), udp(b"z", dport=1), who_has()]

    def load() -> None:
        while not stop.is_set():
            for frame in frames:
                wire.send(frame)

    thread = threading.Thread(target=load)
    thread.start()
    while host.net.rx_frames() < 5000:
        sock.recvfrom(10)
    host.close()
    balance(host)
    stop.set()
    thread.join()
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.recv(10)
    sock.close()
    host.close()


# ---- bad frames


GOOD = {
    "udp": udp(b"payload"),
    "ping": ping(b"payload"),
    "arp": who_has(),
    "options": bytes(
        Ether(src=PEER_MAC, dst=OUR_MAC)
        / IP(src=PEER_IP, dst=OUR_IP, options=b"\x01\x01\x01\x00")
        / UDP(dport=9000)
        / b"abc"
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_frame_cut_at_any_byte_ends_with_a_name(it, name):
    it.socket("", 9000)
    for length in range(1, len(GOOD[name])):
        it.put(GOOD[name][:length])
        balance(it.host)


@pytest.mark.parametrize("name", GOOD)
def test_a_frame_with_any_byte_changed_ends_with_a_name(it, name):
    it.socket("", 9000)
    for at in range(len(GOOD[name])):
        for flip in (0xFF, 0x01, 0x80):
            frame = bytearray(GOOD[name])
            frame[at] ^= flip
            it.put(bytes(frame))
    balance(it.host)


def test_runts_and_giants_are_the_nics_business(it):
    it.put(b"\x02", OUR_MAC.replace(":", "").encode()[:13], udp(bytes(1600)), b"\xff" * 65535)
    assert it.drops() == {"NIC_DROP_RUC": 2, "NIC_DROP_ROC": 2}


def test_frames_for_other_machines_do_not_get_past_the_filter(it):
    it.put(bytes(Ether(src=PEER_MAC, dst="02:00:00:00:00:99") / IP(dst=OUR_IP) / UDP()))
    assert it.drops() == {"NIC_DROP_FILTER": 1}
