"""packet: frames as they are on the wire, for AF_PACKET sockets.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       every frame, both directions     netif/_core.pyx
         frames to send                   sock/_packet_addr.pyx
Out      copies in receive queues         sock/_queue.pyx
         frames                           netif/_core.pyx
Context  softirq, or a sender's thread; no GIL; never raises
Kernel   packet_rcv(), packet_snd(), packet_do_bind(), packet_mc_add(), net/packet/af_packet.c

A socket gets a copy, not a clone: so a reader that sleeps keeps neither a receive buffer nor a frame's account.
"""

cimport cython
from libc.errno cimport (
    EBADF, EINVAL, EMSGSIZE, ENETDOWN, ENOBUFS, ENODEV, ENOMEM, ENOPROTOOPT, ENXIO,
    EOPNOTSUPP, EPROTONOSUPPORT,
)
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from netstack._abi cimport (
    add_relaxed32, fetch_add32, get_be16, load_acquire32, load_acquire_ptr, load_relaxed32, put_be16, spin_lock,
    spin_unlock,
)
from netstack._counters cimport MIB_NR
from netstack._net cimport ETH_HLEN, IFF_UP, SLOT_PROCESS, net_device, net_realtime
from netstack._skb cimport (
    PACKET_OUTGOING, SKB_STRUCT, consume_skb, dev_queue_xmit, process_skb, skb_class_for, skb_copy_bits, skb_headlen,
    skb_mac_header, skb_network_header,
)
from netstack.sock._filter cimport bpf_run, sk_filter
from netstack.sock._queue cimport sock_queue_rcv_skb
from netstack.sock._sock cimport (
    SOCK_CB, SOCK_DGRAM, SOCK_QUEUED, SOCK_RAW, SOCKF_CLOSED, SOCKO_NOFCS, rmem_alloc, sock_msg,
    sock_skb_cb,
)
from netstack.sock._table cimport table_of, table_remove, udp_table
from netstack.sock._wake cimport sock_data_ready, sock_take_err

cdef enum options:                 # <linux/if_packet.h>
    SOL_PACKET = 263
    PACKET_IGNORE_OUTGOING = 23
    PACKET_MR_MULTICAST = 0
    PACKET_MR_PROMISC = 1
    PACKET_MR_ALLMULTI = 2
    PACKET_MR_UNICAST = 3
    BUFFER_BYTES = 2304 - SKB_STRUCT
    SENT_BY_PACKET = 2             # skb.for_taps of a frame that such a socket sends: cb.sk says which

cdef struct packet_cb:             # skb.cb in the receive queue
    sock_skb_cb at
    sockaddr_ll from_


cdef inline packet_sock *pkt_sk(sock *sk) noexcept nogil:
    return <packet_sock *>sk.priv


# ---- in

cdef sk_buff *packet_copy(net *n, const sk_buff *skb, u32 size) noexcept nogil:
    """Copy the first ``size`` bytes of a packet into one of our own; NULL when the pool is used up."""
    cdef u32 done = min(size, <u32>BUFFER_BYTES)
    cdef sk_buff *copy = process_skb(n, skb_class_for(done))
    cdef sk_buff *frag
    cdef u32 part
    if copy == NULL:
        return NULL
    copy.data = copy.head
    copy.len = done
    skb_copy_bits(skb, 0, copy.data, done)
    while done < size:
        part = min(size - done, <u32>BUFFER_BYTES)
        frag = process_skb(n, skb_class_for(part))
        if frag == NULL:
            consume_skb(copy)
            return NULL
        frag.data = frag.head
        frag.len = part
        skb_copy_bits(skb, done, frag.data, part)
        if copy.frag_list == NULL:
            copy.frag_list = frag
        else:
            copy.frag_tail.next = frag
        copy.frag_tail = frag
        copy.data_len += part
        copy.len += part
        done += part
    return copy


