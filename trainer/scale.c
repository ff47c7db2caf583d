/* scale.c - measures and applies the scale; see scale.h. */
#include "scale.h"

#include <math.h>
#include <string.h>

#include "bf16.h"

int scale_measure(const float *rows, size_t n_rows, const struct stream *s, float *scale, struct err *e)
{
    size_t d = s->d_model, row_elements = (size_t)s->n_sites * d;
    for (uint32_t site = 0; site < s->n_sites; site++) {
        double sum = 0;
        for (size_t i = 0; i < n_rows; i++) {
            const float *x = rows + i * row_elements + site * d;
            double norm2 = 0;
            for (size_t k = 0; k < d; k++)
                norm2 += (double)x[k] * (double)x[k];
            sum += sqrt(norm2);
        }
        scale[site] = (float)(sqrt((double)d) / (sum / (double)n_rows));
        if (!(sum > 0) || !isfinite(scale[site]) || !(scale[site] > 0))
            return err_set(e, ERR_INPUT, "site %u (%s): mean norm %g over %zu rows gives no scale", site, s->sites[site],
                           sum / (double)n_rows, n_rows);
    }
    return 0;
}

void scale_apply(const float *rows, size_t n_rows, const struct stream *s, const float *scale, enum row_dtype dtype,
                 unsigned char *dst)
{
    size_t d = s->d_model;
    for (size_t i = 0; i < n_rows * s->n_sites; i++) {
        float factor = scale[i % s->n_sites];
        for (size_t k = 0; k < d; k++) {
            float x = rows[i * d + k] * factor;
            if (dtype == ROW_BF16) {
                uint16_t h = bf16_from_f32(x);
                memcpy(dst + (i * d + k) * 2, &h, 2);
            } else {
                memcpy(dst + (i * d + k) * 4, &x, 4);
            }
        }
    }
}
