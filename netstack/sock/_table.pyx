"""udp_table: which socket has which port, and who may have it next.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       bind, connect, close             sock/_socket.pyx
Out      the socket for a datagram        proto/_udp.pyx
Context  lookup: softirq or process context, no lock; changes: process context, under the lock; no GIL
Kernel   udp_lib_get_port(), udp_lib_lport_inuse(), udp_lib_unhash(), net/ipv4/udp.c; net/core/sock_reuseport.c
"""

from libc.errno cimport EADDRINUSE, EBADF, EINVAL, ENOMEM
from libc.stdlib cimport calloc, free

from netstack._abi cimport (
    fetch_and32, fetch_or32, load_acquire32, load_acquire_ptr, spin_lock, spin_unlock, store_release32,
    store_release_ptr, u16, u32, u64,
)
from netstack._net cimport (
    MAX_ADDRS, ip_local_port_range_max, ip_local_port_range_min, net, net_device, net_now, sysctl_get,
)
from netstack.sock._sock cimport SOCKF_BOUND, SOCKF_CLOSED, SOCKF_REUSEADDR, SOCKF_REUSEPORT


cdef udp_table *table_create(net *n) noexcept:
    """Make an empty table; NULL when there is no memory. Pages of it are touched as ports come into use."""
    cdef udp_table *table = <udp_table *>calloc(1, sizeof(udp_table))
    if table != NULL:
        table.prot.n = n
        table.prot.table = table
        table.generation = 1
        table.seed = net_now(n) * <u64>0x9E3779B97F4A7C15 | 1
    return table


cdef void table_destroy(udp_table *table) noexcept:
    """Free a table that nobody sees any more."""
    free(table)


cdef void table_add(sock *sk) noexcept nogil:
    """Enter a new socket in the list of all."""
    cdef udp_table *table = <udp_table *>sk.prot.table
    spin_lock(&table.lock)
    table.inos += 1
    sk.ino = table.inos
    sk.all_next = table.all
    if table.all != NULL:
        table.all.all_prev = sk
    table.all = sk
    spin_unlock(&table.lock)


cdef void table_wait(sock *sk) noexcept nogil:
    """Wait until nobody uses what a socket pointed to before: no CPU, and nobody under the lock."""
    cdef udp_table *table = <udp_table *>sk.prot.table
    if sk.n.synchronize != NULL:
        sk.n.synchronize(sk.n)
    spin_lock(&table.lock)
    spin_unlock(&table.lock)


# ---- addresses

cdef bint addr_is_ours(net *n, u32 addr) noexcept nogil:
    """True for an address that a socket may be bound to. [inet_addr_valid_or_nonlocal()]

    Any, loopback, multicast, the limited broadcast, an address of a device, and its network's broadcast.
    """
    cdef net_device *dev
    cdef u32 i, j
    if addr == 0 or addr >> 24 == 127 or addr >> 28 == 0xE or addr == <u32>0xFFFFFFFF:
        return True
    for i in range(n.nr_devices):
        dev = n.devices[i]
        if dev == NULL:
            continue
        for j in range(min(load_acquire32(&dev.nr_addrs), <u32>MAX_ADDRS)):
            if dev.addr[j].local == addr or (dev.addr[j].mask != <u32>0xFFFFFFFF
                                             and dev.addr[j].local | ~dev.addr[j].mask == addr):
                return True
    return False


cdef bint addr_is_for_many(net *n, u32 addr) noexcept nogil:
    """True for a group, and for a broadcast address: nothing is sent from there."""
    cdef net_device *dev
    cdef u32 i, j
    if addr >> 28 == 0xE or addr == <u32>0xFFFFFFFF:
        return True
    for i in range(n.nr_devices):
        dev = n.devices[i]
        for j in range(min(load_acquire32(&dev.nr_addrs), <u32>MAX_ADDRS) if dev != NULL else 0):
            if dev.addr[j].mask < <u32>0xFFFFFFFE and dev.addr[j].local | ~dev.addr[j].mask == addr:
                return True
    return False


