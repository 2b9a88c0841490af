"""Memory for the pools: address space now, pages when first used, huge ones for what is large.

Buffers of 2 KiB in pages of 4 KiB are more pages than the TLB has entries. MADV_HUGEPAGE is advice: a kernel that can't
follow it does as always. Linux puts a mapping at the border of a huge page only if its length is whole huge pages.
"""

from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

cdef extern from "<sys/mman.h>" nogil:
    int MADV_HUGEPAGE
    int madvise(void *addr, size_t length, int advice)

cdef enum:
    HUGE_PAGE = 2 << 20
    HUGE_MIN = 8 << 20             # from here on a mapping lies in huge pages


cdef inline size_t pages_round(size_t size) noexcept nogil:
    """Bytes that are mapped for ``size``."""
    return size if size < HUGE_MIN else (size + HUGE_PAGE - 1) // HUGE_PAGE * HUGE_PAGE


cdef inline void *pages_map(size_t size) noexcept nogil:
    """Map ``size`` bytes of zeros; NULL when there is no room."""
    cdef void *base = mmap(NULL, pages_round(size), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if base == MAP_FAILED:
        return NULL
    if size >= HUGE_MIN:
        madvise(base, pages_round(size), MADV_HUGEPAGE)
    return base


cdef inline void pages_unmap(void *base, size_t size) noexcept nogil:
    """Give back what ``pages_map`` gave for ``size``."""
    munmap(base, pages_round(size))
