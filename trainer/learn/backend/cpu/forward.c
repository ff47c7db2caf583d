/* forward.c - see forward.h. */
#include "forward.h"

#include <math.h>
#include <string.h>

#include "gemm.h"
#include "mem.h"
#include "sums.h"

enum { COLUMNS = 256 }; /* latents that one thread takes at a time: their sums stay in the first-level cache */

static bool stores_f(const struct backend_setup *setup)
{
    return activation_find(setup->activation)->scope == SCOPE_ENTRY;
}

int forward_memory(const struct backend_setup *s, size_t *bytes, struct err *e)
{
    size_t n_params, row_bytes, rows_bytes, latent_bytes, latents_bytes, means_bytes, means_row_bytes;
    int rc = backend_n_params(s->n_sites, s->d_model, s->d_sae, &n_params, e);
    if (rc)
        return rc;
    /* Below, what is not multiplied by the rows is less than the parameters' 16 bytes each, which do fit. */
    size_t n_inputs = s->n_sites * s->d_model;
    bool thresholds = backend_has_thresholds(s);
    struct tiles tiles = tiles_measure(s->n_sites, s->d_model, s->batch_size ? s->batch_size : 1);
    fvu_means_memory(s->n_sites, s->d_model, &means_bytes, &means_row_bytes);
    row_bytes =
        ((stores_f(s) ? s->d_sae : 0) + tiles.lanes) * sizeof(float) + s->n_sites * sizeof(double) + means_row_bytes;
    latent_bytes = (s->n_sites + 2 + thresholds) * sizeof(double) + s->n_sites * sizeof(float) + sizeof(uint64_t);
    if (!size_mul(s->batch_size, row_bytes, &rows_bytes) || !size_mul(s->d_sae, latent_bytes, &latents_bytes) ||
        __builtin_add_overflow(rows_bytes,
                               latents_bytes + means_bytes + (1 + thresholds) * n_inputs * sizeof(double) +
                                   tiles.n * sizeof(struct tile),
                               bytes))
        return err_set(e, ERR_MEMORY, "workspace: %zu rows of %zu inputs with d_sae %zu do not fit", s->batch_size,
                       n_inputs, s->d_sae);
    return 0;
}

int forward_init(struct forward *w, const struct crosscoder *c, const struct backend_setup *setup, struct err *e)
{
    size_t bytes, max_rows = setup->batch_size;
    bool thresholds = backend_has_thresholds(setup);
    memset(w, 0, sizeof *w);
    if (max_rows == 0)
        return err_set(e, ERR_INPUT, "workspace: batches of %zu rows", max_rows);
    int rc = forward_memory(setup, &bytes, e);
    if (rc)
        return rc;
    w->max_rows = max_rows;
    if (tiles_init(&w->tiles, c->n_sites, c->d_model, max_rows, e) == 0 &&
        (!stores_f(setup) || (w->f = mem_alloc(max_rows * c->d_sae, sizeof *w->f, "activations of a batch", e))) &&
        (!thresholds || ((w->below_sum = mem_alloc(c->d_sae, sizeof *w->below_sum, "sums of the latents", e)) &&
                         (w->x_sum = mem_alloc(c->n_inputs, sizeof *w->x_sum, "sums of the columns", e)))) &&
        (w->residual = mem_alloc(max_rows * w->tiles.lanes, sizeof *w->residual, "residual of a batch", e)) &&
        (w->dec_norm = mem_alloc(c->d_sae * c->n_sites, sizeof *w->dec_norm, "decoder norms", e)) &&
        (w->dec_norm_sum = mem_alloc(c->d_sae, sizeof *w->dec_norm_sum, "decoder norms", e)) &&
        (w->dec_factor = mem_alloc(c->d_sae * c->n_sites, sizeof *w->dec_factor, "gradients of the norms", e)) &&
        (w->f_sum = mem_alloc(c->d_sae, sizeof *w->f_sum, "sums of the latents", e)) &&
        (w->fired = mem_alloc(c->d_sae, sizeof *w->fired, "counts of the latents", e)) &&
        (w->columns = mem_alloc(c->n_inputs, sizeof *w->columns, "sums of the columns", e)) &&
        (w->row_residual2 = mem_alloc(max_rows * c->n_sites, sizeof *w->row_residual2, "sums of the rows", e)) &&
        fvu_means_init(&w->means, c->n_sites, c->d_model, max_rows, e) == 0)
        return 0;
    forward_release(w);
    return ERR_MEMORY;
}

