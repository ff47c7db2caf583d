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

int sparse_memory(const struct backend_setup *s, size_t *bytes, struct err *e)
{
    struct tiles tiles = tiles_measure(s->n_sites, s->d_model, s->batch_size ? s->batch_size : 1);
    size_t x, base = backend_has_thresholds(s) ? sizeof(float) : 0;
    /* What is not multiplied by the rows is less than the parameters' 16 bytes each, which do fit. */
    if (!size_mul(s->batch_size, tiles.lanes * sizeof(float) + tiles.n * sizeof(double), &x) ||
        __builtin_add_overflow(x, s->d_sae * (sizeof(double) + base), bytes))
        return err_set(e, ERR_MEMORY, "sparse step: batches of %zu rows of %zu inputs do not fit", s->batch_size,
                       s->n_sites * s->d_model);
    return 0;
}

int sparse_init(struct sparse *s, const struct crosscoder *c, const struct backend_setup *setup,
                const struct forward *w, struct err *e)
{
    memset(s, 0, sizeof *s);
    if ((s->x = mem_alloc(w->max_rows * w->tiles.lanes, sizeof *s->x, "tiles of a batch", e)) &&
        (s->row2 = mem_alloc(w->max_rows * w->tiles.n, sizeof *s->row2, "sums of the tiles", e)) &&
        (s->norm2 = mem_alloc(c->d_sae, sizeof *s->norm2, "norms of the gradients", e)) &&
        (!backend_has_thresholds(setup) ||
         (s->base = mem_alloc(c->d_sae, sizeof *s->base, "gradients of inactive entries", e))))
        return 0;
    sparse_release(s);
    return ERR_MEMORY;
}

void sparse_release(struct sparse *s)
{
    mem_free(s->x);
    mem_free(s->row2);
    mem_free(s->norm2);
    mem_free(s->base);
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

/* Adds f W_dec of all latents in the lists to the rows of a tile, latents ascending. */
static void scatter_tile(const struct active *a, const struct crosscoder *c, const struct tile *t, float *out)
{
    const struct kernels *k = kernels_best();
    float copy[TILE_MAX_LANES];
    for (size_t j = 0; j < c->d_sae; j++) {
        size_t at = a->begin[j], n = a->begin[j + 1] - at;
        prefetch(c->w_dec, c, j, t);
        if (n > 0)
            k->scatter(out, t->lanes, padded(t, c->w_dec + j * c->n_inputs + t->first, copy), a->row + at, a->f + at,
                       n);
    }
}

/* Sums the columns of a tile over its rows. */
static void sum_tile(const struct tile *t, const float *tile, size_t rows, double *columns)
{
    double sum[TILE_MAX_LANES] = {0};
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < t->width; i++)
            sum[i] += (double)tile[row * t->lanes + i];
    memcpy(columns + t->first, sum, t->width * sizeof *sum);
}

/* Computes x' - x = sum over active latents of f W_dec + b_dec - x in a tile. */
static void decode_tile(struct sparse *s, const struct active *a, struct forward *w, const struct crosscoder *c,
                        const float *x, size_t rows, const struct tile *t)
{
    const struct kernels *k = kernels_best();
    float *xt = s->x + rows * t->before, *r = w->residual + rows * t->before, copy[TILE_MAX_LANES];
    double *row2 = s->row2 + (size_t)(t - w->tiles.tile) * rows;
    const float *bias = padded(t, c->b_dec + t->first, copy);
    for (size_t row = 0; row < rows; row++) {
        float *xr = xt + row * t->lanes, *rr = r + row * t->lanes;
        memset(xr, 0, t->lanes * sizeof *xr);
        memcpy(xr, x + row * c->n_inputs + t->first, t->width * sizeof *xr);
        for (size_t i = 0; i < t->lanes; i++)
            rr[i] = bias[i] - xr[i];
    }
    scatter_tile(a, c, t, r);
    for (size_t row = 0; row < rows; row++)
        row2[row] = k->squares(r + row * t->lanes, t->width);
    sum_tile(t, r, rows, w->columns);
    if (w->x_sum)
        sum_tile(t, xt, rows, w->x_sum);
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

void sparse_decode_more(const struct active *a, const struct forward *w, const struct crosscoder *c, size_t rows,
                        float *out)
{
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < w->tiles.n; i++) {
        const struct tile *t = w->tiles.tile + i;
        memcpy(out + rows * t->before, w->residual + rows * t->before, rows * t->lanes * sizeof *out);
        scatter_tile(a, c, t, out + rows * t->before);
    }
}

