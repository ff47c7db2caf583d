/* kernels_body.h - the loops of kernels.h, included once for each instruction set with VEC (floats in a vector: 4, 8 or
 * 16) and NAME (a suffix). For kernels.c alone, hence no guard. */

typedef float NAME(vec) __attribute__((vector_size(4 * VEC), aligned(4), may_alias));
typedef float NAME(half) __attribute__((vector_size(VEC == 16 ? 32 : 16)));
typedef float NAME(quarter) __attribute__((vector_size(16)));

/* As many as half a vec. */
typedef float NAME(singles) __attribute__((vector_size(2 * VEC), aligned(4), may_alias));
typedef double NAME(doubles) __attribute__((vector_size(4 * VEC)));

#define INLINE static inline __attribute__((always_inline))

/* The sum of 16 partial sums in 16 / VEC vectors: l and l + 8 first, then l and l + 4, l + 2, l + 1. */
INLINE float NAME(reduce)(const NAME(vec) * s)
{
#if VEC == 16
    NAME(half)
    h = __builtin_shufflevector(s[0], s[0], 0, 1, 2, 3, 4, 5, 6, 7) +
        __builtin_shufflevector(s[0], s[0], 8, 9, 10, 11, 12, 13, 14, 15);
    NAME(quarter) q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
#elif VEC == 8
    NAME(vec) h = s[0] + s[1];
    NAME(quarter) q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
#else
    NAME(quarter) q = (s[0] + s[2]) + (s[1] + s[3]);
#endif
    return (q[0] + q[2]) + (q[1] + q[3]);
}

/* Asks for the row that comes ROWS_AHEAD entries later, often another latent's. */
INLINE void NAME(ask)(const float *tile, size_t lanes, const uint32_t *row)
{
    for (size_t i = 0; i < lanes; i += 16)
        __builtin_prefetch(tile + row[ROWS_AHEAD] * lanes + i);
}

INLINE void NAME(scatter_of)(size_t lanes, float *tile, const float *w, const uint32_t *row, const float *a, size_t n)
{
    NAME(vec) v[128 / VEC];
#pragma GCC unroll 32
    for (size_t k = 0; k < lanes / VEC; k++)
        v[k] = *(const NAME(vec) *)(w + k * VEC);
    for (size_t e = 0; e < n; e++) {
        NAME(ask)(tile, lanes, row + e);
        NAME(vec) *out = (NAME(vec) *)(tile + row[e] * lanes);
#pragma GCC unroll 32
        for (size_t k = 0; k < lanes / VEC; k++)
            out[k] += a[e] * v[k];
    }
}

INLINE void NAME(gather_of)(size_t lanes, float *sum, const float *tile, const uint32_t *row, const float *a, size_t n)
{
    NAME(vec) s[128 / VEC];
#pragma GCC unroll 32
    for (size_t k = 0; k < lanes / VEC; k++)
        s[k] = (NAME(vec)){0};
    for (size_t e = 0; e < n; e++) {
        NAME(ask)(tile, lanes, row + e);
        const NAME(vec) *in = (const NAME(vec) *)(tile + row[e] * lanes);
#pragma GCC unroll 32
        for (size_t k = 0; k < lanes / VEC; k++)
            s[k] += a[e] * in[k];
    }
#pragma GCC unroll 32
    for (size_t k = 0; k < lanes / VEC; k++)
        *(NAME(vec) *)(sum + k * VEC) = s[k];
}

INLINE void NAME(gather_dot_of)(size_t lanes, float *sum, float *dot, const float *tile, const float *w,
                                const uint32_t *row, const float *a, size_t n)
{
    NAME(vec) s[128 / VEC], v[128 / VEC];
#pragma GCC unroll 32
    for (size_t k = 0; k < lanes / VEC; k++) {
        s[k] = (NAME(vec)){0};
        v[k] = *(const NAME(vec) *)(w + k * VEC);
    }
    for (size_t e = 0; e < n; e++) {
        NAME(ask)(tile, lanes, row + e);
        const NAME(vec) *in = (const NAME(vec) *)(tile + row[e] * lanes);
        NAME(vec) d[16 / VEC];
        memset(d, 0, sizeof d);
#pragma GCC unroll 32
        for (size_t k = 0; k < lanes / VEC; k++) {
            s[k] += a[e] * in[k];
            d[k % (16 / VEC)] += v[k] * in[k];
        }
        dot[e] += NAME(reduce)(d);
    }
#pragma GCC unroll 32
    for (size_t k = 0; k < lanes / VEC; k++)
        *(NAME(vec) *)(sum + k * VEC) = s[k];
}

