"""Datagram endpoints of a host: asyncio's own on the kernel's sockets is the oracle."""

import asyncio
import contextlib
import errno
import gc
import socket as kernel

import pytest

import netstack
from netstack.socket import SO_REUSEPORT, SOL_SOCKET

try:
    import uvloop
except ImportError:  # it has no wheel for every platform
    uvloop = None

HERE = "127.0.0.1"


class Recorder(asyncio.DatagramProtocol):
    """Write down each call."""

    def __init__(self):
        self.calls = []
        self.got = asyncio.Event()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def datagram_received(self, data, addr):
        self.calls.append((data, addr[0]))
        self.got.set()

    def error_received(self, exc):
        self.calls.append((type(exc), exc.errno))
        self.got.set()

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, exc):
        self.calls.append(("lost", exc))
        self.lost.set_result(exc)

    async def until(self, count):
        """Wait for so many datagrams and errors."""
        while sum(isinstance(call, tuple) for call in self.calls) < count:
            self.got.clear()
            await asyncio.wait_for(self.got.wait(), 30)

    async def close(self):
        self.transport.close()
        return await asyncio.wait_for(self.lost, 30)


LOOPS = {"asyncio": asyncio.new_event_loop} | (
    {"uvloop": uvloop.new_event_loop} if uvloop else {}
)


def run(main, new_loop=asyncio.new_event_loop):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


@pytest.fixture
def host():
    with netstack.Host() as it:
        yield it
        it.settle()
        account = netstack.ledger(it)
    assert account.balanced, account


@pytest.fixture(params=["kernel", *LOOPS])
def world(request, host):
    """How to make an endpoint, on whose loop: asyncio's on the kernel's sockets, or ours."""

    async def of_kernel(factory, *args, **named):
        loop = asyncio.get_running_loop()
        return await loop.create_datagram_endpoint(factory, *args, **named)

    if request.param == "kernel":
        return of_kernel, asyncio.new_event_loop
    return host.create_datagram_endpoint, LOOPS[request.param]


def in_world(world, case):
    make, new_loop = world
    return run(case(make), new_loop)


def test_datagrams_and_answers(world):
    async def case(make):
        server_end, server = await make(Recorder, (HERE, 0))
        port = server_end.get_extra_info("sockname")[1]
        client_end, client = await make(Recorder, remote_addr=(HERE, port))
        for i in range(5):
            client_end.sendto(b"%d" % i)
        await server.until(5)
        server_end.sendto(b"answer", client_end.get_extra_info("sockname"))
        await client.until(1)
        assert (await server.close(), await client.close()) == (None, None)
        return server.calls, client.calls

    got = [(b"%d" % i, HERE) for i in range(5)]
    server, client = in_world(world, case)
    assert server == ["made", *got, ("lost", None)]
    assert client == ["made", (b"answer", HERE), ("lost", None)]


def test_what_a_transport_says_of_itself(world):
    async def case(make):
        server_end, server = await make(Recorder, (HERE, 0))
        name = server_end.get_extra_info("sockname")
        client_end, client = await make(Recorder, remote_addr=name)
        assert name[0] == HERE
        assert server_end.get_extra_info("peername") is None
        assert client_end.get_extra_info("peername") == name
        assert client_end.get_extra_info("socket").getsockname()[0] == HERE
        assert client_end.get_extra_info("nothing", 5) == 5
        assert client_end.get_protocol() is client
        assert client_end.get_write_buffer_limits() == (16384, 65536)
        client_end.set_write_buffer_limits(high=100)
        assert client_end.get_write_buffer_limits() == (25, 100)
        client_end.set_write_buffer_limits(low=100)
        assert client_end.get_write_buffer_limits() == (100, 400)
        with pytest.raises(ValueError, match="must be >="):
            client_end.set_write_buffer_limits(1, 2)
        assert client_end.get_write_buffer_size() == 0
        assert not client_end.is_closing()
        client_end.close()
        client_end.close()
        assert client_end.is_closing()
        await client.lost
        await server.close()

    in_world(world, case)


