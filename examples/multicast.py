"""Join a group on a TAP, receive what the kernel's side sends to it, leave."""

import socket
import struct

import netstack

GROUP, PORT = "239.1.2.3", 5000

with netstack.up("tap0", addr="10.0.0.2/24") as host:
    with host.socket() as receiver, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        receiver.bind((GROUP, PORT))
        receiver.settimeout(10)
        # The group, and the device by one of its addresses: a host without a default route needs it.
        request = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton("10.0.0.2"))
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        groups = ", ".join(group for group, _users in host.memberships(2))
        print(f"tap0 is a member of {groups}")

        sender.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.0.0.1")
        )
        sender.sendto(b"hello group", (GROUP, PORT))
        data, (address, _port) = receiver.recvfrom(2048)
        print(f"{data!r} from {address}")
    host.settle()
    print(netstack.ledger(host).text())
