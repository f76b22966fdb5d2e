/* Activations between products: see kernels/layers.py. */

#ifndef RANKMILL_ACTIVATION_H
#define RANKMILL_ACTIVATION_H

#include "product.h"

#if defined(__x86_64__)

enum activation { NONE, GELU, GELU_TANH, SILU, TANH, RELU };

/* erf(x / sqrt(2)) is x times a polynomial of x squared, fitted where it is not yet 1 or -1.
 *
 * The largest absolute error of a GELU is 6e-7 in fp32, half of torch's, and 8e-5 for bf16.
 */
static const float ERF_FP32[] = {
    2.718999684e-01f,  -1.354875416e-01f, 1.000520438e-01f,  -7.985322177e-02f, 6.392882764e-02f,
    -4.950308055e-02f, 3.623332456e-02f,  -2.480498701e-02f, 1.614956371e-02f,  -9.940810502e-03f,
    5.084545817e-03f,  -2.138250042e-03f, 1.417054213e-03f,  -1.060196431e-03f, 3.304318234e-04f};
static const float ERF_BF16[] = {
    3.357143700e-01f, -1.630084664e-01f, 1.115572155e-01f,  -7.723466307e-02f,
    5.032633990e-02f, -3.008852713e-02f, 1.603759825e-02f,  -7.585870568e-03f,
    3.779829945e-03f, -1.975288615e-03f, 5.664011114e-04f};

TARGET INLINE __m512 gelu(__m512 x, const enum kind kind) {
    const int terms = kind == FP32 ? 15 : 11;
    const float *factors = kind == FP32 ? ERF_FP32 : ERF_BF16, most = kind == FP32 ? 5.2f : 4.2f;
    /* Of a NaN the minimum and the maximum are the second number. */
    __m512 near = _mm512_min_ps(_mm512_set1_ps(most), _mm512_max_ps(_mm512_set1_ps(-most), x));
    __m512 place = _mm512_fmsub_ps(_mm512_mul_ps(near, near), _mm512_set1_ps(2.0f / (most * most)),
                                   _mm512_set1_ps(1.0f));
    __m512 sum = _mm512_set1_ps(factors[terms - 1]);
    UNROLL for (int i = terms - 2; i >= 0; i--)
        sum = _mm512_fmadd_ps(sum, place, _mm512_set1_ps(factors[i]));
    const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
    return _mm512_fmadd_ps(half, _mm512_mul_ps(sum, near), half);
}

/* Return x / (1 + e to the power of -y); that of 2 y equals x / 2 * (1 + tanh y). */
TARGET INLINE __m512 gated(__m512 x, __m512 y, const enum kind kind) {
    y = _mm512_min_ps(_mm512_set1_ps(127.0f), _mm512_mul_ps(y, _mm512_set1_ps(-1.44269504f)));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), power_of_two(y, kind)));
}

TARGET INLINE __m512 activated(__m512 x, const enum activation activation, const enum kind kind) {
    const __m512 two = _mm512_set1_ps(2.0f);
    __m512 y;
    switch (activation) {
    case NONE:
        return x;
    case GELU:
        return gelu(x, kind);
    case GELU_TANH:
        y = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
        y = _mm512_fmadd_ps(y, _mm512_set1_ps(0.044715f), x);
        return gated(x, _mm512_mul_ps(y, _mm512_set1_ps(0.79788456f * 2.0f)), kind);
    case SILU:
        return gated(x, x, kind);
    case TANH:
        return _mm512_sub_ps(gated(two, _mm512_mul_ps(x, two), kind), _mm512_set1_ps(1.0f));
    case RELU:
        return _mm512_max_ps(_mm512_setzero_ps(), x); /* of a NaN it is the second, x */
    }
    __builtin_unreachable();
}

#endif
#endif
