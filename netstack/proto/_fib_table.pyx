"""fib_table: prefixes and what becomes of packets to them, changed while others read.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       routes                           proto/_fib.pyx
Out      the longest prefix               proto/_route.pyx
Context  process to change it, one at a time; any thread to read it
Kernel   fib_table_insert(), fib_table_delete(), net/ipv4/fib_trie.c

A hash over (prefix, length), never more than half full. A reader finds a route or finds none, at every moment: an
entry is complete before its place points to it, and a place once taken keeps its key. So a route costs the same to
add however many there are. What was taken out is freed by the caller, when nobody reads it any more.
"""

from libc.stdlib cimport calloc, free

from netstack._abi cimport store_release64, store_release_ptr


cdef fib_table *fib_table_create(u32 count) noexcept:
    """Make an empty table with room for ``count`` routes at half load, or NULL."""
    cdef u32 places = 8
    cdef fib_table *table
    while places < 2 * count:
        places *= 2
    table = <fib_table *>calloc(1, sizeof(fib_table) + places * sizeof(fib_place))
    if table != NULL:
        table.mask = places - 1
    return table


cdef void fib_entry_free(fib_entry *entry) noexcept:
    """Free all the routes to a prefix."""
    cdef fib_entry *more
    while entry != NULL:
        more = entry.more
        free(entry)
        entry = more


cdef void fib_table_free(fib_table *table, bint entries) noexcept:
    """Free a table that nobody reads, and with ``entries`` what it points to."""
    cdef u32 i
    if entries and table != NULL:
        for i in range(table.mask + 1):
            fib_entry_free(table.hash[i].entry)
    free(table)


cdef void lengths_changed(fib_table *table, u32 length, int by) noexcept:
    table.of_length[length] += by
    if table.of_length[length]:
        store_release64(&table.lengths, table.lengths | <u64>1 << length)
    else:
        store_release64(&table.lengths, table.lengths & ~(<u64>1 << length))


cdef fib_entry *fib_table_insert(fib_table *table, fib_entry *entry) noexcept:
    cdef u64 key = fib_key(entry.prefix, entry.prefixlen)
    cdef fib_place *place = fib_place_of(table, key)
    cdef fib_entry *old = place.entry
    store_release_ptr(<void **>&place.entry, entry)
    if place.key == 0:
        table.used += 1
        store_release64(&place.key, key)
    if old == NULL:
        lengths_changed(table, entry.prefixlen, 1)
    return old


cdef fib_entry *fib_table_delete(fib_table *table, u32 prefix, u32 length) noexcept:
    """Take a route out; it comes back, or NULL when there was none."""
    cdef fib_place *place = fib_place_of(table, fib_key(prefix, length))
    cdef fib_entry *old = place.entry
    if old != NULL:
        store_release_ptr(<void **>&place.entry, NULL)
        lengths_changed(table, length, -1)
    return old


cdef bint fib_table_is_full(const fib_table *table, u32 more) noexcept:
    """Would the table be more than half full with ``more`` routes?"""
    return 2 * (<u64>table.used + more) > <u64>table.mask + 1


cdef fib_table *fib_table_grow(const fib_table *old, u32 more) noexcept:
    """Make a table of the same entries with room for as many again, or NULL."""
    cdef u32 routes = 0
    cdef u32 i
    cdef fib_table *table
    for i in range(33):
        routes += old.of_length[i]
    table = fib_table_create(2 * (routes + more))
    if table == NULL:
        return NULL
    for i in range(old.mask + 1):
        if old.hash[i].entry != NULL:
            fib_table_insert(table, old.hash[i].entry)
    return table
