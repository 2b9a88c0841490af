"""A host with several CPUs: each has its work, its counters and its packets, and no frame is lost between them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import UDP

import netstack
from netstack.device._memory import MemoryWire
from netstack.errors import UsageError
from tests.frames import OUR_IP, OUR_MAC, arp_reply, ip, udp
from tests.memory_host import balance
from tests.test_threads import Crowd

OTHER_IP, OTHER_PEER = "10.1.0.2", "10.1.0.1"


def on_the_other_wire(payload: bytes, sport: int = 4000) -> bytes:
    """Give a datagram to port 9000 from the peer on the second wire."""
    header = ip(src=OTHER_PEER, dst=OTHER_IP)
    return bytes(header / UDP(sport=sport, dport=9000) / payload)


@contextlib.contextmanager
def two_wires(**options: object) -> Iterator[tuple[netstack.Host, MemoryWire, MemoryWire]]:
    """Give a host with two CPUs, each with a NIC, and the far ends of their wires."""
    (first, here), (second, there) = MemoryWire.pair(4000), MemoryWire.pair(4000)
    with netstack.Host(cpus=2, **options) as host:
        host.add_nic(first, "eth0", addr=f"{OUR_IP}/24", mac=OUR_MAC, cpu=0)
        host.add_nic(second, "eth1", addr=f"{OTHER_IP}/24", mac=OUR_MAC, cpu=1)
        here.send(arp_reply())
        there.send(arp_reply(OTHER_PEER))
        yield host, here, there
        host.close()
        balance(host)


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def two(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[netstack.Host, MemoryWire, MemoryWire]]:
    with two_wires(threads=False, clock=netstack.ManualClock(), fast_path=request.param) as it:
        yield it


def bound(host: netstack.Host, *, shared: bool = False) -> netstack.socket.socket:
    """Open a socket on port 9000, with a short timeout and a large buffer."""
    sock = host.socket()
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
    sock.bind(("", 9000))
    sock.settimeout(0.02)
    return sock


def test_each_cpu_polls_the_nic_on_its_bus(two):
    host, here, there = two
    with bound(host) as sock:
        for i in range(10):
            here.send(udp(bytes([i])))
            if i < 3:
                there.send(on_the_other_wire(bytes([i])))
        host.run()
        assert len([sock.recv(10) for _ in range(13)]) == 13
    rows = host.softnet()
    assert [row["processed"] for row in rows] == [11, 4]
    by_name = {line["name"]: line["counts"] for line in host.interrupts()}
    assert by_name["eth0-TxRx-0"][0] > 0
    assert by_name["eth0-TxRx-0"][1] == 0
    assert by_name["eth1-TxRx-0"][0] == 0
    assert by_name["eth1-TxRx-0"][1] > 0


def test_every_interrupt_line_of_a_host_has_a_number_of_its_own(two):
    host, _, _ = two
    assert [line["irq"] for line in host.interrupts()] == [24, 25, 26, 27]


def test_texts_have_a_column_a_cpu(two):
    from netstack import procfs

    host, here, _ = two
    here.send(udp())
    host.run()
    assert procfs.read(host, "interrupts").splitlines()[0].split() == ["CPU0", "CPU1"]
    assert procfs.read(host, "softirqs").splitlines()[0].split() == ["CPU0", "CPU1"]
    assert len(procfs.read(host, "net/softnet_stat").splitlines()) == 2
    assert all(
        len(line.split()) == 3 for line in procfs.read(host, "softirqs").splitlines()[1:]
    )


@pytest.mark.parametrize("cpus", [0, -1, 17])
def test_a_host_has_1_to_16_cpus(cpus):
    with pytest.raises(UsageError, match="1 to 16"):
        netstack.Host(cpus=cpus, threads=False)


def test_a_nic_goes_on_a_cpu_that_is_there(two):
    host, _, _ = two
    with pytest.raises(UsageError, match="has 2 CPUs"):
        host.add_nic(MemoryWire.pair()[0], "eth2", cpu=2)
    assert len(host.devices) == 3


def test_two_cpus_deliver_to_one_socket_each_flow_in_order():
    """Both CPUs append to one queue while a reader takes from it: nothing is lost or out of turn."""
    with two_wires() as (host, here, there), bound(host) as sock:
        crowd = Crowd()
        sent = [0, 0]
        seen = [-1, -1]

        def send(which: int, wire: MemoryWire) -> None:
            number = sent[which].to_bytes(4, "big") + bytes([which])
            if wire.send(on_the_other_wire(number) if which else udp(number)):
                sent[which] += 1

        def read() -> None:
            for data, _ in sock.recv_batch(64):
                which, number = data[4], int.from_bytes(data[:4], "big")
                assert number > seen[which], (
                    "a datagram was overtaken by a later one of its flow"
                )
                seen[which] = number

        def patient_read() -> None:
            with contextlib.suppress(TimeoutError):
                read()

        crowd.add(lambda: send(0, here))
        crowd.add(lambda: send(1, there))
        crowd.add(patient_read)
        crowd.run(0.5)
        host.settle()
        assert min(seen) > 0
        assert all(row["processed"] > 1 for row in host.softnet())


def test_two_cpus_deliver_to_a_reuseport_group_while_it_changes():
    with two_wires() as (host, here, there):
        crowd = Crowd()
        ports = iter(range(1 << 30))

        def send() -> None:
            sport = 1024 + next(ports) % 60000
            here.send(udp(b"a", sport=sport))
            there.send(on_the_other_wire(b"b", sport))

        def come_and_go() -> None:
            with bound(host, shared=True) as sock, contextlib.suppress(TimeoutError):
                sock.recv_batch(64)

        crowd.add(send)
        crowd.add(come_and_go, times=3)
        crowd.run(0.5)
        host.settle()


def test_a_reader_is_woken_by_the_other_cpu_while_it_sleeps_as_the_first():
    """The idle CPU's sleeper is on CPU 0's wires; what CPU 1 queues must end that sleep."""
    with two_wires() as (host, here, there), bound(host) as sock:
        sock.settimeout(10)
        for i in range(30):
            here.send(udp(bytes([i])))
            assert sock.recv(10) == bytes([i])
            there.send(on_the_other_wire(bytes([i])))
            assert sock.recv(10) == bytes([i])


def test_the_host_closes_while_both_cpus_are_busy():
    with two_wires() as (host, here, there):
        crowd = Crowd()
        crowd.add(lambda: (here.send(udp(b"a")), there.send(on_the_other_wire(b"b"))))
        crowd.start()
        with bound(host):
            crowd.stop.wait(0.05)
            host.close()
        crowd.finish()


def test_what_a_cpu_answers_on_lo_goes_through_its_own_backlog(two):
    """netif_rx() takes the CPU that it runs on; a program's packets take the first."""
    host, _, _ = two
    with bound(host) as sock:
        sock.sendto(b"x", ("127.0.0.1", 9000))
        host.run()
        assert sock.recv(10) == b"x"
    assert host.softnet()[0]["processed"] == 2
    assert host.softnet()[0]["received_rps"] == 0
