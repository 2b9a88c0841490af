"""icmp: what others tell us about our packets, and what we tell them about theirs.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       IP packets with protocol 1       proto/ip.py
         packets that can't be delivered  proto/ip.py, proto/arp.py, proto/udp.py
Out      replies and errors               proto/_icmp.pyx
Context  process
Kernel   icmp_rcv(), icmp_unreach(), icmp_send(), net/ipv4/icmp.c

RFC 792 has the messages, RFC 1122 section 3.2.2 the rules. Echo requests are answered by the
compiled short cut while that is on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from netstack._counters import mib, skb_drop_reason
from netstack._net import sysctl
from netstack.proto import _icmp, _ping, _raw
from netstack.proto.ip_options import ip_options_echo
from netstack.proto.route import RTCF_BROADCAST, RTCF_LOCAL, RTCF_MULTICAST

if TYPE_CHECKING:
    from netstack._skb import SkBuff
    from netstack.proto.af_inet import InetHost

ICMP_ECHOREPLY, ICMP_DEST_UNREACH, ICMP_SOURCE_QUENCH, ICMP_REDIRECT = 0, 3, 4, 5
ICMP_ECHO, ICMP_TIME_EXCEEDED, ICMP_PARAMETERPROB = 8, 11, 12
ICMP_TIMESTAMP, ICMP_TIMESTAMPREPLY, ICMP_ADDRESS, ICMP_ADDRESSREPLY = 13, 14, 17, 18
# RFC 8335; not answered, as Linux with icmp_echo_enable_probe 0.
ICMP_EXT_ECHO, ICMP_EXT_ECHOREPLY = 42, 43
NR_ICMP_TYPES = 18
NR_ICMP_UNREACH = 15

# Codes of ICMP_DEST_UNREACH and ICMP_TIME_EXCEEDED.
ICMP_NET_UNREACH, ICMP_HOST_UNREACH, ICMP_PROT_UNREACH, ICMP_PORT_UNREACH = 0, 1, 2, 3
ICMP_FRAG_NEEDED, ICMP_PKT_FILTERED = 4, 13
ICMP_REDIR_HOST = 1  # of ICMP_REDIRECT
ICMP_EXC_TTL, ICMP_EXC_FRAGTIME = 0, 1

IPPROTO_ICMP, IPPROTO_RAW = 1, 255
# Linux has these, and knows no socket that has sent what is quoted: nor does a host without them.
IPPROTO_TCP, IPPROTO_UDPLITE = 6, 136
IP_OFFSET = 0x1FFF
IP_HLEN, ICMP_HLEN = 20, 8
IPTOS_TOS_MASK, IPTOS_PREC_INTERNETCONTROL = 0x1E, 0xC0
ICMP_ERROR_MAX = 576  # a whole error message with its IP header (RFC 1812 section 4.3.2.3)
PACKET_HOST = 0
LOOPBACK_IFINDEX = 1

Handler = Callable[["InetHost", "SkBuff", bytes], int]


class Control(NamedTuple):
    """What is done with a type; ``error``: never answer it with an error."""

    handler: Handler
    error: bool = False


def icmp_rcv(host: InetHost, skb: SkBuff) -> None:
    """Take one message, data at its header. Consumes skb."""
    reason = _icmp.rcv_check(host.net, skb)
    if reason:
        skb.drop(reason)
        return
    header = skb.data[:ICMP_HLEN]
    type_ = header[0]
    if type_ == ICMP_EXT_ECHO:
        skb.consume()
        return
    if skb.rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST) and not icmp_allowed_to_all(
        host, type_
    ):
        host.net.count(mib.IcmpInErrors)
        skb.drop(skb_drop_reason.SKB_DROP_REASON_INVALID_PROTO)
        return
    control = ICMP_POINTERS[ICMP_ECHOREPLY if type_ == ICMP_EXT_ECHOREPLY else type_]
    reason = control.handler(host, skb, header)
    if reason:
        skb.drop(reason)
    else:
        skb.consume()


def icmp_allowed_to_all(host: InetHost, type_: int) -> bool:
    """Say which messages may come by broadcast or multicast (RFC 1122 3.2.2.6 and 3.2.2.8)."""
    if type_ in (ICMP_ECHO, ICMP_TIMESTAMP):
        return not host.net.get(sysctl.icmp_echo_ignore_broadcasts)
    return type_ in (ICMP_ADDRESS, ICMP_ADDRESSREPLY)


# ---- by type: each gives a drop reason, or 0 for a message that is used up


def icmp_discard(host: InetHost, skb: SkBuff, header: bytes) -> int:
    """Take no notice."""
    return skb_drop_reason.SKB_NOT_DROPPED_YET


def ping_rcv(host: InetHost, skb: SkBuff, header: bytes) -> int:
    """Give an echo reply to the ping socket that waits for it."""
    return _ping.rcv(host.net, skb)


def icmp_echo(host: InetHost, skb: SkBuff, header: bytes) -> int:
    """Answer an echo request with the same data, tos and recorded route (RFC 1122 3.2.2.6)."""
    packet = skb.network
    options = ip_options_echo(host, packet, icmp_source(host, skb, packet))
    if options is not None:
        _icmp.echo(host.net, skb, options)
    return skb_drop_reason.SKB_NOT_DROPPED_YET


def icmp_timestamp(host: InetHost, skb: SkBuff, header: bytes) -> int:
    """Answer with the time, in ms since midnight UT, of arrival and of departure."""
    message = skb.data
    if len(message) < ICMP_HLEN + 4:
        host.net.count(mib.IcmpInErrors)
        return skb_drop_reason.SKB_DROP_REASON_PKT_TOO_SMALL
    packet = skb.network
    source = icmp_source(host, skb, packet)
    options = ip_options_echo(host, packet, source)
    if options is None:
        return skb_drop_reason.SKB_NOT_DROPPED_YET
    now = host.inet.inet_current_timestamp()
    reply = struct.pack("!BBH", ICMP_TIMESTAMPREPLY, 0, 0) + message[4:12]
    reply += struct.pack("!II", now, now)
    saddr, _daddr = addresses(packet)
    route = host.inet.routes.ip_route_output(saddr, source)
    loopback = route.ifindex == LOOPBACK_IFINDEX
    if not route.error and _icmp.allow(host.net, ICMP_TIMESTAMPREPLY, 0, saddr, loopback):
        _icmp.push(host.net, reply, saddr, source, packet[1], options, reply=True)
    return skb_drop_reason.SKB_NOT_DROPPED_YET


def icmp_source(host: InetHost, skb: SkBuff, packet: bytes) -> int:
    """Give our address in a reply: the one that was asked, or to a question for all, any."""
    saddr, daddr = addresses(packet)
    if skb.rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST):
        return host.inet.routes.ip_route_output(saddr).saddr
    return daddr


def icmp_unreach(host: InetHost, skb: SkBuff, header: bytes) -> int:
    """Tell the protocol whose packet is quoted what became of it."""
    type_, code, info = header[0], header[1], 0
    quoted = skb.data[ICMP_HLEN : ICMP_HLEN + IP_HLEN]
    if len(quoted) < IP_HLEN or quoted[0] & 15 < 5:
        host.net.count(mib.IcmpInErrors)
        short = len(quoted) < IP_HLEN
        reasons = skb_drop_reason
        return (
            reasons.SKB_DROP_REASON_PKT_TOO_SMALL if short else reasons.SKB_DROP_REASON_IP_INHDR
        )
    if type_ == ICMP_DEST_UNREACH:
        if code > NR_ICMP_UNREACH:
            return skb_drop_reason.SKB_NOT_DROPPED_YET
        if code == ICMP_FRAG_NEEDED:
            info = int.from_bytes(header[6:8])
    elif type_ == ICMP_PARAMETERPROB:
        info = header[4]
    elif type_ == ICMP_TIME_EXCEEDED and code == ICMP_EXC_FRAGTIME:
        return skb_drop_reason.SKB_NOT_DROPPED_YET
    icmp_socket_deliver(host, skb, info)
    return skb_drop_reason.SKB_NOT_DROPPED_YET


def icmp_redirect(host: InetHost, skb: SkBuff, header: bytes) -> int:
    """Tell the protocol: whose socket has sent what is quoted says whether the route is his (RFC 1122 3.2.2.2)."""
    if len(skb) < ICMP_HLEN + IP_HLEN:
        host.net.count(mib.IcmpInErrors)
        return skb_drop_reason.SKB_DROP_REASON_PKT_TOO_SMALL
    icmp_socket_deliver(host, skb, int.from_bytes(header[4:8]))
    return skb_drop_reason.SKB_NOT_DROPPED_YET


def icmp_socket_deliver(host: InetHost, skb: SkBuff, info: int) -> None:
    """Call the error handler of the quoted packet's protocol, with its header and 8 bytes."""
    message = skb.data
    quoted = message[ICMP_HLEN:]
    if len(quoted) < (quoted[0] & 15) * 4 + 8 or quoted[9] == IPPROTO_RAW:
        host.net.count(mib.IcmpInErrors)
        return
    if _raw.err(host.net, skb, quoted, message[0], message[1], info):
        redirect(host, skb, message, quoted)
    protocol = host.inet.protocols.get(quoted[9])
    if protocol is not None and protocol.err_handler is not None:
        protocol.err_handler(host, skb, message[0], message[1], info, quoted)
    elif protocol is None and quoted[9] in (IPPROTO_TCP, IPPROTO_UDPLITE):
        host.net.count(mib.IcmpInErrors)


