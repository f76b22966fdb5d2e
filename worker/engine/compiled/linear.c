/* Linear layers in fp32 and bf16 for x86-64 CPUs with AVX-512: see kernels/compiled_linear.py.
 *
 * Each number of an output is a sum over one row's inputs in their order, so that its bits depend
 * neither on the batch nor on the number of threads.
 */

#include "activation.h"

#if defined(__x86_64__)

enum { BLOCK = 128 }; /* rows of a task: each panel of weights is read once for them */

enum joint { ALONE, TIMES, PLUS }; /* how an output is joined with another tensor */

typedef struct {
    const void *x;          /* (rows, inputs) */
    void *out;              /* (rows, outputs) */
    const void *other;      /* (rows, outputs); may be out */
    const uint32_t *weight; /* panels of WIDE vectors or fewer, each (depth, vectors, LANES) */
    const float *bias;      /* (outputs) */
    int32_t n_rows, n_inputs, n_outputs, n_parts; /* parts of the panels */
    enum kind kind;
    enum activation activation;
    enum joint joint;
    atomic_int next;
} Linear;

TARGET INLINE void finish(const Linear *job, const float *sums, int row, int n_rows, int column,
                          int n_vectors, const enum kind kind, const enum activation activation) {
    const size_t row_bytes = (size_t)job->n_outputs * (kind == FP32 ? 4 : 2);
    for (int i = 0; i < n_rows; i++) {
        char *out = (char *)job->out + (row + i) * row_bytes;
        const char *other = (const char *)job->other + (row + i) * row_bytes;
        for (int v = 0; v < n_vectors; v++) {
            const int c = column + v * LANES;
            __m512 x = _mm512_loadu_ps(sums + (i * WIDE + v) * LANES);
            x = activated(x, activation, kind);
            if (job->joint == TIMES) x = _mm512_mul_ps(x, load(other, c, kind));
            if (job->joint == PLUS) x = _mm512_add_ps(x, load(other, c, kind));
            store(out, c, x, kind);
        }
    }
}

/* Compute the panels [from, to) of the rows [start, end). */
TARGET INLINE void multiply(const Linear *job, int start, int end, int from, int to,
                            const enum kind kind, const enum activation activation) {
    const size_t row_bytes = (size_t)job->n_inputs * (kind == FP32 ? 4 : 2);
    const int depth = (int)(row_bytes / 4), n_vectors = job->n_outputs / LANES;
    for (int v = from * WIDE; v < to * WIDE && v < n_vectors; v += WIDE) {
        const int wide = n_vectors - v < WIDE ? n_vectors - v : WIDE;
        const uint32_t *panel = job->weight + (size_t)v * depth * LANES;
        const float *bias = job->bias + v * LANES;
        for (int r = start; r < end; r += ROWS) {
            const int n_rows = end - r < ROWS ? end - r : ROWS;
            const uint32_t *rows[ROWS];
            for (int i = 0; i < ROWS; i++) /* rows past the last one repeat it */
                rows[i] = (const void *)((const char *)job->x +
                                         (r + (i < n_rows ? i : n_rows - 1)) * row_bytes);
            float own[ROWS * WIDE * LANES], *sums = own;
            size_t sums_row = WIDE * LANES;
            const int is_done = kind == FP32 && activation == NONE && job->joint == ALONE;
            if (is_done && n_rows == ROWS) {
                sums_row = (size_t)job->n_outputs;
                sums = (float *)job->out + r * sums_row + v * LANES;
            }
            product(rows, panel, wide * LANES, LANES, depth, bias, sums, sums_row, wide, kind);
            if (sums == own) finish(job, sums, r, n_rows, v * LANES, wide, kind, activation);
        }
    }
}

TARGET static void multiply_some(void *data) {
    Linear *job = data;
    const enum activation activation = job->activation;
    const int n_panels = (job->n_outputs / LANES + WIDE - 1) / WIDE;
    const int n_tasks = (job->n_rows + BLOCK - 1) / BLOCK * job->n_parts;
    for (int task; (task = atomic_fetch_add(&job->next, 1)) < n_tasks;) {
        const int start = task / job->n_parts * BLOCK, part = task % job->n_parts;
        const int end = job->n_rows - start < BLOCK ? job->n_rows : start + BLOCK;
        const int from = part * n_panels / job->n_parts, to = (part + 1) * n_panels / job->n_parts;
#define MULTIPLY(kind, activation) multiply(job, start, end, from, to, kind, activation)
        if (job->kind == FP32 && activation == NONE) MULTIPLY(FP32, NONE);
        else if (job->kind == FP32 && activation == GELU) MULTIPLY(FP32, GELU);
        else if (job->kind == FP32) MULTIPLY(FP32, activation);
        else if (activation == NONE) MULTIPLY(BF16, NONE);
        else if (activation == GELU) MULTIPLY(BF16, GELU);
        else MULTIPLY(BF16, activation);
#undef MULTIPLY
    }
}

/* Return 0. In bf16 n_inputs is even; n_outputs is a multiple of 16. */
int rankmill_linear(const void *x, void *out, const void *weight, const float *bias,
                    const void *other, int32_t n_rows, int32_t n_inputs, int32_t n_outputs,
                    int32_t is_bf16, int32_t activation, int32_t joint, int32_t n_threads,
                    Parallel parallel) {
    const int n_blocks = (n_rows + BLOCK - 1) / BLOCK;
    int n_parts = 1;
    if (n_threads > 1 && n_blocks && n_blocks < n_threads * TASKS_A_THREAD)
        n_parts = (n_threads * TASKS_A_THREAD + n_blocks - 1) / n_blocks;
    Linear job = {x,       out,    other,    weight,    bias,
                  n_rows,  n_inputs, n_outputs, n_parts, is_bf16 ? BF16 : FP32,
                  (enum activation)activation, (enum joint)joint, 0};
    run(multiply_some, &job, n_threads, parallel);
    return 0;
}

#endif
