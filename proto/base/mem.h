/* mem.h - sizes that cannot overflow, and all of the project's heap memory.
 *
 * Programs allocate at start-up; a training step or a forward pass allocates nothing. Every size that comes from
 * outside is multiplied through size_mul so that a hostile header cannot wrap a size_t. Nothing else calls malloc and its
 * kin (tools/check_allocations.py sees to that), so one place says what failed, and tests can make any allocation fail:
 * a build with CROSSFEED_FAULTS reads CROSSFEED_FAIL_ALLOCATION from the environment. "17" lets the process's 17th
 * allocation fail, "17+" that one and all after it; standard error says so when it happens. */
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

/* Returns count * size zeroed bytes aligned to 64, owned by the caller (mem_free). Pages are touched only when used.
 * Returns NULL with e filled ("what: cannot get N bytes of memory") if they cannot be had. count * size = 0 gives a valid
 * pointer. */
void *mem_alloc(size_t count, size_t size, const char *what, struct err *e);

/* Returns a block of count * size bytes that begins with what p holds, as far as it fits; further bytes are zero. p is
 * freed, or NULL. On failure it returns NULL with e filled, and p stays as it was. */
void *mem_realloc(void *p, size_t count, size_t size, const char *what, struct err *e);

/* Returns a copy of text, owned by the caller (mem_free); NULL with e filled if it cannot be had. */
char *mem_strdup(const char *text, const char *what, struct err *e);

/* Frees what the three above returned; NULL is fine. */
void mem_free(void *p);

/* Returns memory as malloc does, for libraries that take allocation functions and report errors in their own way
 * (jansson, PCRE2). A failure is remembered for the thread. */
void *mem_raw_alloc(size_t bytes);
void mem_raw_free(void *p);
/* Returns ERR_MEMORY with e filled as mem_alloc does, if a mem_raw_alloc of this thread failed since the last such answer;
 * else 0. To be asked after each piece of work of such a library, also when it succeeded: not all check as they should.
 */
int mem_raw_failed(const char *what, struct err *e);

/* Resident set of this process, bytes: now, and its peak so far. From /proc/self/status, as getrusage's peak may be
 * that of the program that started this one. 0 if unknown. */
size_t mem_rss(void);
size_t mem_peak_rss(void);

#endif
