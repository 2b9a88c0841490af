"""Several queue pairs: frames are spread by flow, vectors go to CPUs, and no frame is lost whatever is turned."""

from __future__ import annotations

import contextlib
import itertools
import socket

import pytest

import netstack
from netstack import ethnl, procfs
from netstack.device._memory import MemoryWire
from netstack.errors import UsageError
from netstack.stats import ledger
from netstack.testing.faults import Faults
from tests.frames import OUR_IP, OUR_MAC, arp_reply, udp
from tests.memory_host import MemoryHost, balance
from tests.test_threads import Crowd

KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)


@contextlib.contextmanager
def quiet(queues: int = 2, cpus: int = 2, **options: object):
    """Give a host without threads whose NIC has several queues, and hashes ports."""
    it = MemoryHost(cpus=cpus, **options)
    it.device.nic.set_rss(key=KEY, udp4=True)
    it.device.nic.set_channels(queues)
    it.meet()
    try:
        yield it
        it.host.run()
        balance(it.host)
    finally:
        it.close()
        balance(it.host)


def packets(it: MemoryHost) -> list[int]:
    """Give what each receive queue has taken since the start."""
    stats = it.device.nic.stats()
    return [
        n
        for name, n in stats.items()
        if name.startswith("rx_queue_") and name.endswith("_packets")
    ]


def flows(count: int, size: int = 4) -> list[bytes]:
    return [udp(i.to_bytes(size, "big"), sport=1024 + i) for i in range(count)]


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "slow"])
@pytest.mark.parametrize("queues", [2, 4, 8])
def test_flows_are_spread_over_the_queues_and_all_arrive(queues, fast_path):
    with quiet(queues, fast_path=fast_path) as it:
        sock = it.socket("", 9000)
        before = packets(it)
        it.put(*flows(200))
        got = [b - a for a, b in zip(before, packets(it), strict=True)]
        assert sum(got) == 200
        assert len(got) == queues
        assert min(got) > 0
        assert sorted(data for data, _ in sock.recv_batch(300)) == sorted(
            i.to_bytes(4, "big") for i in range(200)
        )
        assert all(row["processed"] > 0 for row in it.host.softnet())


def test_one_flow_stays_in_one_queue():
    with quiet(4) as it:
        it.socket("", 9000)
        before = packets(it)
        it.put(*[udp(bytes([i])) for i in range(50)])
        assert sorted(b - a for a, b in zip(before, packets(it), strict=True)) == [0, 0, 0, 50]


def test_ports_are_hashed_only_when_asked_for():
    with quiet(4) as it:
        it.socket("", 9000)
        ethnl.set_rxnfc("tap0", it.device.nic, {"udp4": "sd"})
        before = packets(it)
        it.put(*flows(100))
        assert sorted(b - a for a, b in zip(before, packets(it), strict=True)) == [0, 0, 0, 100]


def test_the_indirection_table_says_which_queue():
    with quiet(4) as it:
        it.socket("", 9000)
        for queue in range(4):
            it.device.nic.set_rss(indirection=[queue] * 128)
            before = packets(it)
            it.put(*flows(20))
            got = [b - a for a, b in zip(before, packets(it), strict=True)]
            assert got == [20 if i == queue else 0 for i in range(4)]


