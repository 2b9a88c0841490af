"""Hardware that fails: the host recovers or counts, and every frame is accounted for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from netstack.errors import UsageError
from netstack.testing._faults import NAMES
from netstack.testing.faults import Faults
from tests.frames import udp
from tests.memory_host import MemoryHost, balance, memory_host

WATCHDOG = 2.0
PORT = 9000


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request: pytest.FixtureRequest) -> Iterator[MemoryHost]:
    with memory_host(fast_path=request.param) as it:
        yield it


def got(sock: object) -> int:
    """Read a socket until it is empty; how many datagrams that were."""
    for count in itertools.count():
        try:
            sock.recvfrom(2000)  # type: ignore[attr-defined]
        except BlockingIOError:
            return count
    raise AssertionError


def send(it: MemoryHost, frames: int, burst: int = 20) -> None:
    """Let frames arrive in bursts."""
    for _ in range(frames // burst):
        it.put(*[udp(b"x", dport=PORT)] * burst)


def interrupts(it: MemoryHost) -> int:
    """Count those of the queues' vector."""
    return sum(sum(row["counts"]) for row in it.host.interrupts() if "TxRx" in row["name"])


def test_a_lost_interrupt_is_made_good_by_the_watchdog(it: MemoryHost) -> None:
    sock = it.socket("", PORT)
    with Faults(it.device, lost_interrupt=1) as faults:
        it.put(udp(b"x", dport=PORT))
        assert got(sock) == 0
        assert it.host.queued() == {"device/tap0": 1}
        assert faults.counts["lost_interrupt"] == 1
    it.advance(WATCHDOG)
    assert got(sock) == 1


def test_the_next_frame_brings_the_lost_one_along(it: MemoryHost) -> None:
    sock = it.socket("", PORT)
    with Faults(it.device, lost_interrupt=1):
        it.put(udp(b"x", dport=PORT))
    it.put(udp(b"x", dport=PORT))
    assert got(sock) == 2


def test_the_watchdog_rings_every_two_seconds_and_polls_find_nothing(it: MemoryHost) -> None:
    before = interrupts(it)
    it.advance(WATCHDOG / 2)
    assert interrupts(it) == before
    it.advance(WATCHDOG / 2)
    assert interrupts(it) == before + 1
    it.advance(WATCHDOG)
    assert interrupts(it) == before + 2


def test_a_late_interrupt_delivers_late(it: MemoryHost) -> None:
    sock = it.socket("", PORT)
    with Faults(it.device, late_interrupt=1, late=0.25) as faults:
        start = it.host.now()
        it.put(udp(b"x", dport=PORT))
        assert it.host.now() - start >= 250_000_000
        assert got(sock) == 1
        assert faults.counts["late_interrupt"]


def test_a_stuck_throttle_holds_frames_back_and_lets_go(it: MemoryHost) -> None:
    sock = it.socket("", PORT)
    with Faults(it.device, stuck_throttle=1, stuck=0.5) as faults:
        it.put(udp(b"x", dport=PORT))  # its interrupt goes out before the throttle is stuck
        start = it.host.now()
        it.put(udp(b"x", dport=PORT))
        assert it.host.now() - start >= 400_000_000
        assert got(sock) == 2
        assert faults.counts["stuck_throttle"] == 2


def test_a_damaged_descriptor_is_a_drop_with_a_name_or_a_checksum_to_verify(
    it: MemoryHost,
) -> None:
    sock = it.socket("", PORT)
    sock.setsockopt(1, 8, 1 << 22)  # SO_RCVBUF
    with Faults(it.device, bad_descriptor=1) as faults:
        send(it, 400)
    damaged = faults.counts["bad_descriptor"]
    dropped = it.drops()
    assert damaged == 400
    assert set(dropped) == {"NIC_DROP_RXERR"}
    assert dropped["NIC_DROP_RXERR"] + got(sock) == 400
    # Five of the seven errors are the frame's own; two say only that a sum is wrong, and it is not.
    assert 240 < dropped["NIC_DROP_RXERR"] < 330


def test_a_late_write_back_delays_and_nothing_overtakes(it: MemoryHost) -> None:
    sock = it.socket("", PORT)
    with Faults(it.device, late_writeback=0.3) as faults:
        for burst in range(20):
            it.put(*[udp(bytes([burst, n]), dport=PORT) for n in range(10)])
        data = [sock.recvfrom(10)[0] for _ in range(200)]
        assert data == [bytes([burst, n]) for burst in range(20) for n in range(10)]
        assert faults.counts["late_writeback"] > 10


def test_a_failed_allocation_is_counted_and_passes(it: MemoryHost) -> None:
    sock = it.socket("", PORT)
    sock.setsockopt(1, 8, 1 << 22)
    with Faults(it.device, failed_allocation=1, starved=0.05) as faults:
        send(it, 1000, burst=200)
        assert faults.counts["failed_allocation"]
    stats = it.device.nic.stats()
    assert stats["rx_queue_0_alloc_failed"] > 0
    send(it, 200)
    assert got(sock) == 1200


ON_ONE_CPU = [name for name in NAMES if name != "affinity_moved"]


@pytest.mark.parametrize("seed", range(8))
def test_all_at_once_and_every_frame_is_accounted_for(it: MemoryHost, seed: int) -> None:
    sock = it.socket("", PORT)
    with Faults(it.device, seed=seed, **dict.fromkeys(ON_ONE_CPU, 0.1)) as faults:
        for _ in range(20):
            send(it, 100, burst=10)
            got(sock)
            it.advance(0.3)
        assert all(faults.counts[name] for name in ON_ONE_CPU), faults.counts
    it.advance(WATCHDOG)
    got(sock)
    balance(it.host)
    assert not it.host.queued()
    assert set(it.drops()) <= {"NIC_DROP_RXERR"}


def test_the_same_seed_makes_the_same_faults() -> None:
    seen = []
    for seed in (5, 5, 6):
        with memory_host() as it, Faults(it.device, seed=seed, bad_descriptor=0.3) as faults:
            send(it, 500)
            seen.append((faults.counts, it.drops()))
    assert seen[0] == seen[1] != seen[2]


def test_removed_faults_leave_the_nic_as_it_was(it: MemoryHost) -> None:
    sock = it.socket("", PORT)
    faults = Faults(it.device, **dict.fromkeys(NAMES, 1.0))
    faults.remove()
    faults.remove()
    send(it, 100)
    assert got(sock) == 100
    assert not any(faults.counts.values())


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"lost": 0.1}, "lost_interrupt"),
        ({"lost_interrupt": 1.5}, "lost_interrupt=0.1"),
        ({"bad_descriptor": -0.1}, "bad_descriptor=0.1"),
        ({"late_interrupt": 0.1, "late": 0}, "0.001"),
    ],
)
def test_an_impossible_fault_is_refused(
    it: MemoryHost, wrong: dict[str, float], hint: str
) -> None:
    with pytest.raises(UsageError, match=r"fault|chance|at most") as error:
        Faults(it.device, **wrong)
    assert hint in (error.value.hint or "")