void sparse_scale_residual(struct forward *w, const struct crosscoder *c, size_t rows, const double *factor)
{
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < w->tiles.n; i++) {
        const struct tile *t = w->tiles.tile + i;
        float *r = w->residual + rows * t->before;
        for (size_t row = 0; row < rows; row++) {
            float by = (float)factor[row * c->n_sites + t->site];
            for (size_t k = 0; k < t->lanes; k++)
                r[row * t->lanes + k] *= by;
        }
        sum_tile(t, r, rows, w->columns);
    }
}

/* ---- gradients ---- */

/* Returns where a latent's gradient comes from. A dead latent has no active entries. */
static const struct gradient_source *source_of(const struct gradient_sources *from, size_t j)
{
    const struct active *aux = from->aux.lists;
    return aux && aux->begin[j + 1] > aux->begin[j] ? &from->aux : &from->main;
}

/* Latents in a block: some blocks a thread to balance the load, but large, since each reads the whole batch. */
static size_t block_latents(size_t d_sae)
{
    size_t n = d_sae / (2 * (size_t)omp_get_max_threads()) + 1;
    return n < MIN_BLOCK ? MIN_BLOCK : n > MAX_BLOCK ? MAX_BLOCK : n;
}

/* What a tile is to a latent: nothing, if the latent may not see its site or if, being shared, it is dealt with at the site's twin; its
 * own; or its own and its twin's, which have one vector. */
enum role { ROLE_NONE, ROLE_OWN, ROLE_BOTH };

static enum role role_of(const struct backend_setup *setup, size_t j, const struct tile *t)
{
    if (j < setup->partition.shared)
        return t->site < setup->n_sites / 2 ? ROLE_BOTH : ROLE_NONE;
    return backend_may_see(setup, j, t->site) ? ROLE_OWN : ROLE_NONE;
}

/* Returns the tile of the same columns at the same site of the other model. */
static const struct tile *twin(const struct tiles *tiles, const struct tile *t)
{
    return t + tiles->n / 2;
}

/* Finishes a latent's decoder gradient in a tile, g: what went through x' times its scale, plus what else the loss has to the vector. */
static void finish_decoder(const struct kernels *k, const struct gradient_source *src, const struct forward *w,
                           const struct crosscoder *c, size_t j, const struct tile *t, bool silent, float *g)
{
    float factor = w->dec_factor[j * c->n_sites + t->site];
    if (!silent || factor < 0 || factor > 0)
        k->combine(g, src->scale, factor, c->w_dec + j * c->n_inputs + t->first, t->width);
}

static void add_to(float *g, const float *more, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g[i] += more[i];
}

/* Latents [from, to): W_dec's gradients for their norms, and the products of W_dec with the residual at the entries. */
static void decoder_norms2(struct sparse *s, const struct gradient_sources *from_, const struct term_input *in,
                           size_t from, size_t to)
{
    const struct kernels *k = kernels_best();
    const struct forward *w = in->w;
    const struct crosscoder *c = in->c;
    float g[TILE_MAX_LANES], more[TILE_MAX_LANES], copy[TILE_MAX_LANES];
    for (const struct tile *t = w->tiles.tile; t < w->tiles.tile + w->tiles.n; t++) {
        for (size_t j = from; j < to; j++) {
            const struct gradient_source *src = source_of(from_, j);
            struct active *a = src->lists;
            size_t at = a->begin[j], n = a->begin[j + 1] - at;
            enum role role = role_of(in->setup, j, t);
            float factor = w->dec_factor[j * c->n_sites + t->site];
            prefetch(c->w_dec, c, j, t);
            if (role == ROLE_NONE || (n == 0 && !(factor < 0 || factor > 0)))
                continue;
            const float *v = padded(t, c->w_dec + j * c->n_inputs + t->first, copy);
            k->gather_dot(g, a->grad + at, src->residual + in->rows * t->before, t->lanes, v, a->row + at, a->f + at,
                          n);
            finish_decoder(k, src, w, c, j, t, n == 0, g);
            if (role == ROLE_BOTH) {
                const struct tile *u = twin(&w->tiles, t);
                k->gather_dot(more, a->grad + at, src->residual + in->rows * u->before, u->lanes, v, a->row + at,
                              a->f + at, n);
                finish_decoder(k, src, w, c, j, u, n == 0, more);
                add_to(g, more, t->width);
            }
            s->norm2[j] += k->squares(g, t->width);
        }
    }
}

