/* finite.h - finds values that are not finite, or beyond a bound, among n values, unaligned or not, at memory speed.
 *
 * Without its sign, a value's bits are ordered as the value is, and infinity and NaN (all exponent bits set) come after all others: one
 * comparison of integers finds all three. */
#ifndef CROSSFEED_FINITE_H
#define CROSSFEED_FINITE_H

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Returns the bits of |x|. */
static inline uint32_t finite_size_f32(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u & 0x7fffffffu;
}

/* Whether element i of x is NaN or infinite, or more than the value of these bits away from 0; of fp32 and of bf16. */
static inline bool finite_is_beyond_f32(const void *x, size_t i, uint32_t bound)
{
    uint32_t u;
    memcpy(&u, (const unsigned char *)x + 4 * i, 4);
    return (u & 0x7fffffffu) > bound;
}

static inline bool finite_is_beyond_bf16(const void *x, size_t i, uint32_t bound)
{
    uint16_t u;
    memcpy(&u, (const unsigned char *)x + 2 * i, 2);
    return (u & 0x7fffu) > bound >> 16;
}

/* finite_first_beyond_f32 and finite_first_beyond_bf16 return the index of the first value that is not finite or greater than max_abs
 * in size, n if there is none. They look at all values without a branch, and for the place only once there is one. */
#define FINITE_FIRST_BEYOND(type)                                                           \
    static inline size_t finite_first_beyond_##type(const void *x, size_t n, float max_abs) \
    {                                                                                       \
        uint32_t bound = finite_size_f32(max_abs);                                          \
        unsigned bad = 0;                                                                   \
        for (size_t i = 0; i < n; i++)                                                      \
            bad |= finite_is_beyond_##type(x, i, bound);                                    \
        size_t first = bad ? 0 : n;                                                         \
        while (first < n && !finite_is_beyond_##type(x, first, bound))                      \
            first++;                                                                        \
        return first;                                                                       \
    }
FINITE_FIRST_BEYOND(f32)
FINITE_FIRST_BEYOND(bf16)

/* Returns the index of the first value of fp32 that is not finite, n if there is none. */
static inline size_t finite_first_bad_f32(const void *x, size_t n)
{
    return finite_first_beyond_f32(x, n, FLT_MAX);
}

#endif
