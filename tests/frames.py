"""Frames for tests, made by scapy, with the addresses that every test uses."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from tests.datagram import datagram

OUR_MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
OUR_IP, PEER_IP = "10.0.0.2", "10.0.0.1"


def ether(**fields: object) -> Ether:
    """Give an Ethernet header from the peer to us."""
    return Ether(**{"src": PEER_MAC, "dst": OUR_MAC, **fields})


def ip(**fields: object) -> Packet:
    """Give an Ethernet and an IP header from the peer to us."""
    return ether() / IP(**{"src": PEER_IP, "dst": OUR_IP, "ttl": 64, **fields})


def udp(payload: bytes = b"", sport: int = 4000, dport: int = 9000, **fields: object) -> bytes:
    """Give a UDP datagram from the peer to us, as a frame."""
    if not fields:
        return datagram(PEER_MAC, OUR_MAC, PEER_IP, OUR_IP, sport, dport, payload)
    return bytes(ip() / UDP(sport=sport, dport=dport, **fields) / payload)


def ping(payload: bytes = b"", identifier: int = 1, seq: int = 1) -> bytes:
    """Give an echo request from the peer to us, as a frame."""
    return bytes(ip() / ICMP(type=8, id=identifier, seq=seq) / payload)


def who_has(address: str = OUR_IP) -> bytes:
    """Give an ARP request from the peer, as a frame."""
    return bytes(
        Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff")
        / ARP(op=1, hwsrc=PEER_MAC, psrc=PEER_IP, pdst=address)
    )


def arp_reply(address: str = PEER_IP, mac: str = PEER_MAC) -> bytes:
    """Say where ``address`` is, as a frame to us."""
    return bytes(ether() / ARP(op=2, hwsrc=mac, psrc=address, hwdst=OUR_MAC, pdst=OUR_IP))
