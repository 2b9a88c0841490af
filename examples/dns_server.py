"""A DNS server: dnslib's, as it is, on a socket of a host. It needs: pip install dnslib

As root: python examples/dns_server.py, or netstack up --app examples.dns_server:serve
From a second terminal: dig @10.0.0.2 www.example.net
"""

import socketserver
from functools import partial
from socket import AF_INET, SOCK_DGRAM

from dnslib.server import DNSLogger, DNSServer
from dnslib.zoneresolver import ZoneResolver

import netstack

TEXT = " ".join(f'"{letter * 250}"' for letter in "abcdefghijkl")
ZONE = f"""
$TTL 300
$ORIGIN example.net.
@    IN MX   10 mail
www  IN A    10.0.0.80
mail IN A    10.0.0.25
web  IN CNAME www
big  IN TXT  {TEXT}
"""


class HostServer(socketserver.UDPServer):
    """The standard library's server, with a socket of the host in place of the kernel's."""

    def __init__(self, host, address, handler):
        """Bind on the host."""
        super().__init__(address, handler, bind_and_activate=False)
        self.socket.close()
        self.socket = host.socket(AF_INET, SOCK_DGRAM)
        self.server_bind()


def server(host, address="", port=53):
    """Make a server of the zone on a host: ``start()`` and ``stop()`` are its methods."""
    quiet = DNSLogger(logf=DNSLogger.log_pass)
    where = {"address": address, "port": port, "server": partial(HostServer, host)}
    return DNSServer(ZoneResolver(ZONE), logger=quiet, **where)


def serve(host):
    """Answer until the host ends."""
    bound = server(host)
    print("DNS on 10.0.0.2 port 53", flush=True)
    bound.start()


if __name__ == "__main__":
    with netstack.up("tap0", addr="10.0.0.2/24") as host:
        try:
            serve(host)
        except KeyboardInterrupt:
            print(netstack.ledger(host).text())