/* Makes a latent's encoder gradient in a tile. */
static void encoder_gradient(const struct kernels *k, const struct sparse *s, const struct active *a,
                             const struct forward *w, size_t rows, size_t j, const struct tile *t, float *g)
{
    size_t at = a->begin[j], n = a->begin[j + 1] - at;
    k->gather(g, s->x + rows * t->before, t->lanes, a->row + at, a->grad + at, n);
    if (s->base && (s->base[j] < 0 || s->base[j] > 0))
        for (size_t i = 0; i < t->width; i++)
            g[i] += s->base[j] * (float)w->x_sum[t->first + i];
}

/* W_enc's gradients for their norms. */
static void encoder_norms2(struct sparse *s, const struct gradient_sources *from_, const struct term_input *in,
                           size_t from, size_t to)
{
    const struct kernels *k = kernels_best();
    const struct tiles *tiles = &in->w->tiles;
    float g[TILE_MAX_LANES];
    for (const struct tile *t = tiles->tile; t < tiles->tile + tiles->n; t++)
        for (size_t j = from; j < to; j++) {
            const struct active *a = source_of(from_, j)->lists;
            bool inactive_too = s->base && (s->base[j] < 0 || s->base[j] > 0);
            if ((a->begin[j + 1] == a->begin[j] && !inactive_too) || !backend_may_see(in->setup, j, t->site))
                continue;
            encoder_gradient(k, s, a, in->w, in->rows, j, t, g);
            s->norm2[j] += k->squares(g, t->width);
        }
}

/* Turns the products at a latent's entries into d loss / d p, and sums it over all rows. */
static void to_preactivations(struct sparse *s, const struct gradient_sources *from, const struct selection *selection,
                              const struct objective *o, const struct term_input *in, size_t j, float *grad_b_enc,
                              float *grad_threshold)
{
    const struct gradient_source *src = source_of(from, j);
    struct active *a = src->lists;
    size_t at = a->begin[j], n = a->begin[j + 1] - at;
    const struct latent_entries entries = {a->f + at, n, 1};
    float *grad = a->grad + at, base = s->base ? s->base[j] : 0;
    double sum = 0, threshold = 0;
    for (size_t i = 0; i < n; i++)
        grad[i] *= src->scale;
    if (src == &from->main) {
        objective_to_entries(o, in, j, &entries, grad);
        if (selection->kind->gradient)
            selection->kind->gradient(selection, j, entries.f, grad, n, 1, &threshold);
    }
    for (size_t i = 0; s->base && i < n; i++)
        grad[i] -= entries.f[i] > 0 ? base : 0; /* it is given to all rows, below and in encoder_gradient */
    for (size_t i = 0; i < n; i++)
        sum += (double)grad[i];
    grad_b_enc[j] = (float)(sum + (s->base ? (double)base * (double)in->rows : 0));
    if (grad_threshold)
        grad_threshold[j] = (float)(threshold + objective_to_threshold(o, in, j));
}

static void clear_grad(const struct gradient_source *src, size_t from, size_t to)
{
    if (src->lists)
        memset(src->lists->grad + src->lists->begin[from], 0,
               (src->lists->begin[to] - src->lists->begin[from]) * sizeof(float));
}

double sparse_gradient(struct sparse *s, const struct gradient_sources *from, const struct selection *selection,
                       const struct objective *o, const struct term_input *in, float *grad_b_enc, float *grad_threshold)
{
    size_t d_sae = in->c->d_sae, block = block_latents(d_sae);
    memset(s->norm2, 0, d_sae * sizeof *s->norm2);
#pragma omp parallel for schedule(dynamic)
    for (size_t first = 0; first < d_sae; first += block) {
        size_t end = d_sae - first < block ? d_sae : first + block;
        clear_grad(&from->main, first, end);
        clear_grad(&from->aux, first, end);
        for (size_t j = first; s->base && j < end; j++)
            s->base[j] = (float)objective_to_inactive(o, in, j);
        decoder_norms2(s, from, in, first, end);
        for (size_t j = first; j < end; j++)
            to_preactivations(s, from, selection, o, in, j, grad_b_enc, grad_threshold);
        encoder_norms2(s, from, in, first, end);
    }
    double sum = 0;
    for (size_t j = 0; j < d_sae; j++)
        sum += s->norm2[j];
    return sum;
}

/* ---- the update ---- */

struct update {
    const struct sparse *s;
    const struct gradient_sources *from;
    const struct backend_setup *setup;
    struct forward *w;
    struct crosscoder *c;
    size_t rows;
    const struct adam_factors *k;
    float *m, *v; /* of the matrix */
};

