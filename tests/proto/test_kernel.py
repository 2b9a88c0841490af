"""The same frames to the kernel: the same replies, and the same changes of every counter.

Linux 6.18 is the reference. Other releases count a little differently, so there only the replies
are compared.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns import fresh_netns
from tests.proto.kernel import Kernel
from tests.proto.odd_frames import CASES
from tests.proto.stack import Stack

pytestmark = pytest.mark.tap

REFERENCE = os.uname().release.startswith("6.18.")

# Counters that have nothing to do with the frames.
CONSTANT = ("IpForwarding", "IpDefaultTTL", "TcpRto", "TcpMaxConn")
IP_ID, IP_CSUM, ICMP_CSUM, TS_TIMES = slice(18, 20), slice(24, 26), slice(36, 38), slice(46, 54)


def comparable(frame: Any) -> bytes:
    """Give a reply without what no two hosts share: IP ids and the time of day."""
    data = bytearray(bytes(frame))
    if data[12:14] == b"\x08\x00":
        data[IP_ID] = data[IP_CSUM] = b"\0\0"
        if data[23] == 1 and data[34] == 14:
            data[ICMP_CSUM] = b"\0\0"
            data[TS_TIMES] = bytes(8)
    return bytes(data)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with fresh_netns():
        kernel = Kernel()
        yield kernel
        kernel.close()


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_does_the_same(kernel: Kernel, name: str) -> None:
    before = kernel.counters()
    theirs = [comparable(frame) for frame in kernel.give(*CASES[name])]
    after = kernel.counters()
    changes = {
        key: value - before.get(key, 0)
        for key, value in after.items()
        if value != before.get(key, 0) and not key.startswith(CONSTANT)
    }
    stack = Stack(fast=True)
    ours = [comparable(frame) for frame in stack.give(*CASES[name])]
    assert ours == theirs
    if REFERENCE:
        assert stack.counters() == changes
    stack.check_ledger()
    stack.inet.close()
