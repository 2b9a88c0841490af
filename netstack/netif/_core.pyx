"""core: give each packet to the taps, then to the handler of its EtherType.

Stage 5 of 8:  device driver irq napi [netif] nf proto sock
In       packets after GRO                napi/_gro.pyx
Out      the compiled short cut, or Python proto/_ip.pyx, netif/_backlog.pyx
Context  softirq; no GIL; never raises
Kernel   __netif_receive_skb_core(), dev_add_pack(), __dev_queue_xmit(), net/core/dev.c
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memmove

from netstack._abi cimport (
    add_relaxed64, get_be16, likely, load_acquire32, load_acquire_ptr, load_relaxed32, u8, u16, u32, unlikely,
)
from netstack._counters cimport (
    SKB_DROP_REASON_DEV_READY, SKB_DROP_REASON_NETFILTER_DROP, SKB_DROP_REASON_PKT_TOO_SMALL,
    SKB_DROP_REASON_UNHANDLED_PROTO,
)
from netstack._gso cimport skb_is_whole_gso, skb_segment
from netstack._net cimport (
    ETH_HLEN, IFF_UP, MAX_PTYPES, NETIF_F_GSO_UDP_L4, STAGE_GRO, Net, fast_path, net_device, net_realtime,
    netdev_tstamp_prequeue, sysctl_get,
)
from netstack._skb cimport (
    PACKET_OTHERHOST, PACKET_OUTGOING, consume_skb, kfree_skb_reason, skb_clone, skb_headlen, skb_pull,
)
from netstack.netif._tap cimport tap_deliver, tap_stage
from netstack.nf._rules cimport NF_ACCEPT, NF_INET_INGRESS, nf_rules_run
from netstack.sock._packet cimport packet_deliver

cdef enum:
    VLAN_VID_MASK = 0x0FFF
    VLAN_HLEN = 4
    ETH_P_8021Q = 0x8100
    ETH_P_8021AD = 0x88A8
    ETH_P_802_3_MIN = 0x0600
    ETH_P_802_3 = 0x0001
    ETH_P_802_2 = 0x0004


# A row is never taken out: CPUs read the table without a lock.
cdef inline packet_type *ptype_find(ptype_table *table, u16 type) noexcept nogil:
    cdef u32 i
    for i in range(table.count):
        if table.entry[i].type == type:
            return &table.entry[i]
    return NULL


cdef inline bint eth_type_vlan(u16 protocol) noexcept nogil:
    return protocol == ETH_P_8021Q or protocol == ETH_P_8021AD


cdef bint skb_vlan_pull(sk_buff *skb) noexcept nogil:
    """Take the tag at data for the packet's own; False: it is cut off."""
    cdef u16 protocol
    if skb_headlen(skb) < VLAN_HLEN + 2:
        return False
    skb.vlan_tci = get_be16(skb.data)
    skb.vlan_present = 1
    protocol = get_be16(skb.data + 2)
    skb_pull(skb, VLAN_HLEN)
    if protocol < ETH_P_802_3_MIN:
        protocol = ETH_P_802_3 if get_be16(skb.data) == 0xFFFF else ETH_P_802_2
    skb.protocol = protocol
    skb.network_header = <u16>(skb.data - skb.head)
    return True


cdef bint skb_vlan_untag(sk_buff *skb) noexcept nogil:
    """Take a tag out that the NIC has left in (rx-vlan-offload off); False: it is cut off. [skb_vlan_untag()]"""
    cdef u8 *tag = skb.data
    if not skb_vlan_pull(skb):
        return False
    memmove(tag + VLAN_HLEN - ETH_HLEN, tag - ETH_HLEN, ETH_HLEN - 2)
    skb.mac_header = <u16>(skb.data - skb.head - ETH_HLEN)
    return True


cdef bint vlan_do_receive(sk_buff *skb) noexcept nogil:
    """Read the tags of a packet. No device claims one, so only those with VID 0, a mere priority, leave it ours."""
    if not skb.vlan_present and not skb_vlan_pull(skb):
        return False
    while skb.vlan_present:
        skb.vlan_present = 0
        if skb.vlan_tci & VLAN_VID_MASK:
            skb.pkt_type = PACKET_OTHERHOST
        elif eth_type_vlan(skb.protocol) and not skb_vlan_pull(skb):
            return False
    return True


cdef void copy_to_python(net *n, sk_buff *skb, softnet_data *sd) noexcept nogil:
    """Give Python's ETH_P_ALL handlers a clone of their own. [deliver_skb()]"""
    cdef sk_buff *clone = skb_clone(skb, sd.pool)
    if clone != NULL:
        clone.for_taps = 1
        n.to_python(n, clone)


