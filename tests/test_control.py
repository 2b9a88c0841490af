"""The control socket: who may ask, what is answered, what a bad client can do (nothing)."""

import errno
import json
import os
import socket
import stat
import threading

import pytest

from netstack import control, control_client
from netstack.control import ControlServer, is_answering
from netstack.control_client import Control, hosts
from netstack.errors import InternalError, UsageError, hint_of, oserror


class Ticker:
    """A stream that has one chunk each time it is told."""

    def __init__(self):
        self.head = {"kind": "ticks"}
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.chunk = b"tick"
        self.closed = threading.Event()

    def fileno(self):
        return self.fd

    def tick(self):
        os.eventfd_write(self.fd, 1)

    def read(self):
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return b""
        return self.chunk

    def close(self):
        if not self.closed.is_set():
            os.close(self.fd)
            self.closed.set()


def refuse(_target):
    raise UsageError("that can't be", hint="netstack something")


def no_entry(_target):
    raise oserror(errno.ENODEV, "no such thing", hint="netstack other")


def broken(_target):
    raise ZeroDivisionError("oops")


class Target:
    def __init__(self):
        self.ticker = Ticker()


COMMANDS = {
    "echo": lambda target, **args: args,
    "double": lambda target, value: value * 2,
    "big": lambda target: "x" * 3_000_000,
    "refuse": refuse,
    "no_entry": no_entry,
    "broken": broken,
    "ticks": lambda target: target.ticker,
}


@pytest.fixture
def target():
    target = Target()
    yield target
    target.ticker.close()


@pytest.fixture
def server(tmp_path, target):
    server = ControlServer("tap0", tmp_path, target, COMMANDS)
    server.start()
    yield server
    server.close()


@pytest.fixture
def client(server, tmp_path):
    with Control.find(tmp_path) as client:
        yield client


def test_a_question_is_answered(client):
    said = {"text": "täp", "numbers": [1, 2]}
    assert client.request("echo", **said) == said
    assert client.request("double", value=21) == 42


def test_an_answer_larger_than_any_buffer_arrives_whole(client):
    assert len(client.request("big")) == 3_000_000
    assert client.request("double", value=1) == 2


def test_several_clients_are_served(server, tmp_path):
    with Control.find(tmp_path) as one, Control.find(tmp_path) as two:
        assert one.request("double", value=1) == 2
        assert two.request("double", value=2) == 4
        assert one.request("double", value=3) == 6


def test_the_mistake_of_a_caller_comes_back_as_it_was_raised(client):
    with pytest.raises(UsageError, match="that can't be") as info:
        client.request("refuse")
    assert hint_of(info.value) == "netstack something"
    with pytest.raises(OSError, match="no such thing") as other:
        client.request("no_entry")
    assert other.value.errno == errno.ENODEV
    assert hint_of(other.value) == "netstack other"


def test_a_mistake_of_ours_is_named_and_ends_nothing(client, caplog):
    with pytest.raises(InternalError, match=r"ZeroDivisionError: oops; please report"):
        client.request("broken")
    assert "ZeroDivisionError" in caplog.text
    assert client.request("double", value=1) == 2


def test_wrong_arguments_are_the_callers_mistake(client):
    with pytest.raises(UsageError, match="double: missing a required argument: 'value'"):
        client.request("double", valeu=1)
    with pytest.raises(UsageError, match="no command 'dubble'") as info:
        client.request("dubble")
    assert "double" in hint_of(info.value)


NONSENSE = [b"", b"nonsense", b"[]", b"{}", b"7", b'{"cmd": []}', b'{"cmd": "echo", "args": 3}']


@pytest.mark.parametrize("line", NONSENSE)
def test_nonsense_is_refused_and_the_connection_goes_on(server, line):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.path))
        raw.sendall(line + b'\n{"cmd": "double", "args": {"value": 4}}\n')
        file = raw.makefile()
        assert json.loads(file.readline())["ok"] is False
        assert json.loads(file.readline()) == {"ok": True, "data": 8}
        file.close()


def test_a_request_in_pieces_is_put_together(server):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.path))
        for byte in b'{"cmd": "double", "args": {"value": 5}}\n':
            raw.sendall(bytes([byte]))
        assert json.loads(raw.recv(100)) == {"ok": True, "data": 10}


def test_a_request_without_an_end_ends_the_connection(server, client):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.path))
        raw.settimeout(10)
        with pytest.raises(ConnectionError):
            raw.sendall(b"x" * (64 << 20))
    assert client.request("double", value=1) == 2


def test_a_stream_follows_its_answer(client, target):
    assert client.request("ticks") == {"kind": "ticks"}
    target.ticker.tick()
    assert client.sock.recv(4) == b"tick"
    target.ticker.tick()
    assert client.sock.recv(4) == b"tick"


def test_a_stream_is_closed_when_its_client_goes(client, target):
    client.request("ticks")
    client.close()
    assert target.ticker.closed.wait(5)


def test_a_stream_is_closed_with_the_server(server, tmp_path, target):
    with Control.find(tmp_path) as client:
        client.request("ticks")
        server.close()
        assert target.ticker.closed.is_set()
        assert client.sock.recv(10) == b""


