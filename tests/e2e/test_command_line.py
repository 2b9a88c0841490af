"""``netstack up`` on a real TAP, seen from other terminals; and every way to ask for what can't be."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import pytest

import netstack.cli.lab
import netstack.cli.up
import netstack.live
from netstack import lab, runtime
from netstack.cli import main
from netstack.control_client import Control, hosts
from netstack.device import tap
from tests.netns import fresh_netns
from tests.users import NOBODY, in_child, tun_node

pytestmark = pytest.mark.tap
# Imported now, because another user may not be able to read them later.
NEEDED = (netstack.cli.lab, netstack.cli.up, netstack.live)
ROOT = Path(__file__).resolve().parent.parent.parent
NETSTACK = (sys.executable, "-m", "netstack")
PATIENCE = 30  # seconds; a host is up in a fraction of one


def wait_for(condition: Callable[[], object]) -> None:
    """Look until it is so; a test that waits for ever is ended by pytest's timeout."""
    while not condition():
        time.sleep(0.002)  # what is waited for needs the CPU


def links() -> list[str]:
    """Return the interfaces of this network namespace."""
    return [name for _, name in socket.if_nameindex()]


def command_line(*words: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run one command line as a program of its own."""
    return subprocess.run(
        [*NETSTACK, *words], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


class Up:
    """A ``netstack up`` that runs, and what other terminals ask of it."""

    def __init__(self, name: str, *words: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [*NETSTACK, "up", name, *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> Up:
        """Wait until it is up."""
        wait_for(lambda: self.process.poll() is not None or self.is_up())
        assert self.process.poll() is None, self.process.communicate()
        with Control.find(runtime.runtime_dir(), self.name) as control:
            control.request("info")  # answered once everything is there
        return self

    def is_up(self) -> bool:
        return self.name in hosts(runtime.runtime_dir())

    def good(self, *words: str) -> str:
        done = command_line("-i", self.name, *words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind, whatever the test has come to."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextmanager
def running(*words: str) -> Iterator[Up]:
    """Bring a host up in a network namespace of its own; no process of it is left afterwards."""
    with fresh_netns(), Up(f"t{secrets.token_hex(4)}", *words) as host:
        yield host.wait()


def ping(address: str = "10.0.0.2", count: int = 3) -> None:
    command = ["ping", "-q", "-c", str(count), "-i", "0.01", "-W", "5", address]
    subprocess.run(command, check=True, capture_output=True)


def ask_udp(port: int, data: bytes, address: str = "10.0.0.2") -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((address, port))
        sock.send(data)
        return sock.recv(65535)


def test_a_host_answers_and_every_view_shows_it() -> None:
    with running("--app", "echo", "--app", "chargen", "--app", "discard") as host:
        ping()
        assert ask_udp(7, b"hello") == b"hello"
        assert len(ask_udp(19, b"")) > 100
        with pytest.raises(ConnectionRefusedError):
            ask_udp(4000, b"anybody?")

        account = json.loads(host.good("ledger", "--json"))
        assert account["delivered"] == 2
        assert account["consumed"] >= 3
        assert account["dropped"]["NO_SOCKET"] == 1
        assert "NO_SOCKET" in host.good("drops")
        counted = json.loads(host.good("nstat", "-as", "--json"))["kernel"]
        assert counted["UdpInDatagrams"] == 2
        assert counted["IcmpInEchos"] == counted["IcmpOutEchoReps"] == 3
        assert counted["UdpNoPorts"] == counted["IcmpOutDestUnreachs"] == 1
        ports = [row["local"]["port"] for row in json.loads(host.good("ss", "-uan", "--json"))]
        assert sorted(ports) == [7, 9, 19]
        assert ":7 " in host.good("ss", "-uanmepi")
        (stats,) = json.loads(host.good("ethtool", "-S", host.name, "--json"))
        assert stats["rx_packets"] == account["frames"]
        for flag in "igc":
            assert host.name in host.good("ethtool", f"-{flag}", host.name) or flag == "i"
        assert "net/snmp" in host.good("proc").split()
        assert all(host.good("proc", name) for name in host.good("proc").split())
        assert host.name in host.good("proc", "net/dev")
        assert host.name in host.good("proc", "interrupts")
        assert "10.0.0.1" in host.good("proc", "net/arp")
        assert "processed" in host.good("softnet")
        assert host.good("sysctl", "net.core.netdev_budget=50").endswith("= 50\n")

        status, out, err = host.end()
        assert (status, err) == (0, "")
        assert out.startswith(f"{host.name} is up. Behind it is the host 10.0.0.2/24")
        assert "NO_SOCKET" in out
        assert out.endswith("balanced\n")
        assert links() == ["lo"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_order(number: int) -> None:
    with running("--quiet") as host:
        assert host.end(number) == (0, "", "")
        assert links() == ["lo"]
        assert not host.is_up()


def test_stop_ends_it_from_another_terminal() -> None:
    with running() as host:
        assert host.good("stop") == f"{host.name} has ended\n"
        out, err = host.process.communicate(timeout=PATIENCE)
        assert (host.process.returncode, err) == (0, "")
        assert out.endswith("balanced\n")
        assert links() == ["lo"]


def test_a_killed_host_leaves_nothing_in_the_way_of_the_next() -> None:
    with running() as host:
        host.process.kill()
        host.process.communicate()
        path = runtime.runtime_dir() / f"{host.name}.sock"
        assert path.exists()
        with Up(host.name, "--quiet") as again:
            again.wait()
            ping()
            assert again.end() == (0, "", "")
        assert not path.exists()


def test_a_second_up_of_the_name_is_refused_and_the_first_goes_on() -> None:
    with running() as host:
        done = command_line("up", host.name)
        assert done.returncode == 2
        assert f"a host named {host.name} is running already" in done.stderr
        ping()
        assert host.end()[0] == 0


def test_ended_under_load_it_still_balances() -> None:
    with running("--app", "discard") as host:
        flood = subprocess.Popen(
            ["ping", "-f", "-q", "10.0.0.2"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: json.loads(host.good("ledger", "--json"))["frames"] > 1000)
        status, out, err = host.end()
        flood.kill()
        flood.wait()
        assert (status, err) == (0, "")
        assert out.endswith("balanced\n")


def test_without_the_fast_path_it_answers_as_well() -> None:
    with running("--no-fast-path") as host:
        ping()
        assert ask_udp(7, b"slow") == b"slow"
        assert host.good("sysctl", "-n", "fast_path") == "0\n"
        status, out, _ = host.end()
        assert status == 0
        assert out.endswith("balanced\n")


def test_a_capture_is_read_live_by_tcpdump() -> None:
    with running() as host:
        capture = subprocess.Popen(
            [*NETSTACK, "capture", "-i", host.name, "-c", "4", "-U", "-w", "-", "icmp"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert capture.stderr is not None
        assert b"listening on" in capture.stderr.readline()
        ping(count=2)
        data, err = capture.communicate(timeout=PATIENCE)
        assert capture.returncode == 0
        assert b"4 packets captured" in err
        shown = subprocess.run(
            ["tcpdump", "-nr", "-"], input=data, capture_output=True, check=True
        )
        assert shown.stdout.count(b"ICMP echo request") == 2
        assert shown.stdout.count(b"ICMP echo reply") == 2
        assert host.end()[0] == 0


def test_on_a_terminal_a_table_is_drawn_again_in_place() -> None:
    name = f"t{secrets.token_hex(4)}"
    ours, terminal = os.openpty()
    with fresh_netns():
        process = subprocess.Popen(
            [*NETSTACK, "up", name], cwd=ROOT, stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        try:
            shown = b""
            while shown.count(b"delivered") < 2:  # a second later it is drawn over
                shown += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
            with suppress(OSError):  # EIO: the other end is closed
                while data := os.read(ours, 4096):
                    shown += data
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
    text = shown.decode()
    assert text.startswith(f"{name} is up.")
    assert "\x1b[?25l" in text
    assert re.search(r"\x1b\[\d+A", text)
    assert text.count("\x1b[?25h") == 1
    assert text.rstrip().endswith("balanced")


def test_json_is_a_line_a_second_and_the_ledger_at_the_end() -> None:
    with running("--json") as host:
        ping()
        assert host.process.stdout is not None
        first = json.loads(host.process.stdout.readline())
        assert set(first) == {"totals", "per_second", "dropped", "queued"}
        _, out, _ = host.end()
        assert json.loads(out.splitlines()[-1])["ledger"]["balanced"]


# ---- what can't be


REFUSED = {
    "a name that is too long": (["a-name-that-is-too-long"], "1 to 15 are allowed"),
    "a name with a slash": (["a/b"], "contains '/'"),
    "an address without a prefix": (["--addr", "10.0.0.2"], "has no prefix length"),
    "no address": (["--addr", "ten/24"], "no IPv4 address"),
    "the peer's address": (["--addr", "10.0.0.1/24", "--peer", "10.0.0.1"], "both ends"),
    "a peer elsewhere": (["--peer", "10.1.0.1"], "not in 10.0.0.0/24"),
    "a ring of 100": (["--ring", "100"], "100"),
    "a ring of 63": (["--ring", "63"], "63"),
    "a ring of 5000": (["--ring", "5000"], "5000"),
    "an mtu of 67": (["--mtu", "67"], "68 to"),
    "an mtu of 70000": (["--mtu", "70000"], "68 to"),
    "no mtu": (["--mtu", "large"], "invalid int value"),
    "a multicast mac": (["--mac", "01:00:00:00:00:01"], "01:00:00:00:00:01"),
    "no mac": (["--mac", "ten"], "ten"),
    "an unknown app": (["--app", "ecko"], "no app 'ecko'"),
    "an app that is not there": (["--app", "nowhere:serve"], "No module named 'nowhere'"),
    "an unknown option": (["--queus", "4"], "unrecognized arguments"),
}


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_and_nothing_is_left(words: tuple[list[str], str]) -> None:
    given, expected = words
    name = f"t{secrets.token_hex(4)}"
    device = [] if given[0][0] != "-" else [name]
    with fresh_netns():
        done = command_line("up", *device, *given)
        assert links() == ["lo"]
    assert_refused(done, expected)
    assert name not in hosts(runtime.runtime_dir())


def assert_refused(done: subprocess.CompletedProcess[str], expected: str) -> None:
    """Status 2, one line that says what was wrong, lines that say what to type, no traceback."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    first, *others = done.stderr.splitlines()
    assert first.startswith("netstack: ")
    assert expected in first
    assert others
    assert all(line.startswith("  try: ") for line in others), done.stderr


def test_without_the_tun_device_it_says_how_to_get_it() -> None:
    hide = 'mount -t tmpfs none /dev/net && exec "$@"'
    command = ["unshare", "-mn", "sh", "-c", hide, "sh", *NETSTACK, "up", "t-no-tun"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert_refused(done, "/dev/net/tun")
    assert "t-no-tun" not in hosts(runtime.runtime_dir())


def test_a_tap_that_another_program_holds_is_refused() -> None:
    with running("--quiet") as host:
        # Under another host's name, so that it is the TAP that is in the way and not the socket.
        os.rename(
            runtime.runtime_dir() / f"{host.name}.sock", runtime.runtime_dir() / "t-moved.sock"
        )
        try:
            assert_refused(command_line("up", host.name), "is in use by")
        finally:
            (runtime.runtime_dir() / "t-moved.sock").unlink()
        ping()
        assert host.end()[0] == 0


def as_nobody(*words: str) -> tuple[int, str]:
    """Run a command line as an ordinary user, in a fork; give status and error output."""

    def run() -> tuple[int, str]:
        readable, writable = os.pipe()
        os.dup2(writable, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        status = main(list(words))
        sys.stderr.flush()
        os.close(writable)
        os.close(2)
        with os.fdopen(readable) as pipe:
            return status, pipe.read()

    status, err = in_child(run, uid=NOBODY)
    return status, err


def test_without_privilege_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "errno_of", lambda function: 1)  # a system that allows no labs
    status, err = as_nobody("up", "t-nobody")
    assert status == 2
    assert "an ordinary user cannot make a lab here" in err
    assert "  try: sudo " in err


def test_a_tap_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh_netns(), tun_node() as node:
        monkeypatch.setitem(tap.open_tap.__kwdefaults__, "device", node)
        subprocess.run(
            ["ip", "tuntap", "add", "t-root", "mode", "tap", "user", "0"], check=True
        )
        status, err = as_nobody("up", "t-root")
        assert links() == ["lo", "t-root"]
    assert status == 2
    assert "t-root" in err
    assert "  try: " in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nstat", "UdpNoPort"], "no counter matches"),
        (["capture", "udp", "prot", "53"], "syntax error"),
        (["sysctl", "netdev_bugdet"], "no tunable"),
        (["sysctl", "ip_default_ttl=256"], "allowed: 1 to 255"),
        (["proc", "net/tcp9"], "no file"),
        (["ethtool", "-S", "eth9"], "no device 'eth9'"),
        (["ss", "--frob"], "unrecognized arguments"),
    ],
)
def test_a_wrong_question_to_a_host_is_refused(
    one_host: Up, words: list[str], expected: str
) -> None:
    assert_refused(command_line("-i", one_host.name, *words), expected)


