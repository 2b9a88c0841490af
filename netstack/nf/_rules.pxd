"""Rules in compiled code; see ``_rules.pyx``."""

from netstack._abi cimport u8, u32, u64, uintptr_t
from netstack._net cimport MAX_CPUS, net
from netstack._skb cimport sk_buff

# libpcap's bpf_filter(): 0 for no match.
ctypedef u32 (*bpf_fn)(const void *program, const u8 *packet, u32 wire_len, u32 buf_len) noexcept nogil

cdef enum:
    NF_DROP = 0
    NF_ACCEPT = 1
    NFT_CONTINUE = 8               # counted, and the next rule is asked
    NF_REJECT = 9                  # dropped, and an ICMP error says so: Python does it
    NF_INET_INGRESS = 5            # these three look at the frame, the others at the IP packet; see nf/hooks.py
    NF_ARP_IN = 6
    NF_ARP_OUT = 7
    NF_NR_CHAINS = 8
    NF_FLOWS = 256                 # flows that a CPU remembers

cdef struct nf_counter:
    u64 packets
    u64 bytes

cdef struct nf_rule:
    bpf_fn run
    const void *program            # NULL: every packet
    u32 iif                        # ifindex; 0: any
    u32 oif
    u32 verdict
    nf_counter *counter            # of the rule as long as it stands, whatever table is published

cdef struct nf_chain:              # never changed once published
    u32 count
    u32 policy
    u32 by_flow                    # every rule looks at flow and input device alone: results can be remembered
    nf_rule rule[1]

cdef struct nf_flow:               # packets of this flow match no rule
    u32 saddr
    u32 daddr
    u32 ports
    u32 iif
    u32 protocol
    u32 generation
    u32 clean                      # bit h: of the chain at hook h

cdef struct nf_state:              # net.nf
    nf_chain *chain[NF_NR_CHAINS]
    nf_chain *want                 # what Python hooks asked for; `verdict` is the mask of hooks
    u32 generation                 # counts the changes
    u32 readers                    # process contexts that walk a chain; CPUs are waited for by n.synchronize
    nf_flow flows[MAX_CPUS][NF_FLOWS]


# The verdict of the rules at a hook about a packet, data at its network header, at NF_ARP_OUT at the Ethernet header.
# Call it if net.nf_rules has the hook's bit.
cdef u32 nf_rules_run(net *n, u32 hook, sk_buff *skb, u32 iif, u32 oif) noexcept nogil
# The same at one hook after the other, and who captures there is shown it;
# False when the packet was refused, and dropped (NETFILTER_DROP).
cdef bint nf_rules_pass(net *n, u32 first, u32 end, sk_buff *skb, u32 iif, u32 oif) noexcept nogil
# Does a Python hook want to see this packet at one of the hooks of `mask` (of IP, or of ARP)? Call it if net.nf_hooks
# has one of them.
cdef bint nf_python_wants(net *n, u32 mask, sk_buff *skb) noexcept nogil