# ---- ports; the lock is held

cdef bint conflicts(const sock *sk, const sock *other, u32 addr) noexcept nogil:
    """True when ``other`` keeps ``sk`` from having the same port at ``addr``. [udp_lib_lport_inuse()]

    Not when both said SO_REUSEADDR, not at different addresses or devices, not when both said SO_REUSEPORT.
    """
    cdef u32 both = load_acquire32(&sk.flags) & load_acquire32(&other.flags)
    if both & SOCKF_REUSEADDR:
        return False
    if sk.bound_dev_if and other.bound_dev_if and sk.bound_dev_if != other.bound_dev_if:
        return False
    if other.rcv_saddr and addr and other.rcv_saddr != addr:
        return False
    return not both & SOCKF_REUSEPORT


cdef bint port_in_use(udp_table *table, const sock *sk, u32 addr, u16 port) noexcept nogil:
    cdef sock *other = table.port[port]
    while other != NULL:
        if other != sk and conflicts(sk, other, addr):
            return True
        other = other.next
    return False


cdef int ephemeral_port(udp_table *table, const sock *sk, u32 addr) noexcept nogil:
    """Find a free port of net.ipv4.ip_local_port_range, beginning anywhere in it; 0 when all are in use."""
    cdef u32 low = <u32>sysctl_get(sk.n, ip_local_port_range_min)
    cdef u32 high = <u32>sysctl_get(sk.n, ip_local_port_range_max)
    cdef u32 span, first, i
    cdef u32 own_low = sk.port_range & 0xFFFF
    cdef u32 own_high = sk.port_range >> 16
    if low <= own_low <= high:     # IP_LOCAL_PORT_RANGE, as far as the host allows [inet_sk_get_local_port_range()]
        low = own_low
    if low <= own_high <= high:
        high = own_high
    if low == 0 or high > 65535 or low > high:
        return 0
    span = high - low + 1
    table.seed = table.seed * <u64>6364136223846793005 + <u64>1442695040888963407
    first = <u32>((table.seed >> 33) % span)
    for i in range(span):
        if not port_in_use(table, sk, addr, <u16>(low + (first + i) % span)):
            return <int>(low + (first + i) % span)
    return 0


cdef int table_get_port(sock *sk, u32 addr, u16 port) noexcept nogil:
    """Bind: put a socket under the port (0 for any) at the address. [udp_v4_get_port()]

    0, -EADDRINUSE, -EINVAL for a socket that has a port, -EBADF for one that is closed, or -ENOMEM.
    """
    cdef udp_table *table = <udp_table *>sk.prot.table
    cdef int found = port
    cdef int result = 0
    spin_lock(&table.lock)
    if load_acquire32(&sk.flags) & SOCKF_CLOSED:
        result = -EBADF                # by another thread: it must not enter a chain that it has left
    elif sk.num:
        result = -EINVAL
    elif port == 0:
        found = ephemeral_port(table, sk, addr)
        if found == 0:
            result = -EADDRINUSE
    elif port_in_use(table, sk, addr, port):
        result = -EADDRINUSE
    if result == 0:
        sk.num = <u16>found
        sk.rcv_saddr = addr
        if load_acquire32(&sk.flags) & SOCKF_REUSEPORT:
            result = reuse_join(table, sk)
    if result == 0:
        fetch_or32(&sk.flags, SOCKF_BOUND)
        sk.next = table.port[found]
        store_release_ptr(<void **>&table.port[found], sk)
        store_release32(&table.bound, table.bound + 1)
        table_changed(table)
    elif result != -EINVAL and result != -EBADF:
        sk.num = 0
        sk.rcv_saddr = 0
    spin_unlock(&table.lock)
    return result


