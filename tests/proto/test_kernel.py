"""The same frames to the kernel: the same replies, and the same changes of every counter.

Linux 6.18 is the reference. Other releases count a little differently, so there only the replies
are compared.
"""

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from tests.netns import fresh_netns
from tests.proto.kernel import NAME, Kernel
from tests.proto.mutate import mutants
from tests.proto.odd_frames import CASES
from tests.proto.stack import Stack

pytestmark = pytest.mark.tap

REFERENCE = os.uname().release.startswith("6.18.")
# Counters that have nothing to do with the frames.
CONSTANT = ("IpForwarding", "IpDefaultTTL", "TcpRto", "TcpMaxConn")
ETHERTYPE, ARP = slice(12, 14), b"\x08\x06"
IP_ID, IP_CSUM, ICMP_CSUM, TS_TIMES = slice(18, 20), slice(24, 26), slice(36, 38), slice(46, 54)
IPOPT_TS = 0x44


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with fresh_netns():
        kernel = Kernel()
        yield kernel
        kernel.close()


def comparable(frame: Any) -> bytes:
    """Give a reply without what no two hosts share: IP ids and the time of day."""
    data = bytearray(bytes(frame))
    if data[ETHERTYPE] == b"\x08\x00":
        data[IP_ID] = data[IP_CSUM] = b"\0\0"
        if data[23] == 1 and data[34] == 14:
            data[ICMP_CSUM] = b"\0\0"
            data[TS_TIMES] = bytes(8)
        if data[14] & 15 > 5 and IPOPT_TS in data[34:74]:
            data[34:] = bytes(len(data) - 34)
    return bytes(data)


def changes(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """Give what was counted in between."""
    return {
        key: value - before.get(key, 0)
        for key, value in after.items()
        if value != before.get(key, 0) and not key.startswith(CONSTANT)
    }


def compare(host: Kernel | Stack, *frames: Any) -> tuple[list[bytes], dict[str, int]]:
    """Give frames to a host: its replies, and its counters' changes where these are comparable."""
    before = host.counters()
    replies = [comparable(frame) for frame in host.give(*frames)]
    return replies, changes(host.counters(), before) if REFERENCE else {}


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_does_the_same(kernel: Kernel, name: str) -> None:
    stack = Stack(fast=True)
    assert compare(stack, *CASES[name]) == compare(kernel, *CASES[name])
    stack.check_ledger()
    stack.inet.close()


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "python"])
def test_the_kernel_does_the_same_with_frames_changed_at_random(
    kernel: Kernel, fast: bool
) -> None:
    stack = Stack(fast)
    # Our clock stands still; let nothing run out over there either. No limit is random then.
    kernel.sysctl(f"net.ipv4.neigh.{NAME}.retrans_time_ms", 600_000)
    kernel.sysctl(f"net.ipv4.neigh.{NAME}.delay_first_probe_time", 600)
    kernel.sysctl("net.ipv4.ipfrag_time", 600)
    kernel.sysctl("net.ipv4.icmp_ratemask", 0)
    stack.config["net.ipv4.icmp_ratemask"] = 0
    for frame in islice(mutants(seed=fast), 2000):
        theirs = compare(kernel, frame)
        assert compare(stack, frame) == theirs, f"frame {frame.hex()}"
    stack.check_ledger()
    stack.inet.close()
    stack.check_ledger()
    assert stack.bench.pool_in_use() == 0
