/* Attention over packed pairs for x86-64 CPUs with AVX-512: see kernels/compiled_attention.py.
 *
 * A head of a pair is computed by one thread from its own numbers alone, so that its bits depend
 * neither on the batch nor on the number of threads.
 */

#include "product.h"

#if defined(__x86_64__)

enum { MOST_WIDTH = 256 };

typedef struct {
    const void *qkv;       /* (tokens, 3, heads, head_dim) */
    void *out;             /* (tokens, heads * head_dim); first tokens: (pairs, heads * head_dim) */
    const int32_t *starts; /* (pairs + 1), the first token of each pair */
    int32_t n_pairs, n_heads, head_dim;
    int32_t window; /* reach to either side; negative reaches all */
    int32_t first_only;
    enum kind kind;
    int32_t max_length;
    float scale;
    int32_t run; /* heads that a thread takes at once, one after the other */
    atomic_int next, failed;
} Attention;

typedef struct {
    uint32_t *keys, *values;
    float *scores;     /* ROWS rows; in fp32 they become the weights */
    uint16_t *weights; /* ROWS rows of weights in bf16 */
    size_t row;        /* numbers from one row to the next */
} Scratch;

static int take(const Attention *job, Scratch *scratch) {
    size_t length = rounded((size_t)job->max_length, LANES);
    size_t packed = rounded(length * job->head_dim * (job->kind == BF16 ? 2 : 4), 64);
    size_t row = length + LANES; /* rows 4096 bytes apart would share cache sets */
    char *buffer = scratch_of(2 * packed + ROWS * row * (sizeof(float) + sizeof(uint16_t)));
    if (!buffer) return 0;
    scratch->keys = (uint32_t *)buffer;
    scratch->values = (uint32_t *)(buffer + packed);
    scratch->scores = (float *)(buffer + 2 * packed);
    scratch->weights = (uint16_t *)(scratch->scores + ROWS * row);
    scratch->row = row;
    return 1;
}

/* Write 16 rows of 16 32-bit numbers as 16 columns. */
TARGET INLINE void transpose16(const char *in, size_t row_bytes, int n_rows, uint32_t *out) {
    __m512i r[16], t[16];
    UNROLL for (int i = 0; i < 16; i++)
        r[i] = i < n_rows ? _mm512_loadu_si512(in + i * row_bytes) : _mm512_setzero_si512();
    UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
    UNROLL for (int i = 0; i < 16; i++) _mm512_store_si512(out + i * LANES, r[i]);
}

/* Lay the keys out as [16 keys][depth][key]; a depth is 32 bits: one fp32 or two bf16. */
TARGET static void pack_keys(const char *in, size_t row_bytes, int length, int depth,
                             uint32_t *out) {
    for (int k = 0; k < length; k += LANES)
        for (int d = 0; d < depth; d += LANES)
            transpose16(in + k * row_bytes + d * 4, row_bytes, length - k,
                        out + (size_t)k * depth + d * LANES);
}

/* Lay the values out as [two keys][column][key]; a missing last key is 0. */
TARGET static void pack_values_bf16(const char *in, size_t row_bytes, int length, int width,
                                    uint32_t *out) {
    for (int k = 0; k < (int)rounded(length, LANES); k += 2)
        for (int c = 0; c < width; c += LANES) {
            const char *place = in + k * row_bytes + c * 2;
            __m256i even = _mm256_setzero_si256(), odd = even;
            if (k < length) even = _mm256_loadu_si256((const void *)place);
            if (k + 1 < length) odd = _mm256_loadu_si256((const void *)(place + row_bytes));
            __m512i both = _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
            _mm512_store_si512(out + (size_t)k / 2 * width + c, both);
        }
}

/* Lay the values out as [key][column], with zeros up to a multiple of 16 keys. */
TARGET static void pack_values_fp32(const char *in, size_t row_bytes, int length, int width,
                                    float *out) {
    for (int k = 0; k < (int)rounded(length, LANES); k++)
        for (int c = 0; c < width; c += LANES) {
            __m512 x = _mm512_setzero_ps();
            if (k < length) x = _mm512_loadu_ps(in + k * row_bytes + c * 4);
            _mm512_store_ps(out + (size_t)k * width + c, x);
        }
}