def redirect(host: InetHost, skb: SkBuff, message: bytes, quoted: bytes) -> None:
    """Follow a message that is a redirect; it quotes what somebody here has sent. [ipv4_sk_redirect()]"""
    from netstack.proto.redirect import ip_do_redirect

    if message[0] == ICMP_REDIRECT:
        ip_do_redirect(host, skb, message, quoted)


ICMP_POINTERS: dict[int, Control] = {
    **{type_: Control(icmp_discard, error=True) for type_ in (1, 2, 6, 7, 9, 10)},
    ICMP_ECHOREPLY: Control(ping_rcv),
    ICMP_DEST_UNREACH: Control(icmp_unreach, error=True),
    ICMP_SOURCE_QUENCH: Control(icmp_unreach, error=True),
    ICMP_REDIRECT: Control(icmp_redirect, error=True),
    ICMP_ECHO: Control(icmp_echo),
    ICMP_TIME_EXCEEDED: Control(icmp_unreach, error=True),
    ICMP_PARAMETERPROB: Control(icmp_unreach, error=True),
    ICMP_TIMESTAMP: Control(icmp_timestamp),
    **{type_: Control(icmp_discard) for type_ in (ICMP_TIMESTAMPREPLY, 15, 16, 17, 18)},
}


# ---- errors of ours


