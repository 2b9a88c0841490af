"""hooks: the places where a Python function may look at a packet and say what becomes of it.

Stage 6 of 8:  device driver irq napi netif [nf] proto sock
In       packets on their way             proto/ip.py, proto/arp.py
Out      the next step, or the end        proto/ip.py, proto/arp.py
Context  process: the host's kworker, and at LOCAL_OUT and POST_ROUTING the thread of whoever sends
Kernel   nf_register_net_hook(), nf_hook_slow(), net/netfilter/core.c

While a function is registered, the compiled short cuts leave the packets it asked for to Python: the bit of
its hook is set in ``net.nf_hooks``. ::

    def no_ping(host, skb):
        return NF_DROP if skb.network[9] == 1 else NF_ACCEPT

    nf_register_net_hook(host, NF_INET_PRE_ROUTING, no_ping)

A function may change the packet (``skb.store``). One that gives NF_STOLEN has ended the packet
itself or keeps it, and nothing else may touch it; NF_QUEUE puts it aside until
``Hooks.reinject``, and NF_REPEAT asks the same function again. One that raises has not said
anything: the packet is dropped and the error is logged. A program whose datagram was dropped on
the way out gets EPERM, as in Linux.

A function registered with ``batch=True`` gets lists: all packets that match its filter of those
that the kworker has taken from the data path at once, 64 at most, and gives a verdict for each,
or one for all. What a program sends is a list of one, so that it can be told. ::

    def stamp(host, packets):
        for skb in packets:
            skb.store(1, TOS)
        return NF_ACCEPT

At the ARP hooks data begins where it does in Linux: at the ARP header on the way in, at the
Ethernet header on the way out; ``skb.network`` begins at the ARP header in both.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from netstack._counters import skb_drop_reason
from netstack.nf._rules import Rules

if TYPE_CHECKING:
    from netstack._net import Net
    from netstack._skb import SkBuff

NF_INET_PRE_ROUTING = 0  # received, before routing
NF_INET_LOCAL_IN = 1  # for us, whole
NF_INET_FORWARD = 2  # for others
NF_INET_LOCAL_OUT = 3  # made by us, routed
NF_INET_POST_ROUTING = 4  # about to leave
NF_INET_INGRESS = 5  # before the protocols: rules only
NF_ARP_IN = 6  # received ARP; Linux numbers the hooks of each family from 0, these are ours
NF_ARP_OUT = 7  # ARP made by us
NF_NUMHOOKS = 8
NF_TAP_SHIFT = 8  # bit 8 + hook of net.nf_rules: somebody captures there

NF_DROP, NF_ACCEPT, NF_STOLEN, NF_QUEUE, NF_REPEAT = 0, 1, 2, 3, 4
NF_REJECT = 9  # of a rule
MAX_QUEUE = 1024  # packets; what does not fit is dropped
VERDICTS = "NF_ACCEPT, NF_DROP, NF_STOLEN, NF_QUEUE, NF_REPEAT"  # what a function may say
MAX_REPEATS = 16  # then a function that still says NF_REPEAT has said NF_DROP

Hook = Callable[[Any, "SkBuff"], int]
BatchHook = Callable[[Any, "list[SkBuff]"], "int | Sequence[int]"]
Okfn = Callable[[Any, "SkBuff"], int | None]


class Filter(Protocol):
    """Describe a compiled filter: ``netstack.capture.bpf.Program`` for raw IP, at ARP's hooks for Ethernet."""

    address: int
    function: int

    def matches(self, frame: bytes, wire_len: int | None = None) -> int:
        """Return 0 when the filter rejects a packet."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A registered function; the lowest priority is asked first. ``filter`` None: every packet."""

    priority: int
    fn: Hook | BatchHook
    filter: Filter | None = None
    batch: bool = False

    def ask(self, host: Any, packets: list[SkBuff]) -> list[int]:
        """Ask for the verdicts, again where it is NF_REPEAT. What it raises about drops the packets."""
        verdicts = self._ask_once(host, packets)
        for _ in range(MAX_REPEATS - 1):
            again = [i for i, verdict in enumerate(verdicts) if verdict == NF_REPEAT]
            if not again:
                break
            for i, verdict in zip(
                again, self._ask_once(host, [packets[i] for i in again]), strict=True
            ):
                verdicts[i] = verdict
        return verdicts

    def _ask_once(self, host: Any, packets: list[SkBuff]) -> list[int]:
        fn: Any = self.fn
        try:
            said = fn(host, list(packets)) if self.batch else [fn(host, packets[0])]
            verdicts = list(said) if isinstance(said, Sequence) else [said] * len(packets)
            if len(verdicts) != len(packets):
                given = f"{len(verdicts)} verdicts about {len(packets)} packets"
                raise ValueError(f"{fn!r} gave {given}; give one for each, or one for all")
            for verdict in verdicts:
                if verdict not in (NF_DROP, NF_ACCEPT, NF_STOLEN, NF_QUEUE, NF_REPEAT):
                    raise ValueError(f"{fn!r} gave {verdict!r}; give {VERDICTS}")
            return verdicts
        except BaseException:
            for skb in packets:
                if skb:
                    skb.drop(skb_drop_reason.SKB_DROP_REASON_NETFILTER_DROP)
            raise


