"""The programs that bench_peers.py starts: each takes what comes to UDP port 9000 of a TAP that is set up already.

    _peers.py SIDE sink FRAMES    say "." whenever so many datagrams have come
    _peers.py SIDE echo           send every datagram back

Each says "ready" when its host is up, and goes on until it is killed. A side imports its stack where it
uses it, so that no process has more than one.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

NAME, HOST, MAC, PORT = "tap0", "10.0.0.2", "02:00:00:00:00:02", 9000
IFF_TAP, IFF_NO_PI, TUNSETIFF = 0x2, 0x1000, 0x400454CA

Come = Callable[[], None]  # to be called for every datagram of a sink


def ready() -> None:
    """Tell the parent that the host is up."""
    os.write(1, b"ready\n")


def counter(frames: int) -> Come:
    """Count datagrams, and tell the parent about each so many."""
    left = frames

    def come() -> None:
        nonlocal left
        left -= 1
        if not left:
            left = frames
            os.write(1, b".")

    return come


# ---- read: no stack at all, a loop in Python


def read(come: Come | None) -> None:
    """Read the TAP, look at the ports, and swap the ends of what is sent back."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    flags = IFF_TAP | IFF_NO_PI
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", NAME.encode(), flags))
    want = PORT.to_bytes(2, "big")
    ready()
    while True:
        frame = os.read(fd, 2048)
        if frame[36:38] != want or frame[23] != 17:
            continue
        if come:
            come()
        else:
            ends = frame[6:12] + frame[:6] + frame[12:26] + frame[30:34] + frame[26:30]
            os.write(fd, ends + frame[36:38] + frame[34:36] + frame[38:])


# ---- netstack


def netstack(come: Come | None, **tunables: int) -> None:
    """Serve a socket in a plain Python loop."""
    import netstack
    from netstack.socket import SO_RCVBUF, SOL_SOCKET

    with netstack.up(NAME, addr=f"{HOST}/24", mac=MAC, control=False) as host:
        for name, value in tunables.items():
            host.config[f"netstack.{name}"] = value
        host.config["net.core.rmem_max"] = 4 << 20
        sock = host.socket()
        sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 4 << 20)
        sock.bind((HOST, PORT))
        ready()
        serve(sock.recvfrom, sock.sendto, come)


def serve(
    recvfrom: Callable[[int], Any], sendto: Callable[..., Any], come: Come | None
) -> None:
    """Take datagrams, and send them back or count them."""
    while True:
        data, sender = recvfrom(2048)
        if come:
            come()
        else:
            sendto(data, sender)


# ---- PyTCP: GPL; a program that is run beside ours, and not imported by anything of ours


def pytcp(come: Come | None) -> None:
    """Serve a socket of PyTCP 2.7. Its log is off; the parent starts Python with -O, which it is faster with."""
    from pytcp import TcpIpStack, config

    config.LOG_CHANEL = set()
    config.IP6_SUPPORT = False
    host = TcpIpStack(interface=NAME, mac_address=MAC, ip4_address=f"{HOST}/24")
    host.start()
    from pytcp.lib import socket

    sock = socket.socket(socket.AF_INET4, socket.SOCK_DGRAM)
    sock.bind((HOST, PORT))
    ready()
    serve(sock.recvfrom, sock.sendto, come)


# ---- scapy


def scapy(come: Come | None) -> None:
    """Sniff on the TAP; an answering machine sends back."""
    import logging

    logging.getLogger("scapy").setLevel(logging.ERROR)
    from scapy.ansmachine import AnsweringMachine
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether
    from scapy.layers.tuntap import TunTapInterface
    from scapy.sendrecv import sniff

    wire = TunTapInterface(NAME)

    def is_ours(packet: Any) -> bool:
        return UDP in packet and packet[UDP].dport == PORT

    class Echo(AnsweringMachine):  # type: ignore[misc]
        function_name = "udp_echo"

        def is_request(self, req: Any) -> bool:
            return is_ours(req)

        def make_reply(self, req: Any) -> Any:
            there, up = req[IP], req[UDP]
            back = Ether(src=req.dst, dst=req.src) / IP(src=there.dst, dst=there.src)
            return back / UDP(sport=up.dport, dport=up.sport) / up.payload

        def send_reply(self, reply: Any, send_function: Any = None) -> None:
            wire.send(reply)

    if come:
        ready()
        sniff(opened_socket=wire, store=False, lfilter=is_ours, prn=lambda _: come())
    else:
        echo = Echo(verbose=False, opened_socket=wire)
        ready()
        echo()


PROGRAMS: dict[str, Callable[[Come | None], None]] = {
    "read": read,
    "netstack": netstack,
    "netstack-python": lambda come: netstack(come, fast_path=0),
    "pytcp": pytcp,
    "scapy": scapy,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](counter(int(sys.argv[3])) if sys.argv[2] == "sink" else None)
