"""scapy at the end of a cable in memory: build odd packets, see what the host does with them."""

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.sendrecv import sndrcv

import netstack
from netstack.testing.scapy import WireSocket

conf.verb = 0
ours, theirs = netstack.MemoryWire.pair()
with netstack.Host() as host, WireSocket(theirs) as wire:
    device = host.add_nic(ours, "eth0", addr="10.0.0.2/24")

    def ask(packet):
        """Send one packet and give the answer."""
        answered, _ = sndrcv(wire, packet, timeout=5, verbose=False)
        return answered[0].answer

    me = {"src": "02:00:00:00:00:01"}
    print(
        ask(
            Ether(dst="ff:ff:ff:ff:ff:ff", **me) / ARP(psrc="10.0.0.1", pdst="10.0.0.2")
        ).summary()
    )
    to = Ether(dst=device.mac, **me) / IP(src="10.0.0.1", dst="10.0.0.2")
    print(ask(to / ICMP(seq=7) / b"are you there?").summary())
    print(ask(to / UDP(sport=4000, dport=4000) / b"anybody?").summary())
    host.settle()
    print(netstack.ledger(host).text())
