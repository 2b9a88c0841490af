"""link: set up the kernel's end of the wire, and put it back as it was.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       the interface as found            rtnetlink, through pyroute2
Out      the interface as asked for        the same Change list undoes it
Context  process; Python, at open and close only
Kernel   rtnl_setlink(), net/core/rtnetlink.c; inet_rtm_newaddr(), net/ipv4/devinet.c
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

from netstack.addresses import free_subnet
from netstack.errors import oserror

IFF_UP = 0x1
AF_INET, AF_INET6 = 2, 10
SCOPE_GLOBAL = 0  # enum rt_scope_t: RT_SCOPE_UNIVERSE
IPV6_CONF = Path("/proc/sys/net/ipv6/conf")


@dataclass(frozen=True)
class Link:
    """An interface as rtnetlink describes it."""

    index: int
    name: str
    up: bool
    mtu: int
    txqueuelen: int
    addresses: tuple[IPv4Interface, ...] = ()
    uses_ipv6: bool = False  # somebody gave it an address that is not link-local
    tun_type: int = 0  # IFLA_TUN_TYPE: IFF_TUN or IFF_TAP; 0 if it is neither
    multi_queue: bool = False
    owner: int | None = None
    group: int | None = None


@dataclass(frozen=True)
class Change:
    """One step from the interface as found to the interface as asked for.

    `do` and `undo` are requests: a verb of `_perform()` and its values. `line` is the same as a
    command, for the hint to whoever may not do it here. A step that is not `needed` may fail.
    """

    line: str
    do: tuple[str, dict[str, Any]]
    undo: tuple[str, dict[str, Any]]
    needed: bool = True


def find_link(name: str) -> Link | None:
    """Return the interface called `name` in this thread's network namespace."""
    links = {link.name: link for link in list_links()}
    return links.get(name)


def list_links() -> list[Link]:
    """Return every interface in this thread's network namespace. Needs no privilege."""
    links: list[Link] = _netlink(_dump)
    return links


def plan(
    link: Link,
    *,
    peer: IPv4Interface | None = None,
    mtu: int | None = None,
    txqueuelen: int | None = None,
    mac: str | None = None,
    ipv6: Path = IPV6_CONF,
) -> list[Change]:
    """Return the steps from `link` to what is asked for; None leaves a thing as it is."""
    steps: list[Change] = []
    name = link.name
    if not link.uses_ipv6:
        # Router solicitations and MLD reports would be frames that nobody on this wire wants.
        steps += _sysctl(ipv6, name, "disable_ipv6")
    elif not link.up:
        # Setting the link down again would flush the addresses that it has.
        steps += _sysctl(ipv6, name, "keep_addr_on_down")
    for key, wanted, found in (
        ("mtu", mtu, link.mtu),
        ("txqlen", txqueuelen, link.txqueuelen),
    ):
        if wanted is not None and wanted != found:
            word = "txqueuelen" if key == "txqlen" else key
            line = f"ip link set {name} {word} {wanted}"
            steps.append(Change(line, ("link", {key: wanted}), ("link", {key: found})))
    if mac is not None:
        line = f"ip link set {name} address {mac}"
        steps.append(Change(line, ("link", {"address": mac}), ("nothing", {})))
    if peer is not None and peer not in link.addresses:
        values = {"address": str(peer.ip), "prefixlen": peer.network.prefixlen}
        line = f"ip addr add {peer} dev {name}"
        steps.append(Change(line, ("addr add", values), ("addr del", values)))
    if not link.up:
        line = f"ip link set {name} up"
        steps.append(Change(line, ("link", {"state": "up"}), ("link", {"state": "down"})))
    return steps


def _sysctl(ipv6: Path, name: str, key: str) -> list[Change]:
    """Return the step that sets a switch of IPv6 to 1; none if it is 1, or there is no IPv6."""
    path = ipv6 / name / key
    try:
        found = path.read_text().strip()
    except OSError:
        return []
    if found == "1":
        return []
    line = f"sysctl -w net.ipv6.conf.{name}.{key}=1"
    do, undo = {"path": path, "value": "1"}, {"path": path, "value": found}
    return [Change(line, ("write", do), ("write", undo), needed=False)]


def refuse_conflicts(
    link: Link,
    others: Iterable[Link],
    *,
    host: IPv4Interface | None = None,
    peer: IPv4Interface | None = None,
) -> None:
    """Raise EADDRINUSE if the wire's addresses are in use on this machine already.

    Two interfaces in one subnet share its route, and the older one wins: packets for the wire
    would leave elsewhere, and the peer's address may be the one of a real gateway. An address
    that the interface had before is the user's own decision.
    """
    others = [other for other in others if other.index != link.index]
    owned = [(i, other.name) for other in (link, *others) for i in other.addresses]
    spare = free_subnet(address.network for address, _ in owned)
    hint = f"netstack up {link.name} --addr {spare[2]}/{spare.prefixlen}"
    for address, owner in owned:
        if host is not None and address.ip == host.ip:
            message = f"address {host.ip} belongs to this machine's own {owner} ({address})"
            raise oserror(errno.EADDRINUSE, message, hint=hint)
    if peer is None or peer in link.addresses:
        return
    for address, owner in owned:
        if owner != link.name and address.network.overlaps(peer.network):
            message = f"subnet {peer.network} overlaps {address} of {owner}"
            raise oserror(errno.EADDRINUSE, message, hint=hint)


