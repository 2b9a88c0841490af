"""An asyncio echo server on a host behind a TAP. As root: python examples/asyncio_echo.py [SECONDS]

From a second terminal: nc -u 10.0.0.2 7777
"""

import asyncio
import contextlib
import sys
from socket import AF_INET, SOCK_DGRAM

import netstack


class Echo(asyncio.DatagramProtocol):
    """Send every datagram back."""

    def connection_made(self, transport):
        """Keep the way back."""
        self.transport = transport

    def datagram_received(self, data, addr):
        """Send it back."""
        self.transport.sendto(data, addr)


async def serve(host, seconds):
    """Serve until time is up."""
    sock = host.socket(AF_INET, SOCK_DGRAM)
    sock.bind(("", 7777))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, sock=sock)
    print("echo on 10.0.0.2 port 7777", flush=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)
    transport.close()


with netstack.up("tap0", addr="10.0.0.2/24") as host:
    asyncio.run(serve(host, float(sys.argv[1]) if len(sys.argv) > 1 else None))
    print(netstack.ledger(host).text())
