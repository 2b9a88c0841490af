"""A handler for an EtherType, one for an IP protocol, and a hook that drops: three ways in for Python."""

import struct

import netstack
from netstack.nf.hooks import NF_ACCEPT, NF_DROP, NF_INET_PRE_ROUTING

seen = []


def homeplug(host, skb):
    """Take every packet of EtherType 0x88e1."""
    seen.append(("0x88e1", skb.data[:5]))
    skb.consume()


def ospf(host, skb):
    """Take every packet of IP protocol 89; its data stands behind the IP header."""
    seen.append(("ospf", skb.data[:4]))
    skb.consume()


def no_ttl_1(host, skb):
    """Drop what has a TTL of 1."""
    return NF_DROP if skb.network[8] == 1 else NF_ACCEPT


def checksum(header):
    """Give the Internet checksum of an IP header."""
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def ip_frame(protocol, ttl, payload):
    """Give an Ethernet frame with an IP packet from 10.0.0.1 to 10.0.0.2."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, ttl, protocol, 0)
    head += bytes((10, 0, 0, 1, 10, 0, 0, 2))
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return bytes.fromhex("020000000002 020000000001 0800") + head + payload


ours, theirs = netstack.MemoryWire.pair()
with netstack.Host(threads=False) as host:
    host.add_nic(ours, "eth0", addr="10.0.0.2/24", mac="02:00:00:00:00:02")
    host.register_ethertype(0x88E1, homeplug)
    host.register_protocol(89, ospf)
    host.hook(NF_INET_PRE_ROUTING, no_ttl_1)
    theirs.send(bytes.fromhex("020000000002 020000000001 88e1") + b"power line")
    theirs.send(ip_frame(89, 64, b"\x02\x01\x00\x2c"))
    theirs.send(ip_frame(89, 1, b"\x02\x01\x00\x2c"))
    host.run()
    print(seen)
    print(netstack.ledger(host).text())
