"""Functions that get packets in batches: what they are given, and what their verdicts do."""

from __future__ import annotations

import errno

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

import netstack
from netstack.device._memory import MemoryWire
from netstack.nf.hooks import (
    NF_ACCEPT,
    NF_ARP_IN,
    NF_ARP_OUT,
    NF_DROP,
    NF_INET_FORWARD,
    NF_INET_LOCAL_IN,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
    NF_QUEUE,
    NF_REPEAT,
    NF_STOLEN,
)
from tests.frames import OUR_IP, OUR_MAC, PEER_IP, arp_reply, ether, ping, udp, who_has
from tests.memory_host import balance, memory_host


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request):
    with memory_host(fast_path=request.param) as it:
        it.meet()
        yield it


def numbered(count, first=0):
    """Give datagrams that say which one they are."""
    return [udp(bytes([first + i])) for i in range(count)]


def number_of(skb):
    """Say which datagram it is."""
    return skb.network[28]


def received(sock):
    """Take what has come; give the datagrams' numbers."""
    out = []
    while True:
        try:
            out.append(sock.recv(9)[0])
        except BlockingIOError:
            return out


def collect(seen, verdict=NF_ACCEPT):
    """Make a function that notes what it is asked about at once."""

    def fn(host, packets):
        seen.append([number_of(skb) for skb in packets])
        return verdict if isinstance(verdict, int) else [verdict(skb) for skb in packets]

    return fn


def test_a_function_gets_what_came_together_and_says_a_verdict_for_each(it):
    sock, seen = it.socket(OUR_IP, 9000), []
    odd = collect(seen, lambda skb: NF_DROP if number_of(skb) % 2 else NF_ACCEPT)
    undo = it.host.hook(NF_INET_PRE_ROUTING, odd, filter="udp", batch=True)
    assert len(it.put(*numbered(3), ping(), *numbered(2, 3))) == 1
    assert seen == [[0, 1, 2, 3, 4]]
    assert received(sock) == [0, 2, 4]
    assert it.drops() == {"NETFILTER_DROP": 2}
    undo()
    assert it.host.net.nf_hooks == 0


def test_one_verdict_may_stand_for_all_and_packets_may_be_changed(it):
    sock = it.socket(OUR_IP, 9000)

    def fn(host, packets):
        for i, skb in enumerate(packets):
            skb.store(26, b"\0\0")  # no checksum
            skb.store(28, bytes([100 + i]))
        return NF_ACCEPT

    it.host.hook(NF_INET_LOCAL_IN, fn, batch=True)
    it.put(*numbered(3))
    assert received(sock) == [100, 101, 102]


def test_a_batch_is_what_the_kworker_takes_at_once(it):
    sock, seen = it.socket(OUR_IP, 9000), []
    it.host.hook(NF_INET_PRE_ROUTING, collect(seen), batch=True)
    it.put(*numbered(150))
    assert [len(batch) for batch in seen] == [64, 64, 22]
    assert received(sock) == list(range(150))


def test_what_waits_is_queued_in_the_ledger(it):
    states = []

    def fn(host, packets):
        states.append((host.queued(), netstack.ledger(host).balanced))
        return NF_ACCEPT

    it.host.hook(NF_INET_PRE_ROUTING, fn, batch=True)
    it.put(*numbered(5))
    assert states == [({"netif/seam": 5}, True)]


def test_functions_and_rules_stand_in_the_order_of_priorities(it):
    order = []

    def single(name):
        return lambda host, skb: order.append((name, number_of(skb))) or NF_ACCEPT

    def many(name):
        return lambda host, packets: order.append((name, len(packets))) or NF_ACCEPT

    it.host.nft.command("add rule ip filter input counter")
    for priority in (-2, 2):
        it.host.hook(NF_INET_LOCAL_IN, single(priority), priority)
    for priority in (-1, 1):
        it.host.hook(NF_INET_LOCAL_IN, many(priority), priority, batch=True)
    it.put(*numbered(2))
    assert order == [(-2, 0), (-2, 1), (-1, 2), (1, 2), (2, 0), (2, 1)]
    (chain,) = it.host.nft.command("list chain ip filter input")
    assert chain["rules"][0]["packets"] == 2


@pytest.mark.parametrize("batch", [True, False])
def test_rules_behind_a_function_are_asked_when_a_packet_goes_on(it, batch):
    """Of a batch at once, of a queued packet after its reinjection, with the device it came in by."""
    verdict = NF_ACCEPT if batch else NF_QUEUE
    it.host.config["net.ipv4.ip_forward"] = 1
    it.host.hook(NF_INET_FORWARD, lambda host, given: verdict, -1, batch=batch)
    it.host.nft.command('add rule ip filter forward iifname "tap0" oifname "tap0" counter drop')
    it.put(arp_reply("10.0.0.50"), bytes(ether() / IP(src=PEER_IP, dst="10.0.0.50") / UDP()))
    hooks = it.host.inet.hooks
    while hooks.queue:
        hooks.reinject(hooks.queue[0], NF_ACCEPT)
    (chain,) = it.host.nft.command("list chain ip filter forward")
    assert chain["rules"][0]["packets"] == 1
    assert it.drops()["NETFILTER_DROP"] == 1


