"""The texts beside those of the running kernel: equal to the byte where their values are."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP

from netstack import procfs
from netstack.lab import another_network
from netstack.proto._neigh import nud
from netstack.rtnl_route import route_change
from tests.fakehost import FakeHost
from tests.frames import OUR_IP, PEER_IP, PEER_MAC, ether, ping, udp
from tests.memory_host import memory_host
from tools._oracle.kernel import Kernel

# Columns change between releases (6.18: /proc/interrupts, /proc/net/ptype).
pytestmark = pytest.mark.skipif(
    not os.uname().release.startswith("6.18."), reason="Linux 6.18 is the reference"
)
TAP = "tap0"
INODE = r"\d+ 2 [0-9a-f]{16}"  # and the address of the socket in the kernel


def linux(path):
    """Read a text of this thread's network."""
    if path.startswith("net/"):
        path = f"thread-self/{path}"
    return Path("/proc", path).read_text()


# ---- of the machine: what it says now, said by ours


def test_softnet_stat():
    names = {"processed": 0, "dropped": 1, "time_squeeze": 2, "received_rps": 9,
             "flow_limit_count": 10, "cpu": 12, "input_qlen": 13, "process_qlen": 14}  # fmt: skip
    text = linux("net/softnet_stat")
    rows = [[int(word, 16) for word in line.split()] for line in text.splitlines()]
    host = FakeHost(len(rows))
    host.softnet = lambda: [{name: row[at] for name, at in names.items()} for row in rows]
    assert procfs.net_softnet_stat(host) == text


def test_softirqs():
    text = linux("softirqs")
    lines = [line.split() for line in text.splitlines()]
    host = FakeHost(len(lines[0]))
    host.softirqs = lambda: [
        {line[0].rstrip(":"): int(line[1 + cpu]) for line in lines[1:]}
        for cpu in range(len(lines[0]))
    ]
    assert procfs.softirqs(host) == text


def test_interrupts_of_msi_x():
    text = linux("interrupts").splitlines(keepends=True)
    lines = [text[0], *(line for line in text if "PCI-MSIX" in line)]
    cpus = len(lines[0].split())
    assert len(lines) > 1, "no device of this machine has MSI-X"
    rows = []
    for line in lines[1:]:
        number, *counts = line.split()[: 1 + cpus]
        chip, hwirq, *name = line.split()[1 + cpus :]
        rows.append({"irq": int(number.rstrip(":")), "counts": [int(n) for n in counts],
                     "chip": chip, "hwirq": int(hwirq.removesuffix("-edge")),
                     "name": " ".join(name)})  # fmt: skip
    host = FakeHost(cpus)
    host.interrupts = lambda: rows
    assert procfs.interrupts(host) == "".join(lines)


def test_dev():
    text = linux("net/dev")
    host = FakeHost()
    host.devices = []
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        rx_bytes, rx_packets, errs, drop, fifo, frame, compressed, multicast, *tx = map(
            int, numbers.split()
        )
        device = type(FakeHost().devices[0])()
        device.name = name.strip()
        device.counts = {
            "rx_bytes": rx_bytes, "rx_packets": rx_packets, "rx_errors": errs,
            "rx_dropped": drop, "rx_fifo_errors": fifo, "rx_frame_errors": frame,
            "multicast": multicast, "tx_bytes": tx[0], "tx_packets": tx[1],
            "tx_errors": tx[2], "tx_dropped": tx[3], "tx_fifo_errors": tx[4],
        }  # fmt: skip
        assert (compressed, *tx[5:]) == (0, 0, 0, 0)
        host.devices.append(device)
    assert procfs.net_dev(host) == text


# ---- of a network: a kernel's host and ours, set up alike


class Worlds:
    """A host of the kernel and one of ours; what is done is done to both."""

    def __init__(self, kernel, it, stop):
        self.kernel = kernel
        self.it = it
        self._stop = stop

    def texts(self, name):
        """Read a text in both."""
        return procfs.read(self.it.host, f"net/{name}"), linux(f"net/{name}")

    def same(self, name, *ignore):
        """Compare a text in both but for what a pattern finds."""
        ours, theirs = self.texts(name)
        for pattern in ignore:
            ours, theirs = (
                re.sub(pattern, "#", text, flags=re.MULTILINE) for text in (ours, theirs)
            )
        assert ours == theirs

    def sockets(self, *arguments, **then):
        """Open a socket in both and bind or connect it."""
        for make in (socket.socket, self.it.host.socket):
            sock = self._stop.enter_context(make(*arguments))
            for call, address in then.items():
                getattr(sock, call)(address)


@pytest.fixture
def worlds():
    with another_network(), memory_host() as it, contextlib.ExitStack() as stop:
        kernel = Kernel(known=False)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        stop.callback(kernel.close)
        yield Worlds(kernel, it, stop)


@pytest.mark.tap
@pytest.mark.parametrize("name", ["snmp", "netstat"])
def test_counters_of_a_host_that_nothing_reached(worlds, name):
    """All groups, all names and their order, and what stands there for protocols that are not here."""
    worlds.same(name)


