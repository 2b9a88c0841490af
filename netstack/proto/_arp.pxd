"""ARP on the wire and its short cut; see ``_arp.pyx``."""

from netstack._abi cimport u8, u16, u32
from netstack._net cimport net, net_device
from netstack._skb cimport sk_buff


cdef enum:              # RFC 826; offsets for Ethernet and IPv4
    ARP_HRD = 0
    ARP_PRO = 2
    ARP_HLN = 4
    ARP_PLN = 5
    ARP_OP = 6
    ARP_SHA = 8
    ARP_SIP = 14
    ARP_THA = 18
    ARP_TIP = 24
    ARP_LEN = 28

cpdef enum arp_op:
    ARPOP_REQUEST = 1
    ARPOP_REPLY = 2

# A request for an address of ours, answered at once. 1 = consumed; 0 = untouched, for Python.
cdef bint arp_rcv_fast(net *n, sk_buff *skb, void *sd) noexcept nogil
cdef void arp_send(net *n, net_device *dev, u16 op, u32 tip, u32 sip, const u8 *dst, const u8 *tha) noexcept nogil