def test_the_same_function_twice_is_asked_twice(it):
    sock, seen = it.socket(OUR_IP, 9000), []
    fn = collect(seen)
    for _ in range(2):
        it.host.hook(NF_INET_PRE_ROUTING, fn, batch=True)
    it.put(*numbered(2))
    assert seen == [[0, 1], [0, 1]]
    assert received(sock) == [0, 1]


def test_repeat_asks_again_about_those_and_ends_as_drop(it):
    sock, seen = it.socket(OUR_IP, 9000), []
    again = collect(seen, lambda skb: NF_REPEAT if number_of(skb) else NF_ACCEPT)
    it.host.hook(NF_INET_PRE_ROUTING, again, batch=True)
    it.put(*numbered(3))
    assert seen == [[0, 1, 2]] + [[1, 2]] * 15
    assert received(sock) == [0]
    assert it.drops() == {"NETFILTER_DROP": 2}


def test_queue_and_stolen_in_a_batch(it):
    sock, kept = it.socket(OUR_IP, 9000), []

    def fn(host, packets):
        kept.append(packets[1])
        return [NF_QUEUE, NF_STOLEN, NF_ACCEPT]

    it.host.hook(NF_INET_PRE_ROUTING, fn, batch=True)
    it.put(*numbered(3))
    assert received(sock) == [2]
    assert it.host.queued() == {"nf/queue": 1}
    hooks = it.host.inet.hooks
    hooks.reinject(hooks.queue[0], NF_ACCEPT)
    assert received(sock) == [0]
    kept.pop().consume()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([NF_ACCEPT], "gave 1 verdicts about 3 packets; give one for each, or one for all"),
        ([NF_ACCEPT, 9, NF_ACCEPT], "gave 9; give NF_ACCEPT, NF_DROP"),
        (None, "gave None; give NF_ACCEPT"),
    ],
)
def test_what_is_no_verdict_drops_all_and_the_host_goes_on(it, caplog, said, message):
    sock = it.socket(OUR_IP, 9000)
    undo = it.host.hook(NF_INET_PRE_ROUTING, lambda host, packets: said, batch=True)
    it.put(*numbered(3))
    assert message in caplog.text
    assert it.drops() == {"NETFILTER_DROP": 3}
    assert it.host.kworker.errors == 1
    undo()
    it.put(*numbered(1))
    assert received(sock) == [0]


def test_what_a_function_raises_about_is_dropped(it, caplog):
    it.host.hook(NF_INET_PRE_ROUTING, lambda host, packets: 1 // 0, batch=True)
    it.put(*numbered(2))
    assert "ZeroDivisionError" in caplog.text
    assert it.drops() == {"NETFILTER_DROP": 2}


@pytest.mark.parametrize("hook", [NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING])
def test_who_sends_is_told_at_once(it, hook):
    seen = []
    undo = it.host.hook(hook, collect(seen, NF_DROP), batch=True)
    sock = it.socket()
    with pytest.raises(PermissionError) as info:
        sock.sendto(b"\7", (PEER_IP, 9))
    assert info.value.errno == errno.EPERM
    assert seen == [[7]]
    undo()
    sock.sendto(b"\7", (PEER_IP, 9))
    assert len(it.sent()) == 1


def test_answers_of_the_host_and_arp_come_in_batches_too(it):
    sizes = []
    for hook in (NF_ARP_IN, NF_ARP_OUT, NF_INET_LOCAL_OUT):
        it.host.hook(
            hook, lambda host, packets: sizes.append(len(packets)) or NF_ACCEPT, batch=True
        )
    answers = [Ether(frame) for frame in it.put(who_has(), who_has(), ping(), ping(), ping())]
    assert [ARP in answer for answer in answers].count(True) == 2
    assert len(answers) == 5
    assert sorted(sizes) == [2, 2, 3]


def test_with_threads_every_packet_arrives_once():
    seen = []
    ours, theirs = MemoryWire.pair(1000)
    with netstack.Host() as host:
        host.add_nic(ours, "tap0", addr=f"{OUR_IP}/24", mac=OUR_MAC)
        host.hook(NF_INET_PRE_ROUTING, collect(seen), filter="udp", batch=True)
        sock = host.socket()
        sock.bind((OUR_IP, 9000))
        sock.setblocking(False)
        for frame in [who_has(), *numbered(200)]:
            theirs.send(frame)
        host.settle()
        balance(host)
        assert [n for batch in seen for n in batch] == list(range(200))
        assert received(sock) == list(range(200))
        sock.close()
