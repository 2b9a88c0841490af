"""frag: put the fragments of a datagram together again, in bounded memory and time.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       fragments for us                 proto/ip.py
Out      the whole datagram               proto/ip.py
Context  process
Kernel   ip_defrag(), ip_frag_queue(), ip_frag_reasm(), ip_expire(), net/ipv4/ip_fragment.c;
         inet_frag_queue_insert(), net/ipv4/inet_fragment.c

RFC 791 section 3.2 has the idea, RFC 815 the bookkeeping, RFC 5722 what to do with overlaps:
nothing good ever overlaps, so such a datagram is given up whole. Fragments stand in runs: a run
is what came in order without a gap.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netstack._counters import mib, skb_drop_reason
from netstack._net import sysctl
from netstack.proto import _frag, _ip
from netstack.proto.icmp import ICMP_EXC_FRAGTIME, ICMP_TIME_EXCEEDED, icmp_send
from netstack.proto.route import RTN

if TYPE_CHECKING:
    from netstack._net import Net
    from netstack._skb import SkBuff
    from netstack.proto.af_inet import InetHost

IP_DF, IP_MF, IP_OFFSET = 0x4000, 0x2000, 0x1FFF
IP_HLEN, IP_MAX = 20, 65535
NS_PER_S = 1_000_000_000
LAST_IN, FIRST_IN = 1, 2

# ECN of the whole by the codes of the fragments, a bit each (RFC 3168 section 5.3): a mix of
# capable and not capable can't be, and one "congestion experienced" counts for all.
NOT_ECT, ECT_1, ECT_0, CE = 1, 2, 4, 8
INET_ECN_CE = 3

Key = tuple[int, int, int, int, int]


@dataclass(slots=True)
class Run:
    """Fragments that came in order without a gap: bytes ``start`` to ``end``."""

    start: int
    end: int
    fragments: list[SkBuff]


@dataclass(slots=True)
class Ipq:
    """A datagram of which something is missing."""

    key: Key
    due: int
    ifindex: int
    rid: int = 0
    flags: int = 0
    length: int = 0  # of the whole, as far as known
    meat: int = 0  # bytes that are here
    memory: int = 0
    ecn: int = 0
    max_size: int = 0
    max_df_size: int = 0
    runs: list[Run] = field(default_factory=list)

    def fragments(self) -> list[SkBuff]:
        """Give what is here, in order of offset."""
        return [skb for run in self.runs for skb in run.fragments]


class Fqdir:
    """All incomplete datagrams of a host."""

    def __init__(self, net: Net) -> None:
        """Begin without any."""
        self.net = net
        self.queues: dict[Key, Ipq] = {}  # in the order of their timers
        self.memory = 0
        self.rids: dict[int, int] = {}  # by source: how many fragments it sent us

    def frames(self) -> int:
        """Count the frames off the wire that wait here."""
        return sum(_frag.frames(skb) for q in self.queues.values() for skb in q.fragments())

    def next_deadline(self) -> int:
        """When the oldest gives up, ns; 0 for none."""
        return next((q.due for q in self.queues.values()), 0)

    def kill(self, q: Ipq, reason: int) -> None:
        """Forget a datagram, and drop what is here of it. [inet_frag_kill()]"""
        self.unlink(q)
        for skb in q.fragments():
            if skb:
                skb.drop(reason)

    def unlink(self, q: Ipq) -> None:
        """Take a datagram out of the table; its fragments stay the caller's."""
        del self.queues[q.key]
        self.memory -= q.memory
        if not self.queues:
            self.rids.clear()

    def flush(self) -> None:
        """Drop everything: the host closes."""
        for q in list(self.queues.values()):
            self.kill(q, skb_drop_reason.SKB_DROP_REASON_QUEUE_PURGE)


def ip_defrag(host: InetHost, skb: SkBuff) -> SkBuff | None:
    """Take a fragment, data at its IP header; give the whole datagram when it was the last."""
    host.net.count(mib.IpReasmReqds)
    q = ip_find(host, skb)
    if q is None:
        host.net.count(mib.IpReasmFails)
        skb.drop(skb_drop_reason.SKB_DROP_REASON_NOMEM)
        return None
    return ip_frag_queue(host, q, skb)


