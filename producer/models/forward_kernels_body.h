/* forward_kernels_body.h - the loops of forward_kernels.h. Only forward_kernels.c includes it, once for each
 * instruction set, with NAME defined to add a suffix; hence it has no guard. */

/* Returns exp(x) within 2 ulp for x in [EXP_LOWEST, EXP_HIGHEST]; x outside is clamped to it, and NaN stays NaN.
 * With x = n ln 2 + r and |r| <= ln 2 / 2, exp(r) is the polynomial of Cephes's expf (S. Moshier); adding 1.5 * 2^23
 * rounds to n and leaves n in the low bits. Libm's vectors are not used: this gives the same bits with every
 * instruction set, and calls nothing. */
static inline __attribute__((always_inline)) float NAME(exponential)(float x)
{
    const float shift = 12582912.0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    x = x < EXP_LOWEST ? EXP_LOWEST : x;
    x = x > EXP_HIGHEST ? EXP_HIGHEST : x;
    float shifted = x * 1.44269504088896341f + shift, n = shifted - shift;
    float r = x - n * ln2_high - n * ln2_low;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t bits;
    float power; /* 2^n */
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

static void NAME(layer_norm)(float *restrict y, const float *restrict x, const float *restrict weight,
                             const float *restrict bias, double epsilon, size_t n)
{
    double sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    double mean = sum / (double)n;
#pragma omp simd reduction(+ : squares)
    for (size_t i = 0; i < n; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    float center = (float)mean, inverse = (float)(1.0 / sqrt(squares / (double)n + epsilon));
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - center) * inverse * weight[i] + bias[i];
}

static void NAME(add)(float *restrict y, const float *restrict z, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += z[i];
}

static void NAME(residual)(float *restrict x, float *restrict out, const float *restrict bias, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] += bias[i];
        x[i] += out[i];
    }
}

static void NAME(activate)(float *restrict h, const float *restrict bias, enum mlp_activation activation, size_t n)
{
    const float sqrt_2_over_pi = 0.797884560802865356f, sqrt_half = 0.707106781186547524f;
    if (activation == MLP_GELU_TANH)
#pragma omp simd
        for (size_t i = 0; i < n; i++) {
            float v = h[i] + bias[i];
            h[i] = v / (1.0f + NAME(exponential)(-2.0f * sqrt_2_over_pi * (v + 0.044715f * (v * v * v))));
        }
    else if (activation == MLP_GELU_ERF)
        for (size_t i = 0; i < n; i++) {
            float v = h[i] + bias[i];
            h[i] = 0.5f * v * (1.0f + erff(v * sqrt_half));
        }
    else
        for (size_t i = 0; i < n; i++) {
            float v = h[i] + bias[i];
            h[i] = v < 0.0f ? 0.0f : v; /* keeps NaN */
        }
}

static float NAME(softmax)(float *s, size_t seen, size_t width)
{
    float max = s[0], sum = 0;
#pragma omp simd reduction(max : max)
    for (size_t j = 0; j < seen; j++)
        max = s[j] > max ? s[j] : max;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < seen; j++) {
        s[j] = NAME(exponential)(s[j] - max);
        sum += s[j];
    }
    for (size_t j = seen; j < width; j++)
        s[j] = 0;
    return 1.0f / sum;
}

static void NAME(multiply)(float *z, float factor, size_t n)
{
    for (size_t i = 0; i < n; i++)
        z[i] *= factor;
}

static void NAME(to_bf16)(uint16_t *restrict dst, const float *restrict src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = bf16_from_f32(src[i]);
}

static const struct forward_kernels NAME(kernels) = {
    VERSION, NAME(layer_norm), NAME(add), NAME(residual), NAME(activate), NAME(softmax), NAME(multiply), NAME(to_bf16),
};
