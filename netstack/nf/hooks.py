"""hooks: the five places where a Python function may look at a packet and say what becomes of it.

Stage 6 of 8:  device driver irq napi netif [nf] proto sock
In       packets on their way             proto/ip.py
Out      the next step, or the end        proto/ip.py
Context  process: the host's kworker, and at LOCAL_OUT and POST_ROUTING the thread of whoever sends
Kernel   nf_register_net_hook(), nf_hook_slow(), net/netfilter/core.c

While a function is registered, the compiled short cuts leave their packets to Python: the bit of
its hook is set in ``net.nf_hooks``. ::

    def no_ping(host, skb):
        return NF_DROP if skb.network[9] == 1 else NF_ACCEPT

    nf_register_net_hook(host, NF_INET_PRE_ROUTING, no_ping)

A function that gives NF_STOLEN has ended the packet itself or keeps it, and nothing else may
touch it. One that raises has not said anything: the packet is dropped and the error is logged.
A program whose datagram was dropped on the way out gets EPERM, as in Linux.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from netstack._counters import skb_drop_reason

if TYPE_CHECKING:
    from netstack._net import Net
    from netstack._skb import SkBuff

NF_INET_PRE_ROUTING = 0  # received, before routing
NF_INET_LOCAL_IN = 1  # for us, whole
NF_INET_FORWARD = 2  # for others
NF_INET_LOCAL_OUT = 3  # made by us, routed
NF_INET_POST_ROUTING = 4  # about to leave
NF_INET_NUMHOOKS = 5

NF_DROP, NF_ACCEPT, NF_STOLEN = 0, 1, 2

Hook = Callable[[Any, "SkBuff"], int]
Okfn = Callable[[Any, "SkBuff"], int | None]


class Entry(NamedTuple):
    """A registered function; the lowest priority is asked first."""

    priority: int
    fn: Hook


class Hooks:
    """The registered functions of one host, in order."""

    def __init__(self, net: Net) -> None:
        """Begin without any."""
        self.net = net
        self.entries: list[list[Entry]] = [[] for _ in range(NF_INET_NUMHOOKS)]


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


def nf_register_net_hook(host: HookHost, hook: int, fn: Hook, priority: int = 0) -> None:
    """Have ``fn(host, skb)`` asked at ``hook``; of equal priorities the first comes first.

    Raises ValueError for an unknown hook.
    """
    if not 0 <= hook < NF_INET_NUMHOOKS:
        raise ValueError(f"hook={hook}: give 0 to {NF_INET_NUMHOOKS - 1}, NF_INET_*")
    entries = host.inet.hooks.entries[hook]
    entries.append(Entry(priority, fn))
    entries.sort(key=lambda entry: entry.priority)
    host.inet.hooks.net.nf_hooks |= 1 << hook


def nf_unregister_net_hook(host: HookHost, hook: int, fn: Hook) -> None:
    """Ask ``fn`` no more. Raises ValueError when it is not registered there."""
    if not 0 <= hook < NF_INET_NUMHOOKS:
        raise ValueError(f"hook={hook}: give 0 to {NF_INET_NUMHOOKS - 1}, NF_INET_*")
    entries = host.inet.hooks.entries[hook]
    kept = [entry for entry in entries if entry.fn is not fn]
    if len(kept) == len(entries):
        raise ValueError(f"{fn!r} is not registered at hook {hook}")
    entries[:] = kept
    if not kept:
        host.inet.hooks.net.nf_hooks &= ~(1 << hook)


def nf_hook(host: HookHost, hook: int, skb: SkBuff) -> int:
    """Ask the functions in turn until one does not accept. [nf_hook_slow()]

    Gives the verdict: the packet is the caller's only after NF_ACCEPT.
    """
    for entry in tuple(host.inet.hooks.entries[hook]):
        verdict = entry.fn(host, skb)
        if verdict == NF_ACCEPT:
            continue
        if verdict == NF_DROP:
            skb.drop(skb_drop_reason.SKB_DROP_REASON_NETFILTER_DROP)
        elif verdict != NF_STOLEN:
            skb.drop(skb_drop_reason.SKB_DROP_REASON_NETFILTER_DROP)
            raise ValueError(
                f"{entry.fn!r} gave {verdict!r}; give NF_ACCEPT, NF_DROP, NF_STOLEN"
            )
        return verdict
    return NF_ACCEPT


def NF_HOOK(host: HookHost, hook: int, skb: SkBuff, okfn: Okfn) -> int:
    """Pass a packet through a hook and, when it was accepted, on to ``okfn``. Consumes skb.

    Gives 0 or an errno: what ``okfn`` gave, or EPERM when a function has dropped the packet.
    """
    verdict = NF_ACCEPT
    if host.inet.hooks.net.nf_hooks >> hook & 1:
        verdict = nf_hook(host, hook, skb)
    if verdict == NF_ACCEPT:
        return okfn(host, skb) or 0
    return errno.EPERM if verdict == NF_DROP else 0
