"""The routing table as the data path reads it; see ``_fib_table.pyx``."""

from netstack._abi cimport load_acquire_ptr, load_relaxed64, u8, u16, u32, u64
from netstack._net cimport net_device


cdef struct fib_entry:             # never changed once it can be found
    u32 prefix
    u32 gateway                    # 0: on the link
    u32 prefsrc
    u8 prefixlen
    u8 type                        # RTN_*
    u16 pad
    net_device *dev
    fib_entry *more                # the next best route to the prefix: for what has to leave through a device
    fib_entry *next                # of those that wait to be freed

cdef struct fib_place:
    u64 key                        # see fib_key(); 0: free, and a search ends here
    fib_entry *entry               # NULL: no longer a route

cdef struct fib_table:
    u64 lengths                    # bit l: there are routes of prefix length l
    u32 mask                       # places of the hash less one
    u32 used                       # places with a key
    u32 of_length[33]              # routes of each prefix length
    fib_place hash[1]

cdef fib_table *fib_table_create(u32 count) noexcept
cdef void fib_entry_free(fib_entry *entry) noexcept
cdef void fib_table_free(fib_table *table, bint entries) noexcept
# Put a route, with those behind it, in place of what has its prefix, which comes back, or NULL. There must be room.
cdef fib_entry *fib_table_insert(fib_table *table, fib_entry *entry) noexcept
cdef fib_entry *fib_table_delete(fib_table *table, u32 prefix, u32 length) noexcept
cdef bint fib_table_is_full(const fib_table *table, u32 more) noexcept
cdef fib_table *fib_table_grow(const fib_table *old, u32 more) noexcept


cdef inline u32 prefix_mask(u32 length) noexcept nogil:
    return <u32>(<u64>0xFFFFFFFF << (32 - length))

cdef inline u64 fib_key(u32 prefix, u32 length) noexcept nogil:
    return <u64>prefix << 8 | length | 0x80

cdef inline u32 fib_hash(u64 key) noexcept nogil:
    return <u32>(key * <u64>0x9E3779B97F4A7C15 >> 32)

cdef inline fib_place *fib_place_of(fib_table *table, u64 key) noexcept nogil:
    """Find the place of a prefix, or the free one that it would take."""
    cdef u32 at = fib_hash(key) & table.mask
    cdef u64 have
    while True:
        have = load_relaxed64(&table.hash[at].key)
        if have == key or have == 0:
            return &table.hash[at]
        at = (at + 1) & table.mask

cdef inline const fib_entry *fib_find(fib_table *table, u32 prefix, u32 length) noexcept nogil:
    """Find the route with exactly this prefix, or NULL."""
    return <const fib_entry *>load_acquire_ptr(<void **>&fib_place_of(table, fib_key(prefix, length)).entry)
