"""The sockets of one protocol by local port; see ``_table.pyx``.

One head a port: the cost of a lookup depends on how many sockets share the port, and on nothing else.
CPUs walk the chains without a lock. Who changes a chain holds ``lock``; a socket taken out keeps its
``next``, and is freed only after ``n.synchronize``.
"""

from netstack._abi cimport fetch_add32, load_acquire_ptr, load_acquire32, u8, u16, u32, u64
from netstack._net cimport MAX_CPUS, net
from netstack.sock._sock cimport SOCKF_CONNECTED, proto, sock, sock_reuseport


cdef enum:
    PORTS = 65536

cdef struct udp_flow:              # the last datagram that a CPU looked a socket up for, as its header lies in memory
    u64 addresses
    u32 ports
    u32 ifindex
    sock *sk
    u32 generation                 # of the table then; 0: nothing is here
    u32 pad[9]                     # a cache line for each CPU

cdef struct udp_table:
    u32 lock
    u32 bound                      # sockets in the chains
    u32 generation                 # counts what may change the answer of a look-up
    udp_flow last[MAX_CPUS + 1]    # by counter slot
    sock *all                      # every socket of the host, bound or not
    u64 seed                       # of ephemeral ports and of the reuseport hash
    u64 inos
    proto prot
    sock *port[PORTS]


cdef udp_table *table_create(net *n) noexcept
cdef void table_destroy(udp_table *table) noexcept
cdef void table_add(sock *sk) noexcept nogil
cdef int table_get_port(sock *sk, u32 addr, u16 port) noexcept nogil
cdef void table_unhash(sock *sk) noexcept nogil
cdef void table_remove(sock *sk) noexcept nogil
cdef void raw_protocol_used(net *n, u32 protocol, bint used) noexcept nogil
cdef void table_wait(sock *sk) noexcept nogil
cdef bint addr_is_for_many(net *n, u32 addr) noexcept nogil
cdef bint addr_is_ours(net *n, u32 addr) noexcept nogil
cdef sock *reuse_select(sock *sk, sock_reuseport *group, u64 hash) noexcept nogil


cdef inline void table_changed(udp_table *table) noexcept nogil:
    """Forget what CPUs remember of the table. After the change, and before ``n.synchronize``."""
    fetch_add32(&table.generation, 1)

cdef inline udp_table *table_of(sock *sk) noexcept nogil:
    """The table whose lock and list serve all sockets of the host."""
    return <udp_table *>sk.prot.table

cdef inline u64 flow_hash(const udp_table *table, u32 saddr, u16 sport, u32 daddr, u16 dport) noexcept nogil:
    """Mix a flow into 32 bits. [udp_ehashfn()]"""
    cdef u64 h = (<u64>saddr << 32 | daddr) ^ table.seed
    h = (h ^ h >> 32) * <u64>0xD6E8FEB86659FD93
    h ^= <u64>sport << 16 | dport
    h = (h ^ h >> 32) * <u64>0xD6E8FEB86659FD93
    return <u32>(h ^ h >> 32)

cdef inline int compute_score(const sock *sk, u32 saddr, u16 sport, u32 daddr, u32 dev_if) noexcept nogil:
    """How well a socket of the right port fits; -1 when it does not. [compute_score()]

    The kernel looks among the sockets of the address first, then among those of any address; the 16
    for a bound address says the same in one walk.
    """
    cdef int score = 2
    if sk.rcv_saddr:
        if sk.rcv_saddr != daddr:
            return -1
        score += 16
    if sk.daddr:
        if sk.daddr != saddr:
            return -1
        score += 4
    if sk.dport:
        if sk.dport != sport:
            return -1
        score += 4
    if sk.bound_dev_if:
        if sk.bound_dev_if != dev_if:
            return -1
        score += 4
    return score

cdef inline sock *udp_lookup(udp_table *table, u32 saddr, u16 sport, u32 daddr, u16 dport,
                             u32 dev_if) noexcept nogil:
    """Find the socket for a datagram, NULL for none. As a CPU, or with the lock. [__udp4_lib_lookup()]

    Of equals the one bound last; in a SO_REUSEPORT group the one that the flow's hash chooses.
    """
    cdef sock *sk = <sock *>load_acquire_ptr(<void **>&table.port[dport])
    cdef sock *found = NULL
    cdef int best = 0
    cdef sock_reuseport *group
    cdef int score
    while sk != NULL:
        score = compute_score(sk, saddr, sport, daddr, dev_if)
        if score > best:
            best = score
            found = sk
        sk = <sock *>load_acquire_ptr(<void **>&sk.next)
    if found != NULL:
        group = <sock_reuseport *>load_acquire_ptr(<void **>&found.reuse)
        if group != NULL and not load_acquire32(&found.flags) & SOCKF_CONNECTED:
            return reuse_select(found, group, flow_hash(table, saddr, sport, daddr, dport))
    return found