def icmp_send(
    host: InetHost, skb: SkBuff, type_: int, code: int, info: int, checked: int | None = None
) -> None:
    """Tell the sender of a packet what is wrong with it, if he may be told. skb stays the caller's.

    ``info`` is the second word of the message: a pointer, an MTU, or 0. ``checked`` says up to
    which byte of the header the options are good, and go back; None for all.
    """
    packet = skb.network
    if not icmp_may_answer(skb, packet, type_):
        return
    saddr, daddr = addresses(packet)
    source = daddr if skb.rt_flags & RTCF_LOCAL else 0
    route = host.inet.routes.ip_route_output(saddr, source)
    if route.error:
        return
    if skb.ifindex != LOOPBACK_IFINDEX and not _icmp.allow(
        host.net, type_, code, saddr, route.ifindex == LOOPBACK_IFINDEX
    ):
        return
    options = ip_options_echo(host, packet, route.saddr, checked)
    if options is None:
        return
    room = min(route.mtu, ICMP_ERROR_MAX) - IP_HLEN - len(options) - ICMP_HLEN
    if room <= IP_HLEN:
        return
    tos = packet[1]
    if ICMP_POINTERS[type_].error:
        tos = tos & IPTOS_TOS_MASK | IPTOS_PREC_INTERNETCONTROL
    message = struct.pack("!BBHI", type_, code, 0, info) + packet[:room]
    _icmp.push(host.net, message, saddr, source, tos, options)


def icmp_may_answer(skb: SkBuff, packet: bytes, type_: int) -> bool:
    """Keep to RFC 1122 3.2.2: no error about what was for all, a later fragment, or an error."""
    if skb.pkt_type != PACKET_HOST or skb.rt_flags & (RTCF_BROADCAST | RTCF_MULTICAST):
        return False
    if int.from_bytes(packet[6:8]) & IP_OFFSET:
        return False
    if packet[9] == IPPROTO_ICMP and ICMP_POINTERS[type_].error:
        inner = packet[(packet[0] & 15) * 4 :][:1]
        if not inner or inner[0] > NR_ICMP_TYPES or ICMP_POINTERS[inner[0]].error:
            return False
    return True


def addresses(packet: bytes) -> tuple[int, int]:
    """Give source and destination of an IP packet."""
    return int.from_bytes(packet[12:16]), int.from_bytes(packet[16:20])


def icmp_err(
    host: InetHost, skb: SkBuff, type_: int, code: int, info: int, quoted: bytes
) -> None:
    """Tell the ping socket whose echo request an error quotes; an answer of ours is known to nobody."""
    answer = quoted[(quoted[0] & 15) * 4] == ICMP_ECHOREPLY
    if _ping.err(host.net, skb, quoted, type_, code, info) or answer:
        redirect(host, skb, skb.data, quoted)