def test_ethtool_x_sets_what_ethtool_would():
    with quiet(4) as it:
        nic = it.device.nic
        assert nic.rss()["indirection"] == [i // 32 for i in range(128)], "igb's default"
        ethnl.set_rxfh("tap0", nic, {"equal": "3"})
        assert nic.rss()["indirection"] == [i % 3 for i in range(128)]
        ethnl.set_rxfh("tap0", nic, {"weight": ["6", "2"]})
        assert nic.rss()["indirection"] == [0] * 96 + [1] * 32
        ethnl.set_rxfh("tap0", nic, {"default": True})
        assert nic.rss()["indirection"] == [i // 32 for i in range(128)]
        for bad in ({"equal": "5"}, {"equal": "0"}, {"weight": ["0", "0"]}):
            with pytest.raises(OSError, match="4 RX ring"):
                ethnl.set_rxfh("tap0", nic, bad)


def test_each_pair_has_a_vector_and_one_is_for_other_causes():
    with quiet(3) as it:
        assert [line["name"] for line in it.host.interrupts()] == [
            "tap0",
            "tap0-TxRx-0",
            "tap0-TxRx-1",
            "tap0-TxRx-2",
        ]
        assert [line["cpu"] for line in it.host.interrupts()] == [0, 0, 1, 0]


def test_the_number_of_queues_changes_and_every_frame_arrives():
    with quiet(1) as it:
        sock = it.socket("", 9000)
        sent = 0
        for queues in (2, 8, 3, 1, 4, 1):
            for frame in flows(40):
                it.wire.send(frame)
            it.host.cpus[0].run()  # frames stand in rings of both CPUs
            ethnl.set_channels("tap0", it.device.nic, {"combined": str(queues)})
            it.put(*flows(40))
            sent += 80
            assert ethnl.show_channels("tap0", it.device.nic)["combined"] == queues
            assert len(packets(it)) == queues
            assert len(it.host.interrupts()) == queues + 1
            assert len(sock.recv_batch(200)) == 80
        assert it.device.stats()["rx_packets"] >= sent


@pytest.mark.parametrize("count", ["0", "9", "-1"])
def test_an_igb_has_1_to_8_pairs(count):
    with quiet(2) as it:
        with pytest.raises(OSError, match="allowed 1 to 8"):
            ethnl.set_channels("tap0", it.device.nic, {"combined": count})
        with pytest.raises(UsageError, match="1 to 8"):
            it.device.nic.set_channels(int(count))


def test_a_full_queue_drops_and_counts_and_the_other_goes_on():
    with quiet(2, ring=64) as it:
        sock = it.socket("", 9000)
        nic = it.device.nic
        nic.set_rss(indirection=[0] * 64 + [1] * 64)
        got = []
        for frames in zip(*[iter(flows(400))] * 20, strict=True):
            for frame in frames:
                it.wire.send(frame)
            it.clock.advance(0.001)  # past the throttle
            it.host.cpus[0].run()  # CPU 1, whose queue fills up, does nothing meanwhile
            got += sock.recv_batch(256)
        it.host.run()
        stats = nic.stats()
        assert stats["rx_queue_0_drops"] == 0
        assert stats["rx_queue_1_drops"] > 0
        assert it.drops()["NIC_DROP_RNBC"] == stats["rx_queue_1_drops"]
        got += sock.recv_batch(256)
        assert len(got) == 400 - stats["rx_queue_1_drops"]
        assert it.device.stats()["rx_fifo_errors"] == stats["rx_queue_1_drops"]


def test_an_interrupt_goes_where_smp_affinity_says():
    with quiet(1) as it:
        it.socket("", 9000)
        irq = it.host.interrupts()[1]["irq"]

        def counts() -> list[int]:
            return it.host.interrupts()[1]["counts"]

        procfs.write(it.host, f"irq/{irq}/smp_affinity", "2")
        it.advance(1)  # it is polled once by the way
        before = counts()
        assert procfs.read(it.host, f"irq/{irq}/effective_affinity_list") == "1\n"
        it.put(*flows(10))
        assert counts()[0] == before[0]
        assert counts()[1] > before[1]
        procfs.write(it.host, f"/proc/irq/{irq}/smp_affinity_list", "0-1")
        assert procfs.read(it.host, f"irq/{irq}/smp_affinity") == "3\n"
        assert procfs.read(it.host, f"irq/{irq}/effective_affinity") == "2\n", "it stays there"
        it.host.set_smp_affinity(irq, [0])
        it.advance(1)
        middle = counts()
        it.put(*flows(10))
        assert counts()[0] > middle[0]
        assert counts()[1] == middle[1]


@pytest.mark.parametrize("text", ["0", "4", "x", "", "-1"])
def test_a_mask_without_a_cpu_of_the_host_is_refused(text):
    with quiet(2) as it, pytest.raises(OSError, match="irq"):
        procfs.write(it.host, "irq/25/smp_affinity", text)


def test_only_lines_that_are_there_can_be_sent_elsewhere():
    with quiet(2) as it:
        with pytest.raises(UsageError, match="no file"):
            procfs.write(it.host, "irq/99/smp_affinity", "1")
        with pytest.raises(FileNotFoundError):
            it.host.set_smp_affinity(99, [0])
        with pytest.raises(PermissionError):
            procfs.write(it.host, "net/snmp", "1")


def test_frames_in_a_ring_move_with_the_vector():
    with quiet(2) as it:
        sock = it.socket("", 9000)
        for frame in flows(40):
            it.wire.send(frame)
        it.host.cpus[0].run()
        for line in it.host.interrupts()[1:]:
            it.host.set_smp_affinity(line["irq"], [1 - line["cpu"]])
        it.host.run()
        assert len(sock.recv_batch(100)) == 40


def test_a_jumbo_frame_takes_several_buffers_of_its_queue():
    with quiet(4, mtu=9000) as it:
        sock = it.socket("", 9000)
        sent = [udp(bytes([i]) * 8000, sport=1024 + i) for i in range(12)]
        it.put(*sent)
        assert sorted(sock.recv(9000)[:1] for _ in sent) == [bytes([i]) for i in range(12)]


def test_coalesced_frames_are_spread_too():
    with quiet(4, vnet_hdr=True) as it:
        sock = it.socket("", 9000)
        it.put(*[bytes(10) + frame for frame in flows(60)])
        assert len(sock.recv_batch(100)) == 60
        assert min(packets(it)) > 0


def test_answers_leave_through_the_queue_of_their_cpu():
    with quiet(2) as it:
        before = it.device.nic.stats()
        it.put(*[udp(b"", sport=1024 + i, dport=1) for i in range(6)])
        with it.host.socket() as sock:
            for port in range(64):
                sock.sendto(b"x", ("10.0.0.1", 1024 + port))
        it.host.run()
        after = it.device.nic.stats()
        sent = [
            after[f"tx_queue_{i}_packets"] - before[f"tx_queue_{i}_packets"] for i in range(2)
        ]
        assert min(sent) > 0
        assert sum(sent) == after["tx_packets"] - before["tx_packets"]


def test_the_self_test_leaves_the_queues_as_they_were():
    with quiet(4) as it:
        assert not any(it.device.nic.self_test().values())
        sock = it.socket("", 9000)
        it.put(*flows(50))
        assert len(sock.recv_batch(100)) == 50
        assert len(packets(it)) == 4


@pytest.mark.parametrize("seed", range(4))
def test_a_vector_that_is_moved_in_mid_flow_loses_nothing_and_keeps_the_order(seed):
    with quiet(3) as it:
        sock = it.socket("", 9000)
        sent, seen = 0, {}
        with Faults(it.device, seed=seed, affinity_moved=0.5) as faults:
            for _ in range(30):
                numbers = range(sent, sent + 12)
                it.put(*[udp(i.to_bytes(4, "big"), sport=2000 + i % 4) for i in numbers])
                sent += 12
                for data, (_, sport) in sock.recv_batch(64):
                    number = int.from_bytes(data, "big")
                    assert number > seen.get(sport, -1)
                    seen[sport] = number
            assert faults.counts["affinity_moved"] > 3
        assert sorted(seen.values()) == list(range(sent - 4, sent))


# ---- threads


@contextlib.contextmanager
def busy(queues: int = 2, cpus: int = 2):
    ours, wire = MemoryWire.pair(4000)
    with netstack.Host(cpus=cpus) as host:
        device = host.add_nic(ours, "tap0", addr=f"{OUR_IP}/24", mac=OUR_MAC, queues=queues)
        device.nic.set_rss(key=KEY, udp4=True)
        wire.send(arp_reply())
        yield host, device, wire
        host.close()
        balance(host)


class Streams:
    """Numbered datagrams of several flows, and a reader that sees whether one was overtaken."""

    def __init__(self, host: netstack.Host, wire: MemoryWire, count: int = 6) -> None:
        self.wire = wire
        self.sent = [0] * count
        self.seen = [-1] * count
        self.sock = host.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        self.sock.bind(("", 9000))
        self.sock.settimeout(0.02)
        self.heads = [udp(bytes(5), sport=2000 + i, chksum=0)[:-5] for i in range(count)]

    def send(self) -> None:
        for i, head in enumerate(self.heads):
            number = self.sent[i].to_bytes(4, "big") + bytes([i])
            self.wire.send(head + number)
            self.sent[i] += 1

    def read(self) -> None:
        with contextlib.suppress(TimeoutError):
            for data, _ in self.sock.recv_batch(64):
                which, number = data[4], int.from_bytes(data[:4], "big")
                assert number > self.seen[which], (
                    "a datagram was overtaken by a later one of its flow"
                )
                self.seen[which] = number


def test_vectors_wander_under_load_and_no_flow_is_out_of_order():
    with busy() as (host, _, wire):
        streams, crowd = Streams(host, wire), Crowd()
        turn = itertools.cycle([0, 1])

        def move() -> None:
            for line in host.interrupts():
                host.set_smp_affinity(line["irq"], [next(turn)])
            next(turn)

        with streams.sock:
            crowd.add(streams.send)
            crowd.add(streams.read)
            crowd.add(move)
            crowd.run(0.7)
            host.settle()
        assert min(streams.seen) > 0
        assert all(sum(line["counts"]) for line in host.interrupts()[1:])


def test_queues_come_and_go_under_load_and_no_flow_is_out_of_order():
    with busy() as (host, device, wire):
        streams, crowd = Streams(host, wire), Crowd()
        counts = itertools.cycle([1, 4, 2, 8, 3])

        def change() -> None:
            device.nic.set_channels(next(counts))
            device.nic.set_rss(indirection=[0] * 128)
            device.nic.stats()

        with streams.sock:
            crowd.add(streams.send)
            crowd.add(streams.read)
            crowd.add(change)
            crowd.run(0.7)
            host.settle()
        assert min(streams.seen) > 0


def test_a_queue_on_another_cpu_is_never_forgotten():
    """One frame at a time: each has to wake the CPU of the wire and then the one that polls the queue."""
    with busy(1) as (host, _, wire), host.socket() as sock:
        sock.bind(("", 9000))
        sock.settimeout(10)
        host.set_smp_affinity(host.interrupts()[1]["irq"], [1])
        for i in range(200):
            wire.send(udp(bytes([i])))
            assert sock.recv(10) == bytes([i])
        assert host.interrupts()[1]["counts"][1] > 0
        assert ledger(host).difference == 0


def test_senders_and_queues_that_change():
    with busy(4) as (host, device, wire):
        crowd = Crowd()
        counts = itertools.cycle([1, 2, 4])

        def send() -> None:
            with host.socket() as sock:
                for port in range(50):
                    sock.sendto(b"x", ("10.0.0.1", 1024 + port))
            while wire.recv() is not None:
                pass

        crowd.add(send, times=2)
        crowd.add(lambda: device.nic.set_channels(next(counts)))
        crowd.run(0.5)
        host.settle()
        assert device.stats()["tx_dropped"] == 0
