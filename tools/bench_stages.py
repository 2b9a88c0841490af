#!/usr/bin/env python3
"""What each stage of the receive path costs a frame: instructions, and nanoseconds of whole roads.

    .venv/bin/python tools/bench_stages.py                  # table
    .venv/bin/python tools/bench_stages.py --json
    .venv/bin/python tools/bench_stages.py --picture stages.svg # with the extra `bench`; a .png as well
    .venv/bin/python tools/bench_stages.py --record FILE    # write the figures that tests/test_stages.py holds to

Frames come over a wire in memory, so nothing needs root. Instructions are counted by valgrind's
callgrind and are the same in every run on one machine with one build; they are what the test
guards. Nanoseconds are medians of rounds in turn, and noisy. Each stage is a folder, so its figure
is the sum over its modules; what the compiler takes over into a caller counts there. ``wire`` is the
wire in memory and what it costs to be called, ``libc`` is memcpy and the clock.

Roads:

    filtered    the NIC's address filter drops it
    otherhost   NIC, ring, interrupt, NAPI, GRO, device core; IP drops it
    udp18       all the way into a socket's queue, 18 bytes of payload
    udp1472     the same, 1472 bytes
    vnet18, vnet1472
                the same on a wire with virtio headers, as the TAP of `netstack up` has them: the
                sender leaves the checksum to its device
    gro         datagrams of one flow, merged for a socket with UDP_GRO
    echo        an ICMP echo request, answered
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST, PEER, OTHER = "10.0.0.2", "10.0.0.1", "10.0.0.9"
HOST_MAC, PEER_MAC, OTHER_MAC = "020000000002", "020000000001", "020000000099"
UDP_GRO, PORT = 104, 9000
NEEDS_CSUM = 1  # of struct virtio_net_hdr
NETIF_F_GRO, NETIF_F_GRO_FRAGLIST = 4, 16
APART = {"wire", "libc"}
STAGES = ("device", "driver", "irq", "napi", "netif", "proto", "sock", "other", "wire", "libc")


# ---- frames


def checksum(data: bytes) -> int:
    """Compute the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_frame(
    protocol: int, body: bytes, mac: str = HOST_MAC, to: str = HOST, source: str = PEER
) -> bytes:
    """Give a frame from the peer, or from another address behind it."""
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(body), 1, 0x4000, 64, protocol, 0),
        *(socket.inet_aton(source), socket.inet_aton(to)),
    )
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return bytes.fromhex(mac + PEER_MAC + "0800") + head + body


