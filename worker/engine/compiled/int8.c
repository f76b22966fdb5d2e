/* Linear layers in int8 for x86-64 CPUs with AVX512-VNNI: see kernels/quantized.py.
 *
 * Each row is quantized by its own largest number. Sums of int8 products are exact, so that a row's
 * bits depend neither on the batch nor on the number of threads.
 */

#include "activation.h"

#if defined(__x86_64__)

enum {
    BLOCK = 64,  /* rows of a task; quantized they stay in the cache */
    OFFSET = 128, /* the instruction multiplies unsigned by signed numbers */
};

typedef struct {
    const void *x;            /* (rows, inputs) */
    void *out;                /* (rows, outputs) */
    const uint32_t *weight;   /* (outputs / 16, inputs / 4, 16, 4), int8 */
    const float *scales;      /* (outputs) */
    const float *bias;        /* (outputs) */
    const int32_t *excess;    /* (outputs), OFFSET times the sum of an output's weights */
    int32_t n_rows, n_inputs, n_outputs;
    enum kind kind; /* of x and out */
    enum activation activation;
    atomic_int next, failed;
} Linear;

/* Write a row as numbers of 1 to 255 around 128, and return what one of them stands for. */
TARGET INLINE float quantized(const char *row, int n, uint8_t *out, const enum kind kind) {
    __m512 most = _mm512_set1_ps(1e-10f);
    __mmask16 is_nan = 0;
    for (int c = 0; c < n; c += LANES) {
        const __m512 x = load(row, c, kind);
        most = _mm512_max_ps(most, _mm512_abs_ps(x));
        is_nan |= _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    }
    const float largest = is_nan ? __builtin_nanf("") : _mm512_reduce_max_ps(most);
    const __m512 factor = _mm512_set1_ps(127.0f / largest);
    for (int c = 0; c < n; c += LANES) {
        __m512i x = _mm512_cvtps_epi32(_mm512_mul_ps(load(row, c, kind), factor));
        _mm_store_si128((void *)(out + c),
                        _mm512_cvtepi32_epi8(_mm512_add_epi32(x, _mm512_set1_epi32(OFFSET))));
    }
    return largest / 127.0f;
}

TARGET INLINE void finish(const Linear *job, const float *sums, size_t sums_row, const float *sizes,
                          int row, int n_rows, int column, int n_vectors, const enum kind kind,
                          const enum activation activation) {
    const int bytes = kind == FP32 ? 4 : 2;
    for (int v = 0; v < n_vectors; v++) {
        const int c = column + v * LANES;
        const __m512 scale = _mm512_loadu_ps(job->scales + c), bias = _mm512_loadu_ps(job->bias + c);
        const __m512i excess = _mm512_loadu_si512(job->excess + c);
        for (int i = 0; i < n_rows; i++) {
            __m512i whole = _mm512_loadu_si512(sums + i * sums_row + v * LANES);
            __m512 x = _mm512_cvtepi32_ps(_mm512_sub_epi32(whole, excess));
            x = _mm512_mul_ps(x, _mm512_mul_ps(scale, _mm512_set1_ps(sizes[i])));
            x = activated(_mm512_add_ps(x, bias), activation, kind);
            store((char *)job->out + (size_t)(row + i) * job->n_outputs * bytes, c, x, kind);
        }
    }
}

TARGET INLINE void multiply(Linear *job, uint8_t *buffer, const enum kind kind,
                            const enum activation activation) {
    const int bytes = kind == FP32 ? 4 : 2, depth = job->n_inputs / 4;
    const size_t to_next_vector = (size_t)depth * LANES;
    const int n_vectors = job->n_outputs / LANES;
    for (int start; (start = atomic_fetch_add(&job->next, BLOCK)) < job->n_rows;) {
        const int n = job->n_rows - start < BLOCK ? job->n_rows - start : BLOCK;
        float sizes[BLOCK];
        for (int i = 0; i < n; i++)
            sizes[i] = quantized((const char *)job->x + (size_t)(start + i) * job->n_inputs * bytes,
                                 job->n_inputs, buffer + (size_t)i * job->n_inputs, kind);
        for (int v = 0; v < n_vectors; v += WIDE) {
            const int wide = n_vectors - v < WIDE ? n_vectors - v : WIDE;
            for (int r = 0; r < n; r += ROWS) {
                const uint32_t *rows[ROWS];
                for (int i = 0; i < ROWS; i++)
                    rows[i] = (const uint32_t *)(buffer + (size_t)(r + i < n ? r + i : n - 1) * job->n_inputs);
                float sums[ROWS * WIDE * LANES];
                product(rows, job->weight + v * to_next_vector, LANES, to_next_vector, depth, NULL, sums,
                        WIDE * LANES, wide, INT8);
                finish(job, sums, WIDE * LANES, sizes + r, start + r, n - r < ROWS ? n - r : ROWS,
                       v * LANES, wide, kind, activation);
            }
        }
    }
}

TARGET static void multiply_some(void *data) {
    Linear *job = data;
    uint8_t *buffer = (uint8_t *)scratch_of((size_t)BLOCK * job->n_inputs);
    if (!buffer) atomic_store(&job->failed, 1);
    else if (job->kind == FP32) multiply(job, buffer, FP32, job->activation);
    else if (job->activation == NONE) multiply(job, buffer, BF16, NONE);
    else if (job->activation == GELU) multiply(job, buffer, BF16, GELU);
    else multiply(job, buffer, BF16, job->activation);
}

/* Return 0, or 1 if there was no memory. n_inputs and n_outputs are multiples of 16. */
int rankmill_int8_linear(const void *x, void *out, const void *weight, const float *scales,
                         const float *bias, const int32_t *excess, int32_t n_rows, int32_t n_inputs,
                         int32_t n_outputs, int32_t is_bf16, int32_t activation, int32_t n_threads,
                         Parallel parallel) {
    Linear job = {x,      out,      weight,    scales,    bias,
                  excess, n_rows,   n_inputs,  n_outputs, is_bf16 ? BF16 : FP32,
                  (enum activation)activation, 0, 0};
    run(multiply_some, &job, n_threads, parallel);
    return atomic_load(&job.failed);
}

#endif
