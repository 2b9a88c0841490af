"""Waiting for a datagram: sleepers are woken, the fd says what the queue says, nothing is lost.

These hosts have threads of their own. No test sleeps to wait for them: each waits for what it
expects, and the suite's time limit is what ends a test that waits in vain.
"""

import asyncio
import select
import selectors
import signal
import socket as kernel
import threading
import time
from collections.abc import Iterator

import pytest
import trio

import netstack
from netstack.device._memory import MemoryWire
from netstack.socket import socket
from tests.sock.rig import MAC, OUR_IP, PEER_IP, udp_frame

HERE = "127.0.0.1"


@pytest.fixture
def host() -> Iterator[netstack.Host]:
    with netstack.Host() as made:
        made.wire, made.peer = MemoryWire.pair(100_000)
        made.add_nic(made.wire, "eth0", addr=f"{OUR_IP}/24", mac=MAC)
        yield made
        made.settle()
        for sock in sockets:
            sock.close()
        sockets.clear()
    account = netstack.ledger(made)
    assert account.balanced, account


sockets: list[socket] = []


def bound(host, port=0):
    sock = host.socket()
    sock.bind((OUR_IP, port))
    sockets.append(sock)
    return sock


def readable(sock, timeout=0) -> bool:
    return bool(select.select([sock], [], [], timeout)[0])


def in_thread(call):
    """Run a call in a thread; give the thread, and the list its result will be in."""
    results = []

    def run():
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def until(true) -> None:
    """Return once another thread has made it true; the suite's time limit ends a wait in vain."""
    while not true():
        time.sleep(0)


def asleep(sock) -> None:
    """Return once a thread sleeps in a receive of `sock`."""
    until(lambda: sock.info["sleeping"])


# ---- sleeping


def test_a_sleeping_receive_is_woken_by_a_frame(host):
    sock = bound(host, 9000)
    thread, results = in_thread(lambda: sock.recvfrom(100))
    asleep(sock)
    host.peer.send(udp_frame(b"wake up"))
    thread.join()
    assert results == [(b"wake up", (PEER_IP, 4000))]


def test_several_sleepers_get_a_datagram_each(host):
    sock = bound(host, 9000)
    waiting = [in_thread(lambda: sock.recv(100)) for _ in range(4)]
    asleep(sock)
    for i in range(4):
        host.peer.send(udp_frame(bytes([i])))
    for thread, _ in waiting:
        thread.join()
    assert sorted(results[0] for _, results in waiting) == [b"\0", b"\1", b"\2", b"\3"]


def test_closing_a_socket_wakes_its_sleepers(host):
    sock = bound(host, 9000)
    thread, results = in_thread(lambda: sock.recv(100))
    asleep(sock)
    sock.close()
    thread.join()
    assert str(results[0]) == "[Errno 9] Bad file descriptor"


def test_closing_a_host_wakes_sleepers():
    with netstack.Host() as host:
        sock = host.socket()
        sock.bind((HERE, 0))
        thread, results = in_thread(lambda: sock.recv(100))
        asleep(sock)
    thread.join()
    assert str(results[0]) == "[Errno 9] Bad file descriptor"


def test_an_error_wakes_a_sleeper(host):
    sock = bound(host)
    closed = bound(host)
    sock.connect(closed.getsockname())
    closed.close()
    thread, results = in_thread(lambda: sock.recv(100))
    asleep(sock)
    sock.send(b"anyone?")
    thread.join()
    assert isinstance(results[0], ConnectionRefusedError)


@pytest.mark.parametrize("timeout", [None, 60])
def test_a_signal_interrupts_a_sleeping_receive(host, timeout):
    class Interrupted(Exception):
        pass

    def handler(number, frame):
        raise Interrupted

    sock = bound(host)
    sock.settimeout(timeout)
    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident
    thread, _ = in_thread(lambda: (asleep(sock), signal.pthread_kill(main, signal.SIGUSR1)))
    try:
        with pytest.raises(Interrupted):
            sock.recv(100)
    finally:
        signal.signal(signal.SIGUSR1, before)
        thread.join()