def udp_frame(
    size: int,
    sport: int = 4000,
    mac: str = HOST_MAC,
    to: str = HOST,
    source: str = PEER,
    dport: int = PORT,
    partial: bool = False,
) -> bytes:
    """Give a datagram of ``size`` bytes from the peer; ``partial``: with the pseudo header's sum, and that said."""
    data = bytes(range(256)) * (size // 256 + 1)
    head = struct.pack("!HHHH", sport, dport, 8 + size, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(to) + struct.pack("!HH", 17, 8 + size)
    if partial:
        hdr = struct.pack("=BBHHHH", NEEDS_CSUM, 0, 0, 0, 34, 6)
        head = head[:6] + struct.pack("!H", ~checksum(pseudo) & 0xFFFF)
        return hdr + ip_frame(17, head + data[:size], mac, to, source)
    head = head[:6] + struct.pack("!H", checksum(pseudo + head + data[:size]) or 0xFFFF)
    return ip_frame(17, head + data[:size], mac, to, source)


def ping_frame() -> bytes:
    """Give an echo request of 56 bytes."""
    body = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + bytes(56)
    return ip_frame(1, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


def arp_reply() -> bytes:
    """Tell the host where the peer is."""
    arp = bytes.fromhex("0001080006040002" + PEER_MAC) + socket.inet_aton(PEER)
    arp += bytes.fromhex(HOST_MAC) + socket.inet_aton(HOST)
    return bytes.fromhex(HOST_MAC + PEER_MAC + "0806") + arp


# ---- roads


@dataclass(frozen=True)
class Road:
    """What is sent to what kind of host."""

    name: str
    frames: Sequence[bytes]
    promisc: bool = False
    gro: bool = False  # the socket has UDP_GRO
    features: int = NETIF_F_GRO  # of the device: which GRO there is
    sockets: int = 1
    groups: int = 0
    ring: int = 256
    budget: int = 300
    burst: int = 256
    count: int = 2048
    routes: int = 0  # of lengths 16 to 28, besides
    rules: int = 0  # that look at flows and do not match
    vnet_hdr: bool = False


ROADS = (
    Road("filtered", [udp_frame(18, mac=OTHER_MAC)]),
    Road("otherhost", [udp_frame(18, mac=OTHER_MAC, to=OTHER)], promisc=True),
    Road("udp18", [udp_frame(18)]),
    Road("udp1472", [udp_frame(1472)]),
    Road("vnet18", [udp_frame(18, partial=True)], vnet_hdr=True),
    Road("vnet1472", [udp_frame(1472, partial=True)], vnet_hdr=True),
    Road("gro", [udp_frame(1472)], gro=True),
    Road("echo", [ping_frame()], count=512, burst=64),
)


class Machine:
    """A host without threads on a wire in memory, as a road wants it."""

    def __init__(self, road: Road) -> None:
        from netstack.device._memory import MemoryWire
        from netstack.host import Host

        self.road = road
        ours, self.far = MemoryWire.pair(1000, vnet_hdr=road.vnet_hdr)
        self.host = Host(threads=False)
        self.host.config["net.core.netdev_budget"] = road.budget
        mac = ":".join(HOST_MAC[i : i + 2] for i in range(0, 12, 2))
        self.device = self.host.add_nic(
            ours, "tap0", addr=f"{HOST}/24", mac=mac, ring=road.ring
        )
        self.device.nic.set_coalesce(0)
        self.device.nic.features &= ~(NETIF_F_GRO | NETIF_F_GRO_FRAGLIST)
        self.device.nic.features |= road.features
        if road.routes:
            index = self.device.ifindex
            self.host.inet.routes.fib.update(
                (20 << 24 | i * 40503 % 2**20 << 8, 16 + i % 13, 1, index, 0, 0)
                for i in range(road.routes)
            )
        if road.rules:
            self.host.nft.add_rules(
                [f"ip filter input udp dport {20000 + i} drop" for i in range(road.rules)]
            )
        if road.promisc:
            self.device.nic.set_rx_mode(promisc=True)
        self.sockets = [self.bind(PORT)]
        ports = (port for port in range(1024, 65536) if port != PORT)
        self.sockets += [self.bind(next(ports)) for _ in range(road.sockets - 1)]
        self.join(road.groups)
        self.far.send(bytes(10 * road.vnet_hdr) + arp_reply())
        self.host.run()

    def join(self, groups: int) -> None:
        """Make a socket a member of many groups."""
        self.host.config["net.ipv4.igmp_max_memberships"] = max(20, groups)
        for i in range(groups):
            value = socket.inet_aton(f"239.1.{i >> 8}.{i & 255}") + socket.inet_aton(HOST)
            self.sockets[0].setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, value)

    def bind(self, port: int) -> socket.socket:
        """Bind a socket to a port, and to the wildcard address."""
        sock = self.host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.setblocking(False)
        if self.road.gro:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        sock.bind(("", port))
        return sock

    def feed(self, count: int) -> dict[str, int]:
        """Send ``count`` frames; what that cost this thread."""
        from netstack.testing._traffic import feed

        road = self.road
        tally = feed(
            self.host.cpus[0].address, self.far.address, road.frames, count, road.burst
        )
        self.empty()
        return tally

    def empty(self) -> None:
        """Take everything out of the first socket, and off the wire."""
        try:
            while True:
                self.sockets[0].recvfrom(65536)
        except BlockingIOError:
            pass
        while self.far.recv() is not None:
            pass

    def close(self) -> None:
        """Close everything."""
        for sock in self.sockets:
            sock.close()
        self.host.close()


def work(roads: Sequence[Road]) -> None:
    """Feed each road twice: the second time nothing is new. Runs under callgrind."""
    for road in roads:
        machine = Machine(road)
        for _ in range(2):
            machine.feed(road.count)
        machine.close()


# ---- instructions

NAME = re.compile(r"=\((\d+)\)(?: (.*))?")
COST = re.compile(r"[-+*]?\d* \d+")


def stage_of(obj: str) -> str:
    """Give the stage that an object file belongs to."""
    module = obj.rpartition("/netstack/")[2]
    folder, _, name = module.rpartition("/")
    if module == obj:
        return "libc"
    if name.startswith("_memory.") or folder == "testing":
        return "wire"
    return folder if folder in STAGES else "other"


def read_callgrind(path: Path) -> dict[str, int]:
    """Sum the instructions that a dump counts, by stage; calls are the callees' own."""
    names: dict[str, str] = {}
    obj = ""
    skip = False
    out: dict[str, int] = {}
    for line in path.read_text().splitlines():
        if line.startswith(("ob=", "cob=")):
            number, name = NAME.findall(line)[0]
            # A name is written out where it comes first, and is its number from there on.
            names[number] = name or names[number]
            obj = names[number] if line[0] == "o" else obj
        elif line.startswith("calls="):
            skip = True
        elif COST.match(line):
            if not skip:
                stage = stage_of(obj)
                out[stage] = out.get(stage, 0) + int(line.split()[1])
            skip = False
    return out


def count_instructions(roads: Sequence[Road]) -> dict[str, dict[str, float]]:
    """Run the roads under callgrind; instructions a frame, by road and stage."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *("valgrind", "--tool=callgrind", "--collect-atstart=no", "--quiet"),
            *("--toggle-collect=*_cpu_cpu_run", "--dump-after=*_traffic_*feed"),
            f"--callgrind-out-file={folder}/out",
            *(sys.executable, __file__, "--work"),
        ]
        import netstack

        where = str(Path(netstack.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (where, os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            command,
            input=pack(roads),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:6])}: {done.stderr[-2000:]}")
        dumps = sorted(Path(folder).glob("out.*"), key=lambda p: int(p.suffix[1:]))
        if len(dumps) < 2 * len(roads):
            raise RuntimeError(f"callgrind wrote {len(dumps)} files for {len(roads)} roads")
        result = {}
        for i, road in enumerate(roads):
            total = read_callgrind(dumps[2 * i + 1])
            result[road.name] = {
                stage: round(total[stage] / road.count, 1) for stage in STAGES if stage in total
            }
    return result


def compiler() -> str:
    """Say what the compiled modules were built with: its name, major version and what Python adds to its options."""
    import netstack._fastpath

    built = Path(netstack._fastpath.__file__).read_bytes()
    words = shlex.split(sysconfig.get_config_var("CFLAGS") or "")
    options = sorted(
        {w for w in words if w.startswith(("-O", "-m", "-fstack", "-fcf", "-flto"))}
    )
    for name, note in (("clang", rb"clang version (\d+)"), ("gcc", rb"GCC: \([^)]*\) (\d+)")):
        if found := re.search(note, built):
            return " ".join([name, found[1].decode(), *options])
    return "unknown"


def pack(roads: Sequence[Road]) -> str:
    """Make roads fit for a pipe; frames that several of them have go once."""
    sets = {id(road.frames): [frame.hex() for frame in road.frames] for road in roads}
    rows = [{**vars(road), "frames": id(road.frames)} for road in roads]
    return json.dumps([sets, rows])


def unpack(text: str) -> list[Road]:
    """Read what ``pack`` made."""
    sets, rows = json.loads(text)
    frames = {number: [bytes.fromhex(frame) for frame in sets[number]] for number in sets}
    return [Road(**row | {"frames": frames[str(row["frames"])]}) for row in rows]


# ---- nanoseconds


def measure_ns(roads: Sequence[Road], rounds: int) -> dict[str, dict[str, Any]]:
    """Run the roads in turn; ns of CPU a frame, sender's and wire's part included."""
    from benchlib import quartiles, spread

    machines = [Machine(road) for road in roads]
    took: dict[str, list[float]] = {road.name: [] for road in roads}
    for turn in range(rounds + 2):
        for road, machine in zip(roads, machines, strict=True):
            tally = machine.feed(road.count)
            if turn >= 2:
                took[road.name].append(tally["cpu_ns"] / road.count)
    for machine in machines:
        machine.close()
    return {
        name: {
            "ns": round(statistics.median(values), 1),
            "spread": round(spread(values), 3),
            "quartiles": {"ns": quartiles(values)},
        }
        for name, values in took.items()
    }


# ---- the tool


def ours(counts: dict[str, float]) -> float:
    """Add up the stages: without the wire in memory, and without libc."""
    return sum(count for stage, count in counts.items() if stage not in APART)


def print_table(counts: dict[str, dict[str, float]], ns: dict[str, dict[str, Any]]) -> None:
    """Print both kinds of figures."""
    print(f"{'road':<10}", *(f"{stage:>7}" for stage in STAGES), f"{'ours':>7}", end="")
    print(f"{'ns':>8} {'spread':>7}")
    for name in ns or counts:
        row = counts.get(name, {})
        cells = (f"{row.get(stage, 0):>7.1f}" for stage in STAGES)
        print(f"{name:<10}", *cells, f"{ours(row):>7.1f}", end="")
        if name in ns:
            print(f"{ns[name]['ns']:>8.1f} {ns[name]['spread']:>7.1%}", end="")
        print()


def draw(
    path: Path, what: str, counts: dict[str, dict[str, float]], ns: dict[str, dict[str, Any]]
) -> None:
    """Draw the instructions of each road by stage, and its nanoseconds."""
    import picture
    from benchlib import where

    it = picture.Picture(what, where(), bool(counts) + bool(ns))
    if counts:
        rows = [{"side": road, **row} for road, row in counts.items()]
        stages = [stage for stage in STAGES if stage not in APART]
        it.stack(rows, "side", stages, "above the wire", "instructions a frame")
    if ns:
        rows = [{"side": road, **row} for road, row in ns.items()]
        unit = "ns of CPU a frame, the sender's part included; the line: quartile to quartile"
        it.bars(rows, "side", "ns", "with a wire in memory", unit, most=False)
    it.save(path)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    # Not at the top: tests load this file for its roads, and what they measure may be another build.
    from benchlib import parser_for, print_json, print_machine

    parser = parser_for(__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="of nanoseconds; 0 for none")
    parser.add_argument("--record", metavar="FILE", help="write the counts there")
    args = parser.parse_args(argv)
    counts: dict[str, dict[str, float]] = {}
    if shutil.which("valgrind"):
        counts = count_instructions(ROADS)
    else:
        print("bench_stages: no valgrind, so no instructions are counted", file=sys.stderr)
    ns = measure_ns(ROADS, args.rounds) if args.rounds else {}
    if args.record:
        record = {"compiler": compiler(), "instructions": counts}
        Path(args.record).write_text(json.dumps(record, indent=1) + "\n")
    what = "instructions a frame by stage; ns of CPU with the sender's part"
    if args.picture and (counts or ns):
        draw(args.picture, what, counts, ns)
    if args.json:
        print_json(compiler=compiler(), instructions=counts, ns=ns)
    else:
        print_machine(what)
        print_table(counts, ns)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--work"]:
        work(unpack(sys.stdin.read()))
        sys.exit()
    sys.exit(main())
