"""route_mc: packets for groups: for us or not, from which address to answer, and out through which device.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       the addresses of a packet        proto/_ip.pyx
         a group and a device             proto/_udp_out.pyx, proto/igmp_report.py
Out      an rtable, or a drop reason
Context  any; no GIL; never allocates, never raises
Kernel   ip_route_input_mc(), ip_mc_validate_source(), ip_route_output_key_hash_rcu(), net/ipv4/route.c;
         fib_compute_spec_dst(), net/ipv4/fib_frontend.c
"""

from libc.errno cimport EINVAL, ENETUNREACH, ENOBUFS, ENODEV

from netstack._abi cimport fetch_add32, load_acquire32
from netstack._counters cimport (
    SKB_DROP_REASON_INVALID_PROTO, SKB_DROP_REASON_IP_INVALID_DEST, SKB_DROP_REASON_IP_INVALID_SOURCE,
    SKB_DROP_REASON_IP_LOCALNET, SKB_NOT_DROPPED_YET,
)
from netstack._net cimport IFF_LOOPBACK, IFF_UP, Net
from netstack._skb cimport sk_buff
from netstack.proto._fib_table cimport fib_entry
from netstack.proto._inet cimport (
    ETH_P_IP, IP_DF, RTCF_BROADCAST, RTCF_LOCAL, RTCF_MULTICAST, RTN_BLACKHOLE, RTN_BROADCAST, RTN_LOCAL,
    RTN_MULTICAST, RTN_PROHIBIT, RTN_UNREACHABLE, ipv4_is_lbcast, ipv4_is_loopback, ipv4_is_multicast, ipv4_is_zeronet,
)
from netstack.proto._ip_output cimport ip_alloc_skb, ip_send_skb_opt, skb_store_bits
from netstack.proto._mc cimport IPPROTO_IGMP, ip_check_mc
from netstack.proto._route cimport (
    dev_get_by_index, fib, fib_lookup, fib_validate_source, inet_addr_type, inet_select_addr, inet_select_addr_link,
    rt_set,
)

cdef enum:
    IGMP_TOS = 0xC0                # internetwork control
    IGMP_TTL = 1


cdef inline bint ipv4_is_local_multicast(u32 addr) noexcept nogil:
    return addr >> 8 == 0xE00000


# ---- in

cdef u32 ip_route_input_mc(net *n, u32 daddr, u32 saddr, net_device *dev, u16 ethertype, u8 protocol,
                           rtable *rt) noexcept nogil:
    """Take in what goes to a group that the device is a member of; a drop reason, or 0 and ``rt`` filled."""
    cdef u32 reason
    cdef bint on_link
    if not ip_check_mc(n, dev.ifindex, daddr, saddr, protocol):
        return SKB_DROP_REASON_IP_INVALID_DEST
    if ipv4_is_multicast(saddr) or ipv4_is_lbcast(saddr):
        return SKB_DROP_REASON_IP_INVALID_SOURCE
    if ethertype != ETH_P_IP:
        return SKB_DROP_REASON_INVALID_PROTO
    if ipv4_is_loopback(saddr):
        return SKB_DROP_REASON_IP_LOCALNET
    if ipv4_is_zeronet(saddr):
        # A host without an address may speak to its neighbours only.
        if not ipv4_is_local_multicast(daddr) and protocol != IPPROTO_IGMP:
            return SKB_DROP_REASON_IP_INVALID_SOURCE
    else:
        reason = fib_validate_source(n, saddr, dev, NULL, &on_link)
        if reason:
            return reason
    rt_set(rt, dev, daddr, daddr, daddr, RTCF_MULTICAST | RTCF_LOCAL, RTN_MULTICAST)
    return SKB_NOT_DROPPED_YET


def route_input(Net n not None, u32 daddr, u32 saddr, u32 ifindex, u16 ethertype=ETH_P_IP, u8 protocol=0):
    """Look a received packet for a group up, as ``Fib.route_input`` does for others."""
    cdef fib *table = <fib *>n.ptr.fib
    cdef rtable rt
    cdef u32 reason
    fetch_add32(&table.readers, 1)
    reason = ip_route_input_mc(n.ptr, daddr, saddr, n.ptr.devices[ifindex - 1], ethertype, protocol, &rt)
    fetch_add32(&table.readers, <u32>-1)
    if reason:
        return reason, 0, 0, 0, 0, 0, RTN_UNREACHABLE, 0
    return 0, 0, rt.saddr, rt.gateway, rt.flags, rt.mtu, rt.type, rt.dev.ifindex


