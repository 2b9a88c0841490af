"""struct sock: one socket as the data path sees it; see ``_sock.pyx``, ``_queue.pyx``, ``_wake.pyx``.

Three parties touch a socket, and each has cache lines of its own: the lookup (any CPU, reads), the
producer (a CPU in softirq, or process context; holds ``lock``) and the consumer (an application;
holds ``reader_lock``). Addresses and ports are in host order.
"""

from netstack._abi cimport (
    i32, load_acquire32, load_acquire_ptr, load_relaxed32, load_relaxed64, u8, u16, u32, u64, unlikely,
)
from netstack._net cimport net, rps_record_sock_flow
from netstack._skb cimport sk_buff, sk_buff_head
from netstack.napi._napi cimport softnet_data


cdef enum:
    SOCK_DGRAM = 2                 # <bits/socket_type.h>
    SOCK_RAW = 3
    AF_INET = 2
    SOCK_MIN_RCVBUF = 2304         # 2048 + sizeof(sk_buff)
    SOCK_MIN_SNDBUF = 4608
    SOCK_BATCH = 32                # packets an application reads before they are given back
    CACHE_LINE = 64
    NO_FD = -1

cdef enum sock_flags:
    SOCKF_REUSEADDR = 1
    SOCKF_REUSEPORT = 2
    SOCKF_BROADCAST = 4
    SOCKF_CONNECTED = 8            # TCP_ESTABLISHED, which for UDP means: has a peer
    SOCKF_BOUND = 0x10             # in a table
    SOCKF_NAPI_SEEN = 0x20         # napi_id is known
    SOCKF_RXQ_OVFL = 0x40
    SOCKF_PKTINFO = 0x80           # IP_PKTINFO: tell where each packet came in
    SOCKF_RECVTTL = 0x100
    SOCKF_RECVTOS = 0x200
    SOCKF_NO_CHECK = 0x400         # SO_NO_CHECK: send with checksum 0
    SOCKF_GRO = 0x800              # UDP_GRO: merged packets may be read whole
    SOCKF_RECVORIGDSTADDR = 0x1000
    SOCKF_PEEK_OFF = 0x2000        # peek_off is in use
    SOCKF_FREEBIND = 0x4000
    SOCKF_CLOSED = 0x8000          # close() has begun: nobody waits any more
    SOCKF_RECVERR = 0x10000        # IP_RECVERR: keep errors in the error queue
    SOCKF_HDRINCL = 0x20000        # IP_HDRINCL: the application makes the IP header too
    SOCKF_MC_LOOP = 0x1000000      # IP_MULTICAST_LOOP: what is sent to a group of ours comes back
    SOCKF_MC_ALL = 0x2000000       # IP_MULTICAST_ALL: take the groups that other sockets joined too

cdef enum sock_options:            # sk.opts: what only process context looks at
    SOCKO_DEBUG = 1
    SOCKO_DONTROUTE = 2            # SO_DONTROUTE: only to what needs no router
    SOCKO_KEEPALIVE = 4
    SOCKO_OOBINLINE = 8
    SOCKO_WIFI_STATUS = 0x10
    SOCKO_NOFCS = 0x20
    SOCKO_RCVMARK = 0x40
    SOCKO_RCVPRIORITY = 0x80
    SOCKO_FILTER_LOCKED = 0x100
    SOCKO_RECVOPTS = 0x200
    SOCKO_PASSSEC = 0x400
    SOCKO_TRANSPARENT = 0x800      # IP_TRANSPARENT: any source address
    SOCKO_NODEFRAG = 0x1000
    SOCKO_BIND_NO_PORT = 0x2000    # IP_BIND_ADDRESS_NO_PORT
    SOCKO_CORK = 0x4000            # UDP_CORK
    SOCKO_NO_CHECK6_TX = 0x8000
    SOCKO_NO_CHECK6_RX = 0x10000
    SOCKO_RCVTSTAMP = 0x20000      # SO_TIMESTAMP or SO_TIMESTAMPNS
    SOCKO_RCVTSTAMPNS = 0x40000
    SOCKO_TSTAMP_NEW = 0x80000     # the forms whose numbers have 64 bits everywhere
    SOCKO_TIMESTAMP = 0x100000     # packets are stamped for this socket

