"""AF_PACKET sockets; see ``_packet.pyx``, ``_packet_addr.pyx``."""

from netstack._abi cimport u8, u16, u32
from netstack._net cimport Net, net
from netstack._skb cimport sk_buff
from netstack.napi._napi cimport softnet_data
from netstack.sock._sock cimport proto, sock


cdef enum:
    AF_PACKET = 17
    ETH_P_ALL = 3
    MAX_ADDR_LEN = 8               # of a sockaddr_ll
    PACKET_MEMBERSHIPS = 64        # of one socket

cdef struct sockaddr_ll:           # <linux/if_packet.h>, in host order
    u32 ifindex
    u16 protocol
    u16 hatype
    u8 pkttype
    u8 halen
    u8 addr[MAX_ADDR_LEN]

cdef struct packet_mclist:         # what PACKET_ADD_MEMBERSHIP asked of a device
    u32 ifindex                    # 0: a free place
    u32 type
    u32 count
    u8 addr[MAX_ADDR_LEN]

cdef struct packet_sock:           # sk.priv
    u32 tp_packets
    u32 tp_drops
    u32 ifindex                    # bound to; 0 for any
    bint ignore_outgoing
    sockaddr_ll to                 # of the message that is sent; the sender holds the GIL until it is copied
    sockaddr_ll peer               # who sent what was read last; under reader_lock
    packet_mclist mc[PACKET_MEMBERSHIPS]

cdef struct packet_table:          # n.packet; under the lock of the host's table of sockets
    proto raw
    proto dgram
    sock *head

# Show a packet to the sockets of its EtherType, or (``all``) to those of ETH_P_ALL. The packet stays the caller's.
cdef u32 packet_deliver(net *n, sk_buff *skb, softnet_data *sd, bint all) noexcept nogil
cdef int packet_membership(sock *sk, u32 ifindex, u32 kind, const u8 *addr, u32 alen, bint add) noexcept nogil
