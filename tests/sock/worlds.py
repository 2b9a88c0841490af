"""The same calls, and the same frames, to sockets of the kernel and to ours.

Each world is a host at 10.0.0.2/24 whose neighbour 10.0.0.1 is known: `socket()` makes a socket of
it, `give()` lets frames arrive and tells what was sent. A case is a function of a world whose
result can be compared; an exception is a result too.
"""

from __future__ import annotations

import socket as kernel
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import netstack.socket as ours
from netstack.ethnl import set_features
from netstack.lab import another_network
from netstack.stats import nstat
from tests.memory_host import memory_host
from tests.netns import link_up
from tests.sock.rig import rig
from tools._oracle.kernel import NAME, Kernel


class World:
    """What a case may ask for."""

    dev: str

    def __init__(self, host: Any, make: Callable[..., Any]) -> None:
        self.host = host
        self.make = make
        self.made: list[Any] = []

    def socket(
        self, kind: int = kernel.SOCK_DGRAM, proto: int = 0, family: int = kernel.AF_INET
    ) -> Any:
        """Make a socket that does not wait; closed with the world."""
        sock = self.make(family, kind, proto)
        sock.setblocking(False)
        self.made.append(sock)
        return sock

    def udp(self, *address: Any) -> Any:
        """Make a UDP socket, bound to `address`."""
        sock = self.socket()
        sock.bind(address)
        return sock

    def give(self, *frames: Any) -> list[Any]:
        """Let frames arrive; give what was sent meanwhile."""
        return [bytes(frame) for frame in self.host.give(*frames)]

    def settle(self) -> None:
        """Let what was sent to ourselves arrive."""

    def sent(self) -> list[bytes]:
        """Take what was sent."""
        self.settle()
        return [bytes(frame) for frame in self.host.sent()]

    def counters(self) -> dict[str, int]:
        return self.host.counters()

    def looped(self) -> dict[str, int]:
        """Give what `lo` has counted."""
        raise NotImplementedError

    def looped_whole(self, whole: bool) -> None:
        """Let `lo` take datagrams of UDP_SEGMENT whole, or not."""
        raise NotImplementedError


class Theirs(World):
    dev = NAME

    def sent(self) -> list[bytes]:
        return self.host.take()

    def sysctl(self, key: str, *values: int) -> None:
        self.host.sysctl(key, " ".join(map(str, values)))

    def looped(self) -> dict[str, int]:
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        (row,) = (line.split()[1:] for line in lines if line.split()[0] == "lo:")
        numbers = map(int, (row[0], row[1], row[8], row[9]))
        return dict(
            zip(("rx_bytes", "rx_packets", "tx_bytes", "tx_packets"), numbers, strict=True)
        )

    def looped_whole(self, whole: bool) -> None:
        command = ["ethtool", "-K", "lo", "tx-udp-segmentation", "on" if whole else "off"]
        subprocess.run(command, check=True, capture_output=True)


class Ours(World):
    dev = "eth0"

    def settle(self) -> None:
        self.host.settle()

    def sysctl(self, key: str, *values: int) -> None:
        self.host.config[key] = values if len(values) > 1 else values[0]


@contextmanager
def our_world(fast: bool) -> Iterator[Ours]:
    with rig(fast) as host:
        world = Ours(host, lambda *args: ours.socket(host, *args))
        try:
            yield world
        finally:
            for sock in world.made:
                sock.close()


class OurHost(Ours):
    """A whole host, NIC and device core too."""

    dev = NAME

    def give(self, *frames: Any) -> list[Any]:
        return [reply for frame in frames for reply in self.host.put(bytes(frame))]

    def settle(self) -> None:
        self.host.host.run()

    def counters(self) -> dict[str, int]:
        return {name: value for name, value in nstat(self.host.host.net).items() if value}

    def looped(self) -> dict[str, int]:
        stats = self.host.host.lo.nic.link_stats()
        return {name: n for name, n in stats.items() if not name.endswith("dropped")}

    def looped_whole(self, whole: bool) -> None:
        values = {"tx-udp-segmentation": "on" if whole else "off"}
        set_features("lo", self.host.host.lo.nic, values)


@contextmanager
def our_host(fast: bool) -> Iterator[OurHost]:
    with memory_host(fast_path=fast) as host:
        host.meet()
        world = OurHost(host, lambda *args: ours.socket(host.host, *args))
        try:
            yield world
        finally:
            for sock in world.made:
                sock.close()


@contextmanager
def kernel_world() -> Iterator[Theirs]:
    # Not a fresh_netns(): what is put in here may be as wrong as the case wants it.
    with another_network():
        host = Kernel()
        link_up("lo")
        world = Theirs(host, kernel.socket)
        try:
            yield world
        finally:
            for sock in world.made:
                sock.close()
            host.close()


def attempt(call: Callable[..., Any], *args: Any) -> Any:
    """Give what a call gives, or what it raises."""
    try:
        return call(*args)
    except OSError as error:
        return type(error).__name__, error.errno


def drain(sock: Any, flags: int = 0, size: int = 65536, ancillary: int = 1024) -> list[Any]:
    """Receive until there is nothing: data, control messages, flags, address."""
    out = []
    while len(out) < 1000:
        got = attempt(sock.recvmsg, size, ancillary, flags)
        if got == ("BlockingIOError", 11):
            return out
        out.append(got)
    return out


class Cases(dict[str, Callable[[World], Any]]):
    """Cases by name."""

    def __call__(self, function: Callable[[World], Any]) -> Callable[[World], Any]:
        self[function.__name__] = function
        return function


def same(case: Callable[[World], Any], world_of: Any = our_world) -> None:
    """Run a case in the kernel, and twice here; all three must agree."""
    with kernel_world() as world:
        theirs = case(world)
    for fast in (True, False):
        with world_of(fast) as world:
            mine = case(world)
        assert mine == theirs, f"fast={fast}"
