/* aux.c - see aux.h. */
#include "aux.h"

#include <string.h>

#include "backend.h"
#include "gemm.h"
#include "kernels.h"
#include "mem.h"
#include "sparse.h"

enum { TILE = 128, STRIP = 1024 }; /* dead latents in a product, and before the lists may be cut */

static size_t strip(const struct backend_setup *setup)
{
    return setup->d_sae < STRIP ? setup->d_sae : STRIP;
}

static size_t capacity(const struct backend_setup *setup)
{
    size_t all = setup->batch_size * setup->d_sae, some = setup->batch_size * (2 * setup->aux_k + strip(setup));
    return some < all ? some : all;
}

size_t aux_memory(const struct backend_setup *s, size_t lanes)
{
    if (!backend_has_term(s, "aux"))
        return 0;
    return s->d_sae * (sizeof(uint32_t) + sizeof(float) + sizeof(size_t)) +
           strip(s) * s->n_sites * s->d_model * sizeof(float) + s->batch_size * (1 + lanes) * sizeof(float) +
           active_entries_bytes(capacity(s)) + order_memory(s->batch_size, capacity(s));
}

int aux_init(struct aux *a, const struct crosscoder *c, const struct backend_setup *s, const struct forward *w,
             struct err *e)
{
    *a = (struct aux){0};
    if (!backend_has_term(s, "aux"))
        return 0;
    a->k = s->aux_k;
    if ((a->dead = mem_alloc(c->d_sae, sizeof *a->dead, "dead latents", e)) &&
        (a->encoders = mem_alloc(strip(s), c->n_inputs * sizeof *a->encoders, "encoders of dead latents", e)) &&
        (a->bound = mem_alloc(s->batch_size, sizeof *a->bound, "bounds of the rows", e)) &&
        (a->factor = mem_alloc(c->d_sae, sizeof *a->factor, "factors of the scores", e)) &&
        (a->entries = mem_alloc(active_entries_bytes(capacity(s)), 1, "lists of dead latents", e)) &&
        (a->lists.begin = mem_alloc(c->d_sae + 1, sizeof *a->lists.begin, "lists of dead latents", e)) &&
        order_init(&a->order, s->batch_size, capacity(s), e) == 0 &&
        (a->residual = mem_alloc(s->batch_size * w->tiles.lanes, sizeof *a->residual, "residual of AuxK", e)) &&
        (a->row2 = mem_alloc(2 * w->tiles.n, sizeof *a->row2, "sums of the tiles", e))) {
        active_entries(&a->lists, capacity(s), a->entries);
        return 0;
    }
    aux_release(a);
    return ERR_MEMORY;
}

void aux_release(struct aux *a)
{
    mem_free(a->dead);
    mem_free(a->encoders);
    mem_free(a->bound);
    mem_free(a->factor);
    mem_free(a->lists.begin);
    mem_free(a->entries);
    order_release(&a->order);
    mem_free(a->residual);
    mem_free(a->row2);
    *a = (struct aux){0};
}

/* Lists the dead latents and their factors. */
static void find_dead(struct aux *a, const struct crosscoder *c, const struct forward *w, const float *factor,
                      const uint64_t *rows_since_fired, uint64_t dead_rows, size_t rows)
{
    a->n_dead = 0;
    for (size_t j = 0; j < c->d_sae; j++)
        if (!w->fired[j] && rows_since_fired[j] + rows >= dead_rows) {
            a->factor[a->n_dead] = factor[j];
            a->dead[a->n_dead++] = (uint32_t)j;
        }
}

