/* scale.c - measures and applies the scale; see scale.h. */
#include "scale.h"

#include <math.h>
#include <string.h>

#include "bf16.h"

void scale_add(struct scale_sums *sums, const unsigned char *rows, const struct row_origin *origins, size_t n_rows,
               const struct stream *s)
{
    for (size_t i = 0; i < n_rows; i++) {
        if (origins && origins[i].token == ROW_MASKED)
            continue;
        for (size_t site = 0; site < s->n_sites; site++) {
            const unsigned char *vector = rows + (i * s->n_sites + site) * s->d_model * sizeof(float);
            double norm2 = 0;
            for (size_t k = 0; k < s->d_model; k++) {
                float x;
                memcpy(&x, vector + k * sizeof x, sizeof x);
                norm2 += (double)x * (double)x;
            }
            sums->norms[site] += sqrt(norm2);
        }
        sums->rows++;
    }
}

int scale_finish(const struct scale_sums *sums, const struct stream *s, float *scale, struct err *e)
{
    for (uint32_t site = 0; site < s->n_sites; site++) {
        double mean = sums->norms[site] / (double)sums->rows;
        scale[site] = (float)(sqrt((double)s->d_model) / mean);
        if (!(mean > 0) || !isfinite(scale[site]) || !(scale[site] > 0))
            return err_set(e, ERR_INPUT, "site %u (%s): mean norm %g over %zu rows gives no scale", site,
                           s->sites[site], mean, sums->rows);
    }
    return 0;
}

void scale_vector(const float *x, size_t n, float factor, enum row_dtype dtype, unsigned char *dst)
{
    if (dtype == ROW_BF16) {
        for (size_t i = 0; i < n; i++) {
            uint16_t h = bf16_from_f32(x[i] * factor);
            memcpy(dst + i * sizeof h, &h, sizeof h);
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            float y = x[i] * factor;
            memcpy(dst + i * sizeof y, &y, sizeof y);
        }
    }
}

void scale_apply(const float *rows, size_t n_rows, const struct stream *s, const float *scale, enum row_dtype dtype,
                 unsigned char *dst)
{
    size_t d = s->d_model, bytes = d * row_dtype_size(dtype);
    for (size_t i = 0; i < n_rows * s->n_sites; i++)
        scale_vector(rows + i * d, d, scale[i % s->n_sites], dtype, dst + i * bytes);
}