class Queued(NamedTuple):
    """A packet that waits behind a function: put aside with NF_QUEUE, or of a batch."""

    host: Any
    skb: SkBuff
    hook: int
    after: Entry
    okfn: Okfn
    iif: int | None  # the device it came in by, where it is on its way out


class Hooks:
    """The registered functions of one host, in order, and its rules."""

    def __init__(self, net: Net) -> None:
        """Begin without any."""
        self.net = net
        self.entries: list[list[Entry]] = [[] for _ in range(NF_NUMHOOKS)]
        self.rules = Rules(net)
        self.rejecting: list[tuple[int, int, int]] = []  # function, program, mask of hooks
        self.queue: deque[Queued] = deque()
        self.gathered: dict[tuple[int, Entry], list[Queued]] = {}
        self.gatherer = (
            0  # the thread whose packets are gathered for functions that take batches
        )
        self.reject: Callable[[Any, SkBuff], None] | None = None

    def changed(self) -> None:
        """Tell the data path which packets have to come to Python."""
        wants = [(f, p, 0, 0, mask, None) for f, p, mask in self.rejecting]
        bits = 0
        for mask in (mask for _, _, mask in self.rejecting):
            bits |= mask
        for hook, entries in enumerate(self.entries):
            for entry in entries:
                bits |= 1 << hook
                of = entry.filter
                wants.append(
                    (of.function if of else 0, of.address if of else 0, 0, 0, 1 << hook, None)
                )
        self.rules.publish_wants(wants)
        self.net.nf_hooks = bits

    def reinject(self, item: Queued, verdict: int) -> None:
        """Send a packet of the queue on its way, behind the function that put it aside, or drop it.

        [nf_reinject()]
        """
        self.queue.remove(item)
        if verdict == NF_DROP:
            item.skb.drop(skb_drop_reason.SKB_DROP_REASON_NETFILTER_DROP)
        else:
            self.go_on(item)

    def go_on(self, item: Queued) -> None:
        """Ask those behind the function that a packet waited for, and pass it on."""
        after = item.after
        entries = self.entries[item.hook]
        rest = (
            entries[entries.index(after) + 1 :]
            if after in entries
            else [entry for entry in entries if entry.priority >= after.priority]
        )
        host, ruled = item.host, after.priority >= 0
        verdict = _ask(host, item.hook, item.skb, rest, item.okfn, iif=item.iif, ruled=ruled)
        if verdict == NF_ACCEPT:
            item.okfn(host, item.skb)

    # ---- batches: only the kworker gathers, see kworker.py

    def gather(self, on: bool) -> None:
        """Let this thread's packets wait for functions that take batches, until ``ask_batch``."""
        self.gatherer = threading.get_ident() if on else 0

    def held(self) -> int:
        """Count what was gathered."""
        return sum(map(len, self.gathered.values()))

    def ask_batch(self) -> list[Queued]:
        """Ask one function about what was gathered for it; give what may go on (``go_on``)."""
        hook, entry = next(iter(self.gathered))
        items = self.gathered.pop((hook, entry))
        verdicts = entry.ask(items[0].host, [item.skb for item in items])
        passed = []
        for item, verdict in zip(items, verdicts, strict=True):
            if verdict == NF_ACCEPT:
                passed.append(item)
            else:
                _end(item, verdict)
        return passed

    # ---- the end

    def flush(self) -> None:
        """Drop what waits: the host closes."""
        while self.queue:
            self.queue.popleft().skb.drop(skb_drop_reason.SKB_DROP_REASON_QUEUE_PURGE)


class HasHooks(Protocol):
    """Describe where a host keeps its functions."""

    @property
    def hooks(self) -> Hooks:
        """Return the host's functions."""


class HookHost(Protocol):
    """Describe what a hook runs on."""

    @property
    def inet(self) -> HasHooks:
        """Return the host's IPv4 side."""


def _entries(host: HookHost, hook: int) -> list[Entry]:
    if hook == NF_INET_INGRESS or not 0 <= hook < NF_NUMHOOKS:
        raise ValueError(f"hook={hook}: give 0 to 4, NF_INET_*, or 6 to 7, NF_ARP_*")
    return host.inet.hooks.entries[hook]