static void update_encoder(const struct update *u, size_t from, size_t to)
{
    const struct kernels *k = kernels_best();
    struct crosscoder *c = u->c;
    const struct tiles *tiles = &u->w->tiles;
    float g[TILE_MAX_LANES];
    for (const struct tile *t = tiles->tile; t < tiles->tile + tiles->n; t++)
        for (size_t j = from; j < to; j++) {
            size_t i = j * c->n_inputs + t->first;
            prefetch(c->w_enc, c, j, t);
            prefetch(u->m, c, j, t);
            prefetch(u->v, c, j, t);
            if (!backend_may_see(u->setup, j, t->site))
                continue;
            encoder_gradient(k, u->s, source_of(u->from, j)->lists, u->w, u->rows, j, t, g);
            k->adam(u->k, c->w_enc + i, u->m + i, u->v + i, g, t->width);
        }
}

/* Makes a latent's decoder gradient in a tile again. */
static void decoder_gradient(const struct kernels *k, const struct update *u, size_t j, const struct tile *t, float *g)
{
    const struct gradient_source *src = source_of(u->from, j);
    const struct active *a = src->lists;
    size_t at = a->begin[j], n = a->begin[j + 1] - at;
    k->gather(g, src->residual + u->rows * t->before, t->lanes, a->row + at, a->f + at, n);
    finish_decoder(k, src, u->w, u->c, j, t, n == 0, g);
}

static void update_decoder(const struct update *u, size_t from, size_t to)
{
    const struct kernels *k = kernels_best();
    struct forward *w = u->w;
    struct crosscoder *c = u->c;
    float g[TILE_MAX_LANES], more[TILE_MAX_LANES];
    double norm2[MAX_BLOCK]; /* of the site's new vectors */
    const struct tile *end = w->tiles.tile + w->tiles.n;
    size_t half = c->n_sites / 2;
    for (const struct tile *t = w->tiles.tile; t < end; t++) {
        if (t == w->tiles.tile || t->site != t[-1].site)
            memset(norm2, 0, sizeof norm2);
        for (size_t j = from; j < to; j++) {
            size_t i = j * c->n_inputs + t->first;
            enum role role = role_of(u->setup, j, t);
            prefetch(c->w_dec, c, j, t);
            prefetch(u->m, c, j, t);
            prefetch(u->v, c, j, t);
            if (role == ROLE_NONE)
                continue;
            decoder_gradient(k, u, j, t, g);
            if (role == ROLE_BOTH) { /* before either vector has moved; then both move alike */
                const struct tile *other = twin(&w->tiles, t);
                size_t i2 = j * c->n_inputs + other->first;
                decoder_gradient(k, u, j, other, more);
                add_to(g, more, t->width);
                k->adam(u->k, c->w_dec + i2, u->m + i2, u->v + i2, g, t->width);
            }
            k->adam(u->k, c->w_dec + i, u->m + i, u->v + i, g, t->width);
            norm2[j - from] += k->squares(c->w_dec + i, t->width);
        }
        if (t + 1 == end || t->site != t[1].site)
            for (size_t j = from; j < to; j++) {
                double *norm = w->dec_norm + j * c->n_sites + t->site;
                if (j >= u->setup->partition.shared)
                    *norm = sqrt(norm2[j - from]);
                else if (t->site < half)
                    norm[0] = norm[half] = sqrt(norm2[j - from]);
            }
    }
    for (size_t j = from; j < to; j++) {
        double sum = 0;
        for (size_t site = 0; site < c->n_sites; site++)
            sum += w->dec_norm[j * c->n_sites + site];
        w->dec_norm_sum[j] = sum;
    }
}

void sparse_update(const struct sparse *s, const struct gradient_sources *from, const struct backend_setup *setup,
                   struct forward *w, struct crosscoder *c, size_t rows, const struct adam_factors *k, float *m,
                   float *v)
{
    size_t block = block_latents(c->d_sae), enc = (size_t)(c->w_enc - c->params), dec = (size_t)(c->w_dec - c->params);
    const struct update encoder = {s, from, setup, w, c, rows, k, m + enc, v + enc},
                        decoder = {s, from, setup, w, c, rows, k, m + dec, v + dec};
#pragma omp parallel
    {
        uint32_t mode = kernels_flush_denormals();
#pragma omp for schedule(dynamic)
        for (size_t first = 0; first < c->d_sae; first += block) {
            size_t end = c->d_sae - first < block ? c->d_sae : first + block;
            update_encoder(&encoder, first, end);
            update_decoder(&decoder, first, end);
        }
        kernels_restore_denormals(mode);
    }
}
