"""Apps: what they answer, and what is refused before a host exists. The sockets are the kernel's."""

import socket
import sys
import threading
from contextlib import suppress

import pytest

from netstack import apps
from netstack.errors import UsageError, hint_of


class AnyPort(socket.socket):
    """A socket that is on some port of the loopback when 7 is asked for."""

    ended = False

    def bind(self, address):
        self.asked = address
        super().bind(("127.0.0.1", 0))

    def recvfrom_into(self, *arguments):
        return self.unless_ended(super().recvfrom_into(*arguments))

    def recv_into(self, *arguments):
        return self.unless_ended(super().recv_into(*arguments))

    def unless_ended(self, received):
        """Raise as a host's socket does; the kernel's, once shut down, reads as empty for ever."""
        if self.ended:
            raise OSError("closed")
        return received


class KernelHost:
    """The part of a host that an app uses, with kernel sockets behind it."""

    closed = False

    def __init__(self):
        self.sockets = []

    def socket(self, family, kind):
        self.sockets.append(AnyPort(family, kind))
        return self.sockets[-1]

    def close(self):
        self.closed = True
        for sock in self.sockets:
            sock.shutdown(socket.SHUT_RDWR) if not sock._closed else None
            sock.close()


@pytest.fixture
def host():
    host = KernelHost()
    yield host
    host.closed = True
    for sock in host.sockets:
        sock.ended = True
        with suppress(OSError):  # ENOTCONN; but it wakes the thread that waits in recvfrom
            sock.shutdown(socket.SHUT_RDWR)
    for thread in threading.enumerate():
        if thread.name.startswith("app/"):
            thread.join(5)
    for sock in host.sockets:
        sock.close()


@pytest.fixture
def ask(host):
    """Start an app; return a function that sends a datagram and waits for the answer."""
    clients = []

    def start(name):
        app = apps.find(name)
        apps.start(host, app)
        server = host.sockets[-1]
        assert server.asked == ("0.0.0.0", app.port)
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(5)
        client.connect(server.getsockname())
        clients.append(client)

        def send(data, reply=True):
            client.send(data)
            return client.recv(65535) if reply else None

        return send

    yield start
    for client in clients:
        client.close()


@pytest.mark.parametrize("size", [0, 1, 100, 1472, 65507])
def test_echo_sends_back_what_came(ask, size):
    data = bytes(n % 251 for n in range(size))
    assert ask("echo")(data) == data


def test_chargen_answers_with_up_to_512_printing_characters_in_lines(ask):
    send = ask("chargen")
    first, second = send(b""), send(b"more")
    assert 0 < len(first) <= 512
    assert first.startswith(b" !\"#$%&'()")
    assert first.split(b"\r\n")[1].startswith(b"!\"#$%&'()*")
    assert len(first.split(b"\r\n")[0]) == 72
    assert second != first
    assert all(32 <= c < 127 or c in b"\r\n" for c in first + second)


def test_discard_answers_nothing_and_goes_on(ask, host):
    send = ask("discard")
    for _ in range(3):
        send(b"x", reply=False)
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.settimeout(0.05)
    probe.connect(host.sockets[-1].getsockname())
    probe.send(b"")
    with pytest.raises(TimeoutError):
        probe.recv(1)
    probe.close()


class Loop:
    """A socket to which port 7 of another host speaks once."""

    def __init__(self, port):
        self.port = port
        self.sent = []

    def recvfrom_into(self, buffer):
        if self.port is None:
            raise OSError("closed")
        port, self.port = self.port, None
        return 4, ("10.0.0.1", port)

    def sendto(self, data, address):
        self.sent.append(address)


@pytest.mark.parametrize("serve", [apps.echo, apps.chargen])
def test_two_servers_do_not_answer_each_other_for_ever(serve):
    for port in apps.ANSWERING_PORTS:
        sock = Loop(port)
        with pytest.raises(OSError, match="closed"):
            serve(sock)
        assert sock.sent == []
    sock = Loop(50000)
    with pytest.raises(OSError, match="closed"):
        serve(sock)
    assert sock.sent == [("10.0.0.1", 50000)]


def test_the_names_are_those_of_the_rfcs_ports():
    assert {name: app.port for name, app in apps.BUILT_IN.items()} == {
        "echo": 7,
        "discard": 9,
        "chargen": 19,
    }
    assert str(apps.find("echo")) == "echo on UDP port 7"


def test_an_unknown_app_gets_the_nearest():
    with pytest.raises(UsageError, match="no app 'ecko'") as info:
        apps.find("ecko")
    assert hint_of(info.value) == "--app echo"
    with pytest.raises(UsageError) as info:
        apps.find("frobnicate")
    assert "--app module:function" in hint_of(info.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module:serve", "No module named 'no_such_module'"),
        ("json:no_such_function", "no_such_function"),
        ("json:__name__", "is no function"),
        (":serve", "Empty module name"),
        ("json:", "has no attribute ''"),
    ],
)
def test_a_function_that_is_not_there_is_refused(spec, message):
    before = list(sys.path)
    with pytest.raises(UsageError, match=message):
        apps.find(spec)
    assert sys.path == before


def test_a_function_of_the_current_directory_gets_the_host(tmp_path, monkeypatch, host):
    (tmp_path / "my_app_of_test.py").write_text("def serve(host):\n    host.served.set()\n")
    monkeypatch.chdir(tmp_path)
    host.served = threading.Event()
    app = apps.find("my_app_of_test:serve")
    apps.start(host, app).join(5)
    assert host.served.is_set()
    assert str(app) == "my_app_of_test:serve"


def test_an_app_that_fails_says_so_and_ends_alone(host, caplog):
    def serve(host):
        raise RuntimeError("my mistake")

    apps.start(host, apps.App("mine", 0, serve)).join(5)
    assert "app mine has failed" in caplog.text
    assert "my mistake" in caplog.text


def test_an_app_ends_quietly_with_its_host(host, caplog):
    def serve(host):
        host.closed = True
        raise OSError("Bad file descriptor")

    apps.start(host, apps.App("mine", 0, serve)).join(5)
    assert caplog.text == ""
