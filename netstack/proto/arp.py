"""arp: who has which address, asked and answered; and the timers of what was learned.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       ARP packets                      netif/core.py
Out      replies, requests, table changes proto/_arp.pyx, proto/_neigh.pyx
Context  process
Kernel   arp_rcv(), arp_process(), arp_xmit(), net/ipv4/arp.c; neigh_timer_handler(), net/core/neighbour.c

RFC 826 says what a packet means. A request is answered by the compiled short cut while that is
on; everything else, and with it off the requests too, comes here; and what we send on its way
out, when a function asked for it at NF_ARP_OUT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netstack._counters import skb_drop_reason
from netstack._net import sysctl
from netstack.nf.hooks import NF_ARP_IN, NF_ARP_OUT, NF_HOOK
from netstack.proto._arp import arp_op, arp_parse, arp_size, arp_xmit, xmit_finish
from netstack.proto._neigh import nud
from netstack.proto.icmp import ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, icmp_send
from netstack.proto.route import RTN

if TYPE_CHECKING:
    from netstack._skb import SkBuff
    from netstack.proto._neigh_table import _Entry
    from netstack.proto.af_inet import InetHost

ETH_P_ARP = 0x0806
PACKET_HOST, PACKET_OTHERHOST, PACKET_OUTGOING, PACKET_LOOPBACK = 0, 3, 4, 5
NS_PER_S, NS_PER_MS = 1_000_000_000, 1_000_000
LOCKTIME = NS_PER_S  # an address that was just learned is not replaced for so long
MIN_TIMER = 10 * NS_PER_MS


def arp_rcv(host: InetHost, skb: SkBuff) -> None:
    """Take one ARP packet. Consumes skb."""
    if skb.pkt_type == PACKET_OUTGOING:
        NF_HOOK(host, NF_ARP_OUT, skb, arp_xmit_finish)
        return
    if skb.pkt_type in (PACKET_OTHERHOST, PACKET_LOOPBACK):
        skb.consume()
        return
    if reason := arp_size(skb):
        skb.drop(reason)
        return
    NF_HOOK(host, NF_ARP_IN, skb, arp_process)


def arp_xmit_finish(_host: InetHost, skb: SkBuff) -> None:
    """Send what the output hook has let through. Consumes skb."""
    xmit_finish(skb)


def arp_process(host: InetHost, skb: SkBuff) -> None:
    """Answer what asks for us, learn from what answers us. Consumes skb."""
    reason, op, sha, sip, tha, tip = arp_parse(skb)
    if reason:
        skb.drop(reason)
        return
    inet, ifindex = host.inet, skb.ifindex

    # Somebody without an address asks whether this one is free (RFC 5227 section 2.1.1).
    if sip == 0:
        if op == arp_op.ARPOP_REQUEST and inet.routes.fib.address_type(tip) == RTN.LOCAL:
            arp_xmit(host.net, ifindex, arp_op.ARPOP_REPLY, sip, tip, sha, sha)
            skb.consume()
            return
        skb.drop(skb_drop_reason.SKB_DROP_REASON_ARP_NOT_FOR_US)
        return

    if op == arp_op.ARPOP_REQUEST:
        route = inet.routes.ip_route_input(tip, sip, ifindex, ETH_P_ARP)
        if route.reason == 0 and route.type == RTN.LOCAL:
            if inet.neigh.event_ns(ifindex, sip, sha):
                arp_xmit(host.net, ifindex, arp_op.ARPOP_REPLY, sip, tip, sha, sha)
            skb.consume()
            return

    arp_learn(host, skb, op, sha, sip, tha, tip)


def arp_learn(
    host: InetHost, skb: SkBuff, op: int, sha: bytes, sip: int, tha: bytes, tip: int
) -> None:
    """Update the sender's entry, if there is one: nobody else makes us remember him.

    An answer to us proves that he is there; anything else only says where he was. An address
    that changed within the last second is kept, unless he announced the new one himself.
    """
    neigh, ifindex = host.inet.neigh, skb.ifindex
    entry = neigh.lookup(ifindex, sip)
    if entry is None:
        request = op == arp_op.ARPOP_REQUEST
        reasons = skb_drop_reason
        skb.drop(
            reasons.SKB_DROP_REASON_ARP_NOT_FOR_US
            if request
            else reasons.SKB_DROP_REASON_ARP_UNSOLICITED
        )
        return
    updated = entry[7]
    override = host.now() > updated + LOCKTIME or arp_is_garp(host, op, sha, sip, tha, tip)
    answer = op == arp_op.ARPOP_REPLY and skb.pkt_type == PACKET_HOST
    state = nud.NUD_REACHABLE if answer else nud.NUD_STALE
    neigh.update(ifindex, sip, sha, state, override=override)
    skb.consume()


def arp_is_garp(host: InetHost, op: int, sha: bytes, sip: int, tha: bytes, tip: int) -> bool:
    """Tell whether he announces his own address (gratuitous ARP, RFC 5227 section 1.2)."""
    if sip != tip or (op == arp_op.ARPOP_REPLY and tha != sha):
        return False
    return host.inet.routes.fib.address_type(sip) == RTN.UNICAST


# ---- timers


def neigh_timer_handler(host: InetHost, entry: _Entry, now: int) -> None:
    """Move one entry on whose timer has run out, by the kernel's state machine.

    REACHABLE turns STALE when nobody used it, else DELAY; DELAY turns PROBE when no upper layer
    confirmed it; PROBE and INCOMPLETE ask again, and FAIL after enough requests.
    """
    ifindex, address, _ha, state, probes, confirmed, used, _updated = entry
    neigh, net = host.inet.neigh, host.net
    retrans = max(net.get(sysctl.neigh_retrans_time_ms) * NS_PER_MS, MIN_TIMER)
    delay = net.get(sysctl.neigh_delay_first_probe_time) * NS_PER_S
    new, due = nud(state), now + retrans

    if state == nud.NUD_REACHABLE:
        if now <= confirmed + neigh.reachable_ns():
            due = confirmed + neigh.reachable_ns()
        elif now <= used + delay:
            new, due = nud.NUD_DELAY, now + delay
        else:
            new, due = nud.NUD_STALE, 0
    elif state == nud.NUD_DELAY:
        if now <= confirmed + delay:
            new, due = nud.NUD_REACHABLE, confirmed + neigh.reachable_ns()
        else:
            new, probes = nud.NUD_PROBE, 0
    if new in (nud.NUD_INCOMPLETE, nud.NUD_PROBE) and probes >= neigh_max_probes(host, new):
        if neigh.transition(ifindex, address, state, nud.NUD_FAILED, 0, now):
            neigh_invalidate(host, ifindex, address)
        return
    due = max(due, now + MIN_TIMER) if due else 0
    if neigh.transition(ifindex, address, state, new, due, now) and new in (
        nud.NUD_INCOMPLETE,
        nud.NUD_PROBE,
    ):
        neigh.probe(ifindex, address)


def neigh_max_probes(host: InetHost, state: int) -> int:
    """Say how many requests are enough. INCOMPLETE starts to count at ucast_solicit."""
    unicast = host.net.get(sysctl.neigh_ucast_solicit)
    if state == nud.NUD_PROBE:
        return unicast
    return unicast + host.net.get(sysctl.neigh_mcast_solicit)


def neigh_invalidate(host: InetHost, ifindex: int, address: int) -> None:
    """Give up on a neighbour: senders hear "host unreachable", their packets are dropped."""
    for skb in host.inet.neigh.take_queue(ifindex, address):
        icmp_send(host, skb, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, 0)
        skb.drop(skb_drop_reason.SKB_DROP_REASON_NEIGH_FAILED)


class NeighTimers:
    """What the kworker asks: when a timer runs out, and to see to it."""

    def __init__(self, host: InetHost) -> None:
        """Begin with an empty table."""
        self.host = host
        self.gc_due = host.now() + self.gc_interval()

    def gc_interval(self) -> int:
        """Say how far apart the looks for old entries are: half a reachable time, ns."""
        base = self.host.net.get(sysctl.neigh_base_reachable_time_ms) * NS_PER_MS
        return max(base // 2, NS_PER_S)

    def next_deadline(self) -> int:
        """When the first timer runs out, ns on the host's clock; 0 for none."""
        neigh = self.host.inet.neigh
        if not len(neigh):
            return 0
        return min(neigh.next_deadline() or self.gc_due, self.gc_due)

    def run_timers(self, now: int) -> None:
        """See to every entry that is due, and forget old ones every half reachable time."""
        host = self.host
        for entry in host.inet.neigh.expired(now):
            neigh_timer_handler(host, entry, now)
        if now >= self.gc_due:
            host.inet.neigh.periodic_work(now)
            self.gc_due = now + self.gc_interval()
