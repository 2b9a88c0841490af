"""Real clients on a real TAP: what a user types at the other end of the wire."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading

import pytest

import netstack
from netstack import apps
from netstack._counters import mib
from tests.e2e.conftest import HOST, PEER, run

pytestmark = pytest.mark.tap


def serve(host: netstack.Host, name: str) -> None:
    """Start one of the built-in apps; it ends with the host."""
    apps.start(host, apps.find(name))


def test_ping_flood_loses_nothing(live):
    out = run("ping", "-f", "-q", "-c", "3000", HOST).stdout
    assert "3000 packets transmitted, 3000 received, 0% packet loss" in out


@pytest.mark.parametrize("size", [0, 1, 56, 1472])
def test_ping_of_every_shape_is_answered(live, size):
    out = run("ping", "-q", "-c", "5", "-i", "0.01", "-s", str(size), "-p", "a5", HOST).stdout
    assert "5 received, 0% packet loss" in out


def test_ping_larger_than_a_frame_is_reassembled_and_fragmented(live):
    out = run("ping", "-q", "-c", "3", "-i", "0.01", "-s", "4000", HOST).stdout
    assert "3 received, 0% packet loss" in out


def test_a_datagram_of_every_size_comes_back_unchanged(live):
    serve(live, "echo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((HOST, 7))
        for size in range(1473):
            payload = bytes((size + i) & 0xFF for i in range(size))
            client.send(payload)
            assert client.recv(2048) == payload


def test_netcat_talks_to_the_echo_service(live):
    serve(live, "echo")
    done = subprocess.run(
        ["nc", "-u", "-w", "1", HOST, "7"],
        input=b"hello netstack\n",
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == b"hello netstack\n"


def test_chargen_answers_every_datagram(live):
    serve(live, "chargen")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((HOST, 19))
        client.send(b"")
        assert client.recv(2048).startswith(b" !\"#$%&'()")


@pytest.mark.peer_errors(
    "IcmpInErrors"
)  # of a datagram that belongs to no socket of the kernel
def test_scapy_gets_its_answers(live):
    script = f"""
import sys
from scapy.all import ARP, ICMP, IP, UDP, Ether, Raw, conf, srp1
conf.verb = 0
arp = srp1(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="{HOST}"), iface="tap0", timeout=5)
assert arp[ARP].psrc == "{HOST}" and arp[ARP].op == 2, arp
to = Ether(dst=arp[ARP].hwsrc)
pong = srp1(to / IP(src="{PEER}", dst="{HOST}") / ICMP(id=7, seq=9) / (b"x" * 99), iface="tap0", timeout=5)
assert pong[ICMP].type == 0 and pong[ICMP].id == 7 and pong[Raw].load == b"x" * 99, pong
gone = srp1(to / IP(src="{PEER}", dst="{HOST}") / UDP(sport=5, dport=4444), iface="tap0", timeout=5)
assert gone[ICMP].type == 3 and gone[ICMP].code == 3, gone
back = srp1(to / IP(src="{PEER}", dst="{HOST}") / UDP(sport=4001, dport=7) / b"abc", iface="tap0", timeout=5)
assert back[UDP].sport == 7 and back[Raw].load[:3] == b"abc", back
print("ok")
"""
    serve(live, "echo")
    assert run(sys.executable, "-c", script).stdout.strip() == "ok"


def test_iperf_2_sends_into_a_sink(live):
    serve(live, "discard")
    before = live.net.mib(mib.UdpInDatagrams)
    options = ("-p", "9", "-b", "50M", "-t", "1", "-l", "1000")
    out = run("iperf", "-u", "-c", HOST, *options, timeout=30).stdout
    sent = int(re.search(r"Sent (\d+) datagrams", out)[1])
    assert sent > 5000
    # iperf repeats its last datagram while it waits for a server's report.
    live.settle()
    assert live.net.mib(mib.UdpInDatagrams) - before >= sent


def test_a_closed_port_refuses_a_connected_client(live):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((HOST, 4242))
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


def test_our_connected_socket_is_refused_by_the_kernel(live):
    with live.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.settimeout(5)
        ours.connect((PEER, 4242))
        ours.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            ours.recv(100)


def test_we_can_talk_first(live):
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel,
        live.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
    ):
        kernel.bind((PEER, 0))
        kernel.settimeout(5)
        ours.settimeout(5)
        ours.sendto(b"first", kernel.getsockname())
        data, who = kernel.recvfrom(100)
        assert data == b"first"
        kernel.sendto(b"second", who)
        assert ours.recvfrom(100) == (b"second", kernel.getsockname())


def test_many_threads_share_one_host(live):
    def client(number: int, results: list[bool]) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((HOST, 7))
            for i in range(200):
                sock.send(b"%d %d" % (number, i))
                if sock.recv(100) != b"%d %d" % (number, i):
                    return
        results.append(True)

    results: list[bool] = []
    serve(live, "echo")
    threads = [threading.Thread(target=client, args=(n, results)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
