"""Many datagrams a call, and an asyncio endpoint. As root: python examples/batches.py

The kernel sends to three servers of one host: one takes lists, one takes records in a buffer of its
own and makes no object a packet, one is a protocol of asyncio's kind.
"""

import asyncio
import ipaddress
import socket
import struct

import netstack

RECORD = struct.Struct("=IIIHH")  # offset, length, address, port, flags
COUNT = 100


class Echo(asyncio.DatagramProtocol):
    """Send back every list of datagrams that a wake-up brings."""

    def connection_made(self, transport):
        """Keep the way back."""
        self.transport = transport

    def datagrams_received(self, datagrams):
        """Send them back."""
        for data, peer in datagrams:
            self.transport.sendto(data, peer)


def burst(port):
    """Send datagrams with a kernel socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("10.0.0.1", 4000))
        for i in range(COUNT):
            sender.sendto(b"%d" % i, ("10.0.0.2", port))


def lists(host):
    """Take lists of (data, address), as recvfrom() gives them."""
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 7001))
        burst(7001)
        got = []
        while len(got) < COUNT:
            got += sock.recv_batch(64)
        print("lists:", len(got), "datagrams, the last", got[-1])
        sock.send_batch(got)


def records(host):
    """Take records, and send the same records back."""
    buffer, packets = bytearray(64 * 2048), bytearray(64 * RECORD.size)
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 7002))
        burst(7002)
        total = 0
        while total < COUNT:
            n = sock.recv_batch_into(buffer, packets)
            total += n
            sock.send_batch_from(buffer, packets, n)
        offset, length, address, port, _ = RECORD.unpack_from(packets, (n - 1) * RECORD.size)
        last = bytes(buffer[offset : offset + length])
        print("records:", total, "datagrams, the last", last, "from",
              ipaddress.IPv4Address(address), port)  # fmt: skip


async def endpoint(host):
    """Serve with a datagram endpoint, under any event loop."""
    loop = asyncio.get_running_loop()
    transport, _ = await host.create_datagram_endpoint(Echo, local_addr=("10.0.0.2", 7003))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("10.0.0.2", 7003))
        for i in range(COUNT):
            await loop.sock_sendall(client, b"%d" % i)
        for _ in range(COUNT):
            last = await loop.sock_recv(client, 100)
        print("endpoint:", COUNT, "answers, the last", last)
    transport.close()


with netstack.up("tap0", addr="10.0.0.2/24") as host:
    lists(host)
    records(host)
    asyncio.run(endpoint(host))
    host.settle()
    print(netstack.ledger(host).text())
