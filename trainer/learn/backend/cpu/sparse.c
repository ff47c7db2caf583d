/* sparse.c - see sparse.h; the equations are those of backward.c.
 *
 * Work is shared out by tiles of columns in decoding and by blocks of latents after that. A thread takes one tile of
 * the batch after another into its second-level cache, and for each the whole block's entries: a weight is read once a
 * pass, the batch's tiles once a block. Whatever is summed over tiles, rows or latents is summed in their order, so
 * blocks can be cut to suit the number of threads.
 *
 * Why gradients are made twice rather than the norm found without them: |sum over rows of g x|^2 also follows from the
 * Gram matrix X X^T, but that product alone is batch_size * n_inputs multiplications a row, the second making
 * 2 * L0 * n_inputs; at batches of 2048 the latter is cheaper up to an L0 of a thousand, and it is exact. */
#include "sparse.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels.h"
#include "mem.h"
#include "sums.h"

enum { MAX_BLOCK = 4096, MIN_BLOCK = 64 };

int sparse_memory(size_t n_sites, size_t d_model, size_t d_sae, size_t max_rows, size_t *bytes, struct err *e)
{
    struct tiles tiles = tiles_measure(n_sites, d_model, max_rows ? max_rows : 1);
    size_t x;
    /* What is not multiplied by max_rows is less than the parameters' 16 bytes each, which do fit. */
    if (!size_mul(max_rows, tiles.lanes * sizeof(float) + tiles.n * sizeof(double), &x) ||
        __builtin_add_overflow(x, d_sae * sizeof(double), bytes))
        return err_set(e, ERR_MEMORY, "sparse step: batches of %zu rows of %zu inputs do not fit", max_rows,
                       n_sites * d_model);
    return 0;
}

int sparse_init(struct sparse *s, const struct crosscoder *c, const struct forward *w, struct err *e)
{
    memset(s, 0, sizeof *s);
    if ((s->x = mem_alloc(w->max_rows * w->tiles.lanes, sizeof *s->x, "tiles of a batch", e)) &&
        (s->row2 = mem_alloc(w->max_rows * w->tiles.n, sizeof *s->row2, "sums of the tiles", e)) &&
        (s->norm2 = mem_alloc(c->d_sae, sizeof *s->norm2, "norms of the gradients", e)))
        return 0;
    sparse_release(s);
    return ERR_MEMORY;
}

void sparse_release(struct sparse *s)
{
    mem_free(s->x);
    mem_free(s->row2);
    mem_free(s->norm2);
    memset(s, 0, sizeof *s);
}

/* A row's share of a tile, v [width], as [lanes]: itself, or a copy padded with zeros. */
static const float *padded(const struct tile *t, const float *v, float *copy)
{
    if (t->width == t->lanes)
        return v;
    memset(copy, 0, t->lanes * sizeof *copy);
    memcpy(copy, v, t->width * sizeof *copy);
    return copy;
}

/* Rows of a matrix lie far apart for the processor's own prefetching: asks for the tile's columns of latent j + AHEAD.
 */
enum { AHEAD = 4 };

static inline void prefetch(const float *matrix, const struct crosscoder *c, size_t j, const struct tile *t)
{
    const float *row = matrix + (j + AHEAD < c->d_sae ? j + AHEAD : j) * c->n_inputs + t->first;
    for (size_t i = 0; i < t->width; i += 16)
        __builtin_prefetch(row + i, 0, 2);
}

/* x' - x = sum over active latents of f W_dec + b_dec - x, latents ascending. */
static void decode_tile(struct sparse *s, const struct active *a, struct forward *w, const struct crosscoder *c,
                        const float *x, size_t rows, const struct tile *t)
{
    const struct kernels *k = kernels_best();
    float *xt = s->x + rows * t->before, *r = w->residual + rows * t->before, copy[TILE_MAX_LANES];
    double *row2 = s->row2 + (size_t)(t - w->tiles.tile) * rows, sum[TILE_MAX_LANES] = {0};
    const float *bias = padded(t, c->b_dec + t->first, copy);
    for (size_t row = 0; row < rows; row++) {
        float *xr = xt + row * t->lanes, *rr = r + row * t->lanes;
        memset(xr, 0, t->lanes * sizeof *xr);
        memcpy(xr, x + row * c->n_inputs + t->first, t->width * sizeof *xr);
        for (size_t i = 0; i < t->lanes; i++)
            rr[i] = bias[i] - xr[i];
    }
    for (size_t j = 0; j < c->d_sae; j++) {
        size_t at = a->begin[j], n = a->begin[j + 1] - at;
        prefetch(c->w_dec, c, j, t);
        if (n > 0)
            k->scatter(r, t->lanes, padded(t, c->w_dec + j * c->n_inputs + t->first, copy), a->row + at, a->f + at, n);
    }
    for (size_t row = 0; row < rows; row++) {
        const float *rr = r + row * t->lanes;
        row2[row] = k->squares(rr, t->width);
        for (size_t i = 0; i < t->width; i++)
            sum[i] += (double)rr[i];
    }
    for (size_t i = 0; i < t->width; i++)
        w->columns[t->first + i] = sum[i];
}