cdef void table_unhash(sock *sk) noexcept nogil:
    """Take a socket out of its chain and the list of all. CPUs may see it until n.synchronize() has returned."""
    cdef udp_table *table = <udp_table *>sk.prot.table
    cdef sock **link
    spin_lock(&table.lock)
    if load_acquire32(&sk.flags) & SOCKF_BOUND:
        link = &table.port[sk.num]
        while link[0] != sk:
            link = &link[0].next
        store_release_ptr(<void **>link, sk.next)
        fetch_and32(&sk.flags, ~<u32>SOCKF_BOUND)
        store_release32(&table.bound, table.bound - 1)
        reuse_leave(sk)
        table_changed(table)
    table_remove(sk)
    spin_unlock(&table.lock)


cdef void table_remove(sock *sk) noexcept nogil:
    """Take a socket out of the list of all. The lock is held."""
    if sk.all_prev != NULL:
        sk.all_prev.all_next = sk.all_next
    else:
        table_of(sk).all = sk.all_next
    if sk.all_next != NULL:
        sk.all_next.all_prev = sk.all_prev


cdef void raw_protocol_used(net *n, u32 protocol, bint used) noexcept nogil:
    """Keep the short cut away from an IP protocol while sockets want copies, or Python has a handler."""
    cdef u32 bit = <u32>1 << (protocol & 31)
    if used or n.python_protocols[protocol >> 5] & bit:
        fetch_or32(&n.raw_protocols[protocol >> 5], bit)
    else:
        fetch_and32(&n.raw_protocols[protocol >> 5], ~bit)


# ---- SO_REUSEPORT groups; the lock is held by who changes them

cdef int reuse_join(udp_table *table, sock *sk) noexcept nogil:
    """Join the group of the same address, port and device, or found one. [udp_reuseport_add_sock()]"""
    cdef sock *other = table.port[sk.num]
    while other != NULL:
        if (other.reuse != NULL and other.rcv_saddr == sk.rcv_saddr
                and other.bound_dev_if == sk.bound_dev_if):
            return reuse_append(other.reuse, sk)
        other = other.next
    return reuse_append(NULL, sk)


cdef int reuse_append(sock_reuseport *group, sock *sk) noexcept nogil:
    """Add a socket to a group (NULL: a new one). A full group moves to twice the room."""
    cdef sock_reuseport *bigger
    cdef u32 num = group.num if group != NULL else 0
    cdef u32 room, i
    if group == NULL or num == group.max:
        room = 2 * num if num else 4
        bigger = <sock_reuseport *>calloc(1, sizeof(sock_reuseport) + room * sizeof(sock *))
        if bigger == NULL:
            return -ENOMEM
        bigger.max = room
        bigger.retired = group
        if group != NULL:
            bigger.num = num
            for i in range(num):
                bigger.socks[i] = group.socks[i]
                store_release_ptr(<void **>&group.socks[i].reuse, bigger)
        group = bigger
    store_release_ptr(<void **>&group.socks[num], sk)      # a look may still go by the number before a leave
    store_release32(&group.num, num + 1)
    store_release_ptr(<void **>&sk.reuse, group)
    return 0


cdef void reuse_leave(sock *sk) noexcept nogil:
    """Leave the group. The last one out keeps it, and sk_close() frees it when no CPU looks any more."""
    cdef sock_reuseport *group = sk.reuse
    cdef u32 i
    if group == NULL:
        return
    if group.num > 1:
        store_release_ptr(<void **>&sk.reuse, NULL)
    for i in range(group.num):
        if group.socks[i] == sk:
            store_release_ptr(<void **>&group.socks[i], group.socks[group.num - 1])
            store_release32(&group.num, group.num - 1)
            break


cdef sock *reuse_select(sock *sk, sock_reuseport *group, u64 hash) noexcept nogil:
    """Choose a member of ``sk``'s group by the flow's hash; never a connected one. [reuseport_select_sock()]"""
    cdef u32 num = load_acquire32(&group.num)
    cdef u32 first, i
    cdef sock *chosen
    if num == 0:
        return sk
    first = <u32>(hash * num >> 32)
    for i in range(num):
        chosen = <sock *>load_acquire_ptr(<void **>&group.socks[(first + i) % num])
        if chosen != NULL and not load_acquire32(&chosen.flags) & SOCKF_CONNECTED:
            return chosen
    return sk
