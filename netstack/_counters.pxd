"""Every counter and every fate of a frame, one line each.

A ``cpdef enum`` is a C constant and a Python ``IntEnum`` member at once, so this file is the single source: the
data path counts by the constant, and ``stats.py`` makes the kernel's text forms from the names.
"""


cpdef enum mib:
    # SNMP counters under nstat's names, in the order of the kernel's /proc/net/snmp and /proc/net/netstat.
    IpInReceives
    IpInHdrErrors
    IpInAddrErrors
    IpForwDatagrams
    IpInUnknownProtos
    IpInDiscards
    IpInDelivers
    IpOutRequests
    IpOutDiscards
    IpOutNoRoutes
    IpReasmTimeout
    IpReasmReqds
    IpReasmOKs
    IpReasmFails
    IpFragOKs
    IpFragFails
    IpFragCreates
    IpOutTransmits
    IcmpInMsgs
    IcmpInErrors
    IcmpInCsumErrors
    IcmpInDestUnreachs
    IcmpInTimeExcds
    IcmpInParmProbs
    IcmpInSrcQuenchs
    IcmpInRedirects
    IcmpInEchos
    IcmpInEchoReps
    IcmpInTimestamps
    IcmpInTimestampReps
    IcmpInAddrMasks
    IcmpInAddrMaskReps
    IcmpOutMsgs
    IcmpOutErrors
    IcmpOutRateLimitGlobal
    IcmpOutRateLimitHost
    IcmpOutDestUnreachs
    IcmpOutTimeExcds
    IcmpOutParmProbs
    IcmpOutSrcQuenchs
    IcmpOutRedirects
    IcmpOutEchos
    IcmpOutEchoReps
    IcmpOutTimestamps
    IcmpOutTimestampReps
    IcmpOutAddrMasks
    IcmpOutAddrMaskReps
    UdpInDatagrams
    UdpNoPorts
    UdpInErrors
    UdpOutDatagrams
    UdpRcvbufErrors
    UdpSndbufErrors
    UdpInCsumErrors
    UdpIgnoredMulti
    UdpMemErrors
    TcpExtLockDroppedIcmps
    TcpExtOutOfWindowIcmps
    TcpExtPFMemallocDrop
    TcpExtIPReversePathFilter
    IpExtInNoRoutes
    IpExtInTruncatedPkts
    IpExtInMcastPkts
    IpExtOutMcastPkts
    IpExtInBcastPkts
    IpExtOutBcastPkts
    IpExtInOctets
    IpExtOutOctets
    IpExtInMcastOctets
    IpExtOutMcastOctets
    IpExtInBcastOctets
    IpExtOutBcastOctets
    IpExtInCsumErrors
    IpExtInNoECTPkts
    IpExtInECT1Pkts
    IpExtInECT0Pkts
    IpExtInCEPkts
    IpExtReasmOverlaps
    IcmpMsgInType                      # 256 counters from here: one an ICMP type
    IcmpMsgOutType = IcmpMsgInType + 256
    MIB_NR = IcmpMsgOutType + 256