cdef inline void deliver_ptype(net *n, sk_buff *skb, softnet_data *sd, u32 taken) noexcept nogil:
    """Hand a packet to the one handler of its type; ``taken``: somebody had it already. Consumes skb."""
    cdef packet_type *ptype = ptype_find(<ptype_table *>n.ptypes, skb.protocol)
    if unlikely(ptype == NULL):
        deliver_nobody(skb, taken)
        return
    if likely(ptype.fast != NULL and sysctl_get(n, fast_path)):
        if likely(ptype.fast(n, skb, sd)):
            return
    if unlikely(not ptype.python):
        kfree_skb_reason(skb, SKB_DROP_REASON_UNHANDLED_PROTO)
        return
    n.to_python(n, skb)


cdef void deliver_nobody(sk_buff *skb, u32 taken) noexcept nogil:
    """End a packet for whose type there is no handler. Consumes skb."""
    if taken:
        consume_skb(skb)
        return
    if skb.dev != NULL:
        add_relaxed64(&skb.dev.stats.rx_dropped, 1)
    kfree_skb_reason(skb, SKB_DROP_REASON_UNHANDLED_PROTO)


cdef inline bint nobody_looks(net *n, const sk_buff *skb) noexcept nogil:
    """May a packet go straight to its handler: no tag, nobody who captures, stamps or filters before that?"""
    return not (load_acquire32(&n.packet_wanted) | load_relaxed32(&n.netstamp_needed)
                | (load_relaxed32(&n.nf_rules) >> NF_INET_INGRESS & 1) | (<ptype_table *>n.ptypes).all_python
                | skb.vlan_present | (load_acquire_ptr(&n.taps) != NULL) | eth_type_vlan(skb.protocol))


cdef inline void netif_receive_skb_one(net *n, sk_buff *skb, softnet_data *sd) noexcept nogil:
    """__netif_receive_skb_core(), whose steps are all left out where nothing is to be done in them. Consumes skb."""
    if unlikely(not nobody_looks(n, skb)):
        __netif_receive_skb_core(n, skb, sd)
        return
    sd.processed += 1
    skb.network_header = <u16>(skb.data - skb.head)
    deliver_ptype(n, skb, sd, 0)


cdef void __netif_receive_skb_core(net *n, sk_buff *skb, softnet_data *sd) noexcept nogil:
    """Hand one packet up: taps first, then the one handler of its type. Consumes skb.

    Kernel order: taps (ptype_all), VLAN, ptype_base. A VLAN tag that no device claims makes the packet another host's,
    unless it only carries a priority (VID 0).
    """
    cdef u32 wanted = load_acquire32(&n.packet_wanted)
    cdef u32 taken = 0
    sd.processed += 1
    if load_relaxed32(&n.netstamp_needed) and skb.tstamp == 0:
        skb.tstamp = net_realtime(n)
    if skb.protocol == ETH_P_8021Q and not skb.vlan_present and not skb_vlan_untag(skb):
        kfree_skb_reason(skb, SKB_DROP_REASON_PKT_TOO_SMALL)
        return
    skb.network_header = <u16>(skb.data - skb.head)
    if load_acquire_ptr(&n.taps) != NULL:
        tap_deliver(n, skb, sd.now)
        if load_relaxed32(&n.tap_stages) >> <u32>STAGE_GRO & 1:
            tap_stage(n, skb, STAGE_GRO, 0)
    if wanted & 1:
        taken = packet_deliver(n, skb, sd, True)
    if (<ptype_table *>n.ptypes).all_python:
        copy_to_python(n, skb, sd)
    if (skb.vlan_present or eth_type_vlan(skb.protocol)) and not vlan_do_receive(skb):
        kfree_skb_reason(skb, SKB_DROP_REASON_PKT_TOO_SMALL)
        return
    if load_relaxed32(&n.nf_rules) >> NF_INET_INGRESS & 1:
        if nf_rules_run(n, NF_INET_INGRESS, skb, skb.dev.ifindex, 0) != NF_ACCEPT:
            kfree_skb_reason(skb, SKB_DROP_REASON_NETFILTER_DROP)
            return
    if wanted & 2:
        taken += packet_deliver(n, skb, sd, False)
    deliver_ptype(n, skb, sd, taken)


cdef void net_timestamp_list(net *n, sk_buff *skb) noexcept nogil:
    """Note when packets came, before the first of them is handed up. [net_timestamp_check()]"""
    while skb != NULL:
        skb.tstamp = net_realtime(n)
        skb = skb.next


