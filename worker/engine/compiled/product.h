/* What the kernels share: vectors, products of 8 rows, threads. */

#ifndef RANKMILL_PRODUCT_H
#define RANKMILL_PRODUCT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni")))
#define UNROLL _Pragma("GCC unroll 16")

enum {
    LANES = 16, /* 32-bit numbers of a vector */
    ROWS = 8,   /* rows of a product; 8 x 3 vectors of sums fit into the 32 registers */
    WIDE = 3,
    TASKS_A_THREAD = 4, /* or more, so that no thread waits long for another */
};

/* Numbers that a product multiplies; 32 bits hold one, two or four of them. FP16 is only loaded. */
enum kind { FP32, BF16, INT8, FP16 };

/* GOMP_parallel of the OpenMP library that torch has loaded: its threads do the work. */
typedef void (*Parallel)(void (*work)(void *), void *data, unsigned n_threads, unsigned flags);

static inline void run(void (*work)(void *), void *data, int n_threads, Parallel parallel) {
    if (n_threads > 1 && parallel) parallel(work, data, (unsigned)n_threads, 0);
    else work(data);
}

static inline size_t rounded(size_t n, size_t step) { return (n + step - 1) / step * step; }

static pthread_key_t scratch_key; /* frees a thread's buffer when the thread ends */
static int has_scratch_key;
static void make_scratch_key(void) { has_scratch_key = !pthread_key_create(&scratch_key, free); }

/* One buffer a thread, kept for the next call: the system would map a large one again each time. */
static inline char *scratch_of(size_t bytes) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static _Thread_local char *kept;
    static _Thread_local size_t kept_bytes;
    if (bytes > kept_bytes) {
        pthread_once(&once, make_scratch_key);
        free(kept);
        kept = aligned_alloc(64, rounded(bytes, 64));
        kept_bytes = kept ? bytes : 0;
        if (has_scratch_key) pthread_setspecific(scratch_key, kept);
    }
    return kept;
}

/* Load 16 numbers of a row in FP32, BF16 or FP16. */
TARGET INLINE __m512 load(const char *row, int column, const enum kind kind) {
    if (kind == FP32) return _mm512_loadu_ps((const float *)row + column);
    __m256i x = _mm256_loadu_si256((const void *)(row + column * 2));
    if (kind == FP16) return _mm512_cvtph_ps(x);
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16);
}

/* Store 16 numbers of a row in FP32 or BF16. */
TARGET INLINE void store(char *row, int column, __m512 x, const enum kind kind) {
    if (kind == FP32) _mm512_storeu_ps((float *)row + column, x);
    else _mm256_storeu_si256((void *)(row + column * 2), (__m256i)_mm512_cvtneps_pbh(x));
}

TARGET INLINE __m512i multiply_add(__m512i sum, uint32_t one, __m512i many, const enum kind kind) {
    __m512i all = _mm512_set1_epi32((int)one);
    if (kind == INT8) return _mm512_dpbusd_epi32(sum, all, many);
    if (kind == BF16) return (__m512i)_mm512_dpbf16_ps((__m512)sum, (__m512bh)all, (__m512bh)many);
    return (__m512i)_mm512_fmadd_ps((__m512)all, (__m512)many, (__m512)sum);
}

/* Multiply 8 rows by n_vectors x 16 columns.
 *
 * columns + d * to_next_depth + v * to_next_vector holds depth d of the columns of vector v. A sum
 * begins with its column's number of `first`, or with 0 without it. Sums are fp32, of INT8 int32.
 */