def ip_find(host: InetHost, skb: SkBuff) -> Ipq | None:
    """Find or begin the datagram that a fragment belongs to; None when memory is used up."""
    frags, header = host.inet.frags, skb.data[:IP_HLEN]
    high = host.net.get(sysctl.ipfrag_high_thresh)
    if not high or frags.memory > high:
        return None
    key = (
        int.from_bytes(header[12:16]),
        int.from_bytes(header[16:20]),
        int.from_bytes(header[4:6]),
        header[9],
        skb.ifindex,
    )
    q = frags.queues.get(key)
    if q is None:
        due = host.now() + host.net.get(sysctl.ipfrag_time) * NS_PER_S
        q = frags.queues[key] = Ipq(key, due, skb.ifindex)
    return q


def ip_frag_queue(host: InetHost, q: Ipq, skb: SkBuff) -> SkBuff | None:
    """Put a fragment into its place; the whole datagram when nothing is missing any more."""
    frags = host.inet.frags
    reasons = skb_drop_reason
    if ip_frag_too_far(host, q):
        ip_frag_reinit(host, q)
    data = skb.data
    ihl, field_ = (data[0] & 15) * 4, int.from_bytes(data[6:8])
    offset = (field_ & IP_OFFSET) * 8
    end = offset + len(skb) - ihl
    if field_ & IP_MF:
        end &= ~7
    if not ip_frag_fits(q, field_, offset, end):
        discard_qp(host, q, skb)
        return None
    _frag.trim(skb, ihl + end - offset)
    verdict = inet_frag_queue_insert(q, skb, offset, end)
    if verdict == reasons.SKB_DROP_REASON_DUP_FRAG:
        skb.drop(verdict)
        return None
    if verdict:
        host.net.count(mib.IpExtReasmOverlaps)
        discard_qp(host, q, skb)
        return None
    q.meat += end - offset
    q.ecn |= 1 << (data[1] & 3)
    q.memory += _frag.truesize(skb)
    frags.memory += _frag.truesize(skb)
    q.flags |= FIRST_IN if offset == 0 else 0
    size = ihl + end - offset
    q.max_size = max(q.max_size, size)
    if field_ & IP_DF:
        q.max_df_size = max(q.max_df_size, size)
    if q.flags == FIRST_IN | LAST_IN and q.meat == q.length:
        return ip_frag_reasm(host, q)
    return None


def ip_frag_fits(q: Ipq, field_: int, offset: int, end: int) -> bool:
    """Check a fragment against the end of the datagram, and learn where that is."""
    if not field_ & IP_MF:
        if end < q.length or (q.flags & LAST_IN and end != q.length):
            return False
        q.flags |= LAST_IN
        q.length = end
    elif end > q.length:
        if q.flags & LAST_IN:
            return False
        q.length = end
    return end != offset


def inet_frag_queue_insert(q: Ipq, skb: SkBuff, offset: int, end: int) -> int:
    """Add a fragment to a run or begin one: 0, DUP_FRAG, or FRAG_OVERLAP."""
    reasons = skb_drop_reason
    last = q.runs[-1] if q.runs else None
    if last is None or last.end < end:
        if last is not None and offset < last.end:
            return reasons.SKB_DROP_REASON_FRAG_OVERLAP
        if last is not None and offset == last.end:
            last.fragments.append(skb)
            last.end = end
        else:
            q.runs.append(Run(offset, end, [skb]))
        return 0
    at = bisect_left(q.runs, end, key=lambda run: run.end)
    run = q.runs[at]  # the first that reaches as far as the fragment
    if run.start <= offset and end <= run.end:
        return reasons.SKB_DROP_REASON_DUP_FRAG
    if end > run.start or (at and offset < q.runs[at - 1].end):
        return reasons.SKB_DROP_REASON_FRAG_OVERLAP
    q.runs.insert(at, Run(offset, end, [skb]))
    return 0


