/* row_norms.c - see row_norms.h. */
#include "row_norms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"

enum { PIECE = 256 }; /* elements that are fp32 at a time */

/* Returns the norm of x [n] of the dtype. */
static float norm_of(const unsigned char *x, size_t n, enum row_dtype dtype)
{
    float piece[PIECE];
    double squares = 0;
    for (size_t first = 0, width; first < n; first += width) {
        width = n - first < PIECE ? n - first : PIECE;
        if (dtype == ROW_BF16)
            bf16_to_f32_n(piece, x + first * sizeof(uint16_t), width);
        else
            memcpy(piece, x + first * sizeof *piece, width * sizeof *piece);
        for (size_t i = 0; i < width; i++)
            squares += (double)piece[i] * (double)piece[i];
    }
    return (float)sqrt(squares);
}

void row_norms_of(const unsigned char *row, const struct stream *s, enum row_dtype dtype, float *out, size_t stride)
{
    for (size_t site = 0; site < s->n_sites; site++)
        out[site * stride] = norm_of(row + site * s->d_model * row_dtype_size(dtype), s->d_model, dtype);
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Looks at one site's norms [n_rows], at least one. */
static struct site_norms site_of(float *norms, size_t n_rows)
{
    double sum = 0, of_long = 0;
    qsort(norms, n_rows, sizeof *norms, by_size);
    struct site_norms s = {.median = norms[(n_rows - 1) / 2], .largest = norms[n_rows - 1]};
    for (size_t i = 0; i < n_rows; i++) {
        double square = (double)norms[i] * (double)norms[i];
        sum += square;
        if (s.median > 0 && (double)norms[i] > ROW_NORMS_LONG * (double)s.median) {
            s.n_long++;
            of_long += square;
        }
    }
    s.long_share = sum > 0 ? of_long / sum : 0;
    return s;
}

void row_norms_finish(struct row_norms *n, float *norms, size_t n_rows, size_t stride, const struct stream *s)
{
    *n = (struct row_norms){.n_rows = n_rows};
    for (size_t site = 0; n_rows > 0 && site < s->n_sites; site++)
        n->site[site] = site_of(norms + site * stride, n_rows);
}
