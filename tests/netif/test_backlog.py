"""The backlog of a CPU: how much it holds, what happens to the rest, and how much a poll takes."""

from __future__ import annotations

import socket
import sys
import threading

import pytest

from netstack import sysfs
from netstack._counters import skb_drop_reason
from tests.frames import udp
from tests.memory_host import MemoryHost, memory_host
from tests.vnet import coalesced

CPUS = "class/net/tap0/queues/rx-0/rps_cpus"
LO_CPUS = "class/net/lo/queues/rx-0/rps_cpus"


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def it(request):
    with memory_host(cpus=2, fast_path=request.param) as it:
        yield it


def dropped(it: MemoryHost) -> list[int]:
    return [row["dropped"] for row in it.host.softnet()]


def test_one_more_than_netdev_max_backlog_fits_and_the_rest_is_dropped(it):
    it.host.config["net.core.netdev_max_backlog"] = 10
    sysfs.write(it.host, CPUS, "2")
    sock = it.socket("", 9000)
    for i in range(40):
        it.wire.send(udp(bytes([i])))
    it.host.cpus[0].run()
    assert it.host.queued() == {"netif/backlog": 11}
    it.host.run()
    assert it.drops() == {"CPU_BACKLOG": 29}
    assert dropped(it) == [0, 29]
    assert it.device.stats()["rx_dropped"] == 29
    assert [sock.recv(10)[0] for _ in range(11)] == list(range(11))


def test_a_program_that_sends_to_itself_meets_the_same_limit(it):
    it.host.config["net.core.netdev_max_backlog"] = 5
    sock = it.socket("127.0.0.1", 9000)
    for i in range(10):
        sock.sendto(bytes([i]), ("127.0.0.1", 9000))
    it.host.run()
    counts = it.host.lo.stats()
    assert (counts["rx_packets"], counts["tx_packets"], counts["rx_dropped"]) == (6, 6, 4)
    assert dropped(it) == [4, 0]
    assert [sock.recv(10)[0] for _ in range(6)] == list(range(6))


def test_rps_of_lo_sends_to_another_cpu(it):
    sysfs.write(it.host, LO_CPUS, "2")
    sock = it.socket("127.0.0.1", 9000)
    for i in range(10):
        sock.sendto(bytes([i]), ("127.0.0.1", 9000))
    it.host.run()
    assert [row["processed"] for row in it.host.softnet()] == [0, 10]
    assert it.host.softnet()[1]["received_rps"] == 1
    assert [sock.recv(10)[0] for _ in range(10)] == list(range(10))


@pytest.mark.parametrize(("weight", "bias", "squeezes"), [(8, 1, 5), (4, 2, 5), (64, 1, 1)])
def test_a_poll_takes_dev_weight_packets(it, weight, bias, squeezes):
    config = it.host.config
    config["net.core.dev_weight"] = weight
    config["net.core.dev_weight_rx_bias"] = bias
    sock = it.socket("127.0.0.1", 9000)
    sock.sendto(b"the weight holds from the poll after the next on", ("127.0.0.1", 9000))
    it.host.run()
    config["net.core.netdev_budget"] = 8
    before = it.host.softnet()[0]["time_squeeze"]
    for _ in range(40):
        sock.sendto(b"x", ("127.0.0.1", 9000))
    it.host.run()
    assert it.host.softnet()[0]["time_squeeze"] - before == squeezes


def test_what_the_host_closes_on_is_accounted_for(it):
    sysfs.write(it.host, CPUS, "2")
    it.wire.send(udp(b"x"))
    it.host.cpus[0].run()
    assert it.host.softnet()[1]["input_qlen"] == 1
    it.host.close()


def test_merged_frames_in_the_backlog_are_counted_one_by_one():
    with memory_host(cpus=2) as it:
        sysfs.write(it.host, CPUS, "2")
        it.device.nic.features |= 32  # rx-udp-gro-forwarding
        for _ in range(4):
            it.wire.send(udp(bytes(100)))
        it.host.cpus[0].run()
        assert it.host.softnet()[1]["input_qlen"] == 1
        assert it.host.queued() == {"netif/backlog": 4}


def test_what_python_takes_at_once_is_counted_in_frames():
    with memory_host(fast_path=False, vnet_hdr=True) as it:
        for _ in range(3):
            it.wire.send(coalesced(bytes(50 * 18), 18))
        it.host.cpus[0].run()
        taken = [(it.host.seam.drain(64), it.host.seam.drained) for _ in range(3)]
        assert [(len(batch), frames) for batch, frames in taken] == [(2, 100), (1, 50), (0, 0)]
        for skb in taken[0][0] + taken[1][0]:
            skb.drop(skb_drop_reason.SKB_DROP_REASON_NO_SOCKET)
            it.host.seam.ended()


def test_what_python_handled_is_counted_in_frames_as_what_sockets_lost_is():
    with memory_host(fast_path=False, vnet_hdr=True) as it:
        it.socket("", 9000).setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        it.wire.send(coalesced(bytes(50 * 18), 18))
        it.host.cpus[0].run()
        before = it.host.kworker._lost()
        assert it.host.kworker.step() == 50
        assert it.host.kworker._lost() - before > 40


def test_who_waits_for_the_gil_gets_it_between_two_batches():
    gate, turns = threading.Semaphore(0), []

    def take_turns():
        for turn in range(2):
            gate.acquire()
            turns.append(turn)

    with memory_host() as it:
        thread = threading.Thread(target=take_turns)
        interval = sys.getswitchinterval()
        try:
            sys.setswitchinterval(60)  # from here on nobody gets it who is not let in
            thread.start()
            for turn in range(2):
                gate.release()
                for _ in range(10_000):
                    it.host.seam.let_readers_in()
                    if len(turns) > turn:
                        break
                assert len(turns) > turn
        finally:
            gate.release(2)
            sys.setswitchinterval(interval)
            thread.join()
