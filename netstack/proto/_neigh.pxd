"""The neighbour table: which Ethernet address a next hop has; see ``_neigh.pyx``."""

from netstack._abi cimport u8, u16, u32, u64
from netstack._net cimport neigh_base_reachable_time_ms, net, net_device, sysctl_get
from netstack._skb cimport sk_buff, sk_buff_head


cpdef enum nud:                    # <linux/neighbour.h>
    NUD_NONE = 0
    NUD_INCOMPLETE = 1             # asked, no answer yet: packets wait in arp_queue
    NUD_REACHABLE = 2              # answered a short while ago
    NUD_STALE = 4                  # known, but not confirmed
    NUD_DELAY = 8                  # stale and in use: an upper layer may confirm it
    NUD_PROBE = 16                 # asked again, at the address known so far
    NUD_FAILED = 32                # did not answer
    NUD_NOARP = 64
    NUD_PERMANENT = 128

cdef enum:              # <net/neighbour.h>
    NUD_IN_TIMER = 1 | 2 | 8 | 16
    NUD_VALID = 2 | 4 | 8 | 16 | 64 | 128
    NUD_CONNECTED = 2 | 64 | 128

cdef enum:
    NEIGH_UPDATE_F_OVERRIDE = 1    # a new hardware address replaces the old one
    NEIGH_UPDATE_F_ADMIN = 2       # a user's order: also changes permanent entries

cdef enum:
    NS_PER_MS = 1_000_000
    NS_PER_S = 1_000_000_000
    NEIGH_MAX = 65536              # entries that there is address space for; neigh_gc_thresh3 is the limit
    NEIGH_HASH = 4096

cdef struct neighbour:
    neighbour *next                # of the same hash value, or free
    net_device *dev                # NULL: a free element
    u32 primary_key                # IPv4 address
    u32 nud_state
    u32 probes
    u32 arp_queue_len_bytes
    u64 confirmed                  # ns: when an answer proved that it is there
    u64 used                       # ns: when a packet last needed more than the cached header
    u64 updated                    # ns
    u64 timer                      # ns: when neigh_timer_handler is due, 0 for never
    sk_buff_head arp_queue
    u8 hh[16]                      # the Ethernet header, ready to copy; its first 6 bytes are the address

cdef struct neigh_table:
    u32 lock
    u32 entries
    u32 fresh                      # elements ever used
    u32 rand                       # of 2^16: reachable_time is base times (1/2 + rand)
    u64 next_timer                 # ns: no entry's timer is earlier; 0 for none
    u64 last_rand
    u64 last_flush
    u64 seed
    neighbour *free
    neighbour *base                # [NEIGH_MAX], pages come when first used
    neighbour *hash[NEIGH_HASH]
    # Ask who has `target`: everybody, or `dst` alone when not NULL. [neigh_ops.solicit, arp_solicit()]
    void (*solicit)(net *n, net_device *dev, u32 target, u32 saddr, const u8 *dst) noexcept nogil


# Send skb (data at the IP header) to a next hop. Consumes skb. 0, or a negative errno. [neigh_output()]
cdef int neigh_output(net *n, net_device *dev, u32 nexthop, sk_buff *skb) noexcept nogil
cdef void neigh_event_send(net *n, net_device *dev, u32 addr) noexcept nogil
# Somebody asked for us: remember it. False when there is no room. [neigh_event_ns()]
cdef bint neigh_event_ns(net *n, net_device *dev, u32 addr, const u8 *lladdr) noexcept nogil
cdef bint neigh_update(net *n, net_device *dev, u32 addr, const u8 *lladdr, u32 state, u32 flags,
                       bint create) noexcept nogil

# For _neigh_table.pyx, which is the Python side; the lock is held.
cdef void neigh_unlink(neigh_table *t, neighbour *neigh, sk_buff_head *dead) noexcept nogil
cdef void drop_list(sk_buff_head *dead, u32 reason) noexcept nogil


cdef inline u32 neigh_hashfn(u32 addr, const net_device *dev) noexcept nogil:
    return ((addr ^ dev.ifindex) * <u32>0x9E3779B1) >> 20

cdef inline neighbour *neigh_find(neigh_table *t, u32 addr, const net_device *dev) noexcept nogil:
    cdef neighbour *neigh = t.hash[neigh_hashfn(addr, dev)]
    while neigh != NULL and (neigh.primary_key != addr or neigh.dev != dev):
        neigh = neigh.next
    return neigh

cdef inline u64 reachable_time(net *n, neigh_table *t) noexcept nogil:
    """Between a half and three halves of the base, so that hosts don't ask in step (RFC 4861 section 6.3.2)."""
    cdef u64 base = sysctl_get(n, neigh_base_reachable_time_ms) * NS_PER_MS
    return base / 2 + base / 65536 * t.rand

cdef inline void neigh_set_timer(net *n, neigh_table *t, neighbour *neigh, u64 when) noexcept nogil:
    """Arm an entry's timer. The caller kicks Python when it has let the lock go."""
    neigh.timer = when
    if t.next_timer == 0 or when < t.next_timer:
        t.next_timer = when

cdef inline void kick(net *n) noexcept nogil:
    if n.kick_python != NULL:
        n.kick_python(n)
