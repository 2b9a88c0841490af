"""Event loops on a real TAP: a server of ours in asyncio and in trio, the kernel's socket as client."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from contextlib import contextmanager

import pytest
import trio

from netstack.socket import MSG_DONTWAIT
from tests.e2e.conftest import HOST, PEER

pytestmark = pytest.mark.tap

PORT = 7007
SIZES = [*range(0, 1473, 97), 1472, 1473, 8000, 65507]


def ask(sizes) -> None:
    """Send datagrams with the kernel's socket; each comes back unchanged. The last says "end"."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((HOST, PORT))
        try:
            for size in sizes:
                payload = bytes((size + i) & 0xFF for i in range(size))
                sock.send(payload)
                assert sock.recv(70000) == payload
        finally:
            sock.send(b"end")


@contextmanager
def client(sizes=SIZES):
    """Run ask() in a thread of its own: a pool's thread may be in another test's namespace."""
    failed = []

    def run():
        try:
            ask(sizes)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    assert failed == []


def served(sock):
    sock.setblocking(False)
    sock.bind((HOST, PORT))
    return sock


def test_asyncio_echo_server_by_datagram_endpoint(live):
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport
            self.ended = asyncio.get_running_loop().create_future()

        def datagram_received(self, data, addr):
            self.transport.sendto(data, addr)
            if data == b"end":
                self.ended.set_result(addr[0])

    async def main():
        loop = asyncio.get_running_loop()
        transport, echo = await loop.create_datagram_endpoint(Echo, sock=served(live.socket()))
        with client(SIZES[1:]):  # before Python 3.13 asyncio sends no empty datagram
            assert await echo.ended == PEER
        transport.close()

    asyncio.run(main())


def test_asyncio_echo_server_by_socket_calls(live):
    async def main():
        loop = asyncio.get_running_loop()
        with served(live.socket()) as sock, client():
            data = b""
            while data != b"end":
                data, peer = await loop.sock_recvfrom(sock, 70000)
                await loop.sock_sendto(sock, data, peer)

    asyncio.run(main())


def test_asyncio_add_reader_sees_bursts_to_their_end(live):
    count = 2000

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        got = []
        with served(live.socket()) as sock, socket.socket(type=socket.SOCK_DGRAM) as client:
            client.connect((HOST, PORT))
            client.send(b"who has?")  # while it asks for our MAC address the kernel reorders
            assert await loop.sock_recv(sock, 100) == b"who has?"

            def one():
                got.append(sock.recv(100))
                if len(got) % 100 == 0:
                    burst()
                if len(got) == count:
                    done.set_result(None)

            def burst():
                for i in range(len(got), min(len(got) + 100, count)):
                    client.send(i.to_bytes(2))

            loop.add_reader(sock, one)
            burst()
            await asyncio.wait_for(done, 60)
            loop.remove_reader(sock)
        assert got == [i.to_bytes(2) for i in range(count)]

    asyncio.run(main())


def test_trio_echo_server(live):
    async def main():
        with served(live.socket()) as sock, client(), trio.fail_after(60):
            data = b""
            while data != b"end":
                await trio.lowlevel.wait_readable(sock)
                data, peer = sock.recvfrom(70000)
                sock.sendto(data, peer)

    trio.run(main)


def test_one_selector_watches_sockets_of_the_kernel_and_ours(live):
    with (
        served(live.socket()) as ours,
        socket.socket(type=socket.SOCK_DGRAM) as theirs,
        selectors.DefaultSelector() as selector,
    ):
        theirs.bind((PEER, 0))
        selector.register(ours, selectors.EVENT_READ, "ours")
        selector.register(theirs, selectors.EVENT_READ, "theirs")
        ours.sendto(b"0", theirs.getsockname())
        for i in range(1, 200):
            ((key, _),) = selector.select(30)
            data, peer = key.fileobj.recvfrom(100, MSG_DONTWAIT)
            assert (int(data), key.data) == (i - 1, "theirs" if i & 1 else "ours")
            key.fileobj.sendto(b"%d" % i, peer)
