"""The machine as C sees it: integers, byte order, atomics, locks, time.

Everything here is a macro or an inline function; there is no ``_abi`` module at run time.
"""

from libc.stdint cimport (
    int32_t as i32, int64_t as i64, uint8_t as u8, uint16_t as u16, uint32_t as u32, uint64_t as u64, uintptr_t,
)
from libc.string cimport memcpy


cdef extern from *:
    """
    #include <errno.h>
    #include <stdint.h>
    #include <sched.h>
    #include <time.h>
    #include <unistd.h>
    #include <sys/syscall.h>

    /* Branch hints, prefetch, alignment. */
    #define ns_likely(x)   __builtin_expect(!!(x), 1)
    #define ns_unlikely(x) __builtin_expect(!!(x), 0)
    #define ns_prefetch(p) __builtin_prefetch((p), 0, 3)
    #define ns_prefetchw(p) __builtin_prefetch((p), 1, 3)

    /* Fields that two threads touch go through these and through nothing else. */
    #define ns_load_acquire(p)       __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define ns_load_relaxed(p)       __atomic_load_n((p), __ATOMIC_RELAXED)
    #define ns_load_seq(p)           __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define ns_store_release(p, v)   __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define ns_store_relaxed(p, v)   __atomic_store_n((p), (v), __ATOMIC_RELAXED)
    #define ns_store_seq(p, v)       __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define ns_fetch_add(p, v)       __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
    #define ns_add_relaxed(p, v)     ((void)__atomic_fetch_add((p), (v), __ATOMIC_RELAXED))
    #define ns_fetch_or(p, v)        __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
    #define ns_fetch_and(p, v)       __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST)
    #define ns_exchange(p, v)        __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
    #define ns_fence()               __atomic_thread_fence(__ATOMIC_SEQ_CST)
    /* The slot has one writer: a plain add, but one that readers may watch without a data race. */
    #define ns_add_owned(p, v) \\
        __atomic_store_n((p), __atomic_load_n((p), __ATOMIC_RELAXED) + (v), __ATOMIC_RELAXED)

    static inline int ns_cas32(uint32_t *p, uint32_t old, uint32_t new_) {
        return __atomic_compare_exchange_n(p, &old, new_, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    static inline int ns_cas_ptr(void **p, void *old, void *new_) {
        return __atomic_compare_exchange_n(p, &old, new_, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }

    static inline void ns_cpu_relax(void) {
    #if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ __volatile__("yield");
    #endif
    }

    /* Held for a few dozen instructions; a holder that lost its core is waited for with sched_yield. */
    static inline int ns_spin_trylock(uint32_t *l) {
        return __atomic_load_n(l, __ATOMIC_RELAXED) == 0 && __atomic_exchange_n(l, 1u, __ATOMIC_ACQUIRE) == 0;
    }
    static inline void ns_spin_lock(uint32_t *l) {
        unsigned n = 0;
        while (__atomic_exchange_n(l, 1u, __ATOMIC_ACQUIRE)) {
            while (__atomic_load_n(l, __ATOMIC_RELAXED)) {
                if (++n & 63) ns_cpu_relax(); else sched_yield();
            }
        }
    }
    static inline void ns_spin_unlock(uint32_t *l) { __atomic_store_n(l, 0u, __ATOMIC_RELEASE); }

    static inline uint16_t ns_bswap16(uint16_t v) { return __builtin_bswap16(v); }
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define ns_be16(v) __builtin_bswap16(v)
    #define ns_be32(v) __builtin_bswap32(v)
    #define ns_le16(v) ((uint16_t)(v))
    #define ns_le32(v) ((uint32_t)(v))
    #define ns_le64(v) ((uint64_t)(v))
    #else
    #define ns_be16(v) ((uint16_t)(v))
    #define ns_be32(v) ((uint32_t)(v))
    #define ns_le16(v) __builtin_bswap16(v)
    #define ns_le32(v) __builtin_bswap32(v)
    #define ns_le64(v) __builtin_bswap64(v)
    #endif

    static inline uint64_t ns_realtime(void) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
    }

    static inline uint64_t ns_monotonic(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
    }

    /* read(2) and write(2) as an instruction in the caller's own code; what they give, or -errno. Where the kernel
     * defends its returns (SRSO on AMD) the first `ret` to a caller from before a system call is predicted wrong, and
     * takes 200 ns: a loop that has the instruction itself has no such return (docs/benchmarks.md). Sanitizers want to
     * see the calls. */
    #if defined(__x86_64__) && !defined(__ILP32__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    static inline long ns_sys_rw(long nr, int fd, const void *buf, size_t size) {
        long got;
        __asm__ __volatile__("syscall" : "=a"(got) : "0"(nr), "D"((long)fd), "S"(buf), "d"(size)
                             : "rcx", "r11", "memory");
        return got;
    }
    #define ns_sys_read(fd, buf, size)  ns_sys_rw(SYS_read, (fd), (buf), (size))
    #define ns_sys_write(fd, buf, size) ns_sys_rw(SYS_write, (fd), (buf), (size))
    #else
    static inline long ns_sys_read(int fd, void *buf, size_t size) {
        ssize_t got = read(fd, buf, size);
        return got < 0 ? -(long)errno : got;
    }
    static inline long ns_sys_write(int fd, const void *buf, size_t size) {
        ssize_t got = write(fd, buf, size);
        return got < 0 ? -(long)errno : got;
    }
    #endif

    /* Invariants of ours, looked at by NETSTACK_DEBUG and sanitizer builds only: the program ends. */
    #ifdef NETSTACK_DEBUG
    #include <stdio.h>
    #include <stdlib.h>
    #define NS_DEBUG 1
    #define ns_bug_on(x) ((x) ? (fprintf(stderr, "netstack BUG at %s:%d: %s\\n", __FILE__, __LINE__, #x), abort()) \\
                              : (void)0)
    #else
    #define NS_DEBUG 0
    #define ns_bug_on(x) ((void)sizeof(x))
    #endif

    /* Whoever touches poisoned memory is reported by AddressSanitizer. */
    #ifdef __SANITIZE_ADDRESS__
    #include <sanitizer/asan_interface.h>
    #define ns_poison(p, n)   __asan_poison_memory_region((p), (n))
    #define ns_unpoison(p, n) __asan_unpoison_memory_region((p), (n))
    #else
    #define ns_poison(p, n)   ((void)sizeof(p), (void)sizeof(n))
    #define ns_unpoison(p, n) ((void)sizeof(p), (void)sizeof(n))
    #endif
    """
    const bint NS_DEBUG
    void bug_on "ns_bug_on"(bint x) noexcept nogil
    void poison "ns_poison"(const void *p, size_t size) noexcept nogil
    void unpoison "ns_unpoison"(const void *p, size_t size) noexcept nogil

    bint likely "ns_likely"(bint x) noexcept nogil
    bint unlikely "ns_unlikely"(bint x) noexcept nogil
    void prefetch "ns_prefetch"(const void *p) noexcept nogil
    void prefetchw "ns_prefetchw"(const void *p) noexcept nogil

    u16 load_acquire16 "ns_load_acquire"(u16 *p) noexcept nogil
    u32 load_acquire32 "ns_load_acquire"(u32 *p) noexcept nogil
    u64 load_acquire64 "ns_load_acquire"(u64 *p) noexcept nogil
    void *load_acquire_ptr "ns_load_acquire"(void **p) noexcept nogil
    u32 load_relaxed32 "ns_load_relaxed"(u32 *p) noexcept nogil
    u64 load_relaxed64 "ns_load_relaxed"(u64 *p) noexcept nogil
    u32 load_seq32 "ns_load_seq"(u32 *p) noexcept nogil
    void store_release16 "ns_store_release"(u16 *p, u16 v) noexcept nogil
    void store_release32 "ns_store_release"(u32 *p, u32 v) noexcept nogil
    void store_release64 "ns_store_release"(u64 *p, u64 v) noexcept nogil
    void store_release_ptr "ns_store_release"(void **p, void *v) noexcept nogil
    void store_relaxed32 "ns_store_relaxed"(u32 *p, u32 v) noexcept nogil
    void store_relaxed64 "ns_store_relaxed"(u64 *p, u64 v) noexcept nogil
    void store_seq32 "ns_store_seq"(u32 *p, u32 v) noexcept nogil
    u32 fetch_add32 "ns_fetch_add"(u32 *p, u32 v) noexcept nogil
    u64 fetch_add64 "ns_fetch_add"(u64 *p, u64 v) noexcept nogil
    void add_relaxed64 "ns_add_relaxed"(u64 *p, u64 v) noexcept nogil
    void add_relaxed32 "ns_add_relaxed"(u32 *p, u32 v) noexcept nogil
    void add_owned64 "ns_add_owned"(u64 *p, u64 v) noexcept nogil
    u32 fetch_or32 "ns_fetch_or"(u32 *p, u32 v) noexcept nogil
    u32 fetch_and32 "ns_fetch_and"(u32 *p, u32 v) noexcept nogil
    u32 exchange32 "ns_exchange"(u32 *p, u32 v) noexcept nogil
    void *exchange_ptr "ns_exchange"(void **p, void *v) noexcept nogil
    bint cas32 "ns_cas32"(u32 *p, u32 old, u32 new) noexcept nogil
    bint cas_ptr "ns_cas_ptr"(void **p, void *old, void *new) noexcept nogil
    void fence "ns_fence"() noexcept nogil

    void cpu_relax "ns_cpu_relax"() noexcept nogil
    bint spin_trylock "ns_spin_trylock"(u32 *lock) noexcept nogil
    void spin_lock "ns_spin_lock"(u32 *lock) noexcept nogil
    void spin_unlock "ns_spin_unlock"(u32 *lock) noexcept nogil

    u16 htons "ns_be16"(u16 v) noexcept nogil
    u16 ntohs "ns_be16"(u16 v) noexcept nogil
    u32 htonl "ns_be32"(u32 v) noexcept nogil
    u32 ntohl "ns_be32"(u32 v) noexcept nogil
    u16 cpu_to_le16 "ns_le16"(u16 v) noexcept nogil
    u32 cpu_to_le32 "ns_le32"(u32 v) noexcept nogil
    u64 cpu_to_le64 "ns_le64"(u64 v) noexcept nogil

    long sys_read "ns_sys_read"(int fd, void *buf, size_t size) noexcept nogil
    long sys_write "ns_sys_write"(int fd, const void *buf, size_t size) noexcept nogil

    u64 monotonic_ns "ns_monotonic"() noexcept nogil
    u64 realtime_ns "ns_realtime"() noexcept nogil


# Reads and writes of network byte order at any alignment.

cdef inline u16 get_be16(const u8 *p) noexcept nogil:
    cdef u16 v
    memcpy(&v, p, 2)
    return ntohs(v)

cdef inline u32 get_be32(const u8 *p) noexcept nogil:
    cdef u32 v
    memcpy(&v, p, 4)
    return ntohl(v)

cdef inline void put_be16(u8 *p, u16 v) noexcept nogil:
    v = htons(v)
    memcpy(p, &v, 2)

cdef inline void put_be32(u8 *p, u32 v) noexcept nogil:
    v = htonl(v)
    memcpy(p, &v, 4)