cdef enum pmtudisc_values:         # <linux/in.h>
    IP_PMTUDISC_DONT = 0
    IP_PMTUDISC_WANT = 1
    IP_PMTUDISC_DO = 2
    IP_PMTUDISC_PROBE = 3
    IP_PMTUDISC_INTERFACE = 4
    IP_PMTUDISC_OMIT = 5

cdef enum ee_origins:              # <linux/errqueue.h>
    SO_EE_ORIGIN_LOCAL = 1
    SO_EE_ORIGIN_ICMP = 2

cdef enum sock_shutdown:
    RCV_SHUTDOWN = 1
    SEND_SHUTDOWN = 2

cdef enum sock_result:
    SOCK_QUEUED = 0
    SOCK_RCVBUFF = 1               # SO_RCVBUF is used up
    SOCK_PROTO_MEM = 2             # the protocol's memory is used up

cdef struct sock
cdef struct proto

cdef struct sock_skb_cb:           # skb.cb from the lookup to the reader
    sock *sk                       # the socket that `peek` found
    u32 saddr                      # what recvfrom and control messages tell
    u32 daddr
    u16 sport
    u16 dport
    u8 csum_unchecked              # the checksum is still to be verified, by the reader
    u8 ttl
    u8 tos
    u8 peeked                      # SO_PEEK_OFF: somebody has looked at it
    u32 ifindex
    u32 truesize                   # charged to the socket
    u32 dropcount                  # drops when it was queued (SO_RXQ_OVFL)
    u32 taken                      # of a merged packet in several buffers: bytes that batch calls have read

cdef struct sock_err_cb:           # skb.cb in the error queue; the first part names where the packet was going
    sock_skb_cb at                 # saddr, sport: its destination; the rest is of the ICMP message
    u32 ee_errno                   # [struct sock_extended_err]
    u8 ee_origin                   # SO_EE_ORIGIN_*
    u8 ee_type
    u8 ee_code
    u32 ee_info
    u32 offender                   # who sent the ICMP message

cdef struct sock_iov:
    const u8 *base
    size_t len

cdef struct sock_msg:              # what a protocol's sendmsg is given
    sock_iov *iov
    u32 nr_iov
    size_t len                     # bytes in all
    bint has_addr
    u32 daddr
    u16 dport
    int ttl                        # of a control message; -1 for none
    int tos
    u32 saddr                      # IP_PKTINFO; 0 for none
    u32 ifindex
    u32 gso_size                   # UDP_SEGMENT; 0 for none
    u32 mark                       # SO_MARK and SO_PRIORITY of a control message
    u32 priority
    bint has_mark
    bint has_priority
    bint dontroute                 # MSG_DONTROUTE

cdef struct sock_reuseport:        # sockets that share address and port [struct sock_reuseport]
    u32 num
    u32 max
    sock_reuseport *retired        # the smaller ones it has replaced, freed with it
    sock *socks[1]                 # [max]