void forward_release(struct forward *w)
{
    tiles_release(&w->tiles);
    mem_free(w->f);
    mem_free(w->residual);
    mem_free(w->dec_norm);
    mem_free(w->dec_norm_sum);
    mem_free(w->below_sum);
    mem_free(w->x_sum);
    mem_free(w->dec_factor);
    mem_free(w->f_sum);
    mem_free(w->fired);
    mem_free(w->columns);
    mem_free(w->row_residual2);
    fvu_means_release(&w->means);
    memset(w, 0, sizeof *w);
}

/* Squares are summed tile by tile, as a sparse update does: the norms it leaves are these, bit by bit. */
void forward_norms(struct forward *w, const struct crosscoder *c)
{
    if (w->norms_known)
        return;
#pragma omp parallel for schedule(static)
    for (size_t j = 0; j < c->d_sae; j++) {
        double *norm = w->dec_norm + j * c->n_sites, sum = 0;
        for (size_t site = 0; site < c->n_sites; site++)
            norm[site] = 0;
        for (const struct tile *t = w->tiles.tile; t < w->tiles.tile + w->tiles.n; t++)
            norm[t->site] += sum_squares(c->w_dec + j * c->n_inputs + t->first, t->width);
        for (size_t site = 0; site < c->n_sites; site++) {
            norm[site] = sqrt(norm[site]);
            sum += norm[site];
        }
        w->dec_norm_sum[j] = sum;
    }
    w->norms_known = true;
}

/* Counts each latent's rows and sums its f over them, for latents [from, to); before that, if s is given, adds b_enc and selects. */
static void select_latents(struct forward *w, const struct crosscoder *c, const struct selection *s, size_t rows,
                           size_t from, size_t to)
{
#pragma omp parallel for schedule(static)
    for (size_t first = from; first < to; first += COLUMNS) {
        size_t width = to - first < COLUMNS ? to - first : COLUMNS;
        double sum[COLUMNS] = {0};
        uint32_t count[COLUMNS] = {0}, kept[COLUMNS] = {0};
        for (size_t row = 0; row < rows; row++) {
            float *restrict f = w->f + row * c->d_sae + first;
            if (s)
                s->kind->keep(s, f, c->b_enc + first, row, first, width, kept);
            for (size_t j = 0; j < width; j++) {
                sum[j] += (double)f[j];
                count[j] += f[j] != 0;
            }
        }
        for (size_t j = 0; j < width; j++) {
            w->f_sum[first + j] = sum[j];
            w->fired[first + j] = count[j];
        }
    }
}

void forward_encode_from(struct forward *w, const struct crosscoder *c, const struct selection *s, const float *x,
                         size_t rows, size_t first)
{
    /* f [rows, first..] = x [rows, n_inputs] W_enc[first..]^T [n_inputs, ] */
    gemm(false, true, rows, c->d_sae - first, c->n_inputs, 1, x, c->n_inputs, c->w_enc + first * c->n_inputs,
         c->n_inputs, 0, w->f + first, c->d_sae);
    select_latents(w, c, s, rows, first, c->d_sae);
}

void forward_count(struct forward *w, const struct crosscoder *c, size_t rows, size_t first, size_t n)
{
    select_latents(w, c, NULL, rows, first, first + n);
}

void forward_encode(struct forward *w, const struct crosscoder *c, struct selection *s, const float *x, size_t rows)
{
    forward_norms(w, c);
    if (s->kind->begin)
        s->kind->begin(s, w, c, rows);
    forward_encode_from(w, c, s, x, rows, 0);
}

void forward_decode(struct forward *w, const struct crosscoder *c, const float *x, size_t rows)
{
    /* residual [rows, n_inputs] = f [rows, d_sae] W_dec [d_sae, n_inputs], then + b_dec - x */
    gemm(false, false, rows, c->n_inputs, c->d_sae, 1, w->f, c->d_sae, c->w_dec, c->n_inputs, 0, w->residual,
         c->n_inputs);
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < rows; row++) {
        const float *restrict xr = x + row * c->n_inputs;
        float *restrict r = w->residual + row * c->n_inputs;
        for (size_t i = 0; i < c->n_inputs; i++)
            r[i] = r[i] + c->b_dec[i] - xr[i];
        for (size_t site = 0; site < c->n_sites; site++)
            w->row_residual2[row * c->n_sites + site] = sum_squares(r + site * c->d_model, c->d_model);
    }
    memset(w->columns, 0, c->n_inputs * sizeof *w->columns);
    fvu_sum_columns(w->columns, w->residual, rows, c->n_inputs, NULL);
}

double forward_l0(const struct forward *w, const struct crosscoder *c, size_t rows)
{
    uint64_t active = 0;
    for (size_t j = 0; j < c->d_sae; j++)
        active += w->fired[j];
    return (double)active / (double)rows;
}