@pytest.mark.tap
def test_counters_move_in_the_same_columns(worlds):
    odd = bytes(ether() / IP(src=PEER_IP, dst=OUR_IP) / ICMP(type=13))
    for side in (worlds.kernel.put, worlds.it.put):
        for frame in (ping(), udp(b"x"), udp(b"x")[:-1], odd):
            side(frame)
    worlds.same("snmp")
    worlds.same("netstat")


@pytest.mark.tap
@pytest.mark.parametrize(
    "then", [{"bind": (OUR_IP, 5000)}, {"bind": ("", 77), "connect": (PEER_IP, 9)}]
)
def test_udp(worlds, then):
    worlds.same("udp")
    worlds.sockets(socket.AF_INET, socket.SOCK_DGRAM, **then)
    for text in worlds.texts("udp"):
        assert {len(line) for line in text.splitlines()} == {127}
    worlds.same("udp", r"^[ \d]{5}:", INODE, " +$")


@pytest.mark.tap
@pytest.mark.parametrize(
    "then", [{}, {"bind": (OUR_IP, 0)}, {"bind": (OUR_IP, 0), "connect": (PEER_IP, 0)}]
)
def test_raw(worlds, then):
    worlds.same("raw")
    worlds.sockets(socket.AF_INET, socket.SOCK_RAW, 89, **then)
    worlds.same("raw", r"^[ \d]{4}:", INODE)


@pytest.mark.tap
def test_sockstat(worlds):
    ignore = (r"(?<=used )\d+", r"^TCP:.*", r"(?<=mem )\d+")
    worlds.same("sockstat", *ignore)
    worlds.sockets(socket.AF_INET, socket.SOCK_DGRAM, bind=(OUR_IP, 5000))
    worlds.sockets(socket.AF_INET, socket.SOCK_RAW, 1)
    worlds.same("sockstat", *ignore)


@pytest.mark.tap
@pytest.mark.parametrize("state", [nud.NUD_PERMANENT, nud.NUD_STALE, nud.NUD_REACHABLE])
def test_arp(worlds, state):
    worlds.same("arp")
    word = state.name.removeprefix("NUD_").lower()
    neighbour = ["ip", "neigh", "add", PEER_IP, "lladdr", PEER_MAC, "dev", TAP, "nud", word]
    subprocess.run(neighbour, check=True)
    worlds.it.host.inet.neigh.update(
        worlds.it.device.ifindex, int.from_bytes(socket.inet_aton(PEER_IP)),
        bytes.fromhex(PEER_MAC.replace(":", "")), state, override=True, admin=True, create=True,
    )  # fmt: skip
    worlds.same("arp")


@pytest.mark.tap
def test_arp_of_who_has_not_answered(worlds):
    worlds.sockets(socket.AF_INET, socket.SOCK_DGRAM, connect=("10.0.0.9", 9), send=b"x")
    worlds.same("arp")


@pytest.mark.tap
def test_route(worlds):
    worlds.same("route")
    for spec in (
        {"dst": "default", "via": "10.0.0.1"},
        {"dst": "192.168.0.0/16", "via": "10.0.0.1", "metric": "5"},
        {"dst": "192.168.0.0/16", "via": "10.0.0.7", "metric": "7"},
        {"dst": "192.168.0.0/24", "dev": TAP},
        {"dst": "172.16.0.1", "via": "10.0.0.9"},
        {"dst": "172.17.0.0/16", "type": "unreachable"},
        {"dst": "172.18.0.5", "type": "prohibit"},
        {"dst": "172.19.0.0/16", "type": "blackhole"},
    ):
        words = [spec.get("type", "unicast"), spec["dst"]]
        words += [word for key in ("via", "dev", "metric") if key in spec
                  for word in (key, spec[key])]  # fmt: skip
        subprocess.run(["ip", "route", "add", *words], check=True)
        route_change(worlds.it.host, "add", spec)
        worlds.same("route")


@pytest.mark.tap
def test_igmp(worlds):
    worlds.same("igmp")
    membership = socket.inet_aton("239.1.2.3") + socket.inet_aton(OUR_IP)
    option = (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    for make in (socket.socket, worlds.it.host.socket):
        sock = worlds._stop.enter_context(make(socket.AF_INET, socket.SOCK_DGRAM))
        sock.setsockopt(*option)
    worlds.same("igmp", r"\d:[0-9A-F]{8}")


@pytest.mark.tap
def test_ptype(worlds):
    """Handlers of protocols that are not here apart."""
    others = re.compile(r"^(0004 .* llc_rcv|86dd .* ipv6_rcv)\n", re.MULTILINE)
    for then in ({}, {"bind": (TAP, 3)}, {"bind": (TAP, 0x88E1)}):
        for kind in (socket.ntohs(3), socket.ntohs(0x0800), socket.ntohs(0x88E1), 0):
            worlds.sockets(socket.AF_PACKET, socket.SOCK_RAW, kind, **then)
            ours, theirs = worlds.texts("ptype")
            assert ours == others.sub("", theirs)
