"""What a program sends with a header of its own (IP_HDRINCL) passes the hooks on the way out, as in Linux."""

from __future__ import annotations

import socket as kernel
import struct

import pytest
from scapy.layers.inet import ICMP, IP, UDP

from netstack import stats
from netstack.lab import another_network
from tests.frames import OUR_IP, PEER_IP
from tests.memory_host import memory_host
from tools._oracle.kernel import Kernel

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE = 1, 4, 0x400
BATCH_BEGIN, BATCH_END = 16, 17
NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN = 10 << 8 | 0, 10 << 8 | 3
NFTA_HOOK = 4 | 0x8000  # nested
CHAINS = {"output": 3, "postrouting": 4}
PACKETS = [bytes(IP(src=OUR_IP, dst=PEER_IP) / top) for top in (UDP(dport=9) / b"x", ICMP())]


def _attr(kind: int, data: bytes) -> bytes:
    return struct.pack("HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _message(
    kind: int, flags: int, family: int, payload: bytes = b"", res_id: int = 0
) -> bytes:
    body = struct.pack(">BBH", family, 0, res_id) + payload
    return struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body


def refuse_in_the_kernel(hook: int) -> None:
    """Make a chain of this namespace with policy drop, as nft does; skip without nf_tables."""
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
    where = _attr(1, struct.pack(">I", hook)) + _attr(2, struct.pack(">i", 0))
    chain = _attr(1, b"t\0") + _attr(3, b"c\0") + _attr(NFTA_HOOK, where)
    chain += _attr(5, struct.pack(">I", 0)) + _attr(7, b"filter\0")  # 5: the policy
    batch = (
        _message(BATCH_BEGIN, NLM_F_REQUEST, 0, res_id=10)
        + _message(NFT_MSG_NEWTABLE, flags, kernel.AF_INET, _attr(1, b"t\0"))
        + _message(NFT_MSG_NEWCHAIN, flags, kernel.AF_INET, chain)
        + _message(BATCH_END, NLM_F_REQUEST, 0, res_id=10)
    )
    with kernel.socket(kernel.AF_NETLINK, kernel.SOCK_RAW, NETLINK_NETFILTER) as sock:
        sock.settimeout(5)
        sock.bind((0, 0))
        sock.send(batch)
        for _ in range(2):
            (error,) = struct.unpack_from("i", sock.recv(8192), 16)
            if error:
                pytest.skip(f"the kernel has no nf_tables here: error {error}")


def send_all(sock):
    """Send each packet with its header; give what came of it."""
    sock.setsockopt(kernel.IPPROTO_IP, kernel.IP_HDRINCL, 1)
    out = []
    for packet in PACKETS:
        try:
            out.append(sock.sendto(packet, (PEER_IP, 0)))
        except OSError as error:
            out.append((type(error), error.errno))
    sock.close()
    return out


def changed(before, after):
    """Give what changed of the counters of IP and ICMP."""
    return {
        name: n - before.get(name, 0)
        for name, n in after.items()
        if name.startswith(("Ip", "Icmp")) and n != before.get(name, 0)
    }


def counted(net):
    """Give our counters under nstat's names, those that are not 0."""
    rows = [(g, stats.counters(net, g)) for g in ("Ip", "IpExt", "Icmp", "IcmpMsg")]
    return {group + name: n for group, row in rows for name, n in row.items() if n}


def ours(chain, fast):
    """Give what a chain that refuses makes of it: results, frames sent, counters, drops."""
    with memory_host(fast_path=fast) as it:
        it.meet()
        it.host.nft.command(
            f"add chain ip filter {chain} "
            f"{{ type filter hook {chain} priority 0 ; policy drop ; }}"
        )
        before = counted(it.host.net)
        results = send_all(it.host.socket(kernel.AF_INET, kernel.SOCK_RAW, kernel.IPPROTO_RAW))
        return results, it.sent(), changed(before, counted(it.host.net))


@pytest.mark.tap
@pytest.mark.parametrize("chain", CHAINS)
def test_linux_refuses_the_same_with_the_same_error_and_counters(chain):
    with another_network():
        host = Kernel()
        refuse_in_the_kernel(CHAINS[chain])
        before = host.counters()
        results = send_all(kernel.socket(kernel.AF_INET, kernel.SOCK_RAW, kernel.IPPROTO_RAW))
        theirs = results, host.take(), changed(before, host.counters())
        host.close()
    assert theirs[0] == [(PermissionError, 1)] * 2
    for fast in (True, False):
        assert ours(chain, fast) == theirs, f"fast={fast}"


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "python"])
def test_a_rule_counts_and_drops_a_packet_with_its_own_header(chain, fast):
    with memory_host(fast_path=fast) as it:
        it.meet()
        it.host.nft.command(f"add rule ip filter {chain} udp dport 9 counter drop")
        it.host.nft.command(f"add rule ip filter {chain} counter")
        sock = it.host.socket(kernel.AF_INET, kernel.SOCK_RAW, kernel.IPPROTO_RAW)
        assert send_all(sock) == [(PermissionError, 1), len(PACKETS[1])]
        assert len(it.sent()) == 1
        (found,) = it.host.nft.command(f"list chain ip filter {chain}")
        assert [row["packets"] for row in found["rules"]] == [1, 1]