TARGET INLINE void narrow_product(const uint32_t *const *rows, const uint32_t *columns,
                                  size_t to_next_depth, size_t to_next_vector, int depth,
                                  const float *first, float *out, size_t out_row,
                                  const int n_vectors, const enum kind kind) {
    __m512i sums[ROWS][WIDE];
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int v = 0; v < n_vectors; v++)
            sums[i][v] = first ? _mm512_loadu_si512(first + v * LANES) : _mm512_setzero_si512();
    _Pragma("GCC unroll 2") for (int d = 0; d < depth; d++) {
        __m512i column[WIDE];
        UNROLL for (int v = 0; v < n_vectors; v++)
            column[v] = _mm512_load_si512(columns + d * to_next_depth + v * to_next_vector);
        UNROLL for (int i = 0; i < ROWS; i++) {
            UNROLL for (int v = 0; v < n_vectors; v++)
                sums[i][v] = multiply_add(sums[i][v], rows[i][d], column[v], kind);
        }
    }
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int v = 0; v < n_vectors; v++)
            _mm512_storeu_si512(out + i * out_row + v * LANES, sums[i][v]);
}

/* A function of its own for each loop: inlined into a larger one, its sums would not stay in
 * registers.
 */
#define PRODUCT(name, kind, n_vectors)                                                           \
    TARGET static __attribute__((noinline)) void name(                                           \
        const uint32_t *const *rows, const uint32_t *columns, size_t to_next_depth,              \
        size_t to_next_vector, int depth, const float *first, float *out, size_t out_row) {      \
        narrow_product(rows, columns, to_next_depth, to_next_vector, depth, first, out, out_row, \
                       n_vectors, kind);                                                         \
    }
#define PRODUCTS(kind) PRODUCT(kind##_1, kind, 1) PRODUCT(kind##_2, kind, 2) PRODUCT(kind##_3, kind, 3)
PRODUCTS(FP32)
PRODUCTS(BF16)
PRODUCTS(INT8)

typedef void (*Product)(const uint32_t *const *rows, const uint32_t *columns, size_t to_next_depth,
                        size_t to_next_vector, int depth, const float *first, float *out,
                        size_t out_row);
static const Product PRODUCTS_OF[3][WIDE] = {
    {FP32_1, FP32_2, FP32_3}, {BF16_1, BF16_2, BF16_3}, {INT8_1, INT8_2, INT8_3}};

/* Multiply 8 rows by any number of vectors of columns, three at a time. */
TARGET INLINE void product(const uint32_t *const *rows, const uint32_t *columns,
                           size_t to_next_depth, size_t to_next_vector, int depth,
                           const float *first, float *out, size_t out_row, int n_vectors,
                           const enum kind kind) {
    for (int v = 0; v < n_vectors;) {
        const int left = n_vectors - v, n = left == 4 || left == 2 ? 2 : left == 1 ? 1 : 3;
        PRODUCTS_OF[kind][n - 1](rows, columns + v * to_next_vector, to_next_depth, to_next_vector,
                                 depth, first ? first + v * LANES : NULL, out + v * LANES, out_row);
        v += n;
    }
}

/* Return 2 to the power of x, at most 127; below -100 it is that of -100, and of a NaN a NaN.
 *
 * It is that of the nearest whole number, times a polynomial of the rest. Its largest relative
 * error is 2e-7, of one that is rounded to bf16 1e-4.
 */
TARGET INLINE __m512 power_of_two(__m512 x, const enum kind kind) {
    /* Added, it leaves the whole number and the exponent's excess of 127 in the lowest bits. */
    const __m512 shift = _mm512_set1_ps(0x1.8p23f + 127.0f);
    x = _mm512_max_ps(_mm512_set1_ps(-100.0f), x);
    const __m512 shifted = _mm512_add_ps(x, shift);
    const __m512 rest = _mm512_sub_ps(x, _mm512_sub_ps(shifted, shift));
    __m512 sum;
    if (kind == FP32) {
        sum = _mm512_set1_ps(1.326472723e-03f);
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(9.671512673e-03f));
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(5.550733743e-02f));
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(2.402224208e-01f));
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(6.931469776e-01f));
    } else {
        sum = _mm512_set1_ps(5.500893135e-02f);
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(2.422109613e-01f));
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(6.932829273e-01f));
    }
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f));
    return _mm512_mul_ps(sum, (__m512)_mm512_slli_epi32((__m512i)shifted, 23));
}

#endif
#endif
