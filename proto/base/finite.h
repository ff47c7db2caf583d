/* finite.h - finds NaN and infinity (all exponent bits set) among n values, unaligned or not, at memory speed. */
#ifndef CROSSFEED_FINITE_H
#define CROSSFEED_FINITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Whether element i is one, of fp32 and of bf16. */
static inline bool finite_is_bad_f32(const void *x, size_t i)
{
    uint32_t u;
    memcpy(&u, (const unsigned char *)x + 4 * i, 4);
    return (u & 0x7f800000u) == 0x7f800000u;
}

static inline bool finite_is_bad_bf16(const void *x, size_t i)
{
    uint16_t u;
    memcpy(&u, (const unsigned char *)x + 2 * i, 2);
    return (u & 0x7f80u) == 0x7f80u;
}

/* finite_first_bad_f32 and finite_first_bad_bf16 return the index of the first such value, n if there is none. They
 * look at all values without a branch, and for the place only once there is one. */
#define FINITE_FIRST_BAD(type)                                            \
    static inline size_t finite_first_bad_##type(const void *x, size_t n) \
    {                                                                     \
        unsigned bad = 0;                                                 \
        for (size_t i = 0; i < n; i++)                                    \
            bad |= finite_is_bad_##type(x, i);                            \
        size_t first = bad ? 0 : n;                                       \
        while (first < n && !finite_is_bad_##type(x, first))              \
            first++;                                                      \
        return first;                                                     \
    }
FINITE_FIRST_BAD(f32)
FINITE_FIRST_BAD(bf16)

#endif
