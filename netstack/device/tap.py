"""tap: a TAP interface as the wire, taken and given back.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       a name and addresses              netstack/addresses.py
Out      a file descriptor to read frames  device/_wire.pyx
Context  process; Python, at open and close only
Kernel   tun_chr_ioctl(), tun_net_xmit(), drivers/net/tun.c
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
from ipaddress import IPv4Interface
from pathlib import Path
from types import TracebackType
from typing import Self

from netstack.addresses import (
    DEFAULT_ADDRESS,
    check_mtu,
    check_name,
    check_txqueuelen,
    default_mac,
    parse_addresses,
)
from netstack.device.link import (
    Change,
    Link,
    apply,
    find_link,
    list_links,
    plan,
    put_back,
    refuse_conflicts,
)
from netstack.device.missed import DropCounter
from netstack.device.tap_errors import IFF_TAP, attach_error, open_error
from netstack.errors import InternalError, oserror

TUN_DEVICE = Path("/dev/net/tun")

# include/uapi/linux/if_tun.h
TUNSETIFF, TUNGETIFF = 0x400454CA, 0x800454D2
TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454D0, 0x400454D8
IFF_NO_PI, IFF_VNET_HDR, IFF_PERSIST = 0x1000, 0x4000, 0x0800
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x01, 0x02, 0x04
TUN_F_USO4, TUN_F_USO6 = 0x20, 0x40  # the kernel takes both or none
VNET_HDR_SIZE = 10  # struct virtio_net_hdr
IFREQ = "16sH22x"

NETNS = "/proc/thread-self/ns/net"


def open_tap(
    name: str,
    *,
    peer: IPv4Interface | None = None,
    host: IPv4Interface | None = None,
    mtu: int | None = None,
    txqueuelen: int | None = None,
    vnet_hdr: bool = False,
    device: Path = TUN_DEVICE,
) -> Tap:
    """Create the TAP `name`, or take over the persistent one of that name, and set it up.

    `peer` is the address of the kernel's end, which the interface gets; `host` is ours, and
    only checked: no interface of this machine may own it. `parse_addresses()` gives both. `mtu`
    in bytes and `txqueuelen` in frames stay as found if None (1500 and 1000 on a new TAP). IPv6
    is switched off on the interface unless it has an address that is not link-local.

    An ordinary user needs a persistent TAP of his own on which nothing is left to change; the
    error names every command that is missing. Raises `UsageError` for what no TAP could have,
    `OSError` with the kernel's errno otherwise; either way nothing is left behind.
    """
    check_name(name)
    if mtu is not None:
        check_mtu(mtu)
    if txqueuelen is not None:
        check_txqueuelen(txqueuelen)
    with contextlib.ExitStack() as undo:
        fd = _open_device(device)
        undo.callback(os.close, fd)
        name, persistent = _attach(fd, name, vnet_hdr=vnet_hdr, peer=peer, device=device)
        undo.callback(_reset_offload, fd)
        link, others = _split(list_links(), name)
        refuse_conflicts(link, others, host=host, peer=peer)
        mtu_then = check_mtu(link.mtu if mtu is None else mtu)
        mac = None if persistent else default_mac(name, "kernel")
        done = apply(link, plan(link, peer=peer, mtu=mtu, txqueuelen=txqueuelen, mac=mac))
        if persistent:
            undo.callback(_put_back, link, done, os.stat(NETNS).st_ino)
        drops = undo.enter_context(DropCounter(link.index))
        return Tap(
            link.name,
            link.index,
            fd,
            drops,
            undo.pop_all(),
            mtu=mtu_then,
            persistent=persistent,
            vnet_hdr=vnet_hdr,
        )


def choose_addresses(
    name: str, addr: str | None = None, peer: str | None = None
) -> tuple[IPv4Interface, IPv4Interface]:
    """Return the host's and the peer's address for the wire `name`, parsed and checked.

    Without `addr` a TAP that has an address already decides: its subnet is the wire's, and the
    host takes the first address beside it. Otherwise it is DEFAULT_ADDRESS.
    """
    if addr is None and peer is None:
        link = find_link(name)
        if link is not None and link.addresses:
            there, host = parse_addresses(link.addresses[0])
            return host, there
    return parse_addresses(DEFAULT_ADDRESS if addr is None else addr, peer)


class Tap:
    """A TAP that we hold; `close()`, or the end of a `with` block, puts it back as found.

    One that we created vanishes; a persistent one gets its old mtu, queue length, addresses
    and state again. Close it in the network namespace it was opened in.
    """

    def __init__(
        self,
        name: str,
        index: int,
        fd: int,
        drops: DropCounter,
        undo: contextlib.ExitStack,
        *,
        mtu: int,
        persistent: bool,
        vnet_hdr: bool,
    ) -> None:
        self.name = name
        self.index = index
        self.mtu = mtu
        self.persistent = persistent
        self.vnet_hdr = vnet_hdr
        self._fd = fd
        self._drops = drops
        self._undo = undo
        self._process = os.getpid()

    def fileno(self) -> int:
        """Return the non-blocking descriptor, one frame a read(); only close() closes it."""
        if self._fd < 0:
            raise oserror(errno.EBADF, f"{self.name} is closed")
        return self._fd

    def set_offload(self, offload: int) -> None:
        """Say which unfinished packets (TUN_F_*) the kernel may hand us whole; 0 is none.

        Needs `vnet_hdr`: its header says what is unfinished. Raises EINVAL for a combination
        that this kernel does not know.
        """
        fcntl.ioctl(self.fileno(), TUNSETOFFLOAD, offload)

    def missed(self) -> int:
        """Return the packets the kernel dropped since open because the TAP's queue was full.

        That queue is the NIC's packet buffer, so this is its missed-packets register, as long as
        every packet is a frame: else see `MissedFrames`. One system call pair of a few
        microseconds; after close it is the last value.
        """
        return self._drops.read()

    def passed(self) -> int | None:
        """Return the frames that the interface's qdisc has passed on; None where none counts them."""
        return self._drops.passed()

    def quiet(self, ms: int) -> bool:
        """Wait `ms` milliseconds at most for a packet in the queue; True when none was there."""
        if self._fd < 0:
            return False
        waiting = select.poll()
        waiting.register(self._fd, select.POLLIN)
        return not waiting.poll(ms)

    def close(self) -> None:
        """Put the interface back and let it go. A second call does nothing.

        In a fork of the process it stays as it is: it is the parent's.
        """
        self._fd, undo = -1, self._undo.pop_all()
        if self._process == os.getpid():
            undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else f"fd {self._fd}"
        return f"<Tap {self.name} mtu {self.mtu} {state}>"