def nf_register_net_hook(
    host: HookHost, hook: int, fn: Hook | BatchHook, priority: int = 0,
    filter: Filter | None = None, batch: bool = False,
) -> None:  # fmt: skip
    """Have ``fn(host, skb)`` asked at ``hook``; of equal priorities the first comes first.

    With a ``filter`` only about packets that match it (at ARP's hooks it looks at the frame, else at
    the IP packet); the others stay on the compiled road. Rules (nft) stand at priority 0, behind
    functions with a lower one. ``batch``: it is ``fn(host, packets)``, asked about many at once.
    Raises ValueError for an unknown hook.
    """
    entries = _entries(host, hook)
    entries.append(Entry(priority, fn, filter, batch))
    entries.sort(key=lambda entry: entry.priority)
    host.inet.hooks.changed()


def nf_unregister_net_hook(host: HookHost, hook: int, fn: Hook | BatchHook) -> None:
    """Ask ``fn`` no more. Raises ValueError when it is not registered there."""
    entries = _entries(host, hook)
    kept = [entry for entry in entries if entry.fn is not fn]
    if len(kept) == len(entries):
        raise ValueError(f"{fn!r} is not registered at hook {hook}")
    entries[:] = kept
    host.inet.hooks.changed()


def nf_hook(host: HookHost, hook: int, skb: SkBuff, okfn: Okfn, iif: int | None = None) -> int:
    """Ask functions and rules in turn until one does not accept. [nf_hook_slow()]

    Gives the verdict: the packet is the caller's only after NF_ACCEPT.
    """
    return _ask(host, hook, skb, tuple(host.inet.hooks.entries[hook]), okfn, iif=iif)


def _ask(
    host: HookHost, hook: int, skb: SkBuff, entries: Sequence[Entry], okfn: Okfn,
    *, iif: int | None = None, ruled: bool = False,
) -> int:  # fmt: skip
    hooks = host.inet.hooks
    for entry in entries:
        if entry.priority >= 0 and not ruled:
            ruled = True
            if (verdict := _rules(host, hook, skb, iif)) != NF_ACCEPT:
                return verdict
        if entry.filter is not None and not entry.filter.matches(*hooks.rules.seen(hook, skb)):
            continue
        if entry.batch and hooks.gatherer == threading.get_ident():
            item = Queued(host, skb, hook, entry, okfn, iif)
            hooks.gathered.setdefault((hook, entry), []).append(item)
            return NF_STOLEN
        (verdict,) = entry.ask(host, [skb])
        if verdict == NF_ACCEPT:
            continue
        return _end(Queued(host, skb, hook, entry, okfn, iif), verdict)
    return NF_ACCEPT if ruled else _rules(host, hook, skb, iif)


def _end(item: Queued, verdict: int) -> int:
    """Do what a verdict other than NF_ACCEPT says."""
    queue = item.host.inet.hooks.queue
    if verdict == NF_STOLEN:
        return verdict
    if verdict == NF_QUEUE and len(queue) < MAX_QUEUE:
        queue.append(item)
        return NF_STOLEN
    item.skb.drop(skb_drop_reason.SKB_DROP_REASON_NETFILTER_DROP)
    return NF_DROP


def _rules(host: HookHost, hook: int, skb: SkBuff, iif: int | None) -> int:
    """Ask the rules; what they refuse is dropped, and told to its sender if they say so."""
    hooks = host.inet.hooks
    if not hooks.net.nf_rules >> hook & 1:
        return NF_ACCEPT
    here = skb.ifindex
    sees_in = hook in (NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN, NF_ARP_IN)
    verdict = hooks.rules.run(hook, skb, here if sees_in else iif or 0, 0 if sees_in else here)
    if verdict == NF_ACCEPT:
        return verdict
    if verdict == NF_REJECT and hooks.reject is not None:
        hooks.reject(host, skb)
    skb.drop(skb_drop_reason.SKB_DROP_REASON_NETFILTER_DROP)
    return NF_DROP


def NF_HOOK(host: HookHost, hook: int, skb: SkBuff, okfn: Okfn, iif: int | None = None) -> int:
    """Pass a packet through a hook and, when it was accepted, on to ``okfn``. Consumes skb.

    Gives 0 or an errno: what ``okfn`` gave, or EPERM when a function or a rule dropped the packet.
    """
    net = host.inet.hooks.net
    verdict = NF_ACCEPT
    if net.nf_rules >> NF_TAP_SHIFT + hook & 1:
        host.inet.hooks.rules.tap(hook, skb, iif or 0)
    if (net.nf_hooks | net.nf_rules) >> hook & 1:
        verdict = nf_hook(host, hook, skb, okfn, iif)
    if verdict == NF_ACCEPT:
        return okfn(host, skb) or 0
    return errno.EPERM if verdict == NF_DROP else 0