def test_wrong_calls(world):
    async def case(make):
        with pytest.raises(ValueError, match="address family"):
            await make(Recorder)
        server_end, server = await make(Recorder, (HERE, 0))
        name = server_end.get_extra_info("sockname")
        with pytest.raises(OSError, match="Address already in use"):
            await make(Recorder, name)
        client_end, client = await make(Recorder, remote_addr=name)
        with pytest.raises(TypeError, match="bytes-like"):
            client_end.sendto("text")
        with pytest.raises(ValueError, match="Invalid address"):
            client_end.sendto(b"x", (HERE, 9))
        await server.close()
        await client.close()

    in_world(world, case)


def test_an_error_of_the_network_is_told_to_the_protocol(world):
    async def case(make):
        gone_end, gone = await make(Recorder, (HERE, 0))
        client_end, client = await make(
            Recorder, remote_addr=gone_end.get_extra_info("sockname")
        )
        await gone.close()
        client_end.sendto(b"anybody?")
        await client.until(1)
        client_end.sendto(bytes(65508))
        await client.until(2)
        await client.close()
        return client.calls

    assert in_world(world, case)[1:3] == [
        (ConnectionRefusedError, errno.ECONNREFUSED),
        (OSError, errno.EMSGSIZE),
    ]


def test_after_close_nothing_is_received_or_sent(world):
    async def case(make):
        server_end, server = await make(Recorder, (HERE, 0))
        client_end, client = await make(
            Recorder, remote_addr=server_end.get_extra_info("sockname")
        )
        server_end.close()
        client_end.sendto(b"too late")
        client_end.abort()
        client_end.sendto(b"later still")
        await server.lost
        await client.lost
        return server.calls, client.calls

    assert in_world(world, case) == (["made", ("lost", None)],) * 2


def test_an_exception_of_the_protocol_is_reported_and_the_next_datagram_comes(world):
    class Fails(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            if data == b"1":
                raise LookupError(data)

    async def case(make):
        reports = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reports.append(context["exception"])
        )
        server_end, server = await make(Fails, (HERE, 0))
        client_end, client = await make(
            Recorder, remote_addr=server_end.get_extra_info("sockname")
        )
        for i in range(3):
            client_end.sendto(b"%d" % i)
        await server.until(3)
        await server.close()
        await client.close()
        return reports, server.calls

    reports, calls = in_world(world, case)
    assert [type(report) for report in reports] == [LookupError]
    assert [data for data, _ in calls[1:4]] == [b"0", b"1", b"2"]


def test_an_echo_of_many_is_complete_and_in_order(world):
    class Echo(Recorder):
        def datagram_received(self, data, addr):
            self.transport.sendto(bytearray(data), addr)

    async def case(make):
        server_end, server = await make(Echo, (HERE, 0))
        client_end, client = await make(
            Recorder, remote_addr=server_end.get_extra_info("sockname")
        )
        for start in range(0, 2000, 50):
            for i in range(start, start + 50):
                client_end.sendto(i.to_bytes(2))
            await client.until(start + 50)
        await server.close()
        await client.close()
        return [int.from_bytes(call[0]) for call in client.calls[1:-1]]

    assert in_world(world, case) == list(range(2000))


# ---- what is ours alone


@pytest.fixture(params=LOOPS)
def loop(request):
    return LOOPS[request.param]


def preloaded(host, count):
    """Give a socket with so many datagrams in its queue."""
    sock, sender = host.socket(), host.socket()
    sock.bind((HERE, 7000))
    sender.connect((HERE, 7000))
    for i in range(count):
        sender.send(b"%d" % i)
    sender.close()
    host.settle()
    return sock


def test_one_wake_up_hands_over_what_is_queued_but_lets_others_run(host, loop):
    async def main():
        turns = []
        made, protocol = await host.create_datagram_endpoint(
            Recorder, sock=preloaded(host, 600)
        )
        # The loop's other callbacks get their turn after at most 256 datagrams.
        while len(protocol.calls) < 601:
            turns.append(len(protocol.calls) - 1)
            await asyncio.sleep(0)
        steps = [b - a for a, b in zip(turns, [*turns[1:], 600], strict=True)]
        assert max(steps) == 256
        made.close()
        await protocol.lost

    host.config["net.core.rmem_default"] = 1 << 20
    run(main(), loop)


