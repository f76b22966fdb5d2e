/* What the kernels share: vectors, products of 8 rows, threads. */

#ifndef RANKMILL_PRODUCT_H
#define RANKMILL_PRODUCT_H

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
};

/* Numbers that a product multiplies; 32 bits hold one, two or four of them. */
enum kind { FP32, BF16, INT8 };

/* GOMP_parallel of the OpenMP library that torch has loaded: its threads do the work. */
typedef void (*Parallel)(void (*work)(void *), void *data, unsigned n_threads, unsigned flags);

static inline void run(void (*work)(void *), void *data, int n_threads, Parallel parallel) {
    if (n_threads > 1 && parallel) parallel(work, data, (unsigned)n_threads, 0);
    else work(data);
}

static inline size_t rounded(size_t n, size_t step) { return (n + step - 1) / step * step; }

/* One buffer a thread, kept for the next call: the system would map a large one anew each time. */
static inline char *scratch_of(size_t bytes) {
    static _Thread_local char *kept;
    static _Thread_local size_t kept_bytes;
    if (bytes > kept_bytes) {
        free(kept);
        kept = aligned_alloc(64, rounded(bytes, 64));
        kept_bytes = kept ? bytes : 0;
    }
    return kept;
}

TARGET INLINE __m512i multiply_add(__m512i sum, uint32_t one, __m512i many, const enum kind kind) {
    __m512i all = _mm512_set1_epi32((int)one);
    if (kind == INT8) return _mm512_dpbusd_epi32(sum, all, many);
    if (kind == BF16) return (__m512i)_mm512_dpbf16_ps((__m512)sum, (__m512bh)all, (__m512bh)many);
    return (__m512i)_mm512_fmadd_ps((__m512)all, (__m512)many, (__m512)sum);
}

/* Multiply 8 rows by n_vectors x 16 columns.
 *
 * columns + d * to_next_depth + v * to_next_vector holds depth d of the columns of vector v. The
 * sums are fp32, of INT8 they are int32.
 */
TARGET INLINE void narrow_product(const uint32_t *const rows[ROWS], const uint32_t *columns, size_t to_next_depth,
                                  size_t to_next_vector, int depth, float *out, size_t out_row, const int n_vectors,
                                  const enum kind kind) {
    __m512i sums[ROWS][WIDE];
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int v = 0; v < n_vectors; v++) sums[i][v] = _mm512_setzero_si512();
    for (int d = 0; d < depth; d++) {
        __m512i column[WIDE];
        UNROLL for (int v = 0; v < n_vectors; v++)
            column[v] = _mm512_load_si512(columns + d * to_next_depth + v * to_next_vector);
        UNROLL for (int i = 0; i < ROWS; i++)
            UNROLL for (int v = 0; v < n_vectors; v++)
                sums[i][v] = multiply_add(sums[i][v], rows[i][d], column[v], kind);
    }
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int v = 0; v < n_vectors; v++)
            _mm512_storeu_si512(out + i * out_row + v * LANES, sums[i][v]);
}

/* Multiply 8 rows by any number of vectors of columns, three at a time. */
TARGET INLINE void product(const uint32_t *const rows[ROWS], const uint32_t *columns, size_t to_next_depth,
                           size_t to_next_vector, int depth, float *out, size_t out_row, int n_vectors,
                           const enum kind kind) {
    int v = 0;
    for (; n_vectors - v >= 3 && n_vectors - v != 4; v += 3)
        narrow_product(rows, columns + v * to_next_vector, to_next_depth, to_next_vector, depth, out + v * LANES,
                       out_row, 3, kind);
    for (; n_vectors - v >= 2; v += 2)
        narrow_product(rows, columns + v * to_next_vector, to_next_depth, to_next_vector, depth, out + v * LANES,
                       out_row, 2, kind);
    if (v < n_vectors)
        narrow_product(rows, columns + v * to_next_vector, to_next_depth, to_next_vector, depth, out + v * LANES,
                       out_row, 1, kind);
}

/* Return 2 to the power of x. The Taylor series for its fraction has a relative error of 2e-6, or 5e-9 if exact. */
TARGET INLINE __m512 power_of_two(__m512 x, const int exact) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 rest = _mm512_sub_ps(x, whole);
    __m512 sum = _mm512_set1_ps(1.3333558e-3f);
    if (exact) {
        sum = _mm512_fmadd_ps(_mm512_set1_ps(1.5252734e-5f), rest, _mm512_set1_ps(1.5403530e-4f));
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.3333558e-3f));
    }
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(9.6181291e-3f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(5.5504109e-2f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(2.4022651e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(6.9314718e-1f));
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(sum, whole);
}

#endif
#endif