def test_a_client_that_does_not_read_stops_only_its_own_stream(server, tmp_path, target):
    target.ticker.chunk = b"x" * control.HIGH_WATER
    with Control.find(tmp_path) as slow, Control.find(tmp_path) as other:
        slow.request("ticks")
        for _ in range(10):
            target.ticker.tick()
            assert other.request("double", value=1) == 2
        (waiting,) = [c.unsent for c in server._clients.values() if c.stream]
        assert len(waiting) <= 2 * control.HIGH_WATER
        slow.sock.settimeout(5)
        assert slow.sock.recv(1000)


def test_one_connection_has_one_stream(client):
    client.request("ticks")
    second = Ticker()
    COMMANDS["second"] = lambda target: second
    try:
        with pytest.raises(UsageError, match="stream already"):
            client.request("second")
    finally:
        del COMMANDS["second"]
    assert second.closed.is_set()


def test_only_the_owner_can_open_the_socket(server):
    mode = os.stat(server.path).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_another_user_is_refused_whatever_the_mode_says(server, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "_is_allowed", lambda sock: False)
    with Control.find(tmp_path) as client, pytest.raises(PermissionError, match="another user"):
        client.request("double", value=1)


def test_the_kernel_says_who_asks(server):
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert control._is_allowed(ours)


def test_a_second_host_of_the_name_is_refused(server, tmp_path):
    with pytest.raises(OSError, match="a host named tap0 is running already") as info:
        ControlServer("tap0", tmp_path, None, {})
    assert info.value.errno == errno.EADDRINUSE
    assert hint_of(info.value)
    assert is_answering(server.path)


def test_the_socket_of_a_dead_process_is_replaced(tmp_path):
    left_behind = socket.socket(socket.AF_UNIX)
    left_behind.bind(str(tmp_path / "tap0.sock"))
    left_behind.close()
    assert hosts(tmp_path) == []
    server = ControlServer("tap0", tmp_path, None, COMMANDS)
    server.start()
    try:
        assert hosts(tmp_path) == ["tap0"]
    finally:
        server.close()


def test_nothing_is_left_behind(tmp_path):
    server = ControlServer("tap0", tmp_path, None, COMMANDS)
    server.start()
    server.close()
    server.close()
    assert list(tmp_path.iterdir()) == []
    server._thread.join(5)
    assert not server._thread.is_alive()


def test_a_server_that_never_started_gives_its_socket_back(tmp_path):
    server = ControlServer("tap0", tmp_path, None, COMMANDS)
    server.close()
    assert list(tmp_path.iterdir()) == []


def test_closing_leaves_the_socket_of_a_successor_alone(tmp_path):
    first = ControlServer("tap0", tmp_path, None, COMMANDS)
    first.path.unlink()
    second = ControlServer("tap0", tmp_path, None, COMMANDS)
    first.close()
    assert second.path.exists()
    second.close()


def test_a_path_that_is_too_long_is_explained(tmp_path):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with pytest.raises(UsageError, match="108"):
        ControlServer("tap0", deep, None, COMMANDS)


def test_without_a_host_it_says_what_to_type(tmp_path):
    with pytest.raises(FileNotFoundError, match="no host of yours is running") as info:
        Control.find(tmp_path)
    assert hint_of(info.value).startswith("netstack up tap0")


def test_of_two_hosts_one_must_be_named(server, tmp_path):
    other = ControlServer("tap1", tmp_path, None, COMMANDS)
    other.start()
    try:
        with pytest.raises(UsageError, match="2 hosts are running") as info:
            Control.find(tmp_path)
        assert hint_of(info.value).splitlines() == [
            "netstack --name tap0 ...",
            "netstack --name tap1 ...",
        ]
        with Control.find(tmp_path, "tap1") as client:
            assert client.name == "tap1"
    finally:
        other.close()


def test_an_unknown_name_gets_those_there_are(server, tmp_path):
    with pytest.raises(FileNotFoundError, match="no host named tap9") as info:
        Control.find(tmp_path, "tap9")
    assert hint_of(info.value) == "netstack --name tap0 ..."


@pytest.fixture
def crowd(tmp_path):
    """Give a server that does not accept yet, with as many waiting as the kernel lets."""
    server = ControlServer("tap0", tmp_path, None, COMMANDS)
    waiting = []
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        waiting.append(sock)
        if sock.connect_ex(str(server.path)) == errno.EAGAIN:
            break
    yield server
    server.close()
    for sock in waiting:
        sock.close()


def test_a_client_waits_until_there_is_room_in_the_line(crowd, tmp_path, monkeypatch):
    started = []

    def start_once(_seconds):
        if not started:
            crowd.start()
            started.append(True)

    monkeypatch.setattr(control_client.time, "sleep", start_once)
    with Control.find(tmp_path) as client:
        assert client.request("double", value=4) == 8
    assert started


def test_a_host_that_does_not_answer_is_said_to_be_silent(crowd, tmp_path, monkeypatch):
    monkeypatch.setattr(control_client, "TIMEOUT", 0.01)
    with pytest.raises(TimeoutError, match="host tap0 gave no answer") as info:
        Control.find(tmp_path)
    assert hint_of(info.value).startswith("netstack --name tap0 ss")


def test_a_host_that_ends_meanwhile_is_said_to_have_ended(server, client):
    server.close()
    with pytest.raises(ConnectionResetError, match="host tap0 has ended"):
        client.request("double", value=1)