def test_a_protocol_may_ask_for_lists(host, loop):
    class Lists(Recorder):
        def datagrams_received(self, datagrams):
            self.calls.append(datagrams)

    async def main():
        made, protocol = await host.create_datagram_endpoint(Lists, sock=preloaded(host, 100))
        while sum(map(len, protocol.calls[1:])) < 100:
            await asyncio.sleep(0)
        made.close()
        await protocol.lost
        lists = protocol.calls[1:-1]
        assert len(lists) < 4
        assert [data for part in lists for data, _ in part] == [b"%d" % i for i in range(100)]

    run(main(), loop)


def test_a_protocol_that_sends_much_is_paused_until_it_has_left(host, loop):
    class Answers(Recorder):
        def __init__(self):
            super().__init__()
            self.sizes = []

        def connection_made(self, transport):
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=150)

        def datagram_received(self, data, addr):
            self.transport.sendto(bytes(60), addr)
            self.sizes.append(self.transport.get_write_buffer_size())

    async def main():
        made, protocol = await host.create_datagram_endpoint(Answers, sock=preloaded(host, 5))
        while len(protocol.sizes) < 5:
            await asyncio.sleep(0)
        assert protocol.sizes == [60, 120, 180, 240, 300]
        assert protocol.calls == ["made", "pause", "resume"]
        assert made.get_write_buffer_size() == 0
        made.close()
        await protocol.lost

    run(main(), loop)


def test_a_protocol_that_closes_gets_nothing_more_and_its_answers_leave(host, loop):
    class Once(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.sendto(b"bye", addr)
            self.transport.close()

    async def main():
        client_end, client = await host.create_datagram_endpoint(Recorder, (HERE, 0))
        made, protocol = await host.create_datagram_endpoint(Once, (HERE, 7000))
        for _ in range(5):
            client_end.sendto(b"hello", (HERE, 7000))
        await protocol.lost
        assert protocol.calls == ["made", (b"hello", HERE), ("lost", None)]
        await client.until(1)
        assert client.calls[1] == (b"bye", HERE)
        await client.close()
        assert made.is_closing()

    run(main(), loop)


def test_when_the_host_closes_the_connection_is_lost(loop):
    async def main():
        with netstack.Host() as host:
            _, protocol = await host.create_datagram_endpoint(Recorder, (HERE, 7000))
        error = await asyncio.wait_for(protocol.lost, 30)
        assert error.errno == errno.EBADF

    run(main(), loop)


def test_options_of_the_socket(host):
    async def main():
        first, one = await host.create_datagram_endpoint(
            Recorder, (HERE, 7000), reuse_port=True, allow_broadcast=True
        )
        second, other = await host.create_datagram_endpoint(
            Recorder, (HERE, 7000), reuse_port=True
        )
        sock = first.get_extra_info("socket")
        assert sock.getsockopt(SOL_SOCKET, SO_REUSEPORT)
        assert sock.getsockopt(SOL_SOCKET, kernel.SO_BROADCAST)
        with pytest.raises(ValueError, match="of a netstack host"):
            await host.create_datagram_endpoint(Recorder, sock=5)
        with host.socket() as extra, pytest.raises(ValueError, match="modifiers"):
            await host.create_datagram_endpoint(Recorder, (HERE, 1), sock=extra)
        await one.close()
        await other.close()
        assert second.is_closing()

    run(main())


def test_a_factory_that_raises_leaves_no_socket(host):
    def fails():
        raise LookupError("no protocol today")

    async def main():
        with pytest.raises(LookupError):
            await host.create_datagram_endpoint(fails, (HERE, 7000))
        _, protocol = await host.create_datagram_endpoint(Recorder, (HERE, 7000))
        await protocol.close()

    run(main())


def test_a_forgotten_transport_is_complained_about(host):
    async def main():
        made, protocol = await host.create_datagram_endpoint(Recorder, (HERE, 7000))
        asyncio.get_running_loop().remove_reader(made._fd)
        del protocol.transport
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            made = gc.collect()

    with contextlib.suppress(asyncio.CancelledError):
        run(main())
    assert host.sockets() == []