cpdef enum skb_drop_reason:
    # How a frame ended. The first four are no drops; the others carry the kernel's names and sentences
    # (include/net/dropreason-core.h), and NIC_* is what the hardware discards, which Linux sees only as a register.
    SKB_NOT_DROPPED_YET                    # still on its way, or a copy whose end says nothing about the frame
    SKB_CONSUMED                           # a protocol took it: an ARP reply, an echo request that was answered
    SKB_FORWARDED                          # left through another device
    SKB_DELIVERED                          # an application has read it
    SKB_DROP_REASON_NOT_SPECIFIED          # freed without a reason: always a mistake in netstack
    SKB_DROP_REASON_NO_SOCKET              # no socket is bound to the address and port
    SKB_DROP_REASON_PKT_TOO_SMALL          # shorter than its headers say or need
    SKB_DROP_REASON_SOCKET_FILTER          # the socket's filter refused it
    SKB_DROP_REASON_UDP_CSUM               # UDP checksum is wrong
    SKB_DROP_REASON_NETFILTER_DROP         # a hook or a rule said drop
    SKB_DROP_REASON_OTHERHOST              # not for this host's MAC address
    SKB_DROP_REASON_IP_CSUM                # IP header checksum is wrong
    SKB_DROP_REASON_IP_INHDR               # IP header: version, length or options are wrong
    SKB_DROP_REASON_IP_RPFILTER            # the way back would leave through another device
    SKB_DROP_REASON_UNICAST_IN_L2_MULTICAST  # unicast address in a broadcast or multicast frame
    SKB_DROP_REASON_IP_NOPROTO             # no handler for the IP protocol
    SKB_DROP_REASON_ICMP_CSUM              # ICMP checksum is wrong
    SKB_DROP_REASON_INVALID_PROTO          # the packet's protocol does not belong here
    SKB_DROP_REASON_IP_INADDRERRORS        # not for us, and forwarding is off
    SKB_DROP_REASON_IP_INNOROUTES          # no route
    SKB_DROP_REASON_IP_LOCAL_SOURCE        # source is one of our own addresses
    SKB_DROP_REASON_IP_INVALID_SOURCE      # source address can't be: multicast, broadcast, zero network
    SKB_DROP_REASON_IP_LOCALNET            # 127.0.0.0/8 from outside
    SKB_DROP_REASON_IP_INVALID_DEST        # destination address can't be
    SKB_DROP_REASON_PKT_TOO_BIG            # larger than allowed
    SKB_DROP_REASON_SOCKET_RCVBUFF         # the socket's receive buffer is full
    SKB_DROP_REASON_PROTO_MEM              # the protocol's memory is used up (net.ipv4.udp_mem)
    SKB_DROP_REASON_SOCKET_CLOSE           # the socket was closed with the packet unread
    SKB_DROP_REASON_QUEUE_PURGE            # the queue it stood in was emptied
    SKB_DROP_REASON_CPU_BACKLOG            # the backlog of the CPU, or of the seam to Python, is full
    SKB_DROP_REASON_UNHANDLED_PROTO        # no handler for the EtherType
    SKB_DROP_REASON_SKB_CSUM               # checksum can't be computed
    SKB_DROP_REASON_HDR_TRUNC              # a header is cut short
    SKB_DROP_REASON_NOMEM                  # the packet pool is exhausted
    SKB_DROP_REASON_FRAG_REASM_TIMEOUT     # not all fragments came in time
    SKB_DROP_REASON_FRAG_TOO_FAR           # a fragment too far behind its neighbours
    SKB_DROP_REASON_DUP_FRAG               # the same fragment twice
    SKB_DROP_REASON_FRAG_OVERLAP           # fragments contradict each other (ours: Linux frees them unnamed)
    SKB_DROP_REASON_ARP_MALFORMED          # ARP packet of a wrong shape (ours: Linux frees it unnamed)
    SKB_DROP_REASON_ARP_NOT_FOR_US         # ARP for another's address (ours: Linux frees it unnamed)
    SKB_DROP_REASON_ARP_UNSOLICITED        # ARP reply that nobody asked for (ours: Linux frees it unnamed)
    SKB_DROP_REASON_IGMP_CSUM              # IGMP checksum is wrong (ours: Linux frees it unnamed)
    SKB_DROP_REASON_IGMP_IGNORED           # IGMP message that tells a host nothing (ours: Linux frees it unnamed)
    SKB_DROP_REASON_NEIGH_FAILED           # the neighbour does not answer
    SKB_DROP_REASON_NEIGH_QUEUEFULL        # too much waits for the neighbour
    SKB_DROP_REASON_NEIGH_CREATEFAIL       # the neighbour table is full
    SKB_DROP_REASON_DEV_HDR                # what a virtual wire says about the frame is wrong (virtio_net_hdr)
    SKB_DROP_REASON_DEV_READY              # the device is closed or has no descriptor free
    SKB_DROP_REASON_GRO_DROP               # a frame of a merged packet that is malformed
    NIC_DROP_FILTER                        # the NIC's address filter did not match (RAL/RAH, MTA)
    NIC_DROP_RUC                           # runt: shorter than an Ethernet header (register RUC)
    NIC_DROP_ROC                           # giant: longer than RLPML allows (register ROC)
    NIC_DROP_RNBC                          # no receive buffer and DROP_EN set (register RQDPC)
    NIC_DROP_RXERR                         # the NIC marked the frame as damaged (CE, SE, SEQ, CXE, RXE)
    NIC_DROP_RESET                         # the NIC was reset with the frame in its memory
    SKB_FATE_NR
