"""The kernel behind a TAP counts no error because of what a host sent.

At the end of every `fresh_netns()` its counters are read. A test fails if one of those below
has grown, unless it is marked `peer_errors("Name", ...)` with the counters that it expects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROC_NET = Path("/proc/thread-self/net")
# What a faulty frame of the other side makes grow.
ERRORS = (
    "IpInHdrErrors", "IpInAddrErrors", "IpInUnknownProtos", "IpExtInCsumErrors",
    "IpExtInTruncatedPkts", "IpExtInNoRoutes", "IpReasmFails", "IcmpInErrors",
    "IcmpInCsumErrors", "UdpInErrors", "UdpInCsumErrors",
)  # fmt: skip


class Peers:
    """What the kernels of a test's namespaces have counted."""

    def __init__(self) -> None:
        self.errors: dict[str, int] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Read the counters of this thread's namespace at the end of the block."""
        try:
            yield
        finally:
            for name, count in errors(counters()).items():
                self.errors[name] = self.errors.get(name, 0) + count


def counters(directory: Path = PROC_NET) -> dict[str, int]:
    """Give all counters under the names that nstat prints."""
    found: dict[str, int] = {}
    for file in ("snmp", "netstat"):
        lines = (directory / file).read_text().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            group, *names_of = names.split()
            numbers = map(int, values.split()[1:])
            found |= zip((group.rstrip(":") + n for n in names_of), numbers, strict=True)
    return found


def errors(counted: dict[str, int]) -> dict[str, int]:
    """Give those that tell of faulty frames."""
    found = {name: counted.get(name, 0) for name in ERRORS}
    # A full socket is the kernel's own affair, and UdpInErrors holds it too.
    found["UdpInErrors"] -= counted.get("UdpRcvbufErrors", 0) + counted.get("UdpMemErrors", 0)
    return {name: count for name, count in found.items() if count}


PEERS = Peers()


@pytest.fixture(autouse=True)
def _the_peer_counts_no_error(request: pytest.FixtureRequest) -> Iterator[None]:
    PEERS.errors = {}
    yield
    expected = {name for mark in request.node.iter_markers("peer_errors") for name in mark.args}
    unexpected = {name: n for name, n in PEERS.errors.items() if name not in expected}
    assert not unexpected, f"the kernel behind the TAP counted {unexpected}"