/* The lanes of the vector at key `k` that lie in [low, high). */
INLINE __mmask16 within(int k, int low, int high) {
    int first = low - k, last = high - k;
    if (first <= 0 && last >= LANES) return 0xffff;
    if (first >= LANES || last <= 0) return 0;
    unsigned below_last = last >= LANES ? 0xffffu : (1u << last) - 1;
    unsigned below_first = first <= 0 ? 0 : (1u << first) - 1;
    return (__mmask16)(below_last & ~below_first);
}

/* The keys that a row sees, [low, high). */
typedef struct {
    int low[ROWS], high[ROWS];
} Sight;

/* Turn rows of scores of the keys [from, to) into e to the power of their distance to the largest.
 *
 * The rows go side by side, because one alone would wait for its own last result.
 */
TARGET INLINE void exponentials(const Scratch *scratch, const Sight *sight, int from, int to,
                                float scale, float *sums, const enum kind kind) {
    __m512 top[ROWS], sum[ROWS];
    UNROLL for (int i = 0; i < ROWS; i++) top[i] = _mm512_set1_ps(-__builtin_inff());
    for (int k = from; k < to; k += LANES) {
        float *scores = scratch->scores + k - from;
        const int is_seen = k >= sight->low[ROWS - 1] && k + LANES <= sight->high[0];
        for (int i = 0; !is_seen && i < ROWS; i++, scores += scratch->row) {
            const __mmask16 seen = within(k, sight->low[i], sight->high[i]);
            const __m512 nothing = _mm512_set1_ps(-__builtin_inff());
            _mm512_store_ps(scores, _mm512_mask_mov_ps(nothing, seen, _mm512_load_ps(scores)));
        }
        scores = scratch->scores + k - from;
        UNROLL for (int i = 0; i < ROWS; i++)
            top[i] = _mm512_max_ps(top[i], _mm512_load_ps(scores + i * scratch->row));
    }
    const float by = scale * 1.44269504f; /* e to the power of x, as one of two */
    UNROLL for (int i = 0; i < ROWS; i++) {
        top[i] = _mm512_set1_ps(by * _mm512_reduce_max_ps(top[i]));
        sum[i] = _mm512_setzero_ps();
    }
    const __m512 factor = _mm512_set1_ps(by);
    for (int k = 0; k < to - from; k += LANES)
        UNROLL for (int i = 0; i < ROWS; i++) {
            float *scores = scratch->scores + i * scratch->row + k;
            const __m512 x = _mm512_fmsub_ps(_mm512_load_ps(scores), factor, top[i]);
            const __m512 weight = power_of_two(x, kind);
            sum[i] = _mm512_add_ps(sum[i], weight);
            if (kind == FP32) _mm512_store_ps(scores, weight);
            else _mm256_store_si256((void *)(scratch->weights + i * scratch->row + k),
                                    (__m256i)_mm512_cvtneps_pbh(weight));
        }
    UNROLL for (int i = 0; i < ROWS; i++) sums[i] = _mm512_reduce_add_ps(sum[i]);
}

