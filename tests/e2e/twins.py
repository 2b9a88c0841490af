"""The same client before three hosts: the kernel of another namespace, and netstack, fast path on and off.

All have the same addresses, MAC addresses and servers. `same(client)` runs the client before each
of them at the same time, and compares what it printed, its exit status and what its kernel
received, without what is never the same twice: times, and numbers that clients draw.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any

import pytest

import netstack
from netstack.lab import another_network
from tests.e2e.conftest import HOST, PEER
from tests.e2e.load import wait_until
from tests.netns import SIOCGIFFLAGS, fresh_netns, inside, link_up, second_netns
from tests.peer_errors import PEERS, PROC_NET, counters

IFF_RUNNING = 0x40
TRIES = 3
DEV = "tap0"
HOST_MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
Answer = Callable[["World", Any, bytes, tuple[str, int]], object]


def echo(world: World, sock: Any, data: bytes, sender: tuple[str, int]) -> None:
    """Send it back."""
    sock.sendto(data, sender)


def discard(world: World, sock: Any, data: bytes, sender: tuple[str, int]) -> None:
    """Take it."""


class World:
    """A host at 10.0.0.2, as its programs see it; clients run beside it, at 10.0.0.1."""

    def __init__(
        self,
        make: Callable[[int, int], Any],
        stop: ExitStack,
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        self.make = make
        self._stop = stop
        self.settle = settle
        self.got: list[bytes] = []  # what a server of the test notes

    def socket(self, port: int = 0, kind: int = socket.SOCK_DGRAM) -> Any:
        """Give a UDP socket of the host; closed with the world."""
        sock = self._stop.enter_context(self.make(socket.AF_INET, kind))
        sock.settimeout(10)
        sock.bind((HOST, port))
        return sock

    def serve(self, port: int, answer: Answer) -> None:
        """Answer every datagram to a port, until the world ends."""
        sock, ended = self.socket(port), threading.Event()
        sock.settimeout(0.05)

        def loop() -> None:
            while not ended.is_set():
                try:
                    data, sender = sock.recvfrom(65535)
                except TimeoutError:
                    continue
                answer(self, sock, data, sender)

        thread = threading.Thread(target=loop)
        thread.start()
        self._stop.callback(thread.join)
        self._stop.callback(ended.set)


@contextmanager
def kernel_world() -> Iterator[World]:
    """Give the kernel of another namespace, behind a veth."""
    # Not a fresh_netns(): what the kernel sends is neither recorded nor judged.
    with another_network(), second_netns() as other, ExitStack() as stop:
        ip("link", "add", DEV, "address", PEER_MAC, "type", "veth",
           "peer", "name", DEV, "address", HOST_MAC, "netns", f"/proc/self/fd/{other}",
           fd=other)  # fmt: skip
        set_up(PEER)
        with inside(other):
            set_up(HOST)
            link_up("lo")
            wait_until(running)
        wait_until(running)

        def make(family: int, kind: int) -> socket.socket:
            with inside(other):
                return socket.socket(family, kind)

        yield World(make, stop)


@contextmanager
def our_world(fast_path: bool) -> Iterator[World]:
    """Give a netstack host behind a TAP."""
    with (
        fresh_netns(),
        netstack.up(
            DEV, addr=f"{HOST}/24", mac=HOST_MAC, fast_path=fast_path, control=False
        ) as host,
    ):
        with ExitStack() as stop:
            yield World(host.socket, stop, host.settle)
        host.settle()
        account = netstack.ledger(host)
        assert account.balanced, account
        assert not account.dropped.get("NOT_SPECIFIED"), account


def set_up(address: str) -> None:
    """Give this namespace's end of the veth an address; as on a TAP, no checksum is left open."""
    subprocess.run(["ethtool", "-K", DEV, "tx", "off"], check=True, capture_output=True)
    ip("addr", "add", f"{address}/24", "dev", DEV)
    link_up(DEV)


