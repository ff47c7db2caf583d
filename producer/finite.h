/* finite.h - the first NaN or infinity among floats, at memory speed. */
#ifndef CROSSFEED_FINITE_H
#define CROSSFEED_FINITE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Index of the first element of x [n] that is NaN or infinite (all exponent bits set); n if there is none. */
static inline size_t finite_first_bad(const float *x, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], 4);
        bad |= (u & 0x7f800000u) == 0x7f800000u;
    }
    if (!bad)
        return n;
    for (size_t i = 0;; i++) {
        uint32_t u;
        memcpy(&u, &x[i], 4);
        if ((u & 0x7f800000u) == 0x7f800000u)
            return i;
    }
}

#endif