TARGET INLINE void attend(const Attention *job, Scratch *scratch, int pair, int head,
                          const enum kind kind) {
    const int bytes = kind == FP32 ? 4 : 2, width = job->head_dim, depth = width * bytes / 4;
    const size_t head_bytes = (size_t)width * bytes, out_bytes = job->n_heads * head_bytes;
    const size_t row_bytes = 3 * out_bytes;
    const int start = job->starts[pair], length = job->starts[pair + 1] - start;
    const char *query = (const char *)job->qkv + start * row_bytes + head * head_bytes;
    const char *key = query + out_bytes, *value = key + out_bytes;
    char *out = (char *)job->out + (job->first_only ? pair : start) * out_bytes + head * head_bytes;
    const int n_queries = job->first_only ? 1 : length;
    const int reach = job->window < 0 || job->window > length ? length : job->window;
    const int n_keys = job->first_only && reach < length ? reach + 1 : length;
    pack_keys(key, row_bytes, n_keys, depth, scratch->keys);
    if (kind == FP32) pack_values_fp32(value, row_bytes, n_keys, width, (float *)scratch->values);
    else pack_values_bf16(value, row_bytes, n_keys, width, scratch->values);
    for (int q = 0; q < n_queries; q += ROWS) {
        const int last = q + ROWS < n_queries ? q + ROWS - 1 : n_queries - 1;
        const int from = q > reach ? (q - reach) / LANES * LANES : 0;
        const int to = (int)rounded(last + reach + 1 < length ? last + reach + 1 : length, LANES);
        for (int i = q; i <= last && head + 1 < job->n_heads; i++) /* the next head is far away */
            for (int part = 0; part < 3; part++)
                for (size_t b = head_bytes; b < 2 * head_bytes; b += 64)
                    _mm_prefetch(query + i * row_bytes + part * out_bytes + b, _MM_HINT_T1);
        const uint32_t *rows[ROWS];
        for (int i = 0; i < ROWS; i++) /* rows past the last one repeat it, and are not written */
            rows[i] = (const uint32_t *)(query + (q + i < last ? q + i : last) * row_bytes);
        product(rows, scratch->keys + (size_t)from * depth, LANES, (size_t)depth * LANES, depth,
                NULL, scratch->scores, scratch->row, (to - from) / LANES, kind);
        Sight sight;
        for (int i = 0; i < ROWS; i++) {
            const int place = q + i < last ? q + i : last;
            sight.low[i] = place > reach ? place - reach : 0;
            sight.high[i] = place + reach + 1 < length ? place + reach + 1 : length;
            rows[i] = (const uint32_t *)(scratch->scores + i * scratch->row);
            if (kind == BF16) rows[i] = (const uint32_t *)(scratch->weights + i * scratch->row);
        }
        float sums[ROWS];
        exponentials(scratch, &sight, from, to, job->scale, sums, kind);
        float mixed[ROWS * MOST_WIDTH];
        const int n_keys_a_depth = 4 / bytes;
        product(rows, scratch->values + (size_t)from / n_keys_a_depth * width, width, LANES,
                (to - from) / n_keys_a_depth, NULL, mixed, MOST_WIDTH, width / LANES, kind);
        for (int i = 0; q + i <= last; i++) {
            const __m512 share = _mm512_set1_ps(1.0f / sums[i]);
            char *line = out + (q + i) * out_bytes;
            for (int c = 0; c < width; c += LANES) {
                const __m512 x = _mm512_loadu_ps(mixed + i * MOST_WIDTH + c);
                store(line, c, _mm512_mul_ps(x, share), kind);
            }
        }
    }
}

TARGET static void attend_some(void *data) {
    Attention *job = data;
    Scratch scratch;
    if (!take(job, &scratch)) {
        atomic_store(&job->failed, 1);
        return;
    }
    const int n = job->n_pairs * job->n_heads;
    for (int one; (one = atomic_fetch_add(&job->next, job->run)) < n;)
        for (int i = one; i < one + job->run && i < n; i++) {
            const int pair = i / job->n_heads, head = i % job->n_heads;
            if (job->kind == BF16) attend(job, &scratch, pair, head, BF16);
            else attend(job, &scratch, pair, head, FP32);
        }
}

/* Return 0, or 1 if there was no memory. head_dim is a multiple of 32, and at most MOST_WIDTH. */
int rankmill_attend(const void *qkv, void *out, const int32_t *starts, int32_t n_pairs,
                    int32_t n_heads, int32_t head_dim, int32_t window, int32_t first_only,
                    int32_t is_bf16, int32_t max_length, float scale, int32_t n_threads,
                    Parallel parallel) {
    const int share = n_pairs * n_heads / (n_threads * TASKS_A_THREAD);
    Attention job = {qkv,        out,    starts,     n_pairs,
                     n_heads,    head_dim, window,     first_only,
                     is_bf16 ? BF16 : FP32, max_length, scale, share > 1 ? share : 1, 0, 0};
    run(attend_some, &job, n_threads, parallel);
    return atomic_load(&job.failed);
}

#endif