def test_a_signal_whose_handler_returns_does_not_end_the_wait(host):
    seen = []
    sock = bound(host, 9000)
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(sock.info["sleeping"]))
    main = threading.main_thread().ident

    def disturb():
        asleep(sock)
        signal.pthread_kill(main, signal.SIGUSR1)
        until(lambda: seen)
        host.peer.send(udp_frame(b"still here"))

    thread, _ = in_thread(disturb)
    try:
        assert sock.recv(100) == b"still here"
    finally:
        signal.signal(signal.SIGUSR1, before)
        thread.join()


def test_a_timeout_waits_as_long_as_it_says(host):
    sock = bound(host)
    for timeout in (0.001, 0.05):
        sock.settimeout(timeout)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert timeout <= time.monotonic() - begin < timeout + 5


# ---- nothing is lost

COUNT = 20_000


def flood(host, address, count=COUNT):
    """Send from a thread of its own, never more ahead than a queue holds."""
    sender = bound(host)
    window = threading.Semaphore(200)

    def run():
        for i in range(count):
            window.acquire()
            sender.sendto(i.to_bytes(4), address)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, window


def test_blocking_receives_lose_no_wake_up(host):
    sock = bound(host)
    thread, window = flood(host, sock.getsockname())
    for i in range(COUNT):
        assert sock.recv(10) == i.to_bytes(4)
        window.release()
    thread.join()


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_the_fd_loses_no_event_and_is_never_stuck(host, at_once):
    sock = bound(host)
    sock.setblocking(False)
    thread, window = flood(host, sock.getsockname())
    poll = select.epoll()
    poll.register(sock, select.EPOLLIN)
    got = 0
    while got < COUNT:
        assert poll.poll(30), f"no event for datagram {got}"
        for _ in range(at_once):
            try:
                assert sock.recv(10) == got.to_bytes(4)
            except BlockingIOError:
                break
            got += 1
            window.release()
    thread.join()
    assert not poll.poll(0)
    poll.close()


def test_the_fd_ends_up_right_with_several_readers(host):
    sock = bound(host)
    sock.fileno()
    thread, window = flood(host, sock.getsockname())
    got = []

    def reader():
        while data := sock.recv(10):
            got.append(data)
            window.release()

    readers = [in_thread(reader)[0] for _ in range(3)]
    thread.join()
    for _ in readers:
        bound(host).sendto(b"", sock.getsockname())
    for one in readers:
        one.join()
    assert sorted(got) == [i.to_bytes(4) for i in range(COUNT)]
    assert not readable(sock)
    bound(host).sendto(b"x", sock.getsockname())
    assert readable(sock, 30)


def test_sockets_come_and_go_under_traffic(host):
    """Bind, poll, read, connect and close while the CPU looks sockets up and queues to them."""
    stop = threading.Event()
    frames = [udp_frame(b"x" * 20, sport=4000 + i, dport=9000 + i % 3) for i in range(64)]

    def traffic():
        while not stop.is_set():
            for frame in frames:
                host.peer.send(frame)

    def churn():
        for i in range(300):
            with host.socket() as sock:
                sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_REUSEPORT, 1)
                sock.setblocking(False)
                sock.bind((OUR_IP, 9000 + i % 3))
                if i % 3 == 0:
                    select.select([sock], [], [], 0.001)
                if i % 5 == 0:
                    sock.connect((PEER_IP, 4000))
                try:
                    while True:
                        sock.recv(100)
                except BlockingIOError:
                    pass

    sender = in_thread(traffic)
    churners = [in_thread(churn) for _ in range(3)]
    for thread, results in churners:
        thread.join()
        assert results == [None]
    stop.set()
    sender[0].join()
    assert sender[1] == [None]
    while host.peer.recv() is not None:
        pass


# ---- the fd


def test_the_fd_is_a_level(host):
    sock = bound(host, 9000)
    host.peer.send(udp_frame(b"1"))
    host.peer.send(udp_frame(b"2"))
    until(lambda: sock.info["queued"] == 2)
    assert readable(sock), "what was queued before the fd was made counts"
    for _ in range(3):
        assert readable(sock)
    sock.recv(1)
    assert readable(sock)
    sock.recv(1)
    for _ in range(3):
        assert not readable(sock)
    host.peer.send(udp_frame(b"3"))
    assert readable(sock, 30)


