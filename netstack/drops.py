"""What each drop reason means, where it happens, and what to do about it.

A row for every reason of ``_counters.pxd``; a test finds the one that has none, and the place
that has moved. The places are files below ``netstack/``, with the function that drops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netstack.stats import NOT_DROPS, Counters, by_count, fates, reason_name


@dataclass(frozen=True, slots=True)
class Reason:
    """Explain one drop reason: where, why, and what a user can do."""

    place: str
    text: str
    hint: str


REASONS: dict[str, Reason] = {
    "NOT_SPECIFIED": Reason(
        "_skb.pyx __dealloc__", "freed without a reason: a mistake in netstack",
        "please report it, with the output of `netstack ledger --json`"),
    "NO_SOCKET": Reason(
        "proto/udp.py udp_rcv", "no socket is bound to the address and port",
        "bind a socket to the port: `netstack ss -uan` lists those there are"),
    "PKT_TOO_SMALL": Reason(
        "proto/_ip.pyx ip_rcv_core, proto/_udp.pyx udp_check_len, netif/_core.pyx vlan_do_receive",
        "shorter than its headers say or need",
        "look at the frames: `netstack capture -e -v`; the sender cuts them"),
    "SOCKET_FILTER": Reason(
        "proto/_udp.pyx udp_filter", "the socket's filter refused it",
        "change or detach the filter of the socket (SO_ATTACH_FILTER)"),
    "UDP_CSUM": Reason(
        "proto/_udp.pyx udp_csum_complete, sock/_queue.pyx sock_drop_bad", "UDP checksum is wrong",
        "look at the frames: `netstack capture -v udp`; checksum offload of the sender?"),
    "NETFILTER_DROP": Reason(
        "nf/hooks.py nf_hook", "a hook or a rule said drop",
        "netstack nft list ruleset; hooks of a program: host.hook()"),
    "OTHERHOST": Reason(
        "proto/_ip.pyx ip_rcv_core", "not for this host's MAC address",
        "usual in promiscuous mode; else clear the sender's neighbour cache"),
    "IP_CSUM": Reason(
        "proto/_ip.pyx ip_rcv_core", "IP header checksum is wrong",
        "look at the frames: `netstack capture -v ip`"),
    "IP_INHDR": Reason(
        "proto/_ip.pyx ip_rcv_core", "IP header: version, length or options are wrong",
        "look at the frames: `netstack capture -v ip`"),
    "IP_RPFILTER": Reason(
        "proto/_route.pyx fib_validate_source", "the way back would leave through another device",
        "`netstack sysctl net.ipv4.conf.all.rp_filter=0`, or mend the route"),
    "UNICAST_IN_L2_MULTICAST": Reason(
        "proto/_ip.pyx ip_rcv_finish_core", "unicast address in a broadcast or multicast frame",
        "`netstack sysctl net.ipv4.conf.all.drop_unicast_in_l2_multicast=0`"),
    "IP_NOPROTO": Reason(
        "proto/ip.py ip_local_deliver_finish", "no handler for the IP protocol",
        "register a handler for it, or open a raw socket"),
    "ICMP_CSUM": Reason(
        "proto/_icmp.pyx icmp_rcv_check", "ICMP checksum is wrong",
        "look at the frames: `netstack capture -v icmp`"),
    "INVALID_PROTO": Reason(
        "proto/icmp.py icmp_rcv", "the packet's protocol does not belong here",
        "look at the frames: `netstack capture -v`"),
    "IP_INADDRERRORS": Reason(
        "proto/ip.py ip_error", "not for us, and forwarding is off",
        "add the address, or `netstack sysctl net.ipv4.ip_forward=1`"),
    "IP_INNOROUTES": Reason(
        "proto/ip.py ip_error", "no route",
        "give the host a route or an address that covers it"),
    "IP_LOCAL_SOURCE": Reason(
        "proto/_route.pyx fib_validate_source", "source is one of our own addresses",
        "another machine on the wire uses this host's address, or a frame came back"),
    "IP_INVALID_SOURCE": Reason(
        "proto/_route.pyx ip_route_input", "source address can't be: multicast, broadcast, zero network",
        "look at the sender: `netstack capture -n ip`"),
    "IP_LOCALNET": Reason(
        "proto/_route.pyx ip_route_input", "127.0.0.0/8 from outside",
        "look at the sender: `netstack capture -n net 127.0.0.0/8`"),
    "IP_INVALID_DEST": Reason(
        "proto/_route.pyx ip_route_input", "destination address can't be",
        "look at the sender: `netstack capture -n ip`"),
    "PKT_TOO_BIG": Reason(
        "proto/ip_forward.py ip_forward, proto/_ip_output.pyx ip_fragment", "larger than allowed",
        "raise the mtu of the way out, or send less at a time"),
    "SOCKET_RCVBUFF": Reason(
        "proto/_udp.pyx udp_queue_rcv_one", "the socket's receive buffer is full",
        "read faster, or set SO_RCVBUF: `netstack ss -uamn` shows the queues"),
    "PROTO_MEM": Reason(
        "proto/_udp.pyx udp_queue_rcv_one", "the protocol's memory is used up",
        "read faster, or raise `netstack sysctl net.ipv4.udp_mem`"),
    "SOCKET_CLOSE": Reason(
        "sock/_queue.pyx sock_purge", "the socket was closed with the packet unread",
        "usual at the end of a program"),
    "QUEUE_PURGE": Reason(
        "netif/_backlog.pyx purge, proto/_neigh_table.pyx flush", "the queue it stood in was emptied",
        "usual when a host is closed under load"),
    "CPU_BACKLOG": Reason(
        "netif/_backlog.pyx to_python", "the backlog of the CPU, or of the seam to Python, is full",
        "`netstack sysctl net.core.netdev_max_backlog=10000`, or keep Python less busy"),
    "UNHANDLED_PROTO": Reason(
        "netif/_core.pyx __netif_receive_skb_core", "no handler for the EtherType",
        "usual for IPv6 and LLDP; register a handler for the EtherType to get them"),
    "SKB_CSUM": Reason(
        "", "checksum can't be computed",
        "look at the frames: `netstack capture -v`"),
    "HDR_TRUNC": Reason(
        "", "a header is cut short",
        "look at the frames: `netstack capture -e -v`"),
    "NOMEM": Reason(
        "proto/_ip_alloc.pyx ip_alloc_skb, proto/frag.py ip_defrag", "the packet pool is exhausted",
        "read the sockets faster: `netstack ss -uamn`; or lower their SO_RCVBUF"),
    "FRAG_REASM_TIMEOUT": Reason(
        "proto/frag.py ip_expire", "not all fragments came in time",
        "fragments are lost on the way; or raise `netstack sysctl net.ipv4.ipfrag_time`"),
    "FRAG_TOO_FAR": Reason(
        "proto/frag.py ip_frag_reinit", "a fragment too far behind its neighbours",
        "raise `netstack sysctl net.ipv4.ipfrag_max_dist`"),
    "DUP_FRAG": Reason(
        "proto/frag.py inet_frag_queue_insert", "the same fragment twice",
        "the sender or the wire doubles frames: `netstack capture -v 'ip[6:2] & 0x3fff != 0'`"),
    "FRAG_OVERLAP": Reason(
        "proto/frag.py discard_qp", "fragments overlap, or contradict each other",
        "nothing good sends these: `netstack capture -v 'ip[6:2] & 0x3fff != 0'`"),
    "ARP_MALFORMED": Reason(
        "proto/_arp.pyx arp_check", "ARP packet of a wrong shape",
        "look at the frames: `netstack capture -e -x arp`"),
    "ARP_NOT_FOR_US": Reason(
        "proto/arp.py arp_process", "ARP for another's address",
        "usual on a wire with several machines"),
    "ARP_UNSOLICITED": Reason(
        "proto/arp.py arp_learn", "ARP reply that nobody asked for",
        "usual when a machine announces itself"),
    "IGMP_CSUM": Reason(
        "proto/igmp.py igmp_rcv", "IGMP checksum is wrong",
        "look at the frames: `netstack capture -v igmp`"),
    "IGMP_IGNORED": Reason(
        "proto/igmp.py igmp_rcv", "IGMP message that tells a host nothing",
        "usual: reports and leaves are for routers; `netstack capture -v igmp` shows them"),
    "NEIGH_FAILED": Reason(
        "proto/arp.py neigh_invalidate", "the neighbour does not answer",
        "is the peer up? `netstack capture arp` shows the questions"),
    "NEIGH_QUEUEFULL": Reason(
        "proto/_neigh.pyx neigh_resolve_output", "too much waits for the neighbour",
        "raise `netstack sysctl net.ipv4.neigh.default.unres_qlen_bytes`"),
    "NEIGH_CREATEFAIL": Reason(
        "proto/_neigh.pyx neigh_resolve_output", "the neighbour table is full",
        "raise `netstack sysctl net.ipv4.neigh.default.gc_thresh3`"),
    "DEV_HDR": Reason(
        "device/_igb_rsc.pyx igb_rsc_take", "what a virtual wire says about the frame is wrong (virtio_net_hdr)",
        "look at the program at the other end of the wire; or bring the host up with --no-offload"),
    "DEV_READY": Reason(
        "driver/_igb_tx.pyx igb_xmit_frame, netif/_core.pyx dev_xmit", "the device is closed or has no descriptor free",
        "send slower, or bring the host up with a larger --ring"),
    "GRO_DROP": Reason(
        "", "a frame of a merged packet that is malformed",
        "look at the frames: `netstack capture -e -v`"),
    "NIC_DROP_FILTER": Reason(
        "device/_igb_rx.pyx igb_rx_multicast", "the NIC's address filter did not match",
        "usual for traffic of others; else clear the sender's neighbour cache"),
    "NIC_DROP_RUC": Reason(
        "device/_igb_rx.pyx igb_rx_length_error", "runt: shorter than an Ethernet header",
        "the sender writes incomplete frames to the wire"),
    "NIC_DROP_ROC": Reason(
        "device/_igb_rx.pyx igb_rx_length_error", "giant: longer than the MTU allows",
        "give both ends the same mtu: `netstack up --mtu`"),
    "NIC_DROP_RNBC": Reason(
        "device/_igb_mq.pyx igb_mq_store", "one of several queues had no descriptor free",
        "bring the host up with a larger --ring, or lower the load"),
    "NIC_DROP_RXERR": Reason(
        "driver/_igb_rx.pyx igb_cleanup_headers", "the NIC marked the frame as damaged",
        "look at the errors: `netstack ethtool -S`"),
    "NIC_DROP_RESET": Reason(
        "driver/_igb_rx.pyx igb_clean_rx_ring",
        "the NIC was reset with the frame in its memory",
        "usual when a host is closed under load"),
}  # fmt: skip


def explain(reason: str) -> Reason:
    """Return the row of a reason, under its name with or without the kernel's prefix."""
    return REASONS[reason_name(reason)]


def drops(net: Counters) -> list[dict[str, Any]]:
    """Return the reasons that have counted, the largest first, with place, meaning and hint."""
    found = {reason_name(k): v for k, v in fates(net).items() if k not in NOT_DROPS}
    return [
        {"reason": name, "count": count}
        | {"place": REASONS[name].place, "text": REASONS[name].text, "hint": REASONS[name].hint}
        for name, count in by_count(found)
    ]