cdef struct proto:
    # What a protocol does with its sockets, one for each host. [struct proto: sk_prot]
    const char *name
    proto *next                    # n.protos
    net *n
    void *table
    u32 type                       # SOCK_*
    u32 family                     # AF_*
    u32 protocol                   # IPPROTO_*; 0: the socket says which
    int level                      # SOL_* of its own options
    bint any_protocol              # protocol 0 is one too: nothing is received
    bint accounts                  # receive memory counts for net.ipv4.udp_mem
    int in_datagrams               # the counter of what applications have read; MIB_NR for none
    # 0 or a negative errno, all of them. `init` makes the rest of a new socket; NULL for none.
    int (*init)(sock *sk) noexcept nogil
    int (*get_port)(sock *sk, u32 addr, u16 port) noexcept nogil
    int (*connect)(sock *sk, u32 addr, u16 port) noexcept nogil
    int (*sendmsg)(sock *sk, sock_msg *msg) noexcept nogil
    # The number sent; `err` is the negative errno of the first that was not, else 0.
    u32 (*sendmmsg)(sock *sk, sock_msg *msgs, u32 count, int *err) noexcept nogil
    int (*setsockopt)(sock *sk, int name, int value) noexcept nogil      # of the protocol's own level
    int (*getsockopt)(sock *sk, int name, int *value) noexcept nogil
    void (*unhash)(sock *sk) noexcept nogil
    int (*mtu)(sock *sk) noexcept nogil        # of the way to the peer
    # Our address that a sender knows, by destination, source and device (IP_PKTINFO); NULL: nobody is told.
    u32 (*spec_dst)(net *n, u32 daddr, u32 saddr, u32 ifindex) noexcept nogil
    # Verify what was left for the reader. False: the packet is bad; it has been counted.
    bint (*complete)(sock *sk, sk_buff *skb) noexcept nogil

cdef struct sock:                  # the first three parts are a cache line each, checked at import
    # The lookup.
    sock *next                     # same port
    u32 rcv_saddr                  # bound address, 0 for any
    u32 daddr                      # connected peer, 0 for none
    u16 num                        # bound port
    u16 dport
    u32 bound_dev_if
    u32 flags                      # SOCKF_*
    u32 err                        # so_error: an errno that the next call reports
    u32 shutdown
    u32 rcvbuf
    sock_reuseport *reuse
    proto *prot
    net *n
    # The producer.
    u32 lock
    u32 drops                      # sk_drops
    sk_buff_head receive_queue
    u64 rmem_in                    # truesize ever queued; rmem_alloc = rmem_in - rmem_out
    u64 forward_alloc              # bytes taken from the protocol's memory and not used
    softnet_data *wake_sd          # the CPU that has this socket in its wake_list
    sock *wake_next
    # The consumer.
    u32 reader_lock
    u32 nr_dead                    # read, but not given back yet
    sk_buff_head reader_queue
    sk_buff *dead
    u64 dead_frames
    u64 deficit                    # truesize of the dead
    u64 rmem_out                   # truesize ever released
    # Sleepers and pollers.
    u32 sleeping                   # futex word: 1 while a thread sleeps, or is about to
    u32 signalled                  # the eventfd has been written and not read
    u32 efd                        # made by fileno(); NO_FD until then. sock_efd() reads it
    u32 spin_ns                    # how long a wait tends to take
    u32 idle                       # CPU + 1 while its reader sleeps as the idle CPU, or is about to
    u32 napi_cpu                   # the CPU that its last batch came from, which a reader polls [sk_napi_id]
    # Settings the data path does not touch.
    u32 rxhash                     # hash of what a connected socket has received last, for RFS
    u32 protocol                   # IPPROTO_*, or the EtherType in host order
    u32 icmp_filter                # ICMP_FILTER: bit n set, type n is not wanted
    u32 sndbuf
    u32 saddr                      # address that getsockname tells
    u32 ttl                        # 0: net.ipv4.ip_default_ttl
    u32 tos
    u32 mc_ttl
    u32 pmtudisc                   # IP_PMTUDISC_*
    u32 gso_size                   # UDP_SEGMENT
    u32 mc_index                   # IP_MULTICAST_IF: device, and
    u32 mc_addr                    # source of what is sent to groups; 0 for any
    u32 busy_poll_us
    u64 rcvtimeo                   # ns, 0 for none
    u64 sndtimeo
    sock *all_next                 # every socket of the host
    sock *all_prev
    sk_buff_head error_queue       # sock/_errqueue.pyx; under lock
    void *priv                     # the family's own; freed with the socket
    void *filter                   # sock/_filter.pxd: sk_filter, NULL for none
    void *mc_list                  # sock/_mcast.pxd: the groups joined, NULL for none; under the table's lock
    u32 opts                       # SOCKO_*
    u32 stamped                    # 1: counted in n.netstamp_needed
    u32 tsflags                    # SO_TIMESTAMPING: SOF_TIMESTAMPING_*
    u32 bind_phc
    u32 mark                       # of what it sends
    u32 priority
    u32 rcvlowat
    int peek_off                   # SO_PEEK_OFF; -1 for off
    u32 peek_at                    # bytes that the look which is under way has left out; under reader_lock
    u32 userlocks                  # SO_BUF_LOCK
    u32 incoming_cpu               # of the last datagram of a connected socket, or as set; (u32)-1: not known
    u32 napi_id                    # NAPI that brought the last one
    u32 uc_index                   # IP_UNICAST_IF
    u32 port_range                 # IP_LOCAL_PORT_RANGE: first | last << 16, 0 for the host's
    u32 min_ttl                    # IP_MINTTL
    void *cork                     # sock/_cork.pyx: what MSG_MORE and UDP_CORK have gathered
    # A queue that was full: sock/_crowd.pyx.
    u64 crowd_last                 # when a packet last found no room, ns; 0: long ago
    u64 crowd_at                   # when the reader's progress was last seen, ns, and
    u64 crowd_out                  # rmem_out then
    u64 crowd_ns                   # how long it takes to read half of what the queue holds
    void *owner                    # the Socket object, borrowed: it outlives its place in the list
    u64 ino                        # a number that names it
    u32 linger_on                  # SO_LINGER: which Linux keeps for a datagram socket too
    i32 linger                     # seconds


