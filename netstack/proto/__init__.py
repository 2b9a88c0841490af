"""proto: the protocols above the devices. A protocol is one file and one row here.

A handler takes ``(host, skb)``, data at its own header, and owns the packet. An ``err_handler``
takes ``(host, skb, type, code, info, quoted)``: an ICMP error about a packet of the protocol, of
which ``quoted`` has the IP header and at least 8 bytes; the packet stays the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from netstack.proto.icmp import IPPROTO_ICMP, icmp_err, icmp_rcv
from netstack.proto.igmp import IPPROTO_IGMP, igmp_rcv
from netstack.proto.udp import IPPROTO_UDP, udp_err, udp_rcv

Handler = Callable[[Any, Any], object]
ErrHandler = Callable[[Any, Any, int, int, int, bytes], object]


class net_protocol(NamedTuple):
    """What is called for a packet of the protocol, and for an error about one. [net_protocol]"""

    handler: Handler
    err_handler: ErrHandler | None = None


PROTOCOLS: dict[int, net_protocol] = {
    IPPROTO_ICMP: net_protocol(icmp_rcv, icmp_err),
    IPPROTO_IGMP: net_protocol(igmp_rcv),
    IPPROTO_UDP: net_protocol(udp_rcv, udp_err),
}
