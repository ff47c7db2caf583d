/* failing_alloc.h - makes one mem_alloc fail. For a test that is linked with -Wl,--wrap=mem_alloc; to be included after cmocka.h. */
#ifndef CROSSFEED_FAILING_ALLOC_H
#define CROSSFEED_FAILING_ALLOC_H

#include "err.h"
#include "mem.h"

static _Thread_local int allocations_until_failure = -1; /* of this thread. 0: the next one fails; -1: none does */

void *__real_mem_alloc(size_t count, size_t size, const char *what, struct err *e);
void *__wrap_mem_alloc(size_t count, size_t size, const char *what, struct err *e);

void *__wrap_mem_alloc(size_t count, size_t size, const char *what, struct err *e)
{
    if (allocations_until_failure >= 0 && allocations_until_failure-- == 0) {
        err_set(e, ERR_MEMORY, "%s: there is no memory in this test", what);
        return NULL;
    }
    return __real_mem_alloc(count, size, what, e);
}

#endif