cdef bint packet_rcv(net *n, sock *sk, sk_buff *skb, softnet_data *sd) noexcept nogil:
    """Queue a copy to one socket; False when its filter refuses. data stands at what it is to see. [packet_rcv()]"""
    cdef packet_sock *po = pkt_sk(sk)
    cdef sk_filter *prog = <sk_filter *>load_acquire_ptr(&sk.filter)
    cdef u32 snaplen = skb.len
    cdef u8 *mac = skb_mac_header(skb)
    cdef packet_cb *cb
    cdef sk_buff *copy
    if prog != NULL:
        snaplen = min(snaplen, bpf_run(prog, skb))
    if snaplen == 0:
        return False
    copy = packet_copy(n, skb, snaplen) if rmem_alloc(sk) < sk.rcvbuf else NULL
    if copy == NULL:
        add_relaxed32(&sk.drops, 1)
        add_relaxed32(&po.tp_drops, 1)
        return True
    copy.truesize = skb.truesize
    copy.dev = skb.dev
    copy.mark = skb.mark
    copy.tstamp = skb.tstamp
    if skb.pkt_type == PACKET_OUTGOING and load_relaxed32(&n.netstamp_needed):
        copy.tstamp = net_realtime(n)
    cb = <packet_cb *>copy.cb
    memset(cb, 0, sizeof(packet_cb))
    cb.at.csum_unchecked = 1       # so that packet_complete() tells the reader whose it is
    cb.from_.ifindex = skb.dev.ifindex if skb.dev != NULL else 0
    cb.from_.hatype = skb.dev.type if skb.dev != NULL else 0
    cb.from_.protocol = get_be16(mac + 12) if skb.pkt_type == PACKET_OUTGOING else skb.protocol
    cb.from_.pkttype = skb.pkt_type
    cb.from_.halen = 6
    memcpy(cb.from_.addr, mac + 6, 6)
    copy.slot = SLOT_PROCESS
    if sock_queue_rcv_skb(sk, copy) != SOCK_QUEUED:
        add_relaxed32(&po.tp_drops, 1)
        consume_skb(copy)
        return True
    add_relaxed32(&po.tp_packets, 1)
    sock_data_ready(sk, sd)
    return True


cdef u32 packet_deliver(net *n, sk_buff *skb, softnet_data *sd, bint all) noexcept nogil:
    cdef packet_table *table = <packet_table *>n.packet
    cdef udp_table *sockets = <udp_table *>n.udp
    cdef bint outgoing = skb.pkt_type == PACKET_OUTGOING
    cdef u8 *at = skb.data
    cdef u32 size = skb.len
    cdef u32 matched = 0
    cdef u8 *start
    cdef sock *sk
    spin_lock(&sockets.lock)
    sk = table.head
    while sk != NULL:
        if (sk.protocol == ETH_P_ALL if all else sk.protocol == skb.protocol) and (
                pkt_sk(sk).ifindex == 0 or (skb.dev != NULL and pkt_sk(sk).ifindex == skb.dev.ifindex)) and not (
                outgoing and (pkt_sk(sk).ignore_outgoing
                              or (skb.for_taps == SENT_BY_PACKET and SOCK_CB(skb).sk == sk))):
            start = skb_mac_header(skb) if sk.prot.type == SOCK_RAW else skb_network_header(skb)
            skb.data = start
            skb.len = <u32>(size + (at - start))
            packet_rcv(n, sk, skb, sd)
            skb.data, skb.len = at, size
            matched += 1
        sk = sk.next
    spin_unlock(&sockets.lock)
    return matched


cdef bint packet_complete(sock *sk, sk_buff *skb) noexcept nogil:
    """Note whose frame is about to be read: proto.complete."""
    pkt_sk(sk).peer = (<packet_cb *>skb.cb).from_
    return True


# ---- out

