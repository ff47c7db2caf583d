/* audit.c - compares answers vector by vector; see audit.h. */
#include "audit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bf16.h"
#include "rng.h"

bool audit_chosen(uint64_t seed, double share, uint64_t g, uint32_t block)
{
    struct rng r;
    rng_init(&r, seed, RNG_AUDIT, g << 32 | block);
    return rng_uniform(&r) < share;
}

static double value(const unsigned char *x, size_t i, enum row_dtype dtype)
{
    float f;
    if (dtype == ROW_BF16)
        bf16_to_f32_n(&f, x + 2 * i, 1);
    else
        memcpy(&f, x + 4 * i, 4);
    return (double)f;
}

/* Compares the vectors x and y [d_model] at a site. */
static void compare_site(struct audit *a, uint32_t site, const unsigned char *x, const unsigned char *y, size_t d_model,
                         enum row_dtype dtype, const struct row_origin *origin)
{
    double xx = 0, yy = 0, dd = 0, largest = 0;
    for (size_t i = 0; i < d_model; i++) {
        double xi = value(x, i, dtype), yi = value(y, i, dtype), d = fabs(xi - yi);
        xx += xi * xi;
        yy += yi * yi;
        dd += d * d;
        largest = fmax(largest, d);
        a->different += d > 0;
    }
    double relative = dd > 0 ? sqrt(dd / fmax(xx, yy)) : 0;
    if (relative > a->relative) {
        a->relative = relative;
        a->absolute = largest;
        a->site = site;
        a->origin = *origin;
    }
}

void audit_row(struct audit *a, const struct stream *s, enum row_dtype dtype, const unsigned char *x,
               const struct row_origin *x_origin, const unsigned char *y, const struct row_origin *y_origin)
{
    size_t site_bytes = s->d_model * row_dtype_size(dtype);
    a->values += (size_t)s->n_sites * s->d_model;
    if (memcmp(x_origin, y_origin, sizeof *x_origin) != 0 && !a->origins_differ) {
        a->origins_differ = true;
        a->relative = INFINITY;
        a->origin = *x_origin;
    }
    for (uint32_t site = 0; site < s->n_sites; site++, x += site_bytes, y += site_bytes)
        if (memcmp(x, y, site_bytes) != 0)
            compare_site(a, site, x, y, s->d_model, dtype, x_origin);
}

void audit_describe(const struct audit *a, const struct stream *s, char *text, size_t size)
{
    if (a->origins_differ)
        snprintf(text, size, "name different tokens at sequence %u position %u", a->origin.sequence,
                 a->origin.position);
    else
        snprintf(text, size,
                 "differ most at site %s, sequence %u position %u: by %.3g %% of the vector's length, a value by %.3g; "
                 "%zu of %zu values differ",
                 s->sites[a->site], a->origin.sequence, a->origin.position, 100 * a->relative, a->absolute,
                 a->different, a->values);
}
