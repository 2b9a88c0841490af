"""Both sides as routers: the same routes and neighbours, and frames for others."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from netstack.proto._neigh import nud
from netstack.proto.route import RTN, Route
from tests.proto.mutate import mend_ip, mend_transport, mutants, seeds
from tests.proto.stack import ETH0, number
from tools._oracle.compare import Oracle
from tools._oracle.kernel import NAME, Kernel
from tools._oracle.ours import Ours

NEXT, NEXT_MAC = "10.0.0.50", "02:00:00:00:00:50"
ROUTES = {
    "20.0.0.0/8": RTN.UNICAST,
    "77.0.0.0/8": RTN.UNICAST,
    "20.5.0.0/16": RTN.BLACKHOLE,
    "20.6.0.0/16": RTN.UNREACHABLE,
    "20.7.0.0/16": RTN.PROHIBIT,
}
# Where frames go: on, into routes that refuse, to a neighbour, and where there is no route.
TO = ("20.1.2.3", "20.1.2.4", "20.5.0.1", "20.6.0.1", "20.7.0.1", NEXT, "30.0.0.1")
FROM = IPv4Address("77.0.0.0")  # each frame from another, so that no limit of errors is reached
# What a clock or a limit decides is off: redirects come by case, not by chance.
SETTINGS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv4.conf.all.send_redirects": 0,
    f"net.ipv4.conf.{NAME}.send_redirects": 0,
}


def make_routers(oracle: Oracle) -> None:
    """Let all hosts of an oracle forward, the same way."""
    for side in (oracle.kernel, *oracle.roads.values()):
        kernel_router(side.host) if isinstance(side.host, Kernel) else our_router(side.host)
        side.before = side.host.counters()
        side.reasons()


def kernel_router(kernel: Kernel) -> None:
    """Set the kernel's namespace up."""
    for key, value in SETTINGS.items():
        kernel.sysctl(key, value)
    lines = [f"neigh replace {NEXT} lladdr {NEXT_MAC} dev {NAME} nud permanent"]
    for prefix, kind in ROUTES.items():
        way = f"{prefix} via {NEXT}" if kind == RTN.UNICAST else f"{kind.name.lower()} {prefix}"
        lines.append(f"route add {way}")
    text = "\n".join(lines) + "\n"
    subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True)


def our_router(ours: Ours) -> None:
    """Set a host of ours up."""
    host = ours.it.host
    for key, value in SETTINGS.items():
        host.config[key] = value
    mac = bytes.fromhex(NEXT_MAC.replace(":", ""))
    host.inet.neigh.update(
        ETH0, number(NEXT), mac, nud.NUD_PERMANENT, override=True, admin=True, create=True
    )
    gateway = IPv4Address(NEXT)
    host.inet.routes.add_routes(
        Route(
            IPv4Network(prefix), kind, ETH0, gateway if kind == RTN.UNICAST else IPv4Address(0)
        )
        for prefix, kind in ROUTES.items()
    )


def for_others(seed: int) -> Iterator[bytes]:
    """Give frames without end, most of them for others."""
    rng = random.Random(seed)
    for frame in mutants(seed, seeds()):
        if frame[12:14] != b"\x08\x00" or len(frame) < 34 or rng.random() < 0.1:
            yield frame
            continue
        data = bytearray(frame)
        data[30:34] = IPv4Address(rng.choice(TO)).packed
        data[26:30] = (FROM + rng.randrange(1, 1 << 24)).packed
        if rng.random() < 0.9:
            mend_ip(data)
        if rng.random() < 0.8:
            mend_transport(data)
        yield bytes(data)