cdef int packet_sendmsg(sock *sk, sock_msg *msg) noexcept nogil:
    """Send a frame, or with SOCK_DGRAM what goes behind an Ethernet header. 0 or a negative errno. [packet_snd()]"""
    cdef packet_sock *po = pkt_sk(sk)
    cdef sockaddr_ll to = po.to
    cdef u32 header = ETH_HLEN if sk.prot.type == SOCK_DGRAM else 0
    cdef net_device *dev
    cdef sk_buff *skb
    cdef u32 err, ifindex
    if load_acquire32(&sk.flags) & SOCKF_CLOSED:
        return -EBADF
    ifindex = to.ifindex if msg.has_addr else po.ifindex
    dev = sk.n.devices[ifindex - 1] if 0 < ifindex <= sk.n.nr_devices else NULL
    if dev == NULL:
        return -ENXIO
    if not load_relaxed32(&dev.flags) & IFF_UP:
        return -ENETDOWN
    err = sock_take_err(sk)
    if err:
        return -<int>err
    if sk.opts & SOCKO_NOFCS:          # no device of ours can leave the checksum out
        return -EPROTONOSUPPORT
    if msg.len > dev.mtu + (0 if header else ETH_HLEN + 4):
        return -EMSGSIZE
    if header == 0 and msg.len < ETH_HLEN or header and not msg.has_addr:
        return -EINVAL
    skb = packet_alloc(sk.n, msg, header)
    if skb == NULL:
        return -ENOBUFS
    if header:
        memcpy(skb.data, to.addr, 6)
        memcpy(skb.data + 6, dev.dev_addr, 6)
        put_be16(skb.data + 12, to.protocol)
    elif msg.len > dev.mtu + ETH_HLEN and get_be16(skb.data + 12) != 0x8100:
        consume_skb(skb)           # only a VLAN tag may make it longer
        return -EMSGSIZE
    skb.dev = dev
    skb.protocol = get_be16(skb.data + 12)
    skb.mac_header = <u16>(skb.data - skb.head)
    skb.network_header = <u16>(skb.mac_header + ETH_HLEN)
    skb.for_taps = SENT_BY_PACKET
    skb.mark = msg.mark if msg.has_mark else sk.mark
    SOCK_CB(skb).sk = sk
    return dev_queue_xmit(skb)


cdef sk_buff *packet_alloc(net *n, const sock_msg *msg, u32 header) noexcept nogil:
    """Make a packet of a message, behind ``header`` bytes; NULL when the pool is used up or it is too long for it."""
    cdef u32 size = <u32>msg.len + header
    cdef sk_buff *skb = process_skb(n, skb_class_for(size + 64)) if size <= BUFFER_BYTES - 64 else packet_long(n, size)
    cdef u32 done = header
    cdef u32 i, offset, part, have
    cdef sk_buff *at = skb
    if skb == NULL:
        return NULL
    if skb.frag_list == NULL:
        skb.data = skb.head + 64
        skb.len = size
    offset = header
    for i in range(msg.nr_iov):
        done = 0
        while done < msg.iov[i].len:
            have = skb_headlen(skb) if at == skb else at.len
            if offset == have:
                at = skb.frag_list if at == skb else at.next
                offset = 0
                continue
            part = min(<u32>msg.iov[i].len - done, have - offset)
            memcpy(at.data + offset, msg.iov[i].base + done, part)
            done += part
            offset += part
    return skb


cdef sk_buff *packet_long(net *n, u32 size) noexcept nogil:
    """Make a packet of several buffers, for a jumbo frame."""
    cdef sk_buff *skb = process_skb(n, skb_class_for(BUFFER_BYTES))
    cdef sk_buff *frag
    if skb == NULL:
        return NULL
    skb.data = skb.head + 64
    skb.len = BUFFER_BYTES - 64
    while skb.len < size:
        frag = process_skb(n, skb_class_for(BUFFER_BYTES))
        if frag == NULL:
            consume_skb(skb)
            return NULL
        frag.data = frag.head
        frag.len = min(size - skb.len, <u32>BUFFER_BYTES)
        if skb.frag_list == NULL:
            skb.frag_list = frag
        else:
            skb.frag_tail.next = frag
        skb.frag_tail = frag
        skb.data_len += frag.len
        skb.len += frag.len
    return skb


