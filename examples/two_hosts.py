"""Two hosts in one process, on a cable in memory: no TAP, no root. Prints where every frame went."""

from socket import AF_INET, SOCK_DGRAM

import netstack

a_end, b_end = netstack.MemoryWire.pair()
with netstack.Host("a") as a, netstack.Host("b") as b:
    a.add_nic(a_end, "eth0", addr="10.9.0.1/24")
    b.add_nic(b_end, "eth0", addr="10.9.0.2/24")
    with a.socket(AF_INET, SOCK_DGRAM) as client, b.socket(AF_INET, SOCK_DGRAM) as server:
        server.bind(("10.9.0.2", 5000))
        client.settimeout(5)
        client.sendto(b"hello", ("10.9.0.2", 5000))
        data, peer = server.recvfrom(2048)
        server.sendto(data.upper(), peer)
        print(client.recvfrom(2048))
    b.settle()
    print(netstack.ledger(b).text())