void sparse_decode(struct sparse *s, const struct active *a, struct forward *w, const struct crosscoder *c,
                   const float *x, size_t rows)
{
    const struct tiles *tiles = &w->tiles;
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < tiles->n; i++)
        decode_tile(s, a, w, c, x, rows, tiles->tile + i);
    memset(w->row_residual2, 0, rows * c->n_sites * sizeof *w->row_residual2);
    for (size_t i = 0; i < tiles->n; i++)
        for (size_t row = 0; row < rows; row++)
            w->row_residual2[row * c->n_sites + tiles->tile[i].site] += s->row2[i * rows + row];
}

/* What the loss has to W_dec[j, site] beside x', as a factor of it. */
static float decoder_factor(const struct forward *w, const struct crosscoder *c, size_t j, size_t site)
{
    return w->dec_factor[j * c->n_sites + site];
}

/* Latents in a block: some blocks a thread to balance the load, but large, since each reads the whole batch. */
static size_t block_latents(size_t d_sae)
{
    size_t n = d_sae / (2 * (size_t)omp_get_max_threads()) + 1;
    return n < MIN_BLOCK ? MIN_BLOCK : n > MAX_BLOCK ? MAX_BLOCK : n;
}

/* Latents [from, to): W_dec's gradients for their norms, and the products of W_dec with the residual at the entries. */
static void decoder_norms2(struct sparse *s, struct active *a, const struct forward *w, const struct crosscoder *c,
                           size_t rows, float scale, size_t from, size_t to)
{
    const struct kernels *k = kernels_best();
    float g[TILE_MAX_LANES], copy[TILE_MAX_LANES];
    memset(a->grad + a->begin[from], 0, (a->begin[to] - a->begin[from]) * sizeof *a->grad);
    for (const struct tile *t = w->tiles.tile; t < w->tiles.tile + w->tiles.n; t++) {
        const float *r = w->residual + rows * t->before;
        for (size_t j = from; j < to; j++) {
            size_t at = a->begin[j], n = a->begin[j + 1] - at;
            prefetch(c->w_dec, c, j, t);
            if (n == 0)
                continue;
            const float *v = padded(t, c->w_dec + j * c->n_inputs + t->first, copy);
            k->gather_dot(g, a->grad + at, r, t->lanes, v, a->row + at, a->f + at, n);
            k->combine(g, scale, decoder_factor(w, c, j, t->site), v, t->width);
            s->norm2[j] += k->squares(g, t->width);
        }
    }
}

/* W_enc's gradients for their norms. */
static void encoder_norms2(struct sparse *s, const struct active *a, const struct forward *w, size_t rows, size_t from,
                           size_t to)
{
    const struct kernels *k = kernels_best();
    float g[TILE_MAX_LANES];
    for (const struct tile *t = w->tiles.tile; t < w->tiles.tile + w->tiles.n; t++)
        for (size_t j = from; j < to; j++) {
            size_t at = a->begin[j], n = a->begin[j + 1] - at;
            if (n == 0)
                continue;
            k->gather(g, s->x + rows * t->before, t->lanes, a->row + at, a->grad + at, n);
            s->norm2[j] += k->squares(g, t->width);
        }
}