# ---- bind, options, close

cdef int packet_init_sock(sock *sk) noexcept nogil:
    """Make the rest of a socket; it receives at once if it was given a protocol. [packet_create()]"""
    cdef packet_table *table = <packet_table *>sk.n.packet
    cdef udp_table *sockets = table_of(sk)
    sk.priv = calloc(1, sizeof(packet_sock))
    if sk.priv == NULL:
        return -ENOMEM
    sk.protocol = (sk.protocol & 0xFF) << 8 | sk.protocol >> 8 & 0xFF
    spin_lock(&sockets.lock)
    sk.next = table.head
    table.head = sk
    spin_unlock(&sockets.lock)
    packet_watch(sk.n)
    return 0


cdef void packet_watch(net *n) noexcept nogil:
    """Tell the device core whether anybody looks: a bit for ETH_P_ALL, a bit for a protocol."""
    cdef packet_table *table = <packet_table *>n.packet
    cdef udp_table *sockets = <udp_table *>n.udp
    cdef u32 wanted = 0
    cdef sock *sk
    spin_lock(&sockets.lock)
    sk = table.head
    while sk != NULL:
        wanted |= 1 if sk.protocol == ETH_P_ALL else 2 if sk.protocol else 0
        sk = sk.next
    n.packet_wanted = wanted
    spin_unlock(&sockets.lock)


cdef int packet_bind(sock *sk, u32 ifindex, u16 protocol) noexcept nogil:
    """Take frames of one device (0: any) and protocol (0: the one so far). [packet_do_bind()]"""
    if ifindex and (ifindex > sk.n.nr_devices or sk.n.devices[ifindex - 1] == NULL):
        return -ENODEV
    pkt_sk(sk).ifindex = ifindex
    if protocol:
        sk.protocol = protocol
    packet_watch(sk.n)
    return 0


cdef int packet_connect(sock *sk, u32 addr, u16 port) noexcept nogil:
    return -EOPNOTSUPP


cdef int packet_mtu(sock *sk) noexcept nogil:
    return -ENOPROTOOPT


cdef void packet_unhash(sock *sk) noexcept nogil:
    """Leave the list, and give back what was asked of devices. [packet_release()]"""
    cdef packet_table *table = <packet_table *>sk.n.packet
    cdef udp_table *sockets = table_of(sk)
    cdef sock **link = &table.head
    cdef u32 i
    spin_lock(&sockets.lock)
    while link[0] != NULL and link[0] != sk:
        link = &link[0].next
    if link[0] != NULL:
        link[0] = sk.next
    table_remove(sk)
    spin_unlock(&sockets.lock)
    packet_watch(sk.n)
    if sk.priv != NULL:
        for i in range(PACKET_MEMBERSHIPS):
            if pkt_sk(sk).mc[i].ifindex:
                packet_dev_mc(sk.n, &pkt_sk(sk).mc[i], -1)


cdef int packet_dev_mc(net *n, const packet_mclist *mc, int by) noexcept nogil:
    """Ask a device for more frames, or take it back. [packet_dev_mc()]"""
    cdef net_device *dev = n.devices[mc.ifindex - 1]
    if dev == NULL:
        return 0
    if mc.type == PACKET_MR_PROMISC or mc.type == PACKET_MR_UNICAST:
        fetch_add32(&dev.promiscuity, <u32>by)
    elif mc.type == PACKET_MR_MULTICAST or mc.type == PACKET_MR_ALLMULTI:
        fetch_add32(&dev.all_multicast, <u32>by)
    if dev.ops.ndo_set_rx_mode != NULL:
        dev.ops.ndo_set_rx_mode(dev)
    return 0