/* Makes the entries of dead latents [first, first + n), by their place. p: [n / TILE][rows, TILE] scratch. */
static void encode_strip(struct aux *a, const struct crosscoder *c, const float *x, size_t rows, size_t first, size_t n,
                         float *p)
{
    const struct kernels *k = kernels_best();
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < n; i += TILE) {
        size_t width = n - i < TILE ? n - i : TILE;
        float bias[TILE], *w_enc = a->encoders + i * c->n_inputs, *tile = p + rows * i;
        uint32_t count[TILE] = {0};
        for (size_t j = 0; j < width; j++) {
            size_t latent = a->dead[first + i + j];
            memcpy(w_enc + j * c->n_inputs, c->w_enc + latent * c->n_inputs, c->n_inputs * sizeof *w_enc);
            bias[j] = c->b_enc[latent];
        }
        /* tile [rows, width] = x [rows, n_inputs] W_enc[dead]^T [n_inputs, width] */
        gemm(false, true, rows, width, c->n_inputs, 1, x, c->n_inputs, w_enc, c->n_inputs, 0, tile, width);
        for (size_t row = 0; row < rows; row++)
            k->select(tile + row * width, bias, a->factor + first + i, a->bound[row], count, width);
        for (size_t j = 0; j < width; j++)
            a->lists.begin[first + i + j + 1] = count[j];
    }
    for (size_t j = first; j < first + n; j++)
        a->lists.begin[j + 1] += a->lists.begin[j];
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < n; i += TILE)
        active_list_tile(&a->lists, rows, first + i, n - i < TILE ? n - i : TILE, p + rows * i);
}

/* Moves the lists from places among the dead to latents: the others' are empty. */
static void spread_lists(struct aux *a, size_t d_sae)
{
    size_t *begin = a->lists.begin, place = a->n_dead;
    for (size_t j = d_sae; j > 0; j--) {
        begin[j] = begin[place];
        if (place > 0 && a->dead[place - 1] == j - 1)
            place--;
    }
}

static void select_entries(struct aux *a, const struct crosscoder *c, const float *x, size_t rows, float *scratch)
{
    size_t k = a->k < a->n_dead ? a->k : a->n_dead, step = c->d_sae < STRIP ? c->d_sae : STRIP;
    a->lists.begin[0] = 0;
    memset(a->bound, 0, rows * sizeof *a->bound);
    for (size_t first = 0; first < a->n_dead; first += step) {
        size_t n = a->n_dead - first < step ? a->n_dead - first : step;
        encode_strip(a, c, x, rows, first, n, scratch);
        bool last = first + n == a->n_dead;
        if (a->n_dead > k && (last || a->lists.begin[first + n] > 2 * k * rows)) {
            order_keep_rows(&a->order, &a->lists, first + n, a->factor, rows, k);
            memcpy(a->bound, a->order.least, rows * sizeof *a->bound);
        }
    }
    spread_lists(a, c->d_sae);
}

/* Sums over a tile |a - r|^2, and |r - mean r|^2; r is minus the residual. */
static void sum_tile(struct aux *a, const struct forward *w, const struct tile *t, size_t rows)
{
    double *sums = a->row2 + 2 * (size_t)(t - w->tiles.tile);
    const float *error = a->residual + rows * t->before, *r = w->residual + rows * t->before;
    sums[0] = sums[1] = 0;
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < t->width; i++) {
            double d = (double)r[row * t->lanes + i] - w->columns[t->first + i] / (double)rows,
                   e = (double)error[row * t->lanes + i];
            sums[0] += e * e;
            sums[1] += d * d;
        }
}

void aux_compute(struct aux *a, const struct crosscoder *c, const struct forward *w, const struct selection *s,
                 const uint64_t *rows_since_fired, uint64_t dead_rows, const float *x, size_t rows, float *scratch)
{
    a->loss = a->variance = 0;
    find_dead(a, c, w, s->factor, rows_since_fired, dead_rows, rows);
    if (a->n_dead == 0) {
        memset(a->lists.begin, 0, (c->d_sae + 1) * sizeof *a->lists.begin);
        return;
    }
    select_entries(a, c, x, rows, scratch);
    sparse_decode_more(&a->lists, w, c, rows, a->residual);
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < w->tiles.n; i++)
        sum_tile(a, w, w->tiles.tile + i, rows);
    double error = 0, variance = 0;
    for (size_t i = 0; i < w->tiles.n; i++) {
        error += a->row2[2 * i];
        variance += a->row2[2 * i + 1];
    }
    a->variance = variance / (double)rows;
    a->loss = variance > 0 ? error / variance : 0;
}
