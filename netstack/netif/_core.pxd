"""The device core: what ``packet_type`` is, and the way up; see ``_core.pyx``."""

from netstack._abi cimport u16, u32
from netstack._net cimport MAX_PTYPES, net
from netstack._skb cimport sk_buff
from netstack.napi._napi cimport softnet_data

cdef enum ethertypes:              # <linux/if_ether.h>
    ETH_P_ALL = 0x0003
    ETH_P_IP = 0x0800
    ETH_P_ARP = 0x0806

# The compiled short cut of a protocol: True when it consumed the packet, False when it left it untouched.
ctypedef bint (*ptype_fast)(net *n, sk_buff *skb, void *sd) noexcept nogil

cdef struct packet_type:
    u16 type                       # EtherType
    bint python                    # proto/*.py or a user registered a handler: netif/core.py finds it
    ptype_fast fast                # NULL: every packet goes to Python

cdef struct ptype_table:
    u32 count
    u32 all_python                 # handlers of ETH_P_ALL in Python: each packet is cloned for them
    packet_type entry[MAX_PTYPES]

cdef void dev_add_fast(net *n, u16 type, ptype_fast fast) noexcept
cdef void __netif_receive_skb_core(net *n, sk_buff *skb, softnet_data *sd) noexcept nogil
cdef void netif_receive_skb_list(net *n, void *head, void *sd) noexcept nogil
cdef int dev_xmit(void *skb) noexcept nogil