def test_the_fd_is_the_same_each_time_and_gone_when_closed(host):
    sock = bound(host)
    fd = sock.fileno()
    assert fd == sock.fileno() > 2
    sock.close()
    assert sock.fileno() == -1
    with pytest.raises(OSError, match="Bad file"):
        select.select([fd], [], [], 0)


def test_selectors_tell_which_socket_is_ready(host):
    first, second = bound(host, 9000), bound(host, 9001)
    with selectors.DefaultSelector() as selector:
        selector.register(first, selectors.EVENT_READ)
        selector.register(second, selectors.EVENT_READ)
        host.peer.send(udp_frame(b"x", dport=9001))
        ((key, _),) = selector.select(30)
        assert key.fileobj is second


# ---- event loops


def test_asyncio_sock_calls_and_add_reader(host):
    async def main():
        loop = asyncio.get_running_loop()
        server, client = bound(host), bound(host)
        server.setblocking(False)
        client.setblocking(False)
        for i in range(100):
            await loop.sock_sendto(client, bytes([i]), server.getsockname())
            data, peer = await loop.sock_recvfrom(server, 100)
            assert (data, peer) == (bytes([i]), client.getsockname())
        buffer = bytearray(10)
        waiting = asyncio.create_task(loop.sock_recvfrom_into(server, buffer))
        await loop.sock_sendto(client, b"later", server.getsockname())
        assert await waiting == (5, client.getsockname())
        ready = asyncio.Event()
        loop.add_reader(server, ready.set)
        assert not ready.is_set()
        await loop.sock_sendto(client, b"x", server.getsockname())
        await ready.wait()
        loop.remove_reader(server)

    asyncio.run(main())


class Echo(asyncio.DatagramProtocol):
    """Send back whatever comes."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


class Collect(asyncio.DatagramProtocol):
    """Keep what comes, and errors."""

    def __init__(self):
        self.queue = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.queue.put_nowait((data, addr))

    def error_received(self, error):
        self.queue.put_nowait(error)


def test_asyncio_datagram_endpoints_talk(host):
    async def main():
        loop = asyncio.get_running_loop()
        server, client = bound(host), host.socket()
        client.connect(server.getsockname())
        for sock in (server, client):
            sock.setblocking(False)
        echo, _ = await loop.create_datagram_endpoint(Echo, sock=server)
        transport, collect = await loop.create_datagram_endpoint(Collect, sock=client)
        assert transport.get_extra_info("peername") == server.getsockname()
        for i in range(100):
            transport.sendto(i.to_bytes(2))
        for i in range(100):
            assert (await collect.queue.get())[0] == i.to_bytes(2)
        echo.close()
        await asyncio.sleep(0)
        transport.sendto(b"gone")
        assert isinstance(await collect.queue.get(), ConnectionRefusedError)
        transport.close()

    asyncio.run(main())


def test_trio_waits_until_readable(host):
    async def main():
        server, client = bound(host), bound(host)
        server.setblocking(False)

        async def serve():
            for _ in range(100):
                await trio.lowlevel.wait_readable(server)
                data, peer = server.recvfrom(100)
                server.sendto(data.upper(), peer)

        client.setblocking(False)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                for i in range(100):
                    client.sendto(b"hello %d" % i, server.getsockname())
                    await trio.lowlevel.wait_readable(client)
                    assert client.recv(100) == b"HELLO %d" % i
        trio.lowlevel.notify_closing(server)

    trio.run(main)


def test_a_busy_python_thread_does_not_stop_the_queue(host):
    """The CPU needs no GIL: a queue fills while Python does something else."""
    sock = bound(host, 9000)
    for i in range(200):
        host.peer.send(udp_frame(i.to_bytes(2)))
    while sock.info["queued"] < 200:
        pass
    assert [sock.recv(10) for _ in range(200)] == [i.to_bytes(2) for i in range(200)]