@pytest.fixture(scope="module")
def one_host() -> Iterator[Up]:
    """Give one host to all the wrong questions."""
    with running("--quiet") as host:
        yield host
        assert host.end()[0] == 0


# ---- an ordinary user, without any privilege


def forked(run: Callable[[], int], output: Path) -> int:
    """Start ``run`` in a child whose output goes to a file; give its pid."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            sys.stdout = os.fdopen(1, "w", closefd=False)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            status = run()
            sys.stdout.flush()
        finally:
            os._exit(status)
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_an_ordinary_user_has_a_network_of_his_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up in one terminal, ping by `netstack exec` from another, and no root anywhere."""
    name = f"t{secrets.token_hex(4)}"

    def terminals(directory: Path) -> tuple[int, str, int, str]:
        up = forked(lambda: main(["up", name]), directory / "up")
        wait_for(lambda: name in hosts(runtime.runtime_dir()))
        with Control.find(runtime.runtime_dir(), name) as control:
            control.request("info")
        command = ["-i", name, "exec", "ping", "-q", "-c", "2", "-i", "0.2", "10.0.0.2"]
        pinged = status_of(forked(lambda: main(command), directory / "ping"))
        os.kill(up, signal.SIGTERM)
        ended = status_of(up)
        return pinged, (directory / "ping").read_text(), ended, (directory / "up").read_text()

    with tun_node() as node, TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        monkeypatch.setitem(tap.open_tap.__kwdefaults__, "device", node)
        pinged, ping_text, ended, up_text = in_child(
            lambda: terminals(Path(directory)), uid=NOBODY
        )
    assert pinged == 0, ping_text + up_text
    assert "2 received" in ping_text
    assert ended == 0, up_text
    assert "netstack exec ping 10.0.0.2" in up_text
    assert up_text.endswith("balanced\n")