/* The loops above with the number of lanes known to the compiler, so that sums stay in registers. */
#define BY_LANES(call) \
    switch (lanes) {   \
    case 16:           \
        call(16);      \
        break;         \
    case 32:           \
        call(32);      \
        break;         \
    case 64:           \
        call(64);      \
        break;         \
    default:           \
        call(128);     \
    }

static void NAME(scatter)(float *tile, size_t lanes, const float *w, const uint32_t *row, const float *a, size_t n)
{
#define CALL(l) NAME(scatter_of)(l, tile, w, row, a, n)
    BY_LANES(CALL)
#undef CALL
}

static void NAME(gather)(float *sum, const float *tile, size_t lanes, const uint32_t *row, const float *a, size_t n)
{
#define CALL(l) NAME(gather_of)(l, sum, tile, row, a, n)
    BY_LANES(CALL)
#undef CALL
}

static void NAME(gather_dot)(float *sum, float *dot, const float *tile, size_t lanes, const float *w,
                             const uint32_t *row, const float *a, size_t n)
{
#define CALL(l) NAME(gather_dot_of)(l, sum, dot, tile, w, row, a, n)
    BY_LANES(CALL)
#undef CALL
}

static void NAME(combine)(float *restrict g, float scale, float factor, const float *restrict w, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g[i] = scale * g[i] + factor * w[i];
}

static double NAME(squares)(const float *v, size_t n)
{
    NAME(doubles) part[32 / VEC];
    memset(part, 0, sizeof part);
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
#pragma GCC unroll 8
        for (size_t k = 0; k < 32 / VEC; k++) {
            NAME(doubles) d = __builtin_convertvector(*(const NAME(singles) *)(v + i + k * VEC / 2), NAME(doubles));
            part[k] += d * d;
        }
    double sum = 0;
    for (; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    double lane[16];
    memcpy(lane, part, sizeof lane);
    for (size_t l = 0; l < 8; l++)
        lane[l] += lane[l + 8];
    for (size_t l = 0; l < 4; l++)
        lane[l] += lane[l + 4];
    sum += (lane[0] + lane[2]) + (lane[1] + lane[3]);
    return sum;
}

static void NAME(adam)(const struct adam_factors *factors, float *restrict p, float *restrict m, float *restrict v,
                       const float *restrict grad, size_t n)
{
    const struct adam_factors k = *factors;
    for (size_t i = 0; i < n; i++) {
        float g = k.grad_scale * grad[i];
        m[i] += k.one_minus_beta1 * (g - m[i]);
        v[i] = k.beta2 * v[i] + k.one_minus_beta2 * g * g;
        p[i] -= k.step_size * m[i] / (sqrtf(v[i]) / k.correction2 + k.eps);
    }
}

static void NAME(threshold)(float *restrict f, const float *restrict bias, uint32_t *restrict count, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = f[i] + bias[i];
        v = v <= 0 ? 0 : v;
        f[i] = v;
        count[i] += v != 0;
    }
}

static void NAME(select)(float *restrict f, const float *restrict bias, const float *restrict factor, float bound,
                         uint32_t *restrict count, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = f[i] + bias[i], score = v * factor[i];
        v = ((score <= 0) | (score < bound)) ? 0 : v;
        f[i] = v;
        count[i] += v != 0;
    }
}

static size_t NAME(nonzeros)(const float *f, size_t n, uint32_t *index)
{
    size_t found = 0, i = 0;
    for (; i + 16 <= n; i += 16) {
        uint32_t bits[16], any = 0;
        memcpy(bits, f + i, sizeof bits);
        for (size_t k = 0; k < 16; k++)
            any |= bits[k];
        if (any)
            for (size_t k = 0; k < 16; k++) {
                index[found] = (uint32_t)(i + k);
                found += bits[k] != 0;
            }
    }
    for (; i < n; i++)
        if (f[i] != 0 || signbit(f[i]))
            index[found++] = (uint32_t)i;
    return found;
}

static const struct kernels NAME(kernels) = {
#if VEC == 16
    .name = "AVX-512",
#elif VEC == 8
    .name = "AVX2",
#else
    .name = "portable",
#endif
    .scatter = NAME(scatter),
    .gather = NAME(gather),
    .gather_dot = NAME(gather_dot),
    .combine = NAME(combine),
    .squares = NAME(squares),
    .adam = NAME(adam),
    .threshold = NAME(threshold),
    .select = NAME(select),
    .nonzeros = NAME(nonzeros),
};

#undef INLINE
#undef BY_LANES
