"""Event loops on a real TAP: servers in asyncio and trio, a selector, and the kernel's socket as their peer."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
import trio

import netstack
from netstack.socket import MSG_DONTWAIT
from tests.e2e.conftest import HOST, PEER

pytestmark = pytest.mark.tap

PORT = 7
COUNT = 1000
# None of 0 bytes: before Python 3.13 asyncio's transport does not send those.
SIZES = [1 + i * 1471 // (COUNT - 1) for i in range(COUNT)]
FRAGMENTED = [1473, 8000, 65507]
BURST = 10  # datagrams on their way at once
ROOM = 65536
PATIENCE = 30


def payload(number: int, size: int) -> bytes:
    """Give the datagram of a number: ``size`` bytes that tell it from its neighbours."""
    return (number.to_bytes(4, "little") * (size // 4 + 1))[:size]


def bursts(*single: int) -> Iterator[list[bytes]]:
    """Give what to send: first one datagram, then many at a time, then each of the ``single`` sizes.

    The first goes alone. While the kernel asks for our MAC address it lets datagrams wait, and one that
    is sent in the moment of the answer passes those that wait; behind a bare TAP as well.
    """
    yield [b"who has?"]
    for first in range(0, COUNT, BURST):
        yield [payload(number, SIZES[number]) for number in range(first, first + BURST)]
    for size in single:
        yield [payload(COUNT, size)]


@contextmanager
def sockets(host: netstack.Host) -> Iterator[tuple[Any, socket.socket]]:
    """Give a bound socket of ours and a connected one of the kernel, neither of them blocking."""
    with (
        host.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel,
    ):
        ours.bind((HOST, PORT))
        kernel.connect((HOST, PORT))
        ours.setblocking(False)
        kernel.setblocking(False)
        yield ours, kernel


def answer(sock: Any) -> None:
    """Send back all that waits."""
    with suppress(BlockingIOError):
        while True:
            sock.sendto(*sock.recvfrom(ROOM))


# ---- servers: each answers while its block runs


@asynccontextmanager
async def add_reader(sock: Any) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_reader(sock, answer, sock)
    yield
    assert loop.remove_reader(sock)


@asynccontextmanager
async def sock_recvfrom(sock: Any) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()

    async def serve() -> None:
        while True:
            data, peer = await loop.sock_recvfrom(sock, ROOM)
            assert await loop.sock_sendto(sock, data, peer) == len(data)

    task = asyncio.create_task(serve())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@asynccontextmanager
async def datagram_endpoint(sock: Any) -> AsyncIterator[None]:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, peer: Any) -> None:
            assert peer[0] == PEER
            self.transport.sendto(data, peer)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, sock=sock)
    assert transport.get_extra_info("sockname") == (HOST, PORT)
    yield
    transport.close()


# ---- clients


async def exchange(
    send: Callable[[bytes], Any], recv: Callable[[int], Any], datagrams: list[bytes]
) -> None:
    """Send datagrams, and get the same back in the same order."""
    for datagram in datagrams:
        await send(datagram)
    assert [await recv(ROOM) for _ in datagrams] == datagrams


@pytest.mark.parametrize(
    ("server", "single"),
    [
        (add_reader, [0, *FRAGMENTED]),
        (sock_recvfrom, [0, *FRAGMENTED]),
        (datagram_endpoint, FRAGMENTED),
    ],
    ids=["add_reader", "sock_recvfrom", "datagram_endpoint"],
)
def test_an_asyncio_server_answers_every_datagram_in_order(live, server, single):
    async def main(ours: Any, kernel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE), server(ours):
            for datagrams in bursts(*single):
                await exchange(
                    lambda data: loop.sock_sendall(kernel, data) if data else empty(kernel),
                    lambda size: loop.sock_recv(kernel, size),
                    datagrams,
                )

    async def empty(kernel: socket.socket) -> None:
        kernel.send(b"")  # loop.sock_sendall has nothing to do for it

    with sockets(live) as (ours, kernel):
        asyncio.run(main(ours, kernel))


def test_a_trio_server_answers_every_datagram_in_order(live):
    async def serve(sock: Any) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            answer(sock)

    async def main(ours: Any, kernel: socket.socket) -> None:
        client = trio.socket.from_stdlib_socket(kernel)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, ours)
                for datagrams in bursts(0, *FRAGMENTED):
                    await exchange(client.send, client.recv, datagrams)
                nursery.cancel_scope.cancel()

    with sockets(live) as (ours, kernel):
        trio.run(main, ours, kernel)


# ---- what else a loop relies on


def test_a_connected_endpoint_is_told_that_it_is_refused(live):
    """The kernel's port unreachable arrives as ``error_received``."""

    class Client(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.error: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        def error_received(self, error: Exception) -> None:
            if not self.error.done():
                self.error.set_result(error)

    async def main(sock: Any) -> None:
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_datagram_endpoint(Client, sock=sock)
        transport.sendto(b"anybody?")
        async with asyncio.timeout(PATIENCE):
            assert isinstance(await client.error, ConnectionRefusedError)
        transport.close()

    with live.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((PEER, 4242))
        asyncio.run(main(sock))


def test_a_reader_that_takes_one_datagram_a_call_is_called_until_none_is_left(live):
    count = 2000

    async def main(ours: Any, kernel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        got: list[bytes] = []
        kernel.send(b"who has?")  # alone, as in bursts()
        assert await loop.sock_recv(ours, 100) == b"who has?"

        def one() -> None:
            got.append(ours.recv(100))
            if len(got) % 100 == 0:
                burst()
            if len(got) == count:
                done.set_result(None)

        def burst() -> None:
            for i in range(len(got), min(len(got) + 100, count)):
                kernel.send(i.to_bytes(2))

        loop.add_reader(ours, one)
        burst()
        await asyncio.wait_for(done, PATIENCE)
        loop.remove_reader(ours)
        assert got == [i.to_bytes(2) for i in range(count)]

    with sockets(live) as (ours, kernel):
        asyncio.run(main(ours, kernel))


def test_one_selector_watches_sockets_of_the_kernel_and_ours(live):
    with sockets(live) as (ours, theirs), selectors.DefaultSelector() as selector:
        selector.register(ours, selectors.EVENT_READ, "ours")
        selector.register(theirs, selectors.EVENT_READ, "theirs")
        theirs.send(b"0")
        for i in range(1, 200):
            ((key, _),) = selector.select(PATIENCE)
            data, peer = key.fileobj.recvfrom(100, MSG_DONTWAIT)
            assert (int(data), key.data) == (i - 1, "ours" if i & 1 else "theirs")
            key.fileobj.sendto(b"%d" % i, peer)
