"""Which way a packet goes whose sender names the device: SO_BINDTODEVICE, IP_PKTINFO, IP_UNICAST_IF.

What Linux 6.18 does was asked of it: two TAPs, the same routes, the same calls.
"""

from __future__ import annotations

import socket as kernel
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

import netstack
from netstack.device._memory import MemoryWire
from netstack.rtnl_neigh import neigh_change
from netstack.rtnl_route import route_change
from tests.memory_host import balance

SOL_IP, IP_PKTINFO, IP_UNICAST_IF, IP_MTU = kernel.SOL_IP, 8, 50, 14
MACS = {"10.0.0.1": "02:00:00:00:00:01", "10.1.0.1": "02:00:00:00:01:01"}


class TwoDevices:
    """A host with tap0 at 10.0.0.2/24 and tap1 at 10.1.0.2/24, or as given, and a router on each."""

    def __init__(self, *, fast_path: bool, addr0: str, addr1: str) -> None:
        self.host = netstack.Host(
            clock=netstack.ManualClock(), threads=False, fast_path=fast_path
        )
        self.wires: dict[str, MemoryWire] = {}
        for name, addr in (("tap0", addr0), ("tap1", addr1)):
            ours, self.wires[name] = MemoryWire.pair()
            self.host.add_nic(ours, name, addr=addr)
        self.index = {device.name: device.ifindex for device in self.host.devices}
        self.made: list[netstack.socket.socket] = []

    def route(self, dst: str, **spec: object) -> None:
        route_change(self.host, "add", {"dst": dst, **spec})

    def routers(self) -> None:
        """Make 10.0.0.1 the router on tap0, and with metric 100 10.1.0.1 that on tap1."""
        for name, address in (("tap0", "10.0.0.1"), ("tap1", "10.1.0.1")):
            neigh_change(self.host, "add", address, {"dev": name, "lladdr": MACS[address]})
        self.route("default", via="10.0.0.1")
        self.route("default", via="10.1.0.1", metric=100)

    def socket(self, device: str = "", *address: object) -> netstack.socket.socket:
        sock = self.host.socket()
        self.made.append(sock)
        sock.setblocking(False)
        if device:
            sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_BINDTODEVICE, device.encode())
        if address:
            sock.bind(address)
        return sock

    def sent(self) -> list[tuple[str, str, str]]:
        """Give (device, source, MAC address or who is asked for) of each frame that left."""
        self.host.run()
        out = []
        for name, wire in self.wires.items():
            while (frame := wire.recv()) is not None:
                if frame[12:14] == b"\x08\x06":
                    asked = str(IPv4Address(frame[38:42]))
                    out.append((name, str(IPv4Address(frame[28:32])), f"who has {asked}"))
                else:
                    out.append((name, str(IPv4Address(frame[26:30])), frame[:6].hex(":")))
        return out


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., TwoDevices]]:
    made: list[TwoDevices] = []

    def new(addr0: str = "10.0.0.2/24", addr1: str = "10.1.0.2/24") -> TwoDevices:
        made.append(TwoDevices(fast_path=request.param, addr0=addr0, addr1=addr1))
        return made[-1]

    yield new
    for it in made:
        it.host.run()
        balance(it.host)
        for sock in it.made:
            sock.close()
        it.host.close()


@pytest.fixture
def it(make: Callable[..., TwoDevices]) -> TwoDevices:
    both = make()
    both.routers()
    return both


def through(it: TwoDevices, way: str, device: str, dst: str) -> list[tuple[str, str, str]]:
    """Send a datagram through a device in one of the three ways; give what left."""
    sock = it.socket(device if way == "SO_BINDTODEVICE" else "")
    number = it.index[device]
    if way == "IP_UNICAST_IF":
        sock.setsockopt(SOL_IP, IP_UNICAST_IF, struct.pack("!I", number))
    info = [(SOL_IP, IP_PKTINFO, struct.pack("iII", number, 0, 0))]
    sock.sendmsg([b"x"], info if way == "IP_PKTINFO" else [], 0, (dst, 9))
    return it.sent()


WAYS = ["SO_BINDTODEVICE", "IP_PKTINFO", "IP_UNICAST_IF"]


@pytest.mark.parametrize("way", WAYS)
def test_a_worse_route_counts_for_what_has_to_leave_through_its_device(
    it: TwoDevices, way: str
) -> None:
    assert through(it, way, "tap0", "8.8.8.8") == [("tap0", "10.0.0.2", MACS["10.0.0.1"])]
    assert through(it, way, "tap1", "8.8.8.8") == [("tap1", "10.1.0.2", MACS["10.1.0.1"])]


@pytest.mark.parametrize("way", WAYS)
def test_a_shorter_prefix_counts_where_no_longer_one_leads_through_the_device(
    it: TwoDevices, way: str
) -> None:
    it.route("20.0.0.0/8", via="10.0.0.1")
    assert through(it, way, "tap1", "20.1.1.1") == [("tap1", "10.1.0.2", MACS["10.1.0.1"])]
    assert through(it, way, "tap1", "10.0.0.2") == [("tap1", "10.1.0.2", MACS["10.1.0.1"])]


