/* scale.c - measures and applies the scale; see scale.h. */
#include "scale.h"

#include <math.h>
#include <string.h>

#include "bf16.h"
#include "mem.h"

const char *const scale_mode_names[] = {[SCALE_MEAN_NORM] = "mean-norm", [SCALE_TOTAL_STD] = "total-std", NULL};

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

static int nothing_to_measure(struct err *e)
{
    return err_set(e, ERR_INPUT, "the scale cannot be measured: all rows that it is to be measured over are masked");
}

int scale_finish(const struct scale_sums *sums, const struct stream *s, float *scale, struct err *e)
{
    if (sums->rows == 0)
        return nothing_to_measure(e);
    for (uint32_t site = 0; site < s->n_sites; site++) {
        double mean = sums->norms[site] / (double)sums->rows;
        scale[site] = (float)(sqrt((double)s->d_model) / mean);
        if (!(mean > 0) || !isfinite(scale[site]) || !(scale[site] > 0))
            return err_set(e, ERR_INPUT, "site %u (%s): mean norm %g over %zu rows gives no scale", site,
                           s->sites[site], mean, sums->rows);
    }
    return 0;
}

/* Returns the sum over dims of the variance of one site's vectors. mean: [d_model] scratch. */
static double total_variance(const float *rows, const struct row_origin *origins, size_t n_rows, const struct stream *s,
                             size_t site, double *mean)
{
    size_t d = s->d_model, stride = s->n_sites * d, n = 0;
    double sum = 0;
    memset(mean, 0, d * sizeof *mean);
    for (size_t i = 0; i < n_rows; i++) {
        const float *x = rows + i * stride + site * d;
        if (origins[i].token == ROW_MASKED)
            continue;
        for (size_t k = 0; k < d; k++)
            mean[k] += (double)x[k];
        n++;
    }
    for (size_t k = 0; k < d; k++)
        mean[k] /= (double)n;
    for (size_t i = 0; i < n_rows; i++) {
        const float *x = rows + i * stride + site * d;
        if (origins[i].token == ROW_MASKED)
            continue;
        for (size_t k = 0; k < d; k++)
            sum += ((double)x[k] - mean[k]) * ((double)x[k] - mean[k]);
    }
    return sum / (double)n;
}

static int measure_total_std(const float *rows, const struct row_origin *origins, size_t n_rows, const struct stream *s,
                             float *scale, struct err *e)
{
    size_t unmasked = 0;
    for (size_t i = 0; i < n_rows; i++)
        unmasked += origins[i].token != ROW_MASKED;
    if (unmasked == 0)
        return nothing_to_measure(e);
    double *mean = mem_alloc(s->d_model, sizeof *mean, "mean of a site", e);
    int rc = mean ? 0 : ERR_MEMORY;
    for (uint32_t site = 0; site < s->n_sites && rc == 0; site++) {
        double std = sqrt(total_variance(rows, origins, n_rows, s, site, mean));
        scale[site] = (float)(1 / std);
        if (!(std > 0) || !isfinite(scale[site]) || !(scale[site] > 0))
            rc = err_set(e, ERR_INPUT, "site %u (%s): total standard deviation %g over %zu rows gives no scale", site,
                         s->sites[site], std, n_rows);
    }
    mem_free(mean);
    return rc;
}

int scale_measure(enum scale_mode mode, double target, const float *rows, const struct row_origin *origins,
                  size_t n_rows, const struct stream *s, float *scale, struct err *e)
{
    struct scale_sums sums = {0};
    if (mode == SCALE_TOTAL_STD) {
        if (measure_total_std(rows, origins, n_rows, s, scale, e))
            return e->code;
    } else {
        scale_add(&sums, (const unsigned char *)rows, origins, n_rows, s);
        if (scale_finish(&sums, s, scale, e))
            return e->code;
    }
    for (uint32_t site = 0; site < s->n_sites; site++) {
        double measured = (double)scale[site];
        scale[site] = (float)(target * measured);
        if (!isfinite(scale[site]) || !(scale[site] > 0))
            return err_set(e, ERR_INPUT, "site %u (%s): scale %g times target %g is not a number above 0", site,
                           s->sites[site], measured, target);
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

void scale_center(float *x, size_t n_rows, size_t n, const float *mean)
{
    for (size_t i = 0; i < n_rows; i++)
        for (size_t k = 0; k < n; k++)
            x[i * n + k] -= mean[k];
}
