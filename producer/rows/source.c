/* source.c - see source.h. */
#include "source.h"

#include <assert.h>

#include "row_bound.h"

int source_compute(const struct source *s, uint32_t first, uint32_t n, struct rows *r, struct err *e)
{
    assert(!r->wanted); /* what is not wanted holds anything */
    int rc = s->compute(s->self, first, n, r, e);
    if (rc)
        return rc;
    return row_bound_check(&s->stream, r->acts, r->origins, r->n_rows, r->dtype, s->max_abs, e);
}