cdef sock *sk_alloc(net *n, proto *prot) noexcept
cdef void sk_close(sock *sk) noexcept nogil
cdef void sk_free(sock *sk) noexcept nogil
cdef void sock_stamped(sock *sk, bint wanted) noexcept nogil


cdef inline sock_skb_cb *SOCK_CB(sk_buff *skb) noexcept nogil:
    return <sock_skb_cb *>skb.cb

cdef inline int sock_efd(sock *sk) noexcept nogil:
    """The eventfd that fileno() made, or NO_FD. Whoever sees it sees a socket that is ready for it."""
    return <int>load_acquire32(&sk.efd)

cdef inline u32 sock_queued(sock *sk) noexcept nogil:
    """Packets that nobody has read."""
    return load_acquire32(&sk.receive_queue.qlen) + load_acquire32(&sk.reader_queue.qlen)

cdef inline u64 rmem_alloc(sock *sk) noexcept nogil:
    """Bytes of truesize charged to the socket."""
    return load_relaxed64(&sk.rmem_in) - load_relaxed64(&sk.rmem_out)

cdef inline bint sock_has_data(sock *sk) noexcept nogil:
    """True while a datagram is queued. A splice fills reader_queue before it empties the other."""
    return load_acquire32(&sk.receive_queue.qlen) != 0 or load_acquire32(&sk.reader_queue.qlen) != 0

cdef inline void sock_rps_record_flow(sock *sk) noexcept nogil:
    """Note for RFS that this thread uses the connected socket. [sock_rps_record_flow()]"""
    if unlikely(load_acquire_ptr(<void **>&sk.n.rps_sock_flow_table) != NULL) and sk.daddr:
        rps_record_sock_flow(sk.n, load_relaxed32(&sk.rxhash))

cdef inline sock_err_cb *SOCK_ERR_CB(sk_buff *skb) noexcept nogil:
    return <sock_err_cb *>skb.cb

cdef inline bint sock_readable(sock *sk) noexcept nogil:
    """True when a receive would return at once: poll(2)'s POLLIN and POLLERR."""
    return (sock_has_data(sk) or load_acquire32(&sk.err) != 0
            or load_acquire32(&sk.shutdown) & RCV_SHUTDOWN != 0
            or load_acquire32(&sk.flags) & SOCKF_CLOSED != 0)

cdef inline bint sock_pollable(sock *sk) noexcept nogil:
    """True when poll(2) has something to say: sock_readable(), or an error in the queue of errors."""
    return sock_readable(sk) or load_acquire32(&sk.error_queue.qlen) != 0
