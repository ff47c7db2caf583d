/* bf16.h - conversions between float32 and bfloat16, which is its top half.
 *
 * Rounding is to nearest, ties to even, as PyTorch does; NaN stays NaN (quiet). */
#ifndef CROSSFEED_BF16_H
#define CROSSFEED_BF16_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Returns x rounded to bfloat16. */
static inline uint16_t bf16_from_f32(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x0040u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* Returns h as float32, exactly. */
static inline float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* Converts n bfloat16 values at src, which may be unaligned, to dst [n]. */
static inline void bf16_to_f32_n(float *dst, const unsigned char *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, 2);
        dst[i] = bf16_to_f32(h);
    }
}

/* Returns an IEEE half-precision value (of F16 checkpoints) as float32, exactly. */
static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, mantissa = h & 0x3ffu, u;
    if (exponent == 31) {
        u = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent) {
        u = sign | ((exponent + 112) << 23) | (mantissa << 13);
    } else if (mantissa) { /* subnormal: shift the leading one into place */
        exponent = 113;
        while (!(mantissa & 0x400u)) {
            mantissa <<= 1;
            exponent--;
        }
        u = sign | (exponent << 23) | ((mantissa & 0x3ffu) << 13);
    } else {
        u = sign;
    }
    float x;
    memcpy(&x, &u, 4);
    return x;
}

#endif