def discard_qp(host: InetHost, q: Ipq, skb: SkBuff) -> None:
    """Give up a datagram whose fragments contradict each other. Consumes skb."""
    host.net.count(mib.IpReasmFails)
    host.inet.frags.kill(q, skb_drop_reason.SKB_DROP_REASON_FRAG_OVERLAP)
    skb.drop(skb_drop_reason.SKB_DROP_REASON_FRAG_OVERLAP)


def ip_frag_too_far(host: InetHost, q: Ipq) -> bool:
    """Tell whether more than ipfrag_max_dist fragments of the same source came in between.

    Then the id has probably been used again, and what is here belongs to another datagram.
    """
    most = host.net.get(sysctl.ipfrag_max_dist)
    if not most:
        return False
    rids, source = host.inet.frags.rids, q.key[0]
    start, q.rid = q.rid, rids.get(source, 0) + 1
    rids[source] = q.rid
    far = bool(q.runs) and q.rid - start > most
    if far:
        host.net.count(mib.IpReasmFails)
    return far


def ip_frag_reinit(host: InetHost, q: Ipq) -> None:
    """Begin a datagram anew; Linux keeps max_size and max_df_size, and so does this."""
    for skb in q.fragments():
        skb.drop(skb_drop_reason.SKB_DROP_REASON_FRAG_TOO_FAR)
    host.inet.frags.memory -= q.memory
    q.flags = q.length = q.meat = q.memory = q.ecn = 0
    q.runs.clear()
    frags = host.inet.frags
    del frags.queues[q.key]  # its timer starts again, so it goes to the end
    q.due = host.now() + host.net.get(sysctl.ipfrag_time) * NS_PER_S
    frags.queues[q.key] = q


def ip_frag_reasm(host: InetHost, q: Ipq) -> SkBuff | None:
    """Make one packet of all fragments: the header of the first, and their frames with it."""
    frags = host.inet.frags
    fragments = q.fragments()
    ecn = ip_frag_ecn(q.ecn)
    ihl = (fragments[0].data[0] & 15) * 4
    reasons = skb_drop_reason
    if ecn is None or ihl + q.length > IP_MAX:
        big = ihl + q.length > IP_MAX
        host.net.count(mib.IpReasmFails)
        frags.kill(
            q,
            reasons.SKB_DROP_REASON_PKT_TOO_BIG
            if big
            else reasons.SKB_DROP_REASON_FRAG_OVERLAP,
        )
        return None
    frags.unlink(q)
    df = q.max_df_size == q.max_size
    whole = _frag.reassemble(fragments, ecn, df)
    host.net.count(mib.IpReasmOKs)
    return whole


def ip_frag_ecn(seen: int) -> int | None:
    """Give the ECN bits to add to the whole, or None when the fragments can't be of one."""
    if seen & NOT_ECT:
        return 0 if seen == NOT_ECT else None
    return INET_ECN_CE if seen & CE and seen != CE else 0


def ip_expire(host: InetHost, q: Ipq) -> None:
    """Give up a datagram that did not become whole in time; its sender is told (RFC 792)."""
    host.net.count(mib.IpReasmFails)
    host.net.count(mib.IpReasmTimeout)
    if q.flags & FIRST_IN:
        head = q.runs[0].fragments[0]
        reason, rt_type, _flags = _ip.rcv_route(host.net, head)
        if not reason and rt_type == RTN.LOCAL:
            icmp_send(host, head, ICMP_TIME_EXCEEDED, ICMP_EXC_FRAGTIME, 0)
    host.inet.frags.kill(q, skb_drop_reason.SKB_DROP_REASON_FRAG_REASM_TIMEOUT)


class FragTimers:
    """What the kworker asks: when a datagram is given up, and to see to it."""

    def __init__(self, host: InetHost) -> None:
        """Watch the host's incomplete datagrams."""
        self.host = host

    def next_deadline(self) -> int:
        """When the oldest gives up, ns on the host's clock; 0 for none."""
        return self.host.inet.frags.next_deadline()

    def run_timers(self, now: int) -> None:
        """Give up what is too old."""
        frags = self.host.inet.frags
        for q in list(frags.queues.values()):
            if q.due > now:
                break
            ip_expire(self.host, q)
