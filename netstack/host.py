"""host: build every part of one host, connect them, take them apart again.

Nothing lives outside a Host, so several fit in one process. The clock and the wires are given to
it. A host with ``threads=False`` does nothing by itself: ``run`` is all that moves it, and the
same frames then give the same result, to the byte.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import socket as stdlib
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Interface
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

from netstack import _fastpath, sysfs
from netstack._net import ManualClock, Net
from netstack._skb import ProcessPool
from netstack.addresses import check_mtu, default_mac, mac_bytes, parse_addresses
from netstack.capture.bpf import Program, compile_filter
from netstack.config import Config
from netstack.driver._igb import Igb
from netstack.driver._loopback import Loopback
from netstack.driver.igb_watchdog import Watchdog
from netstack.errors import UsageError
from netstack.host_views import HostViews
from netstack.irq._cpu import Cpu
from netstack.kworker import KWorker, Timer
from netstack.netdev import NetDevice, check_free
from netstack.netif._backlog import Seam, backlog_frames, backlog_purge
from netstack.netif._rps_conf import Rps
from netstack.netif._tap import PacketTap
from netstack.netif.core import ETH_P_ARP, ETH_P_IP, Handler, PacketTypes
from netstack.nf.hooks import (
    NF_INET_INGRESS,
    BatchHook,
    Hook,
    nf_register_net_hook,
    nf_unregister_net_hook,
)
from netstack.nf.tables import Tables
from netstack.proto import net_protocol
from netstack.proto.af_inet import Inet
from netstack.proto.arp import arp_rcv
from netstack.proto.ip import ip_rcv

if TYPE_CHECKING:
    import asyncio

    from netstack.aio import DatagramTransport
    from netstack.capture.live import Capture
    from netstack.socket import socket

P = TypeVar("P", bound="asyncio.BaseProtocol")

# Packets of the pools by size class (832, 1280, 2304 bytes). Memory is taken when first used. The
# first is for what comes off a wire, the second for what we make ourselves, and that lo brings back.
CPU_POOL = (24576, 16384, 14336)
PROCESS_POOL = (24576, 16384, 10240)
CLASS_BYTES = (832, 1280, 2304)
MAX_CPUS = 16
RING_MAX = 4096  # descriptors, each with a buffer of the largest class
LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101  # packets that begin with their IP header


class Wire(Protocol):
    """Describe what a NIC can be put on."""

    @property
    def address(self) -> int:
        """Return the address of a struct wire (device/_wire.pxd)."""


class Host(HostViews):
    """One host: CPUs, devices, protocols, sockets, and the account of every frame."""

    def __init__(
        self,
        name: str = "netstack",
        *,
        clock: ManualClock | None = None,
        threads: bool = True,
        fast_path: bool = True,
        pool: tuple[int, int, int] = CPU_POOL,
        cpus: int = 1,
    ) -> None:
        """Make a host with a loopback device and no other.

        ``clock``: a ManualClock for tests; the monotonic clock if None. ``threads``: the CPU and the
        Python layers run by themselves; otherwise ``run`` moves them. ``fast_path``: the compiled
        short cut of ARP, IP, ICMP echo and UDP. ``pool``: packets of each size class of a CPU.
        ``cpus``: how many CPUs it has, 1 to 16, each a thread; ValueError for another number.
        """
        self.name = name
        self.clock = clock
        self.threads = threads
        self.closed = False
        self._process = os.getpid()
        if not 1 <= cpus <= MAX_CPUS:
            raise UsageError(f"cpus {cpus}: a host has 1 to {MAX_CPUS}", hint="--cpus 2")
        self.at_close = contextlib.ExitStack()  # what was opened for this host only
        self.net = Net(cpus, clock)
        self.config = Config(self.net, udp_memory=socket_memory(pool))
        self.config["netstack.fast_path"] = int(fast_path)
        self.pool = ProcessPool(self.net, PROCESS_POOL)
        self.cpus = [Cpu(self.net, number, pool) for number in range(cpus)]
        self.seam = Seam(self.net)
        self.timer_sources: list[Any] = []
        self.packet_types = PacketTypes(self)
        self.kworker = KWorker(self)
        self.rps = Rps(self.net, bytes(16) if clock is not None else None)
        sysfs.connect(self.config, self.rps)
        _fastpath.connect(self.net, [cpu.address for cpu in self.cpus])
        self.lo = NetDevice(
            Loopback(self.net), "lo", 1, "00:00:00:00:00:00", [IPv4Interface("127.0.0.1/8")]
        )
        self.devices: list[NetDevice] = [self.lo]
        self.inet = Inet(self, 1 if clock is not None else None)
        self.timer_sources.append(self.inet)
        self.inet.add_device(1, self.lo.addresses)
        self.config.add_device("lo", 1)
        self.nft = Tables(self.inet.hooks, hook_filter, self._ifindex)
        self.packet_types.dev_add_pack(ETH_P_IP, ip_rcv)
        self.packet_types.dev_add_pack(ETH_P_ARP, arp_rcv)
        atexit.register(self.close)
        if threads:
            for cpu in self.cpus:
                cpu.start()
            self.kworker.start()

    # ---- devices

    def add_nic(
        self,
        wire: Wire,
        name: str = "eth0",
        *,
        addr: str | IPv4Interface | Sequence[str | IPv4Interface] | None = None,
        mac: str | None = None,
        mtu: int = 1500,
        ring: int = 256,
        cpu: int = 0,
        queues: int = 1,
    ) -> NetDevice:
        """Put an igb NIC on ``wire``, bring it up, and give it an address, or several, with their subnets.

        ``wire`` is a MemoryWire, a TapWire, or anything with the address of a struct wire; it is kept
        alive. ``cpu`` runs the NIC: it takes frames off the wire. ``queues``: pairs of queues, 1 to 8, whose
        vectors go round the CPUs from that one on. Raises ValueError for an impossible name, address,
        mtu, ring, CPU or number of queues; nothing is left then.
        """
        check_free(self, wire, name)
        check_mtu(mtu)
        if not 0 <= cpu < len(self.cpus):
            raise UsageError(
                f"cpu {cpu}: host {self.name} has {len(self.cpus)} CPUs, 0 is the first",
                hint="Host(cpus=2)",
            )
        given = [addr] if isinstance(addr, str | IPv4Interface) else addr or []
        addresses = [parse_addresses(each)[0] for each in given]
        mac = mac or default_mac(name)
        ifindex = len(self.devices) + 1
        nic = Igb(
            self.net,
            self.cpus[cpu].address,
            wire.address,
            name,
            mac_bytes(mac),
            mtu,
            ring,
            ifindex,
            queues,
        )
        nic.open()
        device = NetDevice(nic, name, ifindex, mac, addresses, wire)
        self.devices.append(device)
        self.inet.add_device(ifindex, addresses, nic.set_mc_list)
        self.config.add_device(name, ifindex)
        self.timer_sources.append(Watchdog(nic, self.net.now()))
        return device

    def add_tap(
        self, name: str, addr: str | Sequence[str], peer: str | None = None, **options: Any
    ) -> NetDevice:
        """Put a NIC on the TAP ``name``.

        ``options`` are those of ``netstack.up``: mac, mtu, ring, queues, offload. The TAP is put back as
        it was found when the host closes. ::

            with netstack.up("tap0", addr="10.0.0.2/24") as host:
                host.add_tap("tap1", addr="10.0.1.2/24")
                host.config["net.ipv4.ip_forward"] = 1
        """
        from netstack.live import add_tap

        return add_tap(self, name, addr, peer, **options)

    # ---- what programs use

    def socket(
        self, family: int = stdlib.AF_INET, type: int = stdlib.SOCK_DGRAM, proto: int = 0
    ) -> socket:
        """Make a socket of this host, with the standard library's methods, values and errors."""
        from netstack.socket import socket

        # To type checkers it is one of the standard library's, with batches: see socket.py.
        return cast("Callable[..., socket]", socket)(self, family, type, proto)

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        *,
        family: int = 0,
        proto: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: stdlib.socket | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> tuple[DatagramTransport, P]:
        """Make a datagram endpoint as the event loop's method of the same name does, on this host.

        Each wake-up hands the protocol everything that is queued. A protocol with a method
        ``datagrams_received(list)`` gets lists of (data, address) instead of single datagrams.
        Works under any loop with ``add_reader``. ``sock`` is a socket of a host, then the
        endpoint's.
        """
        from netstack.aio import create_datagram_endpoint

        return await create_datagram_endpoint(
            self,
            protocol_factory,
            local_addr,
            remote_addr,
            family=family,
            proto=proto,
            reuse_port=reuse_port,
            allow_broadcast=allow_broadcast,
            sock=sock,
            loop=loop,
        )

    def register_ethertype(
        self, ethertype: int, handler: Handler, device: NetDevice | None = None
    ) -> None:
        """Call ``handler(host, skb)`` for each packet of an EtherType. [dev_add_pack()]

        ETH_P_ALL (3) asks for a copy of every packet, of ``device`` or of all.
        """
        self.packet_types.dev_add_pack(ethertype, handler, device.ifindex if device else None)

    def register_protocol(self, number: int, handler: Handler) -> None:
        """Call ``handler(host, skb)`` for each packet of an IP protocol. [inet_add_protocol()]

        The packet's data stands at the transport header, and the handler owns it.
        """
        self.inet.add_protocol(number, net_protocol(handler))
        self.net.want_protocol(number, True)

    def hook(
        self, hook: int, fn: Hook | BatchHook, priority: int = 0, filter: str = "",
        batch: bool = False,
    ) -> Callable[[], None]:  # fmt: skip
        """Ask ``fn(host, skb)`` about packets at NF_INET_* or NF_ARP_*: what it says is their verdict.

        NF_ACCEPT, NF_DROP, NF_STOLEN, NF_QUEUE or NF_REPEAT. Low priorities are asked first. With a
        ``filter`` (pcap-filter's language: of IP packets, at NF_ARP_* of frames) only packets that
        match it come to Python at all.
        ``batch``: it is ``fn(host, packets)`` and says a verdict for each, or one for all. Gives the
        function that takes the hook out again. [nf_register_net_hook()]
        """
        program = hook_filter(filter, hook) if filter else None
        nf_register_net_hook(self, hook, fn, priority, program, batch)
        return functools.partial(nf_unregister_net_hook, self, hook, fn)

    def _ifindex(self, name: str) -> int:
        for device in self.devices:
            if device.name == name:
                return device.ifindex
        known = " ".join(device.name for device in self.devices)
        raise UsageError(f"Interface does not exist: {name!r}; there are {known}", hint="tap0")

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call back on the host's kworker once its clock has moved on by ``seconds``."""
        return self.kworker.call_at(self.net.now() + int(seconds * 1e9), call)

    def now(self) -> int:
        """Nanoseconds on the host's clock."""
        return self.net.now()

    def packet_tap(
        self, run: int = 0, program: int = 0, snaplen: int = 262144, **options: Any
    ) -> PacketTap:
        """Watch every frame of the host, both ways, through a BPF program of ``netstack.capture.bpf``."""
        return PacketTap(self.net, run, program, snaplen, **options)

    def capture(
        self, stage: str | Iterable[str] = "", ifname: str = "any", filter: str = ""
    ) -> Capture:
        """Capture at a stage, or at several: nic, gro, prerouting, ..., drop; "" is the wire.

        ``filter`` is in pcap-filter's language. See `netstack.capture.live.Capture`.
        """
        from netstack.capture.live import Capture

        return Capture(self, stage, ifname, filter)

    # ---- moving it

    def run(self) -> None:
        """Do all that waits, in this thread, until the host is quiet: hosts without threads.

        Timers of the hardware and of NAPI (the interrupt throttle, gro_flush_timeout) are waited for: a
        ManualClock is moved on to them. Timers of the protocols are not.
        """
        while True:
            for cpu in self.cpus:
                cpu.run()
            if any(cpu.pending() for cpu in self.cpus) or self.kworker.step():
                continue
            before = self._progress()
            if not self._wait_for_timer() or before == self._progress():
                return

    def _progress(self) -> tuple[int, ...]:
        return tuple(
            c["processed"] + c["hardirqs"] for c in (cpu.counters() for cpu in self.cpus)
        )

    def _wait_for_timer(self) -> bool:
        """Let the CPUs' first timer run out and the CPUs see to it; False when there is none."""
        due = [cpu.deadline() for cpu in self.cpus if cpu.deadline()]
        if not due:
            return False
        wait = max(0, min(due) - self.net.now()) / 1e9
        if self.clock is not None:
            self.clock.advance(wait)
        else:
            time.sleep(wait)
        for cpu in self.cpus:
            cpu.run()
        return True

    def settle(self, timeout: float = 10) -> None:
        """Wait until the host is quiet: nothing on its way between wire and sockets.

        Raises TimeoutError when frames keep coming for ``timeout`` seconds.
        """
        if not self.threads or self.closed:
            self.run()
            return
        until = time.monotonic() + timeout
        while True:
            before = self.net.rx_frames(), self.kworker.handled
            for cpu in self.cpus:
                cpu.run()
            # A frame may stand in a ring until the interrupt throttle lets it in.
            rings = any(device.queued() for device in self.devices)
            rings = rings or any(cpu.pending() for cpu in self.cpus)
            quiet = not rings and not len(self.seam) and not self.seam.in_hand
            if quiet and before == (self.net.rx_frames(), self.kworker.handled):
                return
            if time.monotonic() > until:
                raise TimeoutError(
                    f"host {self.name} is not quiet after {timeout} s: frames keep coming"
                )
            time.sleep(0.0002)

    # ---- looking at it: HostViews has more

    def queued(self) -> dict[str, int]:
        """Frames off the wire that have not ended yet, by the place where they stand."""
        places = {f"device/{device.name}": device.queued() for device in self.devices}
        places["napi/gro"] = sum(cpu.gro_frames() for cpu in self.cpus)
        places["netif/backlog"] = sum(backlog_frames(cpu.address) for cpu in self.cpus)
        places["netif/seam"] = self.seam.frames() + self.seam.in_hand
        places |= self.inet.queued()
        return {place: frames for place, frames in places.items() if frames}

    # ---- the end

    def close(self) -> None:
        """Stop the threads, close devices and sockets, end what is queued. Idempotent.

        Counters, ledger and views still tell what was. In a fork of the process it touches nothing:
        threads, wires and the TAP are the parent's.
        """
        if self.closed:
            return
        self.closed = True
        atexit.unregister(self.close)
        if self._process != os.getpid():
            self.at_close.pop_all()
            return
        self.kworker.stop()
        for cpu in self.cpus:
            cpu.stop()
        for device in self.devices[1:]:
            device.nic.close()
        for cpu in self.cpus:
            cpu.run()
        for cpu in self.cpus:
            backlog_purge(cpu.address)
        self.seam.purge()
        self.inet.close()
        self.at_close.close()

    def __repr__(self) -> str:
        """Show name and devices."""
        devices = "".join(f" {device!r}" for device in self.devices[1:])
        return f"<Host {self.name}{' closed' if self.closed else ''}{devices}>"

    def __enter__(self) -> Self:
        """Give the host; it is closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def hook_filter(text: str, hook: int) -> Program:
    """Compile a filter for a hook: of IP packets, or from the ingress hook on of frames."""
    return compile_filter(text, LINKTYPE_ETHERNET if hook >= NF_INET_INGRESS else LINKTYPE_RAW)


def socket_memory(pool: tuple[int, int, int]) -> int:
    """Bytes that unread sockets may hold of a pool: whatever its size, no class runs out by them.

    The buffers of the largest ring are left over, and an eighth for what is on its way.
    """
    small, mid, large = pool
    counts = small, mid, large - min(RING_MAX, large // 3)
    return min(size * n for size, n in zip(CLASS_BYTES, counts, strict=True)) * 7 // 8