def apply(link: Link, steps: Sequence[Change]) -> list[Change]:
    """Perform the steps and return those that were done; after a failure none is left done.

    Raises `PermissionError` with the commands that somebody with the privilege can type.
    """
    done: list[Change] = []
    for step in steps:
        try:
            _perform(link.index, step.do)
        except OSError as error:
            if not step.needed:
                continue
            put_back(link, done)
            raise _explained(link, step, steps, error) from None
        except BaseException:
            put_back(link, [*done, step])  # an interrupt: the step may or may not have happened
            raise
        done.append(step)
    return done


def put_back(link: Link, done: Sequence[Change]) -> None:
    """Undo the steps, the last one first; whatever is gone already needs no undoing."""
    failed: OSError | None = None
    for step in reversed(done):
        try:
            _perform(link.index, step.undo)
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENOENT):
                failed = failed or error
    if failed is not None:
        raise failed


def _explained(link: Link, step: Change, steps: Sequence[Change], error: OSError) -> OSError:
    number = error.errno or errno.EIO
    if number not in (errno.EPERM, errno.EACCES):
        message = f"{link.name} cannot be set up: `{step.line}` gives: {error.strerror}"
        return oserror(number, message, hint="netstack doctor")
    missing = [step for step in steps if step.needed]
    words = ", ".join(f"`{step.line}`" for step in missing)
    return oserror(
        number,
        f"{link.name} is not set up as asked, and doing it needs CAP_NET_ADMIN: {words}",
        hint="\n".join(f"sudo {step.line}" for step in missing),
    )


def _perform(index: int, request: tuple[str, dict[str, Any]]) -> None:
    verb, values = request
    if verb == "write":
        values["path"].write_text(values["value"])
    elif verb == "link":
        _netlink(lambda ipr: ipr.link("set", index=index, **values))
    elif verb != "nothing":
        _netlink(lambda ipr: ipr.addr(verb.removeprefix("addr "), index=index, **values))


def _netlink(work: Callable[[Any], Any]) -> Any:
    """Run `work` with a pyroute2 socket of this thread's network namespace."""
    import asyncio  # here and not above: `netstack --help` does without, pyroute2 does not
    from concurrent.futures import ThreadPoolExecutor

    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    def run() -> Any:
        try:
            with IPRoute() as ipr:
                return work(ipr)
        except NetlinkError as error:  # not an OSError, though it carries an errno
            raise OSError(error.code, os.strerror(error.code)) from None

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    # In the caller's event loop: pyroute2 0.9 runs a loop of its own, and loops do not nest.
    # A new thread is born in the network namespace of this one.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def _dump(ipr: Any) -> list[Link]:
    v4: dict[int, list[IPv4Interface]] = {}
    for message in ipr.get_addr(family=AF_INET):
        ip = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = IPv4Interface((ip, message["prefixlen"]))
        v4.setdefault(message["index"], []).append(address)
    v6 = {m["index"] for m in ipr.get_addr(family=AF_INET6) if m["scope"] == SCOPE_GLOBAL}
    return [_link(message, v4, v6) for message in ipr.get_links()]


def _link(message: Any, v4: dict[int, list[IPv4Interface]], v6: set[int]) -> Link:
    index = message["index"]
    info = message.get_attr("IFLA_LINKINFO")
    tun = None
    if info is not None and info.get_attr("IFLA_INFO_KIND") == "tun":
        tun = info.get_attr("IFLA_INFO_DATA")
    return Link(
        index=index,
        name=message.get_attr("IFLA_IFNAME"),
        up=bool(message["flags"] & IFF_UP),
        mtu=message.get_attr("IFLA_MTU"),
        txqueuelen=message.get_attr("IFLA_TXQLEN") or 0,
        addresses=tuple(v4.get(index, ())),
        uses_ipv6=index in v6,
        tun_type=tun.get_attr("IFLA_TUN_TYPE") or 0 if tun else 0,
        multi_queue=bool(tun and tun.get_attr("IFLA_TUN_MULTI_QUEUE")),
        owner=tun.get_attr("IFLA_TUN_OWNER") if tun else None,
        group=tun.get_attr("IFLA_TUN_GROUP") if tun else None,
    )
