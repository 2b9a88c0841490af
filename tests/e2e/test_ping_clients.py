"""What looks for a host or asks the way to it says the same of netstack as of the kernel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import HOST, PEER
from tests.e2e.twins import HOST_MAC, Client, discard, echo, same

pytestmark = pytest.mark.tap

SERVERS = ((7, echo), (9, discard))

PING = [
    f"ping -n -c 1 -s 65507 {HOST}",
    f"ping -n -c 1 -s 65508 {HOST}",
    f"ping -n -c 2 -i 0.02 -R {HOST}",
    f"ping -n -c 2 -i 0.02 -T tsonly {HOST}",
    f"ping -n -c 2 -i 0.02 -T tsandaddr {HOST}",
    f"ping -n -c 2 -i 0.02 -T tsprespec {HOST} {HOST}",
    f"ping -n -c 2 -i 0.02 -M do -s 1472 {HOST}",
    f"ping -n -c 2 -i 0.02 -M do -s 1473 {HOST}",
    f"ping -n -c 2 -i 0.02 -Q 0xb8 -t 1 {HOST}",
    f"ping -n -c 2 -i 0.02 -s 15 -p ff {HOST}",
    f"ping -n -q -f -c 1000 -s 1000 {HOST}",
    f"ping -n -q -f -c 100 -s 9000 {HOST}",
    "ping -n -c 1 -W 0.2 -b 10.0.0.255",
    "ping -n -c 1 -W 0.2 10.0.0.0",
    f"fping -c 2 -p 20 -t 1000 {HOST} 10.0.0.7",
    f"fping -C 3 -p 20 -t 500 -b 3000 {HOST}",
    f"fping -q -c 50 -p 2 -t 500 {HOST}",
]
TRACEROUTE = [
    f"traceroute -n -w 2,0,0 {HOST}",
    f"traceroute -n -w 2,0,0 -I {HOST}",
    f"traceroute -n -w 2,0,0 -U -p 4000 -q 1 -N 1 -m 2 {HOST}",
    f"traceroute -n -w 2,0,0 -P 253 -q 2 -m 1 {HOST}",
    f"traceroute -n -w 2,0,0 -I -q 1 -N 4 {HOST} 20000",
    f"traceroute -n -w 2,0,0 -F -q 1 {HOST} 1500",
    f"mtr -n --report -c 3 -i 0.1 -G 2 {HOST}",
    f"mtr -n --report --udp -m 1 -c 3 -i 0.1 -G 2 {HOST}",
    f"mtr -n --report -s 4000 -c 2 -i 0.1 -G 2 {HOST}",
]
NMAP = [
    f"nmap -n -sn {HOST}",
    f"nmap -n -sn -PE --disable-arp-ping {HOST}",
    f"nmap -n -sn -PP --disable-arp-ping {HOST}",
    f"nmap -n -sn -PM --disable-arp-ping --host-timeout 3 {HOST}",
    f"nmap -n -sn -PU4000 --disable-arp-ping {HOST}",
    f"nmap -n -sn -PO1,253 --disable-arp-ping {HOST}",
    f"nmap -n -sU -p 9,4000-4003 --max-retries 3 {HOST}",
    f"nmap -n -sO -p 1,17,47,89,253 {HOST}",
    f"nmap -n -sU -p 4000 -f {HOST}",
    f"nmap -n -sU -p 4000 --badsum --max-retries 0 {HOST}",
    f"nmap -n -sU -p 4000 --data-length 1400 --ttl 1 {HOST}",
]
HPING = [
    f"hping3 -n -c 3 -i u20000 --icmp {HOST}",
    f"hping3 -n -c 2 -i u20000 --icmp --icmp-ts {HOST}",
    f"hping3 -n -c 1 --icmp --icmp-addr {HOST}",
    f"hping3 -n -c 1 --icmp -b {HOST}",
    f"hping3 -n -c 2 -i u20000 --icmp -t 1 {HOST}",
    f"hping3 -n -c 2 -i u20000 --icmp -d 4000 {HOST}",
    f"hping3 -n -c 2 -i u20000 --icmp -d 600 -f {HOST}",
    f"hping3 -n -c 2 -i u20000 --icmp -d 600 --mtu 300 {HOST}",
    f"hping3 -n -c 2 -i u20000 --udp -p 7 -d 100 {HOST}",
    f"hping3 -n -c 2 -i u20000 --udp -p 7 -d 600 -f {HOST}",
    f"hping3 -n -c 1 --udp -p 4000 {HOST}",
    f"hping3 -n -c 1 --udp -p 4000 -d 600 -f {HOST}",
    f"hping3 -n -c 1 --udp -p 4000 -b {HOST}",
    f"hping3 -n -c 1 --rawip -H 253 {HOST}",
    f"hping3 -n -c 1 --rawip -H 253 -d 600 -f {HOST}",
    f"hping3 -n -c 1 --rawip -H 253 -x {HOST}",
    f"hping3 -n -c 2 -i u20000 --icmp -G {HOST}",
]
# There are two programs of the name. What asks with the sender 0.0.0.0 looks for a duplicate address.
ARPING = {
    "Habets": [
        f"arping -c 2 -W 1 -i tap0 {HOST}",
        "arping -c 2 -W 0.05 -i tap0 10.0.0.7",
        f"arping -d -c 2 -W 1 -i tap0 {HOST}",
        f"arping -0 -c 1 -i tap0 {HOST}",
        "arping -0 -c 1 -w 0.3 -i tap0 10.0.0.7",
        f"arping -S 10.0.0.200 -c 1 -w 1 -i tap0 {HOST}",
        f"arping -S 172.16.0.1 -c 1 -w 1 -i tap0 {HOST}",
        f"arping -c 1 -w 1 -i tap0 -T {HOST} {HOST_MAC}",
        f"sh -c 'arping -U -c 1 -w 0.1 -i tap0 -S {HOST} {HOST}; ping -nc1 {HOST}'",
        f"sh -c 'arping -P -c 1 -w 0.1 -i tap0 -S {HOST} -t {HOST_MAC} {HOST}; ping -nc1 {HOST}'",
    ],
    "iputils": [
        f"arping -c 2 -I tap0 {HOST}",
        "arping -c 1 -w 1 -I tap0 10.0.0.7",
        f"arping -b -c 2 -I tap0 {HOST}",
        f"arping -D -c 1 -w 1 -I tap0 {HOST}",
        "arping -D -c 1 -w 1 -I tap0 10.0.0.7",
        f"sh -c 'arping -U -c 1 -I tap0 -s {PEER} {PEER}; ping -nc1 {HOST}'",
        f"sh -c 'arping -A -c 1 -I tap0 -s {PEER} {PEER}; ping -nc1 {HOST}'",
    ],
}


UNPACKED = str(Path(__file__).resolve().parents[2] / "build/iputils-arping/usr/bin/arping")


def arping_of(author: str) -> str:
    """Give the arping of an author: the installed one, or the one that dev.sh has unpacked."""
    for program in filter(None, (shutil.which("arping"), shutil.which(UNPACKED))):
        done = subprocess.run([program, "--help"], capture_output=True, text=True)
        if ("Habets" in done.stdout + done.stderr) == (author == "Habets"):
            return program
    pytest.skip(f"no arping of {author} is installed; type: ./dev.sh test")


@pytest.mark.parametrize("command", [*PING, *TRACEROUTE, *NMAP, *HPING])
def test_a_client_says_of_netstack_what_it_says_of_the_kernel(command):
    same(Client(command, SERVERS))


@pytest.mark.parametrize(
    ("author", "command"), [(author, it) for author, lines in ARPING.items() for it in lines]
)
def test_arping_says_of_netstack_what_it_says_of_the_kernel(author, command):
    same(Client(command.replace("arping", arping_of(author))))
