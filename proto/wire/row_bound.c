/* row_bound.c - see row_bound.h. */
#include "row_bound.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bf16.h"
#include "finite.h"

static size_t first_beyond(const unsigned char *x, size_t n, enum row_dtype dtype, float max_abs)
{
    return dtype == ROW_BF16 ? finite_first_beyond_bf16(x, n, max_abs) : finite_first_beyond_f32(x, n, max_abs);
}

/* Names element `at` of the row. */
static int refuse(const struct stream *s, const unsigned char *row, const struct row_origin *origin, size_t at,
                  enum row_dtype dtype, double max_abs, struct err *e)
{
    float value;
    if (dtype == ROW_BF16)
        bf16_to_f32_n(&value, row + 2 * at, 1);
    else
        memcpy(&value, row + 4 * at, 4);
    char where[160];
    snprintf(where, sizeof where, "sequence %u, position %u, site %s: value %zu", origin->sequence, origin->position,
             s->sites[at / s->d_model], at % s->d_model);
    if (!isfinite(value))
        return err_set(e, ERR_INPUT, "%s is %g, must be finite", where, (double)value);
    return err_set(e, ERR_INPUT, "%s is %g, must be at most %g in size (--max-abs)", where, (double)value, max_abs);
}

int row_bound_check(const struct stream *s, const unsigned char *rows, const struct row_origin *origins, size_t n_rows,
                    enum row_dtype dtype, double max_abs, struct err *e)
{
    max_abs = max_abs > 0 ? max_abs : ROW_MAX_ABS;
    size_t width = (size_t)s->n_sites * s->d_model, row_bytes = stream_row_bytes(s, dtype), next = 0;
    while (next < n_rows) {
        const unsigned char *rest = rows + next * row_bytes;
        size_t at = first_beyond(rest, (n_rows - next) * width, dtype, (float)max_abs), row = next + at / width;
        if (row == n_rows)
            return 0;
        if (origins[row].token != ROW_MASKED)
            return refuse(s, rows + row * row_bytes, &origins[row], at % width, dtype, max_abs, e);
        next = row + 1;
    }
    return 0;
}
