"""The vectorised loop of the Internet checksum, and the checksum for the Python layers.

``pmaddwd`` adds two signed words into 32 bits, one instruction for 16 bytes, with AVX2 for 32 and
with AVX-512 for 64. Words are unsigned, so each is moved down by 32768 first (its top bit flipped), and the sum
is moved back up at the end.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

from netstack._abi cimport htonl, htons, u8, u32, u64


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* Blocks of 64 bytes that 32-bit lanes hold without overflow: 2 * 2 * 32768 a block. */
    #define NS_CSUM_RUN 8192u

    #if defined(__x86_64__)
    #include <immintrin.h>

    __attribute__((target("avx2")))
    static uint64_t ns_csum_run_avx2(const uint8_t *p, uint32_t blocks) {
        const __m256i one = _mm256_set1_epi16(1), bias = _mm256_set1_epi16(INT16_MIN);
        __m256i a = _mm256_setzero_si256(), b = a;
        int32_t lane[8];
        int64_t sum = (int64_t)blocks * 32 * 32768;
        #pragma GCC unroll 4
        for (; blocks; blocks--, p += 64) {
            __m256i x = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)p), bias);
            __m256i y = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(p + 32)), bias);
            a = _mm256_add_epi32(a, _mm256_madd_epi16(x, one));
            b = _mm256_add_epi32(b, _mm256_madd_epi16(y, one));
        }
        _mm256_storeu_si256((__m256i *)lane, _mm256_add_epi32(a, b));
        for (int i = 0; i < 8; i++) sum += lane[i];
        return (uint64_t)sum;
    }

    __attribute__((target("avx512bw")))
    static uint64_t ns_csum_run_avx512(const uint8_t *p, uint32_t blocks) {
        const __m512i one = _mm512_set1_epi16(1), bias = _mm512_set1_epi16(INT16_MIN);
        __m512i a = _mm512_setzero_si512(), b = a;
        int64_t sum = (int64_t)blocks * 32 * 32768;
        const int small = blocks <= 512;   /* 16 lanes of at most 512 * 65536 fit into 32 bits together */
        for (; blocks > 1; blocks -= 2, p += 128) {
            __m512i x = _mm512_xor_si512(_mm512_loadu_si512(p), bias);
            __m512i y = _mm512_xor_si512(_mm512_loadu_si512(p + 64), bias);
            a = _mm512_add_epi32(a, _mm512_madd_epi16(x, one));
            b = _mm512_add_epi32(b, _mm512_madd_epi16(y, one));
        }
        if (blocks)
            a = _mm512_add_epi32(a, _mm512_madd_epi16(_mm512_xor_si512(_mm512_loadu_si512(p), bias), one));
        a = _mm512_add_epi32(a, b);
        if (small)
            return (uint64_t)(sum + _mm512_reduce_add_epi32(a));
        /* Lanes of 32 bits are added in 64: a run may leave them nearly full. */
        return (uint64_t)(sum + _mm512_reduce_add_epi64(_mm512_add_epi64(
            _mm512_cvtepi32_epi64(_mm512_castsi512_si256(a)), _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(a, 1)))));
    }

    /* Processors since Ice Lake and Zen 4 run it at full speed; those before lower their clock for it. */
    static inline int ns_has_avx512(void) {
        return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi2");
    }

    static uint64_t ns_csum_run_sse2(const uint8_t *p, uint32_t blocks) {
        const __m128i one = _mm_set1_epi16(1), bias = _mm_set1_epi16(INT16_MIN);
        __m128i a = _mm_setzero_si128(), b = a;
        int32_t lane[4];
        int64_t sum = (int64_t)blocks * 32 * 32768;
        for (; blocks; blocks--, p += 64) {
            for (int i = 0; i < 64; i += 32) {
                __m128i x = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(p + i)), bias);
                __m128i y = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(p + i + 16)), bias);
                a = _mm_add_epi32(a, _mm_madd_epi16(x, one));
                b = _mm_add_epi32(b, _mm_madd_epi16(y, one));
            }
        }
        _mm_storeu_si128((__m128i *)lane, _mm_add_epi32(a, b));
        for (int i = 0; i < 4; i++) sum += lane[i];
        return (uint64_t)sum;
    }
    #endif

    /* Four sums that do not wait for each other; compilers vectorise it. */
    static uint64_t ns_csum_run_plain(const uint8_t *p, uint32_t blocks) {
        uint64_t a = 0, b = 0, c = 0, d = 0;
        uint32_t w[16];
        for (; blocks; blocks--, p += 64) {
            memcpy(w, p, 64);
            for (int i = 0; i < 16; i += 4) {
                a += w[i]; b += w[i + 1]; c += w[i + 2]; d += w[i + 3];
            }
        }
        return a + b + c + d;
    }

    /* loop: 0 the best of this machine, 1 plain, 2 SSE2, 3 AVX2, 4 AVX-512. */
    static int ns_csum_has(int loop) {
    #if defined(__x86_64__)
        return loop < 3 || (loop == 3 && __builtin_cpu_supports("avx2")) || (loop == 4 && ns_has_avx512());
    #else
        return loop < 2;
    #endif
    }
    static inline uint64_t ns_csum_run(const uint8_t *p, uint32_t blocks, int loop) {
    #if defined(__x86_64__)
        if (loop == 4 || (loop == 0 && ns_has_avx512()))
            return ns_csum_run_avx512(p, blocks);
        if (loop == 3 || (loop == 0 && __builtin_cpu_supports("avx2")))
            return ns_csum_run_avx2(p, blocks);
        if (loop != 1)
            return ns_csum_run_sse2(p, blocks);
    #endif
        return ns_csum_run_plain(p, blocks);
    }
    static uint64_t ns_csum_blocks(const uint8_t *p, uint32_t blocks, int loop) {
        uint64_t sum = 0;
        while (blocks > NS_CSUM_RUN) {
            sum += ns_csum_run(p, NS_CSUM_RUN, loop);
            p += NS_CSUM_RUN * 64;
            blocks -= NS_CSUM_RUN;
        }
        return sum + ns_csum_run(p, blocks, loop);
    }
    """
    bint ns_csum_has(int loop) noexcept nogil
    u64 ns_csum_blocks(const u8 *p, u32 blocks, int loop) noexcept nogil


cdef u64 csum_blocks(const u8 *p, u32 blocks) noexcept nogil:
    """Sum ``blocks`` times 64 bytes, without folding."""
    return ns_csum_blocks(p, blocks, 0)


def internet_checksum(data, u32 initial=0):
    """Give the checksum of bytes-like ``data`` as a number: 0 over data with a right one in it.

    ``initial`` is added to the sum: that of a pseudo header, say.
    """
    cdef Py_buffer view
    cdef u32 sum
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    sum = csum_partial(<const u8 *>view.buf, <u32>view.len, htonl(initial))
    PyBuffer_Release(&view)
    return htons(csum_fold(sum))


def _loops(bytes data):
    """Sum whole blocks with every loop this machine has; they must agree. For tests only."""
    cdef const u8 *p = data
    cdef u32 blocks = <u32>(len(data) >> 6)
    return [
        htons(csum_fold(csum_fold64(ns_csum_blocks(p, blocks, loop))))
        for loop in range(5) if ns_csum_has(loop)
    ]