def _open_device(device: Path) -> int:
    try:
        return os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise open_error(error.errno or errno.EIO, device) from None


def _attach(
    fd: int, name: str, *, vnet_hdr: bool, peer: IPv4Interface | None, device: Path
) -> tuple[str, bool]:
    """Make `fd` the TAP `name`; return its name and whether it outlives us."""
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet_hdr else 0)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack(IFREQ, name.encode(), flags))
    except OSError as error:
        number = error.errno or errno.EIO
        raise attach_error(number, name, find_link(name), peer=peer, path=device) from None
    _reset_offload(fd)
    if vnet_hdr:
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HDR_SIZE))
    raw, flags = struct.unpack(IFREQ, fcntl.ioctl(fd, TUNGETIFF, bytes(struct.calcsize(IFREQ))))
    return raw.split(b"\0")[0].decode(), bool(flags & IFF_PERSIST)


def _reset_offload(fd: int) -> None:
    """Leave no offloads on a persistent TAP: its next reader may not know about them."""
    with contextlib.suppress(OSError):  # EBADFD: the interface was deleted under us
        fcntl.ioctl(fd, TUNSETOFFLOAD, 0)


def _split(links: list[Link], name: str) -> tuple[Link, list[Link]]:
    ours = [link for link in links if link.name == name]
    if len(ours) != 1:
        raise InternalError(f"{name} is attached, yet rtnetlink shows {len(ours)} of it")
    return ours[0], [link for link in links if link.name != name]


def _put_back(link: Link, done: list[Change], namespace: int) -> None:
    """Undo the changes, but never to an interface of another namespace with the same index."""
    if os.stat(NETNS).st_ino != namespace:
        message = f"{link.name} was opened in another network namespace and is left as it is"
        raise oserror(errno.ENODEV, message, hint="close the host before leaving its namespace")
    put_back(link, done)