double sparse_gradient(struct sparse *s, struct active *a, const struct selection *selection, const struct objective *o,
                       const struct forward *w, const struct crosscoder *c, size_t rows, float *grad_b_enc)
{
    const struct term_input in = {w, c, rows, a};
    size_t block = block_latents(c->d_sae);
    float scale = (float)objective_to_output(o, &in);
    memset(s->norm2, 0, c->d_sae * sizeof *s->norm2);
#pragma omp parallel for schedule(dynamic)
    for (size_t from = 0; from < c->d_sae; from += block) {
        size_t to = c->d_sae - from < block ? c->d_sae : from + block;
        decoder_norms2(s, a, w, c, rows, scale, from, to);
        for (size_t j = from; j < to; j++) {
            size_t at = a->begin[j], n = a->begin[j + 1] - at;
            float *grad = a->grad + at;
            for (size_t i = 0; i < n; i++)
                grad[i] *= scale;
            objective_to_entries(o, &in, j, a->f + at, grad, n, 1);
            if (selection->kind->gradient)
                selection->kind->gradient(selection, j, a->f + at, grad, n, 1);
            double sum = 0;
            for (size_t i = 0; i < n; i++)
                sum += (double)grad[i];
            grad_b_enc[j] = (float)sum;
        }
        encoder_norms2(s, a, w, rows, from, to);
    }
    double sum = 0;
    for (size_t j = 0; j < c->d_sae; j++)
        sum += s->norm2[j];
    return sum;
}

static void update_encoder(const struct sparse *s, const struct active *a, const struct forward *w,
                           struct crosscoder *c, size_t rows, const struct adam_factors *f, float *m, float *v,
                           size_t from, size_t to)
{
    const struct kernels *k = kernels_best();
    float g[TILE_MAX_LANES];
    for (const struct tile *t = w->tiles.tile; t < w->tiles.tile + w->tiles.n; t++)
        for (size_t j = from; j < to; j++) {
            size_t at = a->begin[j], n = a->begin[j + 1] - at, i = j * c->n_inputs + t->first;
            prefetch(c->w_enc, c, j, t);
            prefetch(m, c, j, t);
            prefetch(v, c, j, t);
            k->gather(g, s->x + rows * t->before, t->lanes, a->row + at, a->grad + at, n);
            k->adam(f, c->w_enc + i, m + i, v + i, g, t->width);
        }
}

static void update_decoder(const struct active *a, struct forward *w, struct crosscoder *c, size_t rows, float scale,
                           const struct adam_factors *f, float *m, float *v, size_t from, size_t to)
{
    const struct kernels *k = kernels_best();
    float g[TILE_MAX_LANES];
    double norm2[MAX_BLOCK]; /* of the site's new vectors */
    const struct tile *end = w->tiles.tile + w->tiles.n;
    for (const struct tile *t = w->tiles.tile; t < end; t++) {
        if (t == w->tiles.tile || t->site != t[-1].site)
            memset(norm2, 0, sizeof norm2);
        for (size_t j = from; j < to; j++) {
            size_t at = a->begin[j], n = a->begin[j + 1] - at, i = j * c->n_inputs + t->first;
            prefetch(c->w_dec, c, j, t);
            prefetch(m, c, j, t);
            prefetch(v, c, j, t);
            k->gather(g, w->residual + rows * t->before, t->lanes, a->row + at, a->f + at, n);
            if (n > 0)
                k->combine(g, scale, decoder_factor(w, c, j, t->site), c->w_dec + i, t->width);
            k->adam(f, c->w_dec + i, m + i, v + i, g, t->width);
            norm2[j - from] += k->squares(c->w_dec + i, t->width);
        }
        if (t + 1 == end || t->site != t[1].site)
            for (size_t j = from; j < to; j++)
                w->dec_norm[j * c->n_sites + t->site] = sqrt(norm2[j - from]);
    }
    for (size_t j = from; j < to; j++) {
        double sum = 0;
        for (size_t site = 0; site < c->n_sites; site++)
            sum += w->dec_norm[j * c->n_sites + site];
        w->dec_norm_sum[j] = sum;
    }
}

void sparse_update(const struct sparse *s, const struct active *a, const struct objective *o, struct forward *w,
                   struct crosscoder *c, size_t rows, const struct adam_factors *k, float *m, float *v)
{
    const struct term_input in = {w, c, rows, a};
    size_t block = block_latents(c->d_sae), enc = (size_t)(c->w_enc - c->params), dec = (size_t)(c->w_dec - c->params);
    float scale = (float)objective_to_output(o, &in);
#pragma omp parallel
    {
        uint32_t mode = kernels_flush_denormals();
#pragma omp for schedule(dynamic)
        for (size_t from = 0; from < c->d_sae; from += block) {
            size_t to = c->d_sae - from < block ? c->d_sae : from + block;
            update_encoder(s, a, w, c, rows, k, m + enc, v + enc, from, to);
            update_decoder(a, w, c, rows, scale, k, m + dec, v + dec, from, to);
        }
        kernels_restore_denormals(mode);
    }
}