cdef void netif_receive_skb_list(net *n, void *head, void *sd) noexcept nogil:
    """Hand up a batch, oldest first, what RPS sends to other CPUs excepted. Consumes the list.

    [netif_receive_skb_list_internal()]
    """
    cdef sk_buff *skb = <sk_buff *>head
    cdef sk_buff *following
    if unlikely(load_relaxed32(&n.netstamp_needed)) and sysctl_get(n, netdev_tstamp_prequeue):
        net_timestamp_list(n, skb)
    if unlikely(load_acquire_ptr(<void **>&n.rps_steer) != NULL):
        skb = <sk_buff *>n.rps_steer(n, head, sd)
    while skb != NULL:
        following = skb.next
        skb.next = NULL
        netif_receive_skb_one(n, skb, <softnet_data *>sd)
        skb = following


cdef int xmit_segments(sk_buff *skb) noexcept nogil:
    """Cut a packet of many frames that the device can't cut, and send each. The last error. [validate_xmit_skb()]"""
    cdef sk_buff *seg = skb_segment(skb)
    cdef sk_buff *following
    cdef int err = -ENOBUFS if seg == NULL else 0
    cdef int rc
    while seg != NULL:
        following = seg.next
        seg.next = NULL
        rc = dev_xmit(seg)
        err = rc if rc else err
        seg = following
    return err


cdef int dev_xmit(void *p) noexcept nogil:
    """Send a frame (data at its Ethernet header) through its device; taps see it first. Consumes skb.

    0, or a negative errno when the device is down or has no room: there is no queueing discipline, so the frame is
    dropped then, and counted. [__dev_queue_xmit()]
    """
    cdef sk_buff *skb = <sk_buff *>p
    cdef net_device *dev = skb.dev
    if unlikely(not load_relaxed32(&dev.flags) & IFF_UP):
        add_relaxed64(&dev.stats.tx_dropped, 1)
        kfree_skb_reason(skb, SKB_DROP_REASON_DEV_READY)
        return -ENETDOWN
    skb.mac_header = <u16>(skb.data - skb.head)
    if unlikely(skb_is_whole_gso(skb)) and not dev.features & NETIF_F_GSO_UDP_L4:
        return xmit_segments(skb)
    if unlikely(load_acquire_ptr(&dev.net.taps) != NULL):
        skb.pkt_type = PACKET_OUTGOING
        tap_deliver(dev.net, skb, dev.net.clock(dev.net.clock_arg))
    if unlikely(load_acquire32(&dev.net.packet_wanted) & 1):
        skb.pkt_type = PACKET_OUTGOING
        packet_deliver(dev.net, skb, NULL, True)
    skb.for_taps = 0
    return dev.ops.ndo_start_xmit(skb, dev)


cdef extern from "<errno.h>" nogil:
    int ENETDOWN, ENOBUFS


cdef void dev_add_fast(net *n, u16 type, ptype_fast fast) noexcept:
    """Register the compiled short cut of an EtherType; its Python handler registers itself in netif/core.py."""
    cdef ptype_table *table = <ptype_table *>n.ptypes
    cdef packet_type *ptype = ptype_find(table, type)
    if ptype == NULL:
        ptype = &table.entry[table.count]
        ptype.type = type
        table.count += 1
    ptype.fast = fast


def core_init(Net n):
    """Make the table of packet types and wire the device core into the host. [net_dev_init()]"""
    n.ptr.ptypes = calloc(1, sizeof(ptype_table))
    if n.ptr.ptypes == NULL:
        raise MemoryError
    n.ptr.netif_receive_skb_list = netif_receive_skb_list
    n.ptr.dev_queue_xmit = dev_xmit
    n.ptr.tap_stage = tap_stage


def core_exit(Net n):
    """Free what ``core_init`` made."""
    free(n.ptr.ptypes)
    n.ptr.ptypes = NULL


def set_python_handler(Net n, u16 type, bint present):
    """Say whether Python has a handler for an EtherType (ETH_P_ALL: one more, or one less)."""
    cdef ptype_table *table = <ptype_table *>n.ptr.ptypes
    cdef packet_type *ptype = ptype_find(table, type)
    if type == ETH_P_ALL:
        table.all_python += 1 if present else -1
        return
    if ptype == NULL and present:
        if table.count == MAX_PTYPES:
            raise ValueError(f"{MAX_PTYPES} EtherTypes have handlers already; remove one with dev_remove_pack")
        table.entry[table.count].type = type
        table.entry[table.count].fast = NULL
        table.count += 1
        ptype = &table.entry[table.count - 1]
    if ptype != NULL:
        ptype.python = present
