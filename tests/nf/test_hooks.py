"""The five hooks: who is asked, in which order, and what a verdict does."""

from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP

from netstack.nf.hooks import (
    NF_ACCEPT,
    NF_DROP,
    NF_INET_FORWARD,
    NF_INET_LOCAL_IN,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
    NF_STOLEN,
    nf_register_net_hook,
    nf_unregister_net_hook,
)
from tests.proto.stack import ADDR, PEER, Stack, eth, ip, ping

HOOKS = {
    "PRE_ROUTING": NF_INET_PRE_ROUTING,
    "LOCAL_IN": NF_INET_LOCAL_IN,
    "FORWARD": NF_INET_FORWARD,
    "LOCAL_OUT": NF_INET_LOCAL_OUT,
    "POST_ROUTING": NF_INET_POST_ROUTING,
}


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Give a host, and check its ledger at the end."""
    stack = Stack(fast=request.param)
    yield stack
    stack.settle()
    stack.check_ledger()
    for skb in stack.kept:
        skb.consume()
    stack.inet.close()
    stack.bench.sent()
    assert stack.bench.pool_in_use() == 0
    assert all(free == total for _size, free, total in stack.pool.state())


def watch(stack: Stack, verdict: int = NF_ACCEPT, *names: str) -> list[str]:
    """Register at hooks; give the list into which their names go."""
    seen: list[str] = []
    for name in names or HOOKS:

        def fn(host: Any, skb: Any, name: str = name) -> int:
            assert host is stack
            seen.append(name)
            return verdict

        nf_register_net_hook(stack, HOOKS[name], fn)
    return seen


def test_a_ping_passes_four_hooks(stack: Stack) -> None:
    seen = watch(stack)
    assert len(stack.give(ping())) == 1
    assert seen == ["PRE_ROUTING", "LOCAL_IN", "LOCAL_OUT", "POST_ROUTING"]


def test_a_forwarded_packet_passes_three(stack: Stack) -> None:
    stack.config["net.ipv4.ip_forward"] = 1
    stack.config["net.ipv4.conf.all.send_redirects"] = 0
    stack.config["net.ipv4.conf.eth0.send_redirects"] = 0
    stack.neighbour("10.0.0.50", "02:00:00:00:00:50")
    seen = watch(stack)
    assert len(stack.give(eth() / ip(dst="10.0.0.50") / ICMP())) == 1
    assert seen == ["PRE_ROUTING", "FORWARD", "POST_ROUTING"]


def test_local_in_sees_whole_datagrams(stack: Stack) -> None:
    sizes = []
    nf_register_net_hook(
        stack, NF_INET_LOCAL_IN, lambda host, skb: (sizes.append(len(skb)), NF_ACCEPT)[1]
    )
    from tests.proto.test_frag import echo, pieces

    stack.give(*pieces(echo(3000), 1480))
    assert sizes == [3028]


@pytest.mark.parametrize("name", ["PRE_ROUTING", "LOCAL_IN"])
def test_drop_on_the_way_in_ends_the_frame(stack: Stack, name: str) -> None:
    watch(stack, NF_DROP, name)
    assert stack.give(ping()) == []
    assert stack.fates() == {"NETFILTER_DROP": 1}


@pytest.mark.parametrize("name", ["LOCAL_OUT", "POST_ROUTING"])
def test_drop_on_the_way_out_ends_the_packet(stack: Stack, name: str) -> None:
    watch(stack, NF_DROP, name)
    assert stack.give(ping()) == []
    assert stack.fates() == {"CONSUMED": 1}
    assert "IpOutTransmits" not in stack.counters()


def test_what_is_stolen_is_the_function_s(stack: Stack) -> None:
    def steal(host: Any, skb: Any) -> int:
        stack.kept.append(skb)
        return NF_STOLEN

    nf_register_net_hook(stack, NF_INET_PRE_ROUTING, steal)
    assert stack.give(ping()) == []
    assert stack.kept[0].network[9] == 1


def test_the_lowest_priority_is_asked_first(stack: Stack) -> None:
    order: list[int] = []
    for priority in (5, -5, 0):
        nf_register_net_hook(
            stack,
            NF_INET_PRE_ROUTING,
            lambda host, skb, p=priority: (order.append(p), NF_ACCEPT)[1],
            priority,
        )
    stack.give(ping())
    assert order == [-5, 0, 5]


def test_a_drop_ends_the_questions(stack: Stack) -> None:
    watch(stack, NF_DROP, "PRE_ROUTING")
    seen = watch(stack, NF_ACCEPT, "PRE_ROUTING")
    stack.give(ping())
    assert seen == []


def test_the_short_cut_comes_back_with_the_last_function(stack: Stack) -> None:
    def accept(host: Any, skb: Any) -> int:
        return NF_ACCEPT

    nf_register_net_hook(stack, NF_INET_PRE_ROUTING, accept)
    assert stack.net.nf_hooks == 1
    nf_unregister_net_hook(stack, NF_INET_PRE_ROUTING, accept)
    assert stack.net.nf_hooks == 0
    assert len(stack.give(ping())) == 1


def test_hooks_change_no_counter_of_what_they_accept() -> None:
    plain, watched = Stack(), Stack()
    watch(watched)
    for stack in (plain, watched):
        stack.give(ping(), ping(3000 - 28), eth() / ip(proto=77) / b"x")
    assert plain.counters() == watched.counters()
    assert plain.fates() == watched.fates()


def test_a_verdict_must_be_one(stack: Stack) -> None:
    nf_register_net_hook(stack, NF_INET_PRE_ROUTING, lambda host, skb: 9)
    with pytest.raises(ValueError, match="gave 9"):
        stack.give(ping())
    assert stack.fates() == {"NETFILTER_DROP": 1}


@pytest.mark.parametrize("hook", [-1, 5, 8])
def test_there_are_five_hooks_of_ip_and_two_of_arp(stack: Stack, hook: int) -> None:
    with pytest.raises(ValueError, match=r"give 0 to 4, NF_INET_\*, or 6 to 7"):
        nf_register_net_hook(stack, hook, lambda host, skb: NF_ACCEPT)
    with pytest.raises(ValueError, match="give 0 to 4"):
        nf_unregister_net_hook(stack, hook, lambda host, skb: NF_ACCEPT)


def test_who_is_not_registered_can_not_go(stack: Stack) -> None:
    with pytest.raises(ValueError, match="is not registered"):
        nf_unregister_net_hook(stack, NF_INET_LOCAL_IN, lambda host, skb: NF_ACCEPT)
    assert ADDR != PEER
