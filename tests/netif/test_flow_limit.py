"""The flow limit: who floods a backlog loses his own packets."""

from __future__ import annotations

import pytest

from netstack import sysfs
from tests.frames import udp
from tests.memory_host import memory_host

CPUS = "class/net/tap0/queues/rx-0/rps_cpus"


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def it(request):
    with memory_host(cpus=2, fast_path=request.param, queue=2000) as it:
        it.host.config["net.core.netdev_max_backlog"] = 400
        sysfs.write(it.host, CPUS, "2")
        yield it


def flood(it, frames: int, sport: int) -> None:
    """Let CPU 0 queue frames of one flow for CPU 1, which does not run."""
    for _ in range(frames):
        it.wire.send(udp(b"x", sport=sport))
    it.clock.advance(0.001)  # the NIC's interrupt throttle
    it.host.cpus[0].run()


def test_a_flow_may_have_half_of_the_history_above_half_of_the_queue(it):
    it.host.config["net.core.flow_limit_cpu_bitmap"] = "1"
    flood(it, 300, sport=1)
    assert it.host.softnet()[1]["input_qlen"] == 200 + 64
    flood(it, 10, sport=2)
    assert it.host.softnet()[1]["input_qlen"] == 200 + 64 + 10
    assert [row["flow_limit_count"] for row in it.host.softnet()] == [36, 0]
    assert [row["dropped"] for row in it.host.softnet()] == [0, 36]
    it.host.run()
    assert it.drops()["CPU_BACKLOG"] == 36


def test_without_it_the_first_come_fill_the_queue(it):
    flood(it, 500, sport=1)
    flood(it, 10, sport=2)
    assert it.host.softnet()[1]["input_qlen"] == 401
    assert [row["flow_limit_count"] for row in it.host.softnet()] == [0, 0]
    it.host.run()
    assert it.drops()["CPU_BACKLOG"] == 109


def test_it_is_the_limit_of_the_cpu_that_queues(it):
    it.host.config["net.core.flow_limit_cpu_bitmap"] = "2"
    flood(it, 300, sport=1)
    assert it.host.softnet()[1]["input_qlen"] == 300


def test_taken_away_it_forgets_what_it_counted(it):
    config = it.host.config
    config["net.core.flow_limit_cpu_bitmap"] = 1
    flood(it, 300, sport=1)
    assert it.host.softnet()[0]["flow_limit_count"] == 36
    config["net.core.flow_limit_cpu_bitmap"] = 0
    assert it.host.softnet()[0]["flow_limit_count"] == 0
    flood(it, 100, sport=1)
    assert it.host.softnet()[1]["input_qlen"] == 200 + 64 + 100


def test_a_program_that_sends_to_itself_has_the_limit_of_the_backlog(it):
    it.host.config["net.core.flow_limit_cpu_bitmap"] = 1
    sock = it.socket("127.0.0.1", 9000)
    for _ in range(300):
        sock.sendto(b"x", ("127.0.0.1", 9000))
    assert it.host.softnet()[0]["input_qlen"] == 264
    assert it.host.softnet()[0]["flow_limit_count"] == 36
