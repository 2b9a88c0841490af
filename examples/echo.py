"""Answer every datagram: sudo netstack up tap0 --app examples.echo:serve."""

from socket import AF_INET, SOCK_DGRAM
from typing import Any


def serve(host: Any) -> None:
    """Echo on port 5007 until the host ends."""
    sock = host.socket(AF_INET, SOCK_DGRAM)
    sock.bind(("", 5007))
    while True:
        data, sender = sock.recvfrom(65535)
        sock.sendto(data, sender)