cdef int packet_membership(sock *sk, u32 ifindex, u32 kind, const u8 *addr, u32 alen, bint add) noexcept nogil:
    """PACKET_ADD_MEMBERSHIP and PACKET_DROP_MEMBERSHIP.

    A group's address makes the device take every group, a second unicast address every frame: more than was asked
    for, never less. [packet_mc_add(), packet_mc_drop()]
    """
    cdef packet_sock *po = pkt_sk(sk)
    cdef packet_mclist *free_place = NULL
    cdef packet_mclist *mc
    cdef u32 i
    if add and (ifindex == 0 or ifindex > sk.n.nr_devices or sk.n.devices[ifindex - 1] == NULL):
        return -ENODEV
    if add and (alen > 6 or (alen != 6 and (kind == PACKET_MR_MULTICAST or kind == PACKET_MR_UNICAST))):
        return -EINVAL
    for i in range(PACKET_MEMBERSHIPS):
        mc = &po.mc[i]
        if mc.ifindex == 0:
            free_place = mc
        elif mc.ifindex == ifindex and mc.type == kind and memcmp(mc.addr, addr, MAX_ADDR_LEN) == 0:
            mc.count += 1 if add else -1
            if mc.count == 0:
                packet_dev_mc(sk.n, mc, -1)
                mc.ifindex = 0
            return 0
    if not add:
        return 0                   # as Linux says of what was never asked for
    if free_place == NULL:
        return -ENOBUFS
    free_place.ifindex, free_place.type, free_place.count = ifindex, kind, 1
    memcpy(free_place.addr, addr, MAX_ADDR_LEN)
    return packet_dev_mc(sk.n, free_place, 1)


cdef int packet_setsockopt(sock *sk, int name, int value) noexcept nogil:
    """Set an option of level SOL_PACKET that is one number."""
    if name != PACKET_IGNORE_OUTGOING:
        return -ENOPROTOOPT
    if not 0 <= value <= 1:
        return -EINVAL
    pkt_sk(sk).ignore_outgoing = value
    return 0


cdef int packet_getsockopt(sock *sk, int name, int *value) noexcept nogil:
    """Give an option of level SOL_PACKET that is one number."""
    if name != PACKET_IGNORE_OUTGOING:
        return -ENOPROTOOPT
    value[0] = pkt_sk(sk).ignore_outgoing
    return 0


# ---- wiring

@cython.final
@cython.no_gc_clear
cdef class Packet:
    """Owns a host's list of packet sockets, which a call that is on its way may use after the host has closed."""
    cdef packet_table *table

    def __dealloc__(self):
        free(self.table)


cdef void wire(net *n, proto *prot, u32 kind) noexcept:
    prot.name = b"packet"
    prot.n = n
    prot.table = n.udp
    prot.family = AF_PACKET
    prot.type = kind
    prot.level = SOL_PACKET
    prot.any_protocol = True
    prot.in_datagrams = MIB_NR
    prot.init = packet_init_sock
    prot.get_port = packet_bind
    prot.connect = packet_connect
    prot.sendmsg = packet_sendmsg
    prot.unhash = packet_unhash
    prot.complete = packet_complete
    prot.mtu = packet_mtu
    prot.setsockopt = packet_setsockopt
    prot.getsockopt = packet_getsockopt
    prot.next = <proto *>n.protos
    n.protos = prot


def init(Net n not None):
    """Give a host packet sockets, before its CPUs start; UDP goes first. [packet_init()]"""
    cdef Packet owner = Packet()
    owner.table = <packet_table *>calloc(1, sizeof(packet_table))
    if owner.table == NULL:
        raise MemoryError
    n.keep(owner)
    n.ptr.packet = owner.table
    wire(n.ptr, &owner.table.raw, SOCK_RAW)
    wire(n.ptr, &owner.table.dgram, SOCK_DGRAM)