def running() -> bool:
    """Tell whether frames go: the kernel sees a veth's carrier a moment later."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH22x", DEV.encode(), 0)
        return bool(
            struct.unpack("16xH22x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[0] & IFF_RUNNING
        )


def ip(*words: str, fd: int = 0) -> None:
    subprocess.run(["ip", *words], check=True, pass_fds=[fd], capture_output=True)


# ---- what a client says

# Times, rates and what a client draws at random. Longer ones first.
NEVER_THE_SAME = (
    (r"(?m)^(rtt|round-trip|pipe).*\n", ""),
    (r"(?m)^(Start|HOST|Starting Nmap|Nmap done).*\n", ""),
    (r"\(\d[\d.]*s latency\)", ""),
    (r"time \d+ms", ""),
    (r"\bid=\d+|\bport=\d+(?= seq)", ""),
    (r"(time[=<]|rtt=)\s*\d+(\.\d+)?( ?[um]?sec| ms)?", ""),
    (r"\d+(\.\d+)? ms( \(\d+(\.\d+)? avg)?", "MS"),
    (r"(, )?min/avg/max = [\d./]+", ""),
    (r"(?<=\]  )\d+\.\d+ms", "MS"),  # arping of iputils
    (r"(?m)(?<=\t)-?\d+( absolute)?$", "TIME"),  # ping -T
    (r"(Originate|Receive|Transmit|tsrtt)=\d+", ""),  # hping3 --icmp-ts
    (r"(?m)^(10\.0\.0\.\d+ :)( \d+\.?\d*)+$", r"\1"),  # fping -C
    (r"\w{3} [ \d]\d \d\d:\d\d:\d\d", ""),  # logger --rfc3164
    (r"(?m)^Created directory: .*\n", ""),  # snmpget, once
    (r"(?m)^;; (Query time|WHEN).*$|(?<=, )id: \d+|; COOKIE.*", ""),  # dig
    (r"(?m)(%  +\d+)( +\d+\.\d+){5}$", r"\1"),  # mtr
)  # fmt: skip


# What the client's kernel has received and why it did not like it. IcmpInErrors has errors without
# a socket too, so it depends on whether the client has ended; tshark sees which are malformed.
COMPARED = re.compile(
    r"Icmp(In(?!Errors)|Msg)|UdpIn|UdpNo|IpReasm|IpIn|IpExtIn(Csum|Trunc|Bcast)"
)


@dataclass(frozen=True)
class Outcome:
    """What came of a client: exit status, what it printed, what its kernel counted."""

    status: int
    text: str
    got: list[str]  # what its server noted
    counters: set[str]  # the names; how often, depends on clients that repeat what is late


@dataclass(frozen=True)
class Client:
    """What is typed at the other end of the wire, and who has to answer."""

    command: str
    servers: tuple[tuple[int, Answer], ...] = ()
    stdin: bytes = b""
    # What the host does meanwhile, as a context.
    host: Callable[[World], AbstractContextManager[object]] = nullcontext
    say: tuple[int, bytes] | None = (
        None  # a datagram for the client, once it is bound to the port
    )
    notes: int = 0  # how many its servers take, so that they are waited for
    needs: tuple[str, ...] = ()  # programs; the command's first word anyway

    def look_for_it(self) -> None:
        """Skip the test where a program is missing."""
        for program in ("ethtool", self.command.split()[0], *self.needs):
            if not shutil.which(program):
                pytest.skip(f"{program} is not installed")

    def in_world(self, made: AbstractContextManager[World]) -> Outcome:
        """Run it in a world of its own."""
        with made as world, self.host(world):
            return self.run(world)

    def run(self, world: World) -> Outcome:
        """Run it; give what came of it."""
        for port, answer in self.servers:
            world.serve(port, answer)
        with TemporaryFile() as stdin:
            # A pipe would hand it over in as many pieces as it was written in, and socat makes a datagram of each.
            stdin.write(self.stdin)
            stdin.seek(0)
            process = subprocess.Popen(
                shlex.split(self.command),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
            )
        with process:
            try:
                if self.say:
                    self._say(world, *self.say)
                out, _ = process.communicate(timeout=60)
            finally:
                process.kill()
        wait_until(lambda: len(world.got) >= self.notes)
        world.settle()
        counted = {name for name, n in counters().items() if n and COMPARED.match(name)}
        got = [meaning(data) for data in world.got]
        return Outcome(process.returncode, meaning(out), got, counted)

    def _say(self, world: World, port: int, data: bytes) -> None:
        wait_until(lambda: f":{port:04X} " in (PROC_NET / "udp").read_text())
        world.socket().sendto(data, (PEER, port))


def meaning(data: bytes) -> str:
    """Give the text without what is never the same."""
    text = data.decode(errors="backslashreplace")
    for pattern, instead in NEVER_THE_SAME:
        text = re.sub(pattern, instead, text)
    return re.sub(r"\n\s*\n", "\n", text).rstrip("\n")


def same(client: Client) -> str:
    """Compare what came of it before each host; give what the client said.

    Again where it differs: many clients say nothing of an answer that came later than they thought it would, and the
    machine's other work may hold up one of the three. What differs by our doing differs every time.
    """
    client.look_for_it()
    for turn in range(TRIES):
        theirs, fast, slow = in_every_world(client)
        if theirs == fast == slow or turn == TRIES - 1:
            break
    assert not re.search(
        r"(?i)usage|(invalid|unknown|unrecognized|bad) (option|arg)", theirs.text
    )
    assert fast.text.splitlines() == theirs.text.splitlines()
    assert slow.text.splitlines() == theirs.text.splitlines()
    assert fast == theirs
    assert slow == theirs
    return theirs.text


def in_every_world(client: Client) -> tuple[Outcome, Outcome, Outcome]:
    """Run it before the kernel, before netstack, and before netstack without its fast path."""
    worlds = (kernel_world, lambda: our_world(True), lambda: our_world(False))
    with ThreadPoolExecutor(len(worlds)) as pool:  # a thread has a network namespace of its own
        theirs, fast, slow = pool.map(lambda world: client.in_world(world()), worlds)
    PEERS.errors = {}  # they are compared instead
    return theirs, fast, slow


__all__ = ["Client", "World", "discard", "echo", "kernel_world", "our_world", "same"]
