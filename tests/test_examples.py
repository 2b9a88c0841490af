"""The examples run, and print what they say."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns import fresh_netns

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
HERE = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(name: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=60, env=HERE
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "ledger                       balanced" in done.stdout
    return done.stdout


def test_every_example_is_run_here():
    named = {"two_hosts.py", "scapy_on_a_wire.py", "own_protocols.py", "asyncio_echo.py"}
    named |= {"batches.py", "memory_wire.py", "full_socket.py", "echo.py"}
    named |= {"dns_server.py"}
    named |= {"multicast.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == named


def test_memory_wire():
    assert "NIC_DROP_FILTER" in run("memory_wire.py")


@pytest.mark.tap
def test_full_socket_prints_what_the_readme_shows():
    with fresh_netns():
        out = run("full_socket.py")
    assert "SOCKET_RCVBUFF                   44" in out
    shown = [line.strip() for line in (ROOT / "README.md").read_text().splitlines()]
    assert {line.strip() for line in out.splitlines()} <= set(shown)


@pytest.mark.tap
def test_echo_is_an_app():
    command = [sys.executable, "-m", "netstack", "up", "t-echo", "--app", "examples.echo:serve"]
    with fresh_netns():
        host = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=HERE)
        try:
            assert host.stdout is not None
            assert "t-echo is up" in host.stdout.readline()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.settimeout(0.5)
                peer.connect(("10.0.0.2", 5007))
                answer = b""
                while not answer:
                    # It has not bound yet, and the host limits how often it says so.
                    with contextlib.suppress(ConnectionRefusedError, TimeoutError):
                        peer.send(b"hello")
                        answer = peer.recv(100)
                assert answer == b"hello"
        finally:
            host.terminate()
            out, _ = host.communicate(timeout=30)
    assert host.returncode == 0
    assert out.endswith("balanced\n")


@pytest.mark.tap
def test_dns_server():
    """By itself; tests/e2e/test_service_clients.py asks it with dig and dnsperf."""
    pytest.importorskip("dnslib")
    with fresh_netns():
        command = [sys.executable, EXAMPLES / "dns_server.py"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=HERE)
        assert "port 53" in server.stdout.readline()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            query = b"\0\7\1\0\0\1\0\0\0\0\0\0\3www\7example\3net\0\0\1\0\1"
            client.connect(("10.0.0.2", 53))
            client.send(query)
            answer = client.recv(500)
        assert answer[:2] == b"\0\7"
        assert answer.endswith(bytes([10, 0, 0, 80]))
        server.send_signal(signal.SIGINT)
        out, _ = server.communicate(timeout=30)
        assert server.returncode == 0
        assert "balanced" in out


@pytest.mark.tap
def test_batches():
    with fresh_netns():
        out = run("batches.py")
    assert "lists: 100 datagrams, the last (b'99', ('10.0.0.1', 4000))" in out
    assert "records: 100 datagrams, the last b'99' from 10.0.0.1 4000" in out
    assert "endpoint: 100 answers, the last b'99'" in out


def test_two_hosts():
    assert "(b'HELLO', ('10.9.0.2', 5000))" in run("two_hosts.py")


def test_scapy_on_a_wire():
    out = run("scapy_on_a_wire.py")
    assert "is at" in out
    assert "echo-reply" in out
    assert "port-unreachable" in out


def test_own_protocols():
    out = run("own_protocols.py")
    assert "[('0x88e1', b'power'), ('ospf', b'\\x02\\x01\\x00,')]" in out
    assert "NETFILTER_DROP" in out


@pytest.mark.tap
def test_asyncio_echo():
    with fresh_netns():
        server = subprocess.Popen(
            [sys.executable, EXAMPLES / "asyncio_echo.py", "3"],
            stdout=subprocess.PIPE,
            text=True,
            env=HERE,
        )
        assert "port 7777" in server.stdout.readline()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.sendto(b"hello asyncio", ("10.0.0.2", 7777))
            assert client.recv(100) == b"hello asyncio"
        out, _ = server.communicate(timeout=30)
        assert server.returncode == 0
        assert "balanced" in out


@pytest.mark.tap
def test_multicast_receiver():
    with fresh_netns():
        out = run("multicast.py")
    assert "is a member of 239.1.2.3, 224.0.0.1" in out
    assert "b'hello group' from 10.0.0.1" in out
