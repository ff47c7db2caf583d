/* mem.h - sizes that cannot overflow, and zeroed, cache-aligned memory.
 *
 * Programs allocate at start-up; a training step or a forward pass allocates nothing. Every size that comes from
 * outside is multiplied through size_mul so that a hostile header cannot wrap a size_t. */
#ifndef CROSSFEED_MEM_H
#define CROSSFEED_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

/* *out = a * b. Returns false, *out untouched, if the product does not fit in size_t. */
static inline bool size_mul(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* *out = product of the n factors, false on overflow; n = 0 gives 1. */
bool size_product(const size_t *factors, size_t n, size_t *out);

/* count * size zeroed bytes aligned to 64. Pages are touched only when used. NULL with e filled (names `what` and the
 * bytes) if it cannot be had. Free with mem_free. count * size = 0 gives a valid pointer. */
void *mem_alloc(size_t count, size_t size, const char *what, struct err *e);
void mem_free(void *p); /* NULL is fine */

/* Resident set of this process, bytes: now, and its peak so far. From /proc/self/status, as getrusage's peak may be
 * that of the program that started this one. 0 if unknown. */
size_t mem_rss(void);
size_t mem_peak_rss(void);

#endif
