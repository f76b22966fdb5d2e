/* What happens to rows between products, for x86-64 CPUs with AVX-512: see kernels/compiled_rows.py.
 *
 * A row is computed by one thread from its own numbers alone, so that its bits depend neither on
 * the batch nor on the number of threads.
 */

#include "product.h"

#if defined(__x86_64__)

enum { SOURCES = 3, SOME_ROWS = 32 };

typedef struct {
    const void *numbers;   /* (rows, width) */
    const int32_t *places; /* the row of each output; NULL: its own */
    int32_t n_rows;
    enum kind kind;
} Source;

typedef struct {
    const Source *sources;
    int32_t n_sources, n_rows, width;
    const float *weight, *bias; /* (width); bias may be NULL */
    float eps;
    void *sum, *out; /* (rows, width); sum may be NULL */
    enum kind kind;  /* of sum and out */
    atomic_int next, failed;
} Norm;

typedef struct {
    void *qkv;                /* (rows, 3, heads, head_dim) */
    const float *turns;       /* (positions, head_dim), a cosine and a sine for each two numbers */
    const int32_t *positions; /* (rows) */
    int32_t n_rows, n_positions, n_heads, head_dim;
    enum kind kind;
    atomic_int next, failed;
} Rotation;

/* Write the sum of an output's rows of all sources in fp32; return 0 if one does not exist. */
TARGET INLINE int add_up(const Norm *job, int row, float *out) {
    for (int s = 0; s < job->n_sources; s++) {
        const Source *source = job->sources + s;
        const int place = source->places ? source->places[row] : row;
        if (place < 0 || place >= source->n_rows) return 0;
        const char *numbers = source->numbers;
        numbers += (size_t)place * job->width * (source->kind == FP32 ? 4 : 2);
        for (int c = 0; c < job->width; c += LANES) {
            __m512 x = load(numbers, c, source->kind);
            if (s) x = _mm512_add_ps(_mm512_load_ps(out + c), x);
            _mm512_store_ps(out + c, x);
        }
    }
    return 1;
}

TARGET INLINE void normalise(const Norm *job, const float *row, char *out) {
    __m512 sum = _mm512_setzero_ps(), squares = sum;
    for (int c = 0; c < job->width; c += LANES) sum = _mm512_add_ps(sum, _mm512_load_ps(row + c));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / job->width);
    for (int c = 0; c < job->width; c += LANES) {
        const __m512 x = _mm512_sub_ps(_mm512_load_ps(row + c), mean);
        squares = _mm512_fmadd_ps(x, x, squares);
    }
    const float variance = _mm512_reduce_add_ps(squares) / job->width;
    const __m512 factor = _mm512_set1_ps(1.0f / __builtin_sqrtf(variance + job->eps));
    for (int c = 0; c < job->width; c += LANES) {
        __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(row + c), mean), factor);
        const __m512 bias = job->bias ? _mm512_loadu_ps(job->bias + c) : _mm512_setzero_ps();
        store(out, c, _mm512_fmadd_ps(x, _mm512_loadu_ps(job->weight + c), bias), job->kind);
    }
}

TARGET static void norm_some(void *data) {
    Norm *job = data;
    float *row = (float *)scratch_of((size_t)job->width * sizeof(float));
    if (!row) atomic_store(&job->failed, 1);
    const size_t row_bytes = (size_t)job->width * (job->kind == FP32 ? 4 : 2);
    for (int r; row && (r = atomic_fetch_add(&job->next, SOME_ROWS)) < job->n_rows;)
        for (int i = r; i < r + SOME_ROWS && i < job->n_rows; i++) {
            if (!add_up(job, i, row)) {
                atomic_store(&job->failed, 2);
                return;
            }
            for (int c = 0; job->sum && c < job->width; c += LANES)
                store((char *)job->sum + i * row_bytes, c, _mm512_load_ps(row + c), job->kind);
            normalise(job, row, (char *)job->out + i * row_bytes);
        }
}

/* Return 0, 1 if there was no memory, or 2 for a place outside its source. width is a multiple of
 * 16.
 */
int rankmill_norm(const Source *sources, int32_t n_sources, const float *weight, const float *bias,
                  void *sum, void *out, int32_t n_rows, int32_t width, float eps, int32_t is_bf16,
                  int32_t n_threads, Parallel parallel) {
    Norm job = {sources, n_sources, n_rows, width, weight, bias, eps,
                sum,     out,       is_bf16 ? BF16 : FP32, 0, 0};
    run(norm_some, &job, n_threads, parallel);
    return atomic_load(&job.failed);
}

TARGET INLINE void rotate(const Rotation *job, char *numbers, const float *turns,
                          const enum kind kind) {
    for (int c = 0; c < job->head_dim; c += LANES) {
        const __m512 turn = _mm512_loadu_ps(turns + c), x = load(numbers, c, kind);
        const __m512 crossed = _mm512_mul_ps(_mm512_permute_ps(x, 0xb1), _mm512_movehdup_ps(turn));
        store(numbers, c, _mm512_fmaddsub_ps(x, _mm512_moveldup_ps(turn), crossed), kind);
    }
}

TARGET static void rotate_some(void *data) {
    Rotation *job = data;
    const size_t head_bytes = (size_t)job->head_dim * (job->kind == FP32 ? 4 : 2);
    for (int r; (r = atomic_fetch_add(&job->next, SOME_ROWS)) < job->n_rows;)
        for (int i = r; i < r + SOME_ROWS && i < job->n_rows; i++) {
            const int position = job->positions[i];
            if (position < 0 || position >= job->n_positions) {
                atomic_store(&job->failed, 2);
                return;
            }
            const float *turns = job->turns + (size_t)position * job->head_dim;
            char *heads = (char *)job->qkv + (size_t)i * 3 * job->n_heads * head_bytes;
            for (int h = 0; h < 2 * job->n_heads; h++) /* those of queries, then those of keys */
                if (job->kind == FP32) rotate(job, heads + h * head_bytes, turns, FP32);
                else rotate(job, heads + h * head_bytes, turns, BF16);
        }
}

/* Turn queries and keys in place. Return 0, or 2 for a position without turns. head_dim is a
 * multiple of 16.
 */
int rankmill_rotate(void *qkv, const float *turns, const int32_t *positions, int32_t n_rows,
                    int32_t n_positions, int32_t n_heads, int32_t head_dim, int32_t is_bf16,
                    int32_t n_threads, Parallel parallel) {
    Rotation job = {qkv,     turns,    positions, n_rows, n_positions,
                    n_heads, head_dim, is_bf16 ? BF16 : FP32, 0, 0};
    run(rotate_some, &job, n_threads, parallel);
    return atomic_load(&job.failed);
}

#endif
