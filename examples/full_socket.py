"""Send 300 datagrams to a socket that nobody reads. Run as root: python examples/full_socket.py."""

import socket

import netstack

with netstack.up("tap1", addr="10.0.1.2/24") as host:
    unread = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    unread.bind(("", 5000))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:  # the kernel's, on its end
        for _ in range(300):
            peer.sendto(b"x", ("10.0.1.2", 5000))
    host.settle()
    print(netstack.ledger(host).text())