@pytest.mark.parametrize("way", WAYS)
def test_without_a_route_through_the_device_everybody_is_on_its_link(
    make: Callable[..., TwoDevices], way: str
) -> None:
    it = make()
    it.route("20.0.0.0/8", via="10.0.0.1")
    assert through(it, way, "tap1", "20.1.1.1") == [("tap1", "10.1.0.2", "who has 20.1.1.1")]
    assert through(it, way, "tap1", "127.0.0.1") == [("tap1", "10.1.0.2", "who has 127.0.0.1")]


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_a_route_that_refuses_is_none(it: TwoDevices, kind: str) -> None:
    it.route("20.0.0.0/8", type=kind)
    assert through(it, "SO_BINDTODEVICE", "tap1", "20.1.1.1") == [
        ("tap1", "10.1.0.2", "who has 20.1.1.1")
    ]
    with pytest.raises(OSError, match=r"No route to host|Invalid argument|Permission denied"):
        it.socket().sendto(b"x", ("20.1.1.1", 9))


def test_two_devices_may_be_in_one_subnet(make: Callable[..., TwoDevices]) -> None:
    it = make("10.0.0.2/24", "10.0.0.3/24")
    for device, ours in (("tap0", "10.0.0.2"), ("tap1", "10.0.0.3")):
        assert through(it, "SO_BINDTODEVICE", device, "10.0.0.9") == [
            (device, ours, "who has 10.0.0.9")
        ]


def test_routes_to_one_prefix_come_and_go_each_by_itself(it: TwoDevices) -> None:
    for name in ("tap0", "tap1"):
        metric = 5 if name == "tap0" else 6
        it.route("30.0.0.0/8", dev=name, metric=metric)
    ask = ("SO_BINDTODEVICE", "tap1", "30.1.1.1")
    assert through(it, *ask) == [("tap1", "10.1.0.2", "who has 30.1.1.1")]
    route_change(it.host, "del", {"dst": "30.0.0.0/8", "dev": "tap0"})
    assert through(it, "SO_BINDTODEVICE", "tap0", "30.1.1.1") == [
        ("tap0", "10.0.0.2", MACS["10.0.0.1"])
    ]
    assert it.host.inet.routes.ip_route_output(0x1E010101).ifindex == it.index["tap1"]
    route_change(it.host, "del", {"dst": "30.0.0.0/8", "dev": "tap1"})
    assert through(it, "SO_BINDTODEVICE", "tap1", "30.1.1.2") == [
        ("tap1", "10.1.0.2", MACS["10.1.0.1"])
    ]


def test_a_device_that_is_not_there(it: TwoDevices) -> None:
    sock = it.socket()
    for call in (
        lambda: sock.sendmsg(
            [b"x"], [(SOL_IP, IP_PKTINFO, struct.pack("iII", 99, 0, 0))], 0, ("8.8.8.8", 9)
        ),
        lambda: (
            sock.setsockopt(kernel.SOL_SOCKET, 62, 99),  # SO_BINDTOIFINDEX
            sock.sendto(b"x", ("8.8.8.8", 9)),
        ),
    ):
        with pytest.raises(OSError, match="No such device"):
            call()


def test_any_address_of_the_host_goes_with_any_device(it: TwoDevices) -> None:
    sock = it.socket("tap1", "10.0.0.2", 4000)
    sock.sendto(b"x", ("8.8.8.8", 9))
    assert it.sent() == [("tap1", "10.0.0.2", MACS["10.1.0.1"])]
    loopback = it.socket("tap1", "127.0.0.1", 4000)
    with pytest.raises(OSError, match="Invalid argument"):
        loopback.sendto(b"x", ("8.8.8.8", 9))


@pytest.mark.parametrize("sender", ["", "tap1"])
@pytest.mark.parametrize("kind", [kernel.SOCK_DGRAM, kernel.SOCK_RAW])
def test_what_the_host_sends_to_itself_comes_through_the_device_of_the_address(
    it: TwoDevices, sender: str, kind: int
) -> None:
    readers = {}
    for name in ("lo", "tap0", "tap1"):
        readers[name] = sock = it.host.socket(kernel.AF_INET, kind, 17)
        it.made.append(sock)
        sock.setblocking(False)
        sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_BINDTODEVICE, name.encode())
        sock.setsockopt(SOL_IP, IP_PKTINFO, 1)
        if kind == kernel.SOCK_DGRAM:
            sock.bind(("", 4000))
    it.socket(sender).sendto(b"x", ("10.1.0.2", 4000))
    it.host.run()
    assert [name for name, sock in readers.items() if sock.info["queued"]] == ["tap1"]
    (control,) = readers["tap1"].recvmsg(100, 100)[1]
    assert struct.unpack("i", control[2][:4]) == (it.index["tap1"],)


def test_the_mtu_of_a_way_is_what_an_ip_packet_can_have(it: TwoDevices) -> None:
    sock = it.socket()
    sock.connect(("127.0.0.1", 9))
    assert sock.getsockopt(SOL_IP, IP_MTU) == 65535
    other = it.socket("tap1")
    other.connect(("8.8.8.8", 9))
    assert other.getsockopt(SOL_IP, IP_MTU) == 1500
    assert other.getsockname()[0] == "10.1.0.2"