cdef u32 fib_compute_spec_dst(net *n, u32 daddr, u32 saddr, u32 ifindex) noexcept nogil:
    """Give the address of ours that the sender of a packet knows. [fib_compute_spec_dst()]

    It is where the packet went; if that is for many, the one that we would answer from. Any thread.
    """
    cdef fib *table = <fib *>n.fib
    cdef net_device *dev = dev_get_by_index(n, ifindex)
    cdef const fib_entry *entry
    if dev == NULL:
        return daddr
    fetch_add32(&table.readers, 1)
    if inet_addr_type(n, daddr) != RTN_LOCAL:
        entry = fib_lookup(n, saddr) if saddr else NULL
        if entry == NULL or entry.type in (RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT):
            daddr = inet_select_addr(dev, saddr)
        elif entry.prefsrc:
            daddr = entry.prefsrc
        else:
            daddr = inet_select_addr(entry.dev, entry.gateway)
    fetch_add32(&table.readers, <u32>-1)
    return daddr


def spec_dst(Net n not None, u32 daddr, u32 saddr, u32 ifindex):
    """Give the address of ours that the sender of a packet knows."""
    return fib_compute_spec_dst(n.ptr, daddr, saddr, ifindex)


# ---- out

cdef int ip_route_output_oif(net *n, u32 daddr, u32 saddr, u32 oif, rtable *rt) noexcept nogil:
    cdef fib *table = <fib *>n.fib
    cdef net_device *dev = dev_get_by_index(n, oif)
    cdef u32 rtype
    if dev == NULL:
        return -ENODEV
    if not load_acquire32(&dev.flags) & IFF_UP:
        return -ENETUNREACH
    if saddr:
        fetch_add32(&table.readers, 1)
        rtype = inet_addr_type(n, saddr)
        fetch_add32(&table.readers, <u32>-1)
        if rtype != RTN_LOCAL or ipv4_is_loopback(saddr) and not dev.flags & IFF_LOOPBACK:
            return -EINVAL
    else:
        saddr = inet_select_addr_link(n, dev)
    if ipv4_is_lbcast(daddr):
        rt_set(rt, dev, daddr, saddr, daddr, RTCF_BROADCAST | RTCF_LOCAL, RTN_BROADCAST)
        return 0
    rt_set(rt, dev, daddr, saddr, daddr, RTCF_MULTICAST, RTN_MULTICAST)
    if ip_check_mc(n, oif, daddr, saddr, 0):
        rt.flags |= RTCF_LOCAL
    return 0


def igmp_xmit(Net n not None, bytes message not None, u32 daddr, u32 ifindex, bint of_device=False):
    """Send an IGMP message with the router alert option through a device; 0 or an errno.

    ``of_device``: from an address of that device or from none (RFC 3376 section 4.2.13). [igmpv3_newpack()]
    """
    cdef const u8 *bits = message
    cdef u32 size = <u32>len(message)
    cdef u8 alert[4]
    cdef rtable rt
    cdef sk_buff *skb
    cdef int err
    alert[0], alert[1], alert[2], alert[3] = 0x94, 4, 0, 0
    with nogil:
        err = ip_route_output_oif(n.ptr, daddr, 0, ifindex, &rt)
        if err == 0:
            if of_device and rt.dev.nr_addrs == 0:
                rt.saddr = 0
            if ip_check_mc(n.ptr, ifindex, daddr, rt.saddr, IPPROTO_IGMP):
                rt.flags |= RTCF_LOCAL     # whatever sources the group wants
            skb = ip_alloc_skb(n.ptr, size)
            err = -ENOBUFS if skb == NULL else 0
        if err == 0:
            skb_store_bits(skb, 0, bits, size)
            err = ip_send_skb_opt(n.ptr, skb, &rt, IPPROTO_IGMP, IGMP_TOS, IGMP_TTL, IP_DF, alert, 4)
    return -err


def device_mtu(Net n not None, u32 ifindex):
    """Bytes of the largest packet of a device."""
    return n.ptr.devices[ifindex - 1].mtu


def kick(Net n not None):
    """Say that a timer has been set which may be the next to run out."""
    if n.ptr.kick_python != NULL:
        n.ptr.kick_python(n.ptr)
